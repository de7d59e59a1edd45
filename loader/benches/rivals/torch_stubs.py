"""Lets a CPU-only machine import PyTorch's default Linux wheel without the gigabytes of CUDA libraries it links to.

Each missing library is replaced by an empty one that defines the functions the wheel names, under the wheel's symbol
versions. Nothing calls them where there is no GPU.
"""

import re
import subprocess
from pathlib import Path


def build(torch: Path, out: Path) -> None:
    """Writes stubs for the libraries that those of `torch` (an installed package) miss into `out`."""
    libraries = sorted(torch.glob("lib/*.so"))
    missing = set()
    for library in libraries:
        lines = subprocess.run(["ldd", library], capture_output=True, text=True).stdout.splitlines()
        missing.update(line.split()[0] for line in lines if line.endswith("=> not found"))
    if not missing:
        return
    listing = subprocess.run(["nm", "-D", "--undefined-only", *libraries], capture_output=True, text=True, check=True)
    symbols: dict[str, set[str]] = {}
    for name, version in re.findall(r" U ((?:cu|nccl|nvshmem|nvrtc)\w+)(?:@(\S+))?$", listing.stdout, re.MULTILINE):
        symbols.setdefault(version, set()).add(name)

    out.mkdir(parents=True, exist_ok=True)
    for soname in sorted(missing):
        version = "NVSHMEM" if soname.startswith("libnvshmem") else soname
        version = version if version in symbols else ""
        source = "".join(f"void {name}(void) {{}}\n" for name in sorted(symbols.get(version, ())))
        (out / "stub.c").write_text(source)
        (out / "stub.map").write_text(f"{version} {{ global: *; }};\n")
        script = [f"-Wl,--version-script={out / 'stub.map'}"] if version else []
        options = ["-w", "-fno-builtin", "-shared", f"-Wl,-soname,{soname}", *script]
        subprocess.run(["cc", *options, "-o", out / soname, out / "stub.c"], check=True)
