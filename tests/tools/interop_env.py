#!/usr/bin/env python3
"""Makes the venv in which interop.py runs: interop_env.py FOLDER. Prints the variables that trainer/tests/interop.rs reads.

PyTorch is the one in .torch where that fits this Python, so that the venv takes 300 MB rather than gigabytes; CUDA
libraries that are not there are replaced by stubs, which nothing calls on a CPU.
"""

import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "loader" / "benches"))
from rivals import torch_stubs  # noqa: E402

TORCH = ["torch==2.11.0", "nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cupti==13.0.*"]
# What PyTorch needs and is not told here; transformers brings the rest itself.
COMMON = [
    "transformers==5.23.0",
    "numpy",
    "pillow",
    "sympy",
    "networkx",
    "jinja2",
    "fsspec",
    "filelock",
    "typing_extensions",
]


def main():
    folder = Path(sys.argv[1]).resolve()
    python, stubs, done = folder / "venv" / "bin" / "python", folder / "stubs", folder / "done"
    if not done.exists():
        venv.create(folder / "venv", with_pip=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--root-user-action=ignore"]
        subprocess.run([*pip, *COMMON], check=True)
        site = next(folder.glob("venv/lib/python*/site-packages"))
        own = REPOSITORY / ".torch"
        series = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
        if list(own.glob(f"torch/_C.{series}-*.so")):
            (site / "torch.pth").write_text(f"{own.resolve()}\n")
            torch = own.resolve() / "torch"
        else:
            subprocess.run([*pip, "--no-deps", *TORCH], check=True)
            torch = site / "torch"
        torch_stubs.build(torch, stubs)
        done.touch()
    print(f"INTEROP_PYTHON={python}")
    print(f"INTEROP_LIBRARIES={stubs}")


main()
