#!/usr/bin/env python3
"""Holds the documents to the tree: links and paths that they name must exist.

Checks relative links, and paths in backticks that start with a folder of the repository. Patterns
(`<name>`, `*`, `...`) are not paths. Prints one line per miss and exits 1 if there is any.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("bench/", "cli/", "cmake/", "demo/", "docs/", "fuzz/", "include/", "scripts/", "src/",
           "tests/", ".ci/")
LINK = re.compile(r"\]\(([^)#\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATTERN = re.compile(r"[<>*{}$\s]|\.\.\.|NNNN")


def named_paths(document, text):
    """Yields (line number, what was written, the path meant)."""
    for number, line in enumerate(text.splitlines(), 1):
        for target in LINK.findall(line):
            if not re.match(r"[a-z]+:", target):
                yield number, target, document.parent / target
        for code in CODE.findall(line):
            if PATTERN.search(code):
                continue
            if code.startswith("siltstone/") and code.endswith(".h"):
                yield number, code, ROOT / "include" / code
            elif code.startswith(FOLDERS):
                yield number, code, ROOT / code


def main():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.md"], check=True,
                            stdout=subprocess.PIPE, text=True).stdout.split("\n")
    documents = [ROOT / name for name in listed if name]
    misses = checked = 0
    for document in documents:
        for number, written, path in named_paths(document, document.read_text(encoding="utf-8")):
            checked += 1
            if not path.exists():
                misses += 1
                print(f"{document.relative_to(ROOT)}:{number}: {written} does not exist",
                      file=sys.stderr)
    if checked == 0:
        print("docs: no document names a path", file=sys.stderr)
        return 1
    print(f"docs: {len(documents)} documents, {checked} paths, {misses} missing")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
