#!/usr/bin/env python3
"""Train twice, with the official program and with ours, and lay the loss curves over each other.

    compare_training.py --ijepa PATH --images DIR --shards DIR [--config FILE --steps N --seeds S...]

PATH is a checkout of facebookresearch/ijepa, which is not part of this repository: its own `main` runs as it is, on the
CPU, with its own data loader, masks, schedules and log, and is stopped after N steps. DIR holds the images
(train/CLASS/FILE) and the shards made from DIR/train. Both programs read the same resolved configuration. Seeds are of
weights, crops and masks; what follows from the step alone (the sizes of the blocks) is the same for all, as in the
official code.

Writes training-DATE.md and .png. Runs that are complete are not repeated, so the command can be interrupted. Needs
torch, torchvision, pyyaml and matplotlib.
"""

import argparse
import csv
import datetime
import os
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LAST = 50  # steps whose mean is called the final loss
SMOOTH = 10  # steps that a point of a curve is the mean of


def main() -> None:
    args = arguments()
    if args.official_run is not None:
        run_official(args)
        return
    runs = {name: [curve(args, name, seed) for seed in args.seeds] for name in ("ours", "official")}
    name = args.out / f"training-{datetime.date.today()}"
    args.out.mkdir(parents=True, exist_ok=True)
    draw(runs, name.with_suffix(".png"))
    name.with_suffix(".md").write_text(record(args, runs, f"{name.name}.png"))
    print(name.with_suffix(".md").read_text(), end="")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ijepa", type=Path, required=True, help="checkout of facebookresearch/ijepa")
    add("--images", type=Path, required=True, help="folder with train/CLASS/FILE")
    add("--shards", type=Path, required=True, help="the shards of its train/")
    add("--config", type=Path, default=REPOSITORY / "configs/tiny20_vittiny8.yaml")
    add("--steps", type=int, default=300)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--threads", type=int, default=1, help="of the training process, on either side")
    add("--programs", type=Path, default=REPOSITORY / "target/release", help="where loader and trainer lie")
    add("--runs", type=Path, default=REPOSITORY / "target/compare-training", help="where the runs go")
    add("--out", type=Path, default=REPOSITORY / "tests/records", help="folder of the record")
    add("--official-run", type=int, metavar="SEED", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for key in ("ijepa", "images", "shards", "config", "programs", "runs", "out"):
        setattr(args, key, getattr(args, key).resolve())
    if args.steps < 2 * LAST:
        parser.error(f"--steps: {args.steps}; the final loss alone is the mean of {LAST}")
    return args


# --- runs -------------------------------------------------------------------------------------------------------------


def curve(args: argparse.Namespace, name: str, seed: int) -> list[float]:
    """The loss of every step of one run, which is made if it is not there."""
    folder = args.runs / f"{name}-seed{seed}"
    if len(losses(folder)) != args.steps:
        print(f"{name}, seed {seed}: {args.steps} steps", file=sys.stderr, flush=True)
        start = start_ours if name == "ours" else start_official
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "output.txt", "w") as output:
            code = subprocess.run(start(args, folder, seed), stdout=output, stderr=output).returncode
        if code != 0 or len(losses(folder)) != args.steps:
            sys.exit(f"{name}, seed {seed}: exit code {code}, {len(losses(folder))} steps; see {folder / 'output.txt'}")
    return losses(folder)


def losses(folder: Path) -> list[float]:
    """Both programs write the official CSV."""
    path = folder / "jepa_r0.csv"
    if not path.exists():
        return []
    with open(path) as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def start_ours(args: argparse.Namespace, folder: Path, seed: int) -> list[str]:
    sets = {
        "logging.folder": folder,
        "logging.write_tag": "jepa",
        "trainer.seed": seed,
        "loader.seed": seed,
        # The official code has no other.
        "loader.mask_law": "released",
        "trainer.stop_at_step": args.steps,
        "trainer.threads": args.threads,
    }
    options = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    return [
        str(args.programs / "trainer"),
        "launch",
        "--config",
        str(args.config),
        "--shards",
        str(args.shards),
        "--devices",
        "cpu",
        *options,
    ]


