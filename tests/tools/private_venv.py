"""A venv of a check's own, with the libraries it compares with."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path


def enter(folder, packages, alone=()):
    """Makes a venv in a folder if it is not there, and goes on in it: the program begins anew, under its Python.

    `alone` are installed without what they ask for. Returns false, and says why, where pip cannot
    make it.
    """
    python, done = folder / "venv/bin/python", folder / "done"
    wanted = "\n".join([*packages, *alone])
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder / "venv", with_pip=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--root-user-action=ignore"]
        calls = [[*pip, *packages], *([[*pip, "--no-deps", *alone]] if alone else [])]
        if any(subprocess.run(call).returncode != 0 for call in calls):
            print(f"{Path(sys.argv[0]).stem}: pip cannot install {' '.join([*packages, *alone])}")
            return False
        done.write_text(wanted)
    if Path(sys.prefix) != python.parents[1]:
        os.execv(python, [str(python), *sys.argv])
    return True
