#!/usr/bin/env python3
"""Writes what people keep in checkpoints beside the official code's numbers: foreign_pickle.py FILE.

NumPy's scalars, arguments of a command line, objects that refer to themselves, tensors of other types, and a call that
would run a program. `trainer/exchange/tests/official/foreign.pth.tar` was made by it under torch 2.11.0, NumPy 2.4.
"""

import argparse
import os
import pathlib
import sys

import numpy
import torch


class Settings:
    """An object that refers to itself, and to what few checkpoints hold."""

    def __init__(self):
        self.own = self
        self.all = [self, {1, 2}, b"bytes", 2**100, 1 + 2j, pathlib.Path("x"), numpy.arange(3), torch.Size([1, 2])]


class Call:
    """An object that a careless reader would make by running a program."""

    def __reduce__(self):
        return os.system, ("touch EXECUTED",)


def network(prefix, name, parameter=False):
    tensor = torch.arange(4.0)
    return {prefix + name: torch.nn.Parameter(tensor) if parameter else tensor, "head.weight": torch.zeros(2)}


torch.save(
    {
        "encoder": network("module._orig_mod.", "norm.weight"),
        "target_encoder": network("module.backbone.", "norm.weight", parameter=True),
        "predictor": network("", "mask_token"),
        "epoch": numpy.int64(3),
        "loss": numpy.float64(0.25),
        "batch_size": torch.tensor(4),
        "world_size": numpy.uint8(2),
        "args": argparse.Namespace(lr=numpy.float32(0.5), nested=argparse.Namespace(call=Call())),
        "settings": Settings(),
        "generator": torch.get_rng_state()[:8].clone(),
        "flags": torch.zeros(2, dtype=torch.bool),
    },
    sys.argv[1],
)
