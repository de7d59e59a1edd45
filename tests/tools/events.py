#!/usr/bin/env python3
"""Reads the event files of a run, interrupted and gone on with, by TensorBoard's own package.

    events.py FOLDER PROGRAMS

FOLDER keeps a venv with tensorboard. PROGRAMS is the directory of the built programs. `make events` runs this; where
pip cannot make the venv, it says that it is skipped.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import private_venv

PACKAGES = ["tensorboard==2.21.0", "setuptools<81"]
CONFIG = """
data: {batch_size: 8, crop_size: 64}
mask: {patch_size: 8, min_keep: 4}
meta: {model_name: vit_tiny, pred_depth: 1, pred_emb_dim: 96, use_bfloat16: false}
optimization: {ema: [0.996, 1.0], epochs: 2, final_lr: 1.0e-06, final_weight_decay: 0.04, lr: 0.0001, start_lr: 0.0001,
  warmup: 0, weight_decay: 0.04}
logging: {folder: run, write_tag: test}
checkpoint: {min_minutes: 0}
"""
STEPS = 12


def main():
    folder, programs = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    if not private_venv.enter(folder, PACKAGES):
        print("SKIPPED events")
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        compare(Path(scratch), programs)


def compare(scratch, programs):
    def run(name, *arguments):
        subprocess.run([programs / name, *map(str, arguments), "-q"], cwd=scratch, check=True, stdout=subprocess.PIPE)

    def train(stop, *sets):
        data = ["--config", "config.yaml", "--shards", "shards", "--devices", "cpu"]
        run("trainer", "launch", *data, "--set", f"trainer.stop_at_step={stop}", *sets)

    (scratch / "config.yaml").write_text(CONFIG)
    run("shardtool", "synth", "images", "--images", 48, "--classes", 3)
    run("shardtool", "build", "images", "--out", "shards")
    train(9)
    # As if it had died after step 9, before that checkpoint was written: there is one of the first epoch.
    shutil.rmtree(scratch / "run/checkpoints/test-step00000009")
    assert [path.name for path in (scratch / "run/checkpoints").iterdir()] == ["test-step00000006"]
    train(STEPS)
    # The first start is one that TensorBoard passes by, so two files do not show all that three do.
    agree(scratch / "run", 2)
    shutil.rmtree(scratch / f"run/checkpoints/test-step{STEPS:08}")
    train(STEPS)
    agree(scratch / "run", 3)
    metrics = (scratch / "run/metrics.prom").read_text().splitlines()
    assert f'ijepa_step{{run="run"}} {STEPS - 1}' in metrics, metrics
    train(1, "--set", "logging.folder=quiet", "--set", "logging.tensorboard=false")
    assert not (scratch / "quiet/tensorboard").exists() and (scratch / "quiet/metrics.prom").exists()


def agree(run, count):
    """Compares event files, so many of them, with the JSONL log."""
    rows = [json.loads(row) for row in (run / "test_r0.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS)), rows
    files = sorted(path.name for path in (run / "tensorboard").iterdir())
    assert len(files) == count, files
    for reader in (as_the_server, as_scripts):
        read = reader(str(run / "tensorboard"))
        tags = {"loss", "lr", "gradient_norm", "memory", "wait_ms"}
        assert tags <= read.keys(), read.keys()
        for tag in tags:
            steps, values = zip(*read[tag])
            assert steps == tuple(range(STEPS)), (reader.__name__, tag, steps)
            for row, value in zip(rows, values):
                assert abs(row[tag] - value) <= 1e-6 * abs(row[tag]), (tag, row, value)
        print(f"{reader.__name__}, {count} files: {len(read)} tags, {STEPS} steps each, values as in the JSONL log")


def as_the_server(folder):
    from tensorboard.backend.event_processing import plugin_event_accumulator as accumulator
    from tensorboard.util import tensor_util

    read = accumulator.EventAccumulator(folder, size_guidance={accumulator.TENSORS: 0})
    read.Reload()
    value = lambda event: (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
    return {tag: list(map(value, read.Tensors(tag))) for tag in read.Tags()["tensors"]}


def as_scripts(folder):
    from tensorboard.backend.event_processing import event_accumulator as accumulator

    read = accumulator.EventAccumulator(folder, size_guidance={accumulator.SCALARS: 0})
    read.Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


main()
