#!/usr/bin/env python3
"""Checks that no dependency asks for a newer Rust than Cargo.toml promises; no old compiler is needed for that."""

import json
import subprocess
import sys


def version(text):
    return [int(part) for part in text.split(".")]


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    packages = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["packages"]
    promised = next(package["rust_version"] for package in packages if package["name"] == "shardtool")
    newer = [
        f"{package['name']} {package['version']} asks for Rust {package['rust_version']}, {promised} is promised"
        for package in packages
        if package.get("rust_version") and version(package["rust_version"])[:2] > version(promised)[:2]
    ]
    print("\n".join(newer), end="\n" if newer else "")
    sys.exit(f"msrv: {len(newer)} dependencies are too new" if newer else 0)


main()
