#!/usr/bin/env python3
"""Shows that pretraining learns, within minutes of a CPU: untrained networks, plain I-JEPA, and configs/tiny20_mini8.yaml.

Trains every recipe for each seed, evaluates its checkpoints with `trainer eval`, and prints one table: means, and in
brackets the least and the most of the seeds. Needs the three programs of target/release and a folder of images with
class folders in train/ and val/. What is done already in --out is not done again.

Writes table.md and results.json into --out.
"""

import argparse
import concurrent.futures
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = REPOSITORY / "target/release"
CONFIG = REPOSITORY / "configs/tiny20_mini8.yaml"
# Longest that one program may take, in seconds.
PATIENCE = 4 * 3600


@dataclass(frozen=True)
class Recipe:
    """A way of training, told by what it sets."""

    name: str
    sets: tuple[str, ...] = ()
    # Seeds: all that are asked for, or the first alone.
    every_seed: bool = False
    # Parts of the run after which it is evaluated.
    at: tuple[float, ...] = (1.0,)


PLAIN = "method.variance_covariance=0"
# What table 6 of the paper hides as one block, or anywhere.
HIDDEN = ("mask.num_pred_masks=1", "mask.pred_mask_scale=[0.6, 0.6]")
RECIPES = [
    Recipe("with the term, β 0.001", every_seed=True, at=(1 / 6, 1 / 2, 1.0)),
    Recipe("plain I-JEPA", (PLAIN,), every_seed=True, at=(1 / 6, 1 / 2, 1.0)),
    Recipe("plain, momentum 0.99", (PLAIN, "optimization.ema=[0.99, 1.0]")),
    Recipe("plain, momentum 1.0: a frozen target", (PLAIN, "optimization.ema=[1.0, 1.0]")),
    Recipe("plain, released masks", (PLAIN, "loader.mask_law=released")),
    Recipe("β 0.001, released masks", ("loader.mask_law=released",)),
    Recipe("β 0.01", ("method.variance_covariance=0.01",)),
    # Each option of the method by itself, and the masks of the paper's table 6.
    Recipe("option, normality 0.01", (PLAIN, "method.normality=0.01")),
    Recipe("option, normality 0.1", (PLAIN, "method.normality=0.1")),
    Recipe("option, normality 1", (PLAIN, "method.normality=1")),
    Recipe("option, visible loss 0.5", (PLAIN, "method.visible_loss=0.5")),
    Recipe("option, position noise 0.25", (PLAIN, "method.position_noise=0.25")),
    Recipe("option, masks: block", (PLAIN, "loader.mask_law=block", *HIDDEN)),
    Recipe("option, masks: random", (PLAIN, "loader.mask_law=random", *HIDDEN)),
    Recipe("option, masks: rasterized", (PLAIN, "loader.mask_law=rasterized", "mask.num_pred_masks=3")),
]
# What is measured, and how a report says it.
COLUMNS = {
    "hidden top-1": ("hidden", lambda report: report["rows"][-1]["top1"]),
    "hidden top-10": ("hidden", lambda report: report["rows"][-1]["top10"]),
    "pixels R²": ("hidden", lambda report: report["rows"][-1]["pixels_r2"]),
    "20-nn": ("mean", lambda report: report["results"][0]["knn"][-1]["top1"]),
    "linear": ("mean", lambda report: chosen(report)),
    "linear, 3x3": ("grid", lambda report: chosen(report)),
    "linear, max": ("max", lambda report: chosen(report)),
}
PROBES = {
    "hidden": ("hidden",),
    "mean": ("all", "--pooling", "mean"),
    "grid": ("linear", "--pooling", "grid"),
    "max": ("linear", "--pooling", "max"),
}


def chosen(report: dict) -> float:
    """Returns the top-1 of the head that was best on held-out images."""
    grid = report["results"][0]["linear"]
    return grid["heads"][grid["best"]]["val"]["top1"]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    summary, details = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "target/learn", metavar="DIR", help="[%(default)s]")
    parser.add_argument("--steps", type=int, default=6000, metavar="N", help="of each training [%(default)s]")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="[%(default)s]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="at once, a thread each [CPUs]")
    parser.add_argument("--only", metavar="TEXT", help="recipes whose name has this in it")
    given = parser.parse_args()
    if given.steps < 60 or given.seeds < 1 or given.jobs < 1:
        parser.error("--steps is 60 or more, --seeds and --jobs are 1 or more")
    return given


