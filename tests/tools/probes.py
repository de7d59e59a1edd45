#!/usr/bin/env python3
"""Compares the probes of `trainer eval` with those of scikit-learn on the features that it keeps.

    probes.py FOLDER PROGRAMS

FOLDER keeps a venv with scikit-learn. PROGRAMS is the directory of the built programs. `make probes` runs this; where
pip cannot make the venv, it says that it is skipped.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import private_venv

PACKAGES = ["scikit-learn==1.9.1", "safetensors==0.8.0", "numpy"]
CONFIG = """
data: {batch_size: 8, crop_size: 64}
mask: {patch_size: 8, min_keep: 4}
meta: {model_name: vit_tiny, pred_depth: 1, pred_emb_dim: 96, use_bfloat16: false}
optimization: {ema: [0.996, 1.0], epochs: 1, final_lr: 1.0e-06, final_weight_decay: 0.04, lr: 0.0001, start_lr: 0.0001,
  warmup: 0, weight_decay: 0.04}
logging: {folder: run, write_tag: test}
trainer: {stop_at_step: 1}
"""
TRAIN, VAL, CLASSES = 300, 150, 5
DECAY = 0.01


def main():
    folder, programs = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    if not private_venv.enter(folder, PACKAGES):
        print("SKIPPED probes")
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        compare(Path(scratch), programs)


def compare(scratch, programs):
    import numpy as np
    from safetensors.numpy import load_file
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    def run(name, *arguments):
        subprocess.run([programs / name, *map(str, arguments), "-q"], cwd=scratch, check=True, stdout=subprocess.PIPE)

    (scratch / "config.yaml").write_text(CONFIG)
    run("shardtool", "synth", "images", "--images", TRAIN, "--val", VAL, "--classes", CLASSES)
    run("shardtool", "build", "images", "--out", "shards")
    data = ["--config", "config.yaml", "--shards", "shards"]
    run("trainer", "launch", *data, "--devices", "cpu")
    grid = ["--lr", 0.03, "--weight-decay", DECAY, "--epochs", 1000, "--batch", TRAIN, "--held-out", 0]
    # Samples are in the order of their paths.
    images = sorted((scratch / "images/train").glob("*/*"))
    labelled = list(range(0, TRAIN, 4))
    (scratch / "list.txt").write_text("".join(f"{images[sample].name}\n" for sample in labelled))
    grid += ["--lowshot", "list.txt"]
    run("trainer", "eval", "all", "run", *data, "--device", "cpu", "--json", "report.json", *grid)
    report = json.loads((scratch / "report.json").read_text())
    (probed,) = report["results"]

    def table(split):
        (path,) = scratch.glob(f"run/checkpoints/*.eval/{split}-*.safetensors")
        tensors = load_file(path)
        return tensors["features"].astype(np.float64), tensors["labels"]

    (train, train_labels), (val, val_labels) = table("train"), table("val")
    assert train.shape == (TRAIN, 192) and val.shape == (VAL, 192), (train.shape, val.shape)
    assert len(set(train_labels)) == CLASSES
    faults = 0

    def check(name, ours, theirs, images):
        nonlocal faults
        within = abs(ours - theirs) <= 100 * images / VAL + 1e-6
        faults += not within
        print(f"{name:28} ours {ours:6.2f}  scikit-learn {theirs:6.2f}  {'' if within else 'DIFFERENT'}")

    def top(classes, scores, count):
        best = classes[np.argsort(-scores, axis=1, kind="stable")[:, :count]]
        return 100 * np.mean((best == val_labels[:, None]).any(axis=1))

    for neighbours in probed["knn"]:
        votes = lambda distance: np.exp((1 - distance) / report["temperature"])
        theirs = KNeighborsClassifier(neighbours["k"], metric="cosine", algorithm="brute", weights=votes)
        theirs.fit(train, train_labels)
        scores = theirs.predict_proba(val)
        # Equal distances may be cut off differently: an image either way.
        check(f"{neighbours['k']} neighbours, top-1", neighbours["top1"], top(theirs.classes_, scores, 1), 1)

    # The same optimum: our decay pulls at the mean loss, C weighs its sum against half the squared weights.
    mean, deviation = train.mean(0), np.sqrt(train.var(0) + 1e-6)

    def regression(rows, penalty):
        theirs = LogisticRegression(C=1 / (penalty * len(rows)), max_iter=10_000, tol=1e-8)
        theirs.fit((train[rows] - mean) / deviation, train_labels[rows])
        return theirs.classes_, theirs.decision_function((val - mean) / deviation)

    classes, scores = regression(list(range(TRAIN)), DECAY)
    (head,) = probed["linear"]["heads"]
    check("logistic regression, top-1", head["val"]["top1"], top(classes, scores, 1), 2)
    found = probed["lowshot"]
    assert found["images"] == len(labelled), found
    classes, scores = regression(labelled, found["penalty"])
    check("low-shot, top-1", found["val"]["top1"], top(classes, scores, 1), 2)
    if faults:
        sys.exit(f"{faults} probe(s) differ from scikit-learn's")


main()
