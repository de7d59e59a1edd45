"""The private environment: a venv with the rivals' packages, and processes that run in it on given cores."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from . import torch_stubs
from .contestant import Contestant

TORCH = "2.11.0"
TORCHVISION = "0.26.0"
# What the packages that are installed bare share with each other and with PyTorch.
COMMON = ["numpy", "pillow", "setuptools", "wheel", "matplotlib", "filelock", "fsspec", "jinja2", "networkx", "sympy",
          "typing_extensions", "braceexpand", "pyyaml"]  # fmt: skip
# The newest series that every one of these releases works with.
CONSTRAINTS = "numpy>=2.1,<2.3\n"
# Longest that one step may take beyond the time it measures: FFCV compiles, some write their data sets.
PATIENCE = 600


class Failed(Exception):
    """A step did not succeed; the text is the reason, in one line."""


class Environment:
    def __init__(self, root: Path, repository: Path) -> None:
        self.root, self.repository = root, repository
        self.folder, self.stubs, self.installed = root / "venv", root / "stubs", root / "installed"
        self.python = self.folder / "bin" / "python"

    def set_up(self) -> None:
        """The venv, what the packages share, PyTorch for the CPU."""
        self.installed.mkdir(parents=True, exist_ok=True)
        (self.root / "constraints.txt").write_text(CONSTRAINTS)
        if not self.python.exists():
            venv.create(self.folder, with_pip=True)
        self.pip("common", [COMMON])

    def set_up_torch(self) -> None:
        mark = self.installed / "torch"
        if mark.exists():
            return
        site = next(self.folder.glob("lib/python*/site-packages"))
        own = self.repository / ".torch"
        series = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
        if list(own.glob(f"torch/_C.{series}-*.so")):
            (site / "torch.pth").write_text(f"{own.resolve()}\n")
            torch = own / "torch"
        else:
            cuda = ["nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cupti==13.0.*"]
            self.pip("torch-wheels", [["--no-deps", f"torch=={TORCH}", *cuda]])
            torch = site / "torch"
        self.pip("torchvision", [["--no-deps", f"torchvision=={TORCHVISION}"]])
        try:
            torch_stubs.build(torch, self.stubs)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Failed(f"PyTorch needs stubs of CUDA libraries: {error}") from error
        self.run([self.python, "-c", "import torchvision"], 60)
        mark.touch()

    def install(self, rival: Contestant) -> None:
        if reason := rival.lacks():
            raise Failed(reason)
        # PyTorch is there already; what is bare comes without its dependencies, the others bring theirs.
        rest = [package for package in rival.packages if package not in [*rival.bare, "torchvision"]]
        # FFCV's build imports numpy and does not say so.
        bare = ["--no-deps", "--no-build-isolation", *rival.bare]
        lists = [packages for packages, wanted in ((rest, rest), (bare, rival.bare)) if wanted]
        self.pip(rival.key, lists)

    def pip(self, mark: str, lists: list[list[str]]) -> None:
        """Installs each list of requirements, unless the same ones were installed under this mark."""
        done, wanted = self.installed / mark, json.dumps([lists, CONSTRAINTS])
        if done.exists() and done.read_text() == wanted:
            return
        for packages in lists:
            self.run([self.python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-warn-conflicts",
                      "--root-user-action=ignore", "-c", self.root / "constraints.txt", *packages], PATIENCE)  # fmt: skip
        done.write_text(wanted)

    def child(
        self, step: str, *arguments: object, cores: list[int] | None = None, timeout: float = 0
    ) -> dict[str, Any]:
        """One step of `rivals.child` in a fresh process."""
        command = [self.python, "-m", "rivals.child", step, *map(str, arguments)]
        return json.loads(self.run(command, PATIENCE + timeout, cores))

    def run(self, command: list[Any], timeout: float, cores: list[int] | None = None) -> str:
        """Runs a command, on these cores only, and returns what it printed. Nothing that it started outlives it."""
        paths = [str(self.stubs), os.environ.get("LD_LIBRARY_PATH", "")]
        variables = {
            "LD_LIBRARY_PATH": ":".join(filter(None, paths)),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTHONWARNINGS": "ignore",
            # LitData's working folder, and no question to the index about newer releases.
            "DATA_OPTIMIZER_CACHE_FOLDER": str(self.root / "litdata"),
            "LITDATA_DISABLE_VERSION_CHECK": "1",
        }
        pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True,
                                       env=os.environ | variables,
                                       preexec_fn=pin, start_new_session=True)  # fmt: skip
            try:
                output, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as error:
                raise Failed(f"gave no result within {timeout:.0f} s") from error
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
            if process.returncode == 0:
                return output
            errors.seek(0)
            lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
        told = [line for line in lines if re.match(r"(\w+\.)*\w*error: ", line, re.IGNORECASE)] or lines
        raise Failed((told or [f"exit code {process.returncode}"])[-1][:300])