def run(program: str, *args: str, log: Path) -> float:
    """Runs a program to its end and returns its CPU seconds, its children's included."""
    with log.open("ab") as out:
        started = subprocess.Popen([BIN / program, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        deadline = time.monotonic() + PATIENCE
        while True:
            pid, status, usage = os.wait4(started.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                started.kill()
            time.sleep(0.1)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise SystemExit(f"learn: {program} {args[0]} ended with {started.returncode}; see {log}")
    return usage.ru_utime + usage.ru_stime


class Learn:
    def __init__(self, given: argparse.Namespace):
        self.given, self.out = given, given.out.resolve()
        self.shards = self.out / "shards"
        self.results: dict[str, dict] = {}
        self.baselines: list[dict] = []

    def prepare(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        run("shardtool", "build", str(self.given.images), "--out", str(self.shards), log=self.out / "build.log")

    def train(self, recipe: Recipe, seed: int) -> None:
        """Trains a recipe, or goes on where it was left, and evaluates it."""
        steps, folder = self.given.steps, self.out / f"{slug(recipe.name)}-{seed}"
        folder.mkdir(exist_ok=True)
        sets = [f"optimization.steps={steps}", f"optimization.warmup_steps={steps // 20}"]
        sets += [f"checkpoint.every_steps={steps // 6}", f"logging.folder={folder}", "trainer.threads=1"]
        sets += [f"trainer.seed={seed}", f"loader.seed={seed}", "loader.workers=1", *recipe.sets]
        options = [option for key in sets for option in ("--set", key)]
        common = ["--config", str(CONFIG), "--shards", str(self.shards)]
        last = folder / "checkpoints" / f"jepa-step{steps:08}"
        spent = folder / "cpu-seconds"
        if not last.exists():
            seconds = run("trainer", "launch", *common, "--devices", "cpu", *options, log=folder / "log")
            spent.write_text(str(seconds))
        minutes = float(spent.read_text()) / 60 if spent.exists() else None
        for part in recipe.at:
            done = max(1, round(part * 6)) * (steps // 6)
            checkpoint = last if part == 1.0 else folder / "checkpoints" / f"jepa-step{done:08}"
            name = f"{recipe.name}, {done:,} steps" if len(recipe.at) > 1 else recipe.name
            self.evaluate(name, seed, checkpoint, minutes and minutes * part)
        say(f"{recipe.name}, seed {seed}: done")

    def evaluate(self, name: str, seed: int, weights: Path, minutes: float | None, *more: str) -> None:
        found, reports = {}, {}
        for probe, (what, *options) in PROBES.items():
            kind = "untrained" if more else "trained"
            path = weights.with_name(f"{weights.name}-{probe}-{kind}.json")
            if not path.exists():
                args = ["eval", what, str(weights), "--device", "cpu", "--threads", "1", "--json", str(path)]
                args += ["--shards", str(self.shards), "--set", "loader.workers=1", *options, *more]
                run("trainer", *args, log=self.out / "eval.log")
            reports[probe] = json.loads(path.read_text())
        for column, (probe, of) in COLUMNS.items():
            found[column] = of(reports[probe])
        self.baselines = reports["hidden"]["rows"][:-1]
        self.results.setdefault(name, {})[seed] = {"cpu_minutes": minutes, **found}

    def untrained(self, seed: int) -> None:
        """Evaluates fresh weights of the sizes of a recipe that is trained already."""
        folder = self.out / f"{slug(RECIPES[0].name)}-{seed}" / "checkpoints"
        weights = folder / f"jepa-step{self.given.steps:08}"
        self.evaluate("untrained", seed, weights, 0.0, "--untrained", "--seed", str(seed))

    def everything(self) -> None:
        self.prepare()
        wanted = [recipe for recipe in RECIPES if (self.given.only or "") in recipe.name]
        # All seeds of the first recipe first: they are the result, the others are for comparison.
        jobs = [
            (recipe, seed)
            for recipe in wanted
            for seed in range(self.given.seeds if recipe.every_seed else 1)
        ]
        with concurrent.futures.ThreadPoolExecutor(self.given.jobs) as pool:
            list(pool.map(lambda job: self.train(*job), jobs))
            if RECIPES[0] in wanted:
                list(pool.map(self.untrained, range(self.given.seeds)))

    def table(self) -> str:
        lines = ["| | CPU minutes | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
        for row in self.baselines:
            known = [f"{row[key]:.1f}" for key in ("top1", "top10", "pixels_r2")]
            lines.append(f"| {row['name']} | | " + " | ".join(known + [""] * (len(COLUMNS) - 3)) + " |")
        order = ["untrained"] + [name for recipe in RECIPES for name in self.results if name.startswith(recipe.name)]
        for name in dict.fromkeys(order):
            if name not in self.results:
                continue
            seeds = list(self.results[name].values())
            minutes = [seed["cpu_minutes"] for seed in seeds if seed["cpu_minutes"] is not None]
            cells = [f"{statistics.mean(minutes):.1f}" if minutes else ""]
            cells += [spread([seed[column] for seed in seeds]) for column in COLUMNS]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def report(self) -> None:
        images = f"{self.given.steps} steps of 32; seeds: {self.given.seeds}; {cpu()}; {platform.machine()}"
        text = f"{images}\n\n{self.table()}"
        (self.out / "table.md").write_text(text)
        results = {"steps": self.given.steps, "baselines": self.baselines, "results": self.results}
        (self.out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        print(text)


def spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f}–{max(values):.1f})"


def slug(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def main() -> None:
    given = arguments()
    learn = Learn(given)
    learn.everything()
    learn.report()


if __name__ == "__main__":
    main()
