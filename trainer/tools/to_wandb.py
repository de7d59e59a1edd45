#!/usr/bin/env python3
"""Sends the log of a run to Weights & Biases, once or as it grows.

    to_wandb.py RUN --project NAME [--follow] [--id ID]

RUN is a run directory (logging.folder). Needs `pip install wandb pyyaml`, and whatever account wandb was told of;
WANDB_MODE=offline works too. The id is that of the run there, by default the directory's name: the same command goes on
where the one before ended. A step that the run does again after an interruption keeps its first values there.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path


def numbers(value, name=""):
    """Yields names and numbers of a row, those of inner objects as outer/name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, list) and len(value) == 3:
        yield from numbers(dict(zip(("least", "mean", "most"), value)), name)
    elif isinstance(value, (int, float)):
        yield name, value


def rows(path, follow, pause=5.0):
    """Yields the rows of a log, in order, each step once; with `follow` until the last step of the run."""
    last, total = -1, None
    file, identity, rest = None, None, b""
    while True:
        # A run that goes on replaces its log by one that is cut.
        found = path.stat() if path.exists() else None
        if found and (found.st_ino != identity or found.st_size < file.tell()):
            file, identity, rest = path.open("rb"), found.st_ino, b""
        rest += file.read() if file else b""
        *lines, rest = rest.split(b"\n")
        for line in lines:
            try:
                row = json.loads(line)
                step, total = int(row["step"]), int(row["total_steps"])
            except (ValueError, KeyError, TypeError):
                continue
            if step > last:
                last = step
                yield row
        if not follow or (total is not None and last + 1 >= total):
            return
        time.sleep(pause)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--project", required=True)
    parser.add_argument("--id")
    parser.add_argument("--follow", action="store_true", help="go on until the run's last step")
    options = parser.parse_args()
    import wandb
    import yaml

    logs = sorted(options.run.glob("*_r0.jsonl"))
    if len(logs) != 1:
        sys.exit(f"{options.run}: {len(logs)} logs *_r0.jsonl, and it should be one")
    params = options.run / "params-ijepa.yaml"
    config = yaml.safe_load(params.read_text()) if params.exists() else {}
    name = options.run.resolve().name
    run_id = options.id or re.sub(r"[^A-Za-z0-9_-]", "-", name)
    run = wandb.init(project=options.project, id=run_id, name=name, resume="allow", config=config)
    sent = 0
    try:
        for row in rows(logs[0], options.follow):
            step = row.pop("step")
            if step >= run.step:
                run.log(dict(numbers(row)), step=step)
                sent += 1
    except KeyboardInterrupt:
        pass
    run.finish()
    print(f"{sent} steps of {options.run} sent")


if __name__ == "__main__":
    main()
