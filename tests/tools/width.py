#!/usr/bin/env python3
"""Finds lines longer than 120 characters in code and prose.

Texts in code cannot always be broken, so lines of code that hold one are left to the formatter.

Tables, links and quoted output in Markdown cannot be broken; records and licences are not ours to break.
"""

import pathlib
import re
import subprocess
import sys

LONGEST = 120
KINDS = ("*.rs", "*.md", "*.py", "*.sh", "*.toml", "*.yaml", "*.cpp", "*.c", "*.h", "Makefile", ".ci/run")
UNBREAKABLE = re.compile(r"^\s*\||\]\(|^\[|https?://")
COMMENT = re.compile(r"^\s*(//|#|/?\*)")
TABLE = re.compile(r"^\s*//[/!] \|")


def main():
    root = pathlib.Path(__file__).parents[2]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *KINDS]
    names = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout.split("\n")
    found = 0
    for name in filter(None, names):
        path = root / name
        if "/records/" in name or name == "NOTICE.md" or not path.is_file():
            continue
        fenced = False
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            fenced ^= name.endswith(".md") and line.startswith("```")
            if name.endswith(".md"):
                exempt = fenced or UNBREAKABLE.search(line)
            else:
                exempt = TABLE.match(line) or (re.search("[\"'\\\\]", line) and not COMMENT.match(line))
            if len(line) > LONGEST and not exempt:
                print(f"{name}:{number}: {len(line)} characters")
                found += 1
    if found:
        sys.exit(f"width: {found} lines are longer than {LONGEST} characters")


main()