def start_official(args: argparse.Namespace, folder: Path, seed: int) -> list[str]:
    (folder / "jepa_r0.csv").unlink(missing_ok=True)  # it would be appended to
    kept = [f"--{key}={getattr(args, key)}" for key in ("ijepa", "images", "shards", "steps", "threads", "runs")]
    return [sys.executable, __file__, *kept, f"--official-run={seed}"]


class Enough(Exception):
    """The last step is done."""


def run_official(args: argparse.Namespace) -> None:
    """The official `main`, in this process, under the configuration that our run resolved."""
    import torch
    import yaml

    seed = args.official_run
    folder = args.runs / f"official-seed{seed}"
    with open(args.runs / f"ours-seed{seed}" / "params-ijepa.yaml") as file:
        config = yaml.safe_load(file)
    config["logging"]["folder"] = str(folder)
    # It appends train/ by itself.
    config["data"].update(
        root_path=str(args.images.parent), image_folder=args.images.name, num_workers=0, pin_mem=False
    )

    torch.set_num_threads(args.threads)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=0, world_size=1)
    sys.path.insert(0, str(args.ijepa))
    from src import train as official

    class Counting(official.CSVLogger):
        steps = 0

        def log(self, *values: object) -> None:
            super().log(*values)
            self.steps += 1
            if self.steps == args.steps:
                raise Enough

    official.CSVLogger = Counting
    torch.manual_seed(seed)
    try:
        official.main(config)
    except Enough:
        (folder / "rendezvous").unlink(missing_ok=True)
        # The process group's threads have nothing to tell any more.
        os._exit(0)


# --- the record -------------------------------------------------------------------------------------------------------


def final(losses: list[float]) -> float:
    return statistics.fmean(losses[-LAST:])


def record(args: argparse.Namespace, runs: dict[str, list[list[float]]], picture: str) -> str:
    finals = {name: [final(losses) for losses in curves] for name, curves in runs.items()}
    table = [f"| | {' | '.join(f'seed {seed}' for seed in args.seeds)} | mean | standard deviation |"]
    table.append("|---|" + "---|" * (len(args.seeds) + 2))
    for name, values in finals.items():
        row = [*(f"{value:.4f}" for value in values), f"{statistics.fmean(values):.4f}", f"{spread(values):.4f}"]
        table.append(f"| {name} | {' | '.join(row)} |")
    difference = statistics.fmean(finals["ours"]) - statistics.fmean(finals["official"])
    error = ((spread(finals["ours"]) ** 2 + spread(finals["official"]) ** 2) / len(args.seeds)) ** 0.5
    gap = max(
        abs(statistics.fmean(ours) - statistics.fmean(official))
        for ours, official in zip(smoothed_steps(runs["ours"]), smoothed_steps(runs["official"]))
    )
    import torch

    return f"""# Training beside the official program, {datetime.date.today()}

`{args.config.relative_to(REPOSITORY)}` on {args.images.name}: {args.steps} steps, each program with its own loader,
crops and masks; torch
{torch.__version__.split("+")[0]}, float32, {args.threads} thread(s). Command:
`tests/tools/compare_training.py --ijepa PATH --images DIR --shards DIR --steps {args.steps}`.

Final loss, the mean of the last {LAST} steps:

{chr(10).join(table)}

Difference of the means: {difference:+.4f}, which is {abs(difference) / error:.1f} of its own standard error
({error:.4f}).
Farthest that the mean
curves are apart anywhere (means of {SMOOTH} steps): {gap:.4f}.

![loss curves]({picture})
"""


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def smoothed(losses: list[float]) -> list[float]:
    return [statistics.fmean(losses[i : i + SMOOTH]) for i in range(0, len(losses) - SMOOTH + 1, SMOOTH)]


def smoothed_steps(curves: list[list[float]]) -> list[tuple[float, ...]]:
    """For each point of the curves, its value in every run."""
    return list(zip(*map(smoothed, curves)))


def draw(runs: dict[str, list[list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    for name, colour in (("official", "tab:orange"), ("ours", "tab:blue")):
        for index, losses in enumerate(runs[name]):
            points = smoothed(losses)
            steps = [SMOOTH * (i + 0.5) for i in range(len(points))]
            axes.plot(steps, points, color=colour, linewidth=1, alpha=0.8, label=None if index else name)
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss (means of {SMOOTH} steps)")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(title=f"{len(runs['ours'])} seeds each")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
