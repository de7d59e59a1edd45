#!/usr/bin/env python3
"""Measures this loader beside others on the same images, the same work and the same cores, in one run.

Installs torchvision, WebDataset, LitData, MosaicML Streaming, SPDL, NVIDIA DALI and FFCV into a private environment
under target/rivals/ (about 2 GB), converts the images for each loader that wants its own format, finds each one's best
number of workers, then measures all of them in turn for several rounds on one core and on two. Whatever cannot be
installed or run stands in the record with the reason. Needs target/release/{shardtool,loader}.

Writes rivals-DATE.md, .png and .json. FFCV needs: apt-get install g++ pkg-config libopencv-dev libturbojpeg0-dev;
SPDL: apt-get install ffmpeg.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# The package `rivals` beside this script, which a folder of the same name wins over the script.
from rivals import native, ours, pytorch
from rivals.contestant import BATCH, Contestant
from rivals.environment import Environment, Failed

REPOSITORY = Path(__file__).resolve().parents[2]
CONTESTANTS: list[Contestant] = [*pytorch.CONTESTANTS, *native.CONTESTANTS, *ours.CONTESTANTS]


def arguments() -> argparse.Namespace:
    keys = [each.key for each in CONTESTANTS]
    summary, details = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=summary, epilog=details + "\nNames for --only: " + ", ".join(keys),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="DIR", help="class folders of JPEG files, or train/ with them")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="measure on N of them [default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds through all loaders [default: %(default)s]")
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="length of one measurement [default: %(default)s]")
    parser.add_argument("--only", metavar="NAMES", help="measure only these, separated by commas")
    parser.add_argument("--out", type=Path, metavar="DIR", default=REPOSITORY / "loader/benches/records",
                        help="folder of the record [default: loader/benches/records]")  # fmt: skip
    chosen = parser.parse_args()
    if chosen.images is None:
        parser.error("which images? make bench-rivals IMAGES=DIR, whose class folders hold JPEG files, as ImageNet does")
    if chosen.rounds < 1 or chosen.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    chosen.only = chosen.only.split(",") if chosen.only else keys
    if unknown := set(chosen.only) - set(keys):
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(keys)}")
    return chosen


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """What is measured: images, programs, cores, and the results so far."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target").resolve()
        self.programs = target / "release"
        self.environment = Environment(target / "rivals", REPOSITORY)
        self.cores = physical_cores()
        self.entrants = [each for each in CONTESTANTS if each.key in chosen.only]
        self.results: dict[str, dict[str, Any]] = {
            each.key: {"key": each.key, "name": each.name, "ours": each.ours, "version": "", "note": each.note,
                       "bytes_per_image": 0.0, "reason": None, "cores": {}}
            for each in self.entrants
        }  # fmt: skip

    def gather(self) -> None:
        """Copies the images that are measured, so that everyone reads the same files of the same disk."""
        root = self.chosen.images / "train" if (self.chosen.images / "train").is_dir() else self.chosen.images
        found = sorted(path for path in root.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg"))
        if len(found) < BATCH:
            sys.exit(f"rivals: {root}: {len(found)} JPEG files in class folders; at least {BATCH} are needed")
        count = min(self.chosen.count, len(found))
        picked = [found[number * len(found) // count] for number in range(count)]
        listing = "".join(f"{path.relative_to(root)} {path.stat().st_size}\n" for path in picked)
        self.data = self.environment.root / "data" / hashlib.sha256(listing.encode()).hexdigest()[:16]
        self.images = self.data / "images"
        if not self.images.exists():
            partial = self.data / "images.partial"
            shutil.rmtree(partial, ignore_errors=True)
            for path in picked:
                copy = partial / path.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
            partial.rename(self.images)
        self.count = count

    def drop(self, each: Contestant, error: Exception) -> None:
        """Takes a contestant out of the run, and keeps the reason for the record."""
        self.results[each.key]["reason"] = str(error)
        self.entrants.remove(each)
        say(f"{each.name}: {error}")

    def prepare(self) -> None:
        """Installs every contestant and writes its data set."""
        self.environment.set_up()
        try:
            self.environment.set_up_torch()
            no_torch = None
        except Failed as error:
            no_torch = error
        for each in list(self.entrants):
            say(f"preparing {each.name}")
            try:
                version, data = self.prepare_one(each, no_torch)
            except (Failed, OSError) as error:
                self.drop(each, error)
                continue
            size = sum(warm(path) for path in (data if data.exists() else self.images).rglob("*") if path.is_file())
            self.results[each.key] |= {"version": version, "bytes_per_image": size / self.count}

    def prepare_one(self, each: Contestant, no_torch: Failed | None) -> tuple[str, Path]:
        data = self.data / each.key
        if isinstance(each, ours.Ours):
            for program in ("shardtool", "loader"):
                if not (self.programs / program).exists():
                    raise Failed(f"no {self.programs / program}; cargo build --release -p shardtool -p loader")
            each.build(self.environment, self.programs / "shardtool", self.images, data)
            return self.environment.run([self.programs / "loader", "--version"], 10).split()[-1], data
        if no_torch and each.torch:
            raise Failed(f"not installed: {no_torch}")
        try:
            self.environment.install(each)
        except Failed as error:
            raise Failed(f"not installed: {error}") from error
        mark = self.data / f"{each.key}.json"
        if not mark.exists():
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir()
            mark.write_text(json.dumps(self.environment.child("prepare", each.key, self.images, data)))
            if not any(data.iterdir()):
                data.rmdir()
        return json.loads(mark.read_text())["version"], data

    def measure(self, each: Contestant, cores: int, workers: int, seconds: float) -> float:
        data, pinned = self.data / each.key, self.cores[-cores:]
        if isinstance(each, ours.Ours):
            return each.measure(self.environment, self.programs / "loader", data, seconds, pinned)
        step = ("measure", each.key, self.images, data, workers, seconds)
        return self.environment.child(*step, cores=pinned, timeout=seconds)["images_per_second"]

    def calibrate(self, cores: int) -> None:
        """Finds each contestant's best number of workers, by half a measurement of each."""
        for each in list(self.entrants):
            rates, failure = {}, None
            for workers in each.workers:
                if not workers and not each.ours and cores > 1:
                    continue  # Without workers a DataLoader decodes on one core, whatever it may use.
                try:
                    rates[workers] = self.measure(each, cores, workers, self.chosen.seconds / 2)
                except Failed as error:
                    failure = error
                    say(f"{each.name}, {cores} core(s), {workers} workers: {error}")
            if failure and not rates:
                self.drop(each, failure)
                continue
            best = max(rates, key=rates.__getitem__)
            tried = ", ".join(f"{workers}: {rate:,.0f}" for workers, rate in rates.items())
            self.results[each.key]["cores"][str(cores)] = {"workers": best, "tried": rates, "images_per_second": []}
            say(f"{each.name}, {cores} core(s), images/s by workers: {tried}")

    def round(self, number: int, cores: int) -> None:
        for each in list(self.entrants):
            result = self.results[each.key]["cores"][str(cores)]
            try:
                rate = self.measure(each, cores, result["workers"], self.chosen.seconds)
            except Failed as error:
                self.drop(each, error)
                continue
            result["images_per_second"].append(rate)
            say(f"round {number}, {cores} core(s): {each.name}: {rate:,.0f} images/s")

    def write(self) -> Path:
        """The record in three files; says where."""
        self.chosen.out.mkdir(parents=True, exist_ok=True)
        date = datetime.date.today().isoformat()
        revision = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
        record = {
            "date": date,
            "revision": revision.stdout.strip() or "unknown",
            "command": f"make bench-rivals IMAGES={self.chosen.images.name} "
                       f'ARGS="--rounds {self.chosen.rounds} --seconds {self.chosen.seconds:g}"',
            "machine": machine(),
            "images": {"folder": self.chosen.images.name, "count": self.count,
                       "bytes_per_image": sum(path.stat().st_size for path in self.images.glob("*/*")) / self.count},
            "rounds": self.chosen.rounds,
            "seconds": self.chosen.seconds,
            "results": list(self.results.values()),
        }  # fmt: skip
        path = self.chosen.out / f"rivals-{date}.json"
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        self.environment.run([self.environment.python, "-m", "rivals.record", path.resolve()], 120)
        return path.with_suffix(".md")


def warm(path: Path) -> int:
    """Reads a file into the page cache; its size."""
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
        return file.tell()


def physical_cores() -> list[int]:
    """One CPU of each physical core that this process may use."""
    first = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text() if siblings.exists() else cpu, cpu)
    return list(first.values())


def machine() -> dict[str, Any]:
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines())
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = facts.get("flags", "").split()
    features = [name for name, flag in (("AVX2", "avx2"), ("AVX-512 VBMI2", "avx512_vbmi2")) if flag in flags]
    return {
        "cpu": facts.get("model name", platform.machine()),
        "cpus": os.cpu_count(),
        "features": ", ".join(features) or "no AVX2",
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def main() -> None:
    # As an interrupt does: what is being measured is ended as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(arguments())
    begin = time.monotonic()
    bench.gather()
    bench.prepare()
    counts = [count for count in (1, 2) if count <= len(bench.cores)]
    for cores in counts:
        bench.calibrate(cores)
    for number in range(1, bench.chosen.rounds + 1):
        for cores in counts:
            bench.round(number, cores)
    path = bench.write()
    say(f"{(time.monotonic() - begin) / 60:.0f} minutes")
    print(path.read_text())
    print(f"written: {path}, .png and .json beside it")


if __name__ == "__main__":
    main()
