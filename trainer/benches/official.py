#!/usr/bin/env python3
"""Measures our training step beside the official code's, taking turns, in one run on the CPU.

The official code (facebookresearch/ijepa) is not part of this repository: --ijepa names a checkout, whose modules are
imported. It is measured as published and in three variants that its users could make (official/child.py); ours is
`trainer bench`. All have the same sizes, mask lengths, threads and libtorch, in float32; images are random. Every
variant lives in a process of its own and waits while another one is measured. Needs target/release/trainer and g++
(torch.compile). PyTorch is the one in .torch/; what else Python needs goes into target/rivals/.

Writes official-DATE.md and .json.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "loader/benches"))
from rivals.environment import Environment, Failed  # noqa: E402

# Encoder, images of a step, width of the predictor; its depth is 6 and its heads are the encoder's.
WORKLOADS = {"tiny": ("vit_tiny", 32, 96), "small": ("vit_small", 16, 192), "base": ("vit_base", 8, 384)}
NAMES = {
    "eager": "official",
    "sdpa": "official + SDPA",
    "fused": "official + SDPA, fused AdamW, foreach EMA",
    "compiled": "the same + torch.compile",
    "ours": "ours",
}
PREDICTOR_DEPTH, PATCH, SIZE = 6, 16, 224
# The step whose masks are used: its targets have 35 patches, the mean of all steps is 33.
MASKS_OF = 24
# Longest that one turn may take: the first one compiles.
PATIENCE = 900


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    summary, details = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ijepa", type=Path, required=True, metavar="PATH", help="checkout of facebookresearch/ijepa")
    parser.add_argument(
        "--models", default="tiny,small,base", metavar="NAMES", help="some of them [default: %(default)s]"
    )
    parser.add_argument(
        "--variants", default=",".join(NAMES), metavar="NAMES", help="some of them [default: %(default)s]"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each [default: %(default)s]")
    parser.add_argument(
        "--steps", type=int, default=2, metavar="N", help="timed steps of a turn [default: %(default)s]"
    )
    parser.add_argument("--warmup", type=int, default=1, metavar="N", help="steps before them [default: %(default)s]")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of each [default: %(default)s]")
    parser.add_argument("--quick", action="store_true", help="4 turns")
    parser.add_argument("--out", type=Path, metavar="DIR", default=REPOSITORY / "trainer/benches/records",
                        help="folder of the record [default: trainer/benches/records]")  # fmt: skip
    chosen = parser.parse_args()
    chosen.models, chosen.variants = chosen.models.split(","), chosen.variants.split(",")
    for given, known in ((chosen.models, WORKLOADS), (chosen.variants, NAMES)):
        if unknown := set(given) - set(known):
            parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if "ours" not in chosen.variants:
        parser.error("--variants: ours tells the lengths of the masks, so it is always among them")
    if not (chosen.ijepa / "src/models/vision_transformer.py").is_file():
        parser.error(f"--ijepa {chosen.ijepa}: no src/models/vision_transformer.py there")
    if chosen.quick:
        chosen.rounds = 4
    if min(chosen.rounds, chosen.steps, chosen.threads) < 1:
        parser.error("--rounds, --steps and --threads must be at least 1")
    return chosen


class Contestant:
    """A process that measures one turn for each line it is sent."""

    def __init__(self, command: list, variables: dict[str, str]) -> None:
        self.log = open(os.devnull if not os.environ.get("VERBOSE") else "/dev/stderr", "w")
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, env=os.environ | variables)  # fmt: skip

    def turn(self) -> dict:
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"ended with exit code {self.process.wait()} (VERBOSE=1 shows what it said)")
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # what was still to be written had no reader any more
        self.log.close()


class Bench:
    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target").resolve()
        self.trainer = target / "release/trainer"
        if not self.trainer.exists():
            sys.exit(f"official: no {self.trainer}; cargo build --release -p trainer --bins")
        self.environment = Environment(target / "rivals", REPOSITORY)

    def start(self, variant: str, model: str, lengths: dict) -> Contestant:
        chosen = self.chosen
        encoder, batch, width = WORKLOADS[model]
        threads = {"OMP_NUM_THREADS": str(chosen.threads)}
        if variant == "ours":
            return Contestant([
                self.trainer, "bench", "--model", encoder, "--patch", PATCH, "--size", SIZE, "--batch", batch,
                "--pred-depth", PREDICTOR_DEPTH, "--pred-width", width, "--masks-of", MASKS_OF, "--threads", chosen.threads,
                "--steps", chosen.steps, "--warmup", chosen.warmup, "--device", "cpu", "--json", "--paced",
            ], threads)  # fmt: skip
        work = {
            "ijepa": str(chosen.ijepa.resolve()), "variant": variant, "model": encoder, "patch": PATCH, "size": SIZE,
            "batch": batch, "predictor_depth": PREDICTOR_DEPTH, "predictor_dim": width, "threads": chosen.threads,
            "steps": chosen.steps, "warmup": chosen.warmup, **lengths,
        }  # fmt: skip
        paths = filter(None, [str(self.environment.stubs), os.environ.get("LD_LIBRARY_PATH", "")])
        variables = {"LD_LIBRARY_PATH": ":".join(paths), "PYTHONPATH": str(Path(__file__).parent), "PYTHONWARNINGS": "ignore",
                     "TORCHINDUCTOR_CACHE_DIR": str(self.environment.root / "inductor")}  # fmt: skip
        return Contestant([self.environment.python, "-m", "official.child", json.dumps(work)], threads | variables)

    def measure(self, model: str) -> dict:
        """All variants of one model, in turns; a variant that fails stays in the record with its reason."""
        ours = self.start("ours", model, {})
        entrants, found = {"ours": ours}, {each: {"step_ms": [], "reason": None} for each in self.chosen.variants}
        try:
            first = ours.turn()
            lengths = {key: round(first[key]) for key in ("context_len", "target_len")}
            for variant in self.chosen.variants:
                if variant != "ours":
                    entrants[variant] = self.start(variant, model, lengths)
            # Round 0 compiles, allocates and is not counted.
            for number in range(self.chosen.rounds + 1):
                order = [each for each in self.chosen.variants if each in entrants]
                # Backwards every other time, so that nobody always follows the same one.
                for variant in order if number % 2 else reversed(order):
                    try:
                        turn = entrants[variant].turn()
                    except Failed as error:
                        found[variant]["reason"] = str(error)
                        entrants.pop(variant).end()
                        continue
                    if number:
                        steps = turn["each"]["step_ms"] if variant == "ours" else turn["step_ms"]
                        found[variant]["step_ms"].append(steps)
                    if variant == "ours":
                        first = turn
                medians = {each: statistics.median(sum(result["step_ms"], [])) for each, result in found.items()
                           if result["step_ms"]}  # fmt: skip
                said = ", ".join(f"{each} {value:,.0f}" for each, value in medians.items())
                say(f"{model}, round {number} of {self.chosen.rounds}: {said or 'warm'}")
        finally:
            for entrant in entrants.values():
                entrant.end()
        batch = WORKLOADS[model][1]
        flops = first["flops_per_image"] * batch
        for each, result in found.items():
            if result["step_ms"]:
                ms = statistics.median(sum(result["step_ms"], []))
                result |= {"median_ms": ms, "images_per_s": batch / ms * 1e3, "gflops_per_s": flops / ms / 1e6}
        if "eager" in found and found["eager"]["step_ms"]:
            for result in found.values():
                if result["step_ms"]:
                    # Of medians of the same round: what slows the machine for a while slows both.
                    pairs = zip(found["eager"]["step_ms"], result["step_ms"])
                    result["speedup"] = statistics.median(
                        statistics.median(theirs) / statistics.median(mine) for theirs, mine in pairs)  # fmt: skip
        return {"model": WORKLOADS[model][0], "batch": batch, **lengths, "flops_per_step": flops, "results": found,
                "peak": first["peak"], "phases_ms": dict(first["phases_ms"])}  # fmt: skip


def machine() -> dict:
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines())
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    return {"cpu": facts.get("model name", platform.machine()), "cpus": os.cpu_count(), "kernel": platform.release(),
            "python": platform.python_version(), "load_before": os.getloadavg()[0]}  # fmt: skip


def table(record: dict) -> str:
    text = [
        f"# The training step beside the official code, {record['date']}",
        "",
        f"`{record['command']}` at revision {record['revision']}, on {record['machine']['cpus']} CPUs ({record['machine']['cpu']}), "
        f"load {record['machine']['load_before']:.1f} before the start. PyTorch {record['torch']} for both, float32, "
        f"{record['threads']} threads, patches of {PATCH} px, images of {SIZE} px, predictor of depth {PREDICTOR_DEPTH}. "
        f"All variants in turns, {record['rounds']} rounds of {record['steps']} steps; medians. The speed-up is the median of the "
        "rounds' ratios. GFLOP/s count what the published method needs, so leaving work out shows as speed. "
        "Ours includes copying the bytes of the images and normalising them; the official variants have their images ready.",
    ]
    for each in record["workloads"]:
        text += [
            "",
            f"## {each['model']}/{PATCH}, {each['batch']} images a step, {each['context_len']} context and {each['target_len']} "
            "target patches",
            "",
            "| variant | ms per step | images/s | GFLOP/s | × official |",
            "|---|---:|---:|---:|---:|",
        ]
        for key, result in each["results"].items():
            if "median_ms" not in result:
                text.append(f"| {NAMES[key]} | {result['reason']} | | | |")
                continue
            speedup = f"{result['speedup']:.2f}" if "speedup" in result else ""
            text.append(f"| {NAMES[key]} | {result['median_ms']:,.0f} | {result['images_per_s']:.2f} | "
                        f"{result['gflops_per_s']:.0f} | {speedup} |")  # fmt: skip
        phases = ", ".join(f"{name} {ms:.0f}" for name, ms in each["phases_ms"].items())
        text += [
            "",
            f"Ours by phase, ms: {phases}. One large matrix product here: {each['peak']['flops_per_s'] / 1e9:.0f} GFLOP/s.",
        ]
    return "\n".join(text) + "\n"


def main() -> None:
    chosen = arguments()
    begin = time.monotonic()
    bench = Bench(chosen)
    try:
        bench.environment.set_up()
        bench.environment.set_up_torch()
        torch = bench.environment.run(
            [bench.environment.python, "-c", "import torch; print(torch.__version__)"], 120
        ).strip()
    except Failed as error:
        sys.exit(f"official: {error}")
    facts = machine()
    workloads = [bench.measure(model) for model in chosen.models]
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True
    )
    record = {
        "date": datetime.date.today().isoformat(),
        "revision": revision.stdout.strip() or "unknown",
        "command": f'make bench-official IJEPA=PATH ARGS="--rounds {chosen.rounds} --steps {chosen.steps}"',
        "torch": torch,
        "machine": facts,
        "threads": chosen.threads,
        "rounds": chosen.rounds,
        "steps": chosen.steps,
        "workloads": workloads,
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"official-{record['date']}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(table(record))
    say(f"{(time.monotonic() - begin) / 60:.0f} minutes")
    print(table(record))
    print(f"written: {path.with_suffix('.md')} and .json")


if __name__ == "__main__":
    main()
