#!/usr/bin/env python3
"""Holds the layering rule: a room includes lower rooms only, and equal rooms never each other.

Reads the #include lines of include/siltstone, src, cli and python; needs nothing but Python.
Prints one line per violation and exits 1 if there is any; `--self-test` checks the checker.
"""

import argparse
import pathlib
import re
import sys
import tempfile

LEVEL = {"base": 0, "tensor": 1, "delta": 2, "store": 2, "repo": 3, "replica": 4,
         "interchange": 4, "relay": 4}
# A room that may see less than its number allows, and why.
ONLY = {"store": {"base"}}  # a bucket knows nothing about tensors
THIRD_PARTY_OF_CLI = ("CLI/", "nlohmann/")
SOURCES = {".h", ".cc", ".cu", ".cuh", ".cpp", ".hpp"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def includes(path):
    """Yields (line number, quoted?, target) of every #include of a file."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            match = INCLUDE.match(line)
            if match:
                yield number, match.group(1) == '"', match.group(2)


def is_standard(target):
    """<vector>, <cstdint>: standard headers have neither a folder nor a suffix."""
    return "/" not in target and "." not in target


def why_not_public(target):
    if target.startswith("siltstone/") or is_standard(target):
        return None
    return "a public header includes siltstone/ and the standard library only"


def why_not_room(room, target):
    head = target.split("/")[0]
    if head not in LEVEL or head == room or "/" not in target:
        return None
    if LEVEL[head] > LEVEL[room]:
        return f"room {room} ({LEVEL[room]}) is below {head} ({LEVEL[head]})"
    if LEVEL[head] == LEVEL[room]:
        return f"rooms {room} and {head} are both {LEVEL[room]} and may not see each other"
    if room in ONLY and head not in ONLY[room]:
        return f"room {room} may include {', '.join(sorted(ONLY[room]))} only"
    return None


def why_not_face(root, folder, path, quoted, target):
    """cli and python: the public headers, their own folder, the libraries of a program."""
    if target.startswith("siltstone/"):
        return None
    if not quoted:
        if target.split("/")[0] in LEVEL:
            return f"{folder} includes include/siltstone only"
        return None
    if target.startswith(THIRD_PARTY_OF_CLI):
        return None
    near = (path.parent / target).resolve()
    own = (root / folder).resolve()
    for candidate in (near, own / target, root / target):
        candidate = candidate.resolve()
        if candidate.is_file() and own in candidate.parents:
            return None
    return f"{folder} includes include/siltstone, its own folder and third-party headers only"


def check(root):
    """Returns (violations, files read)."""
    violations = []
    files = 0
    for folder in ("include/siltstone", "src", "cli", "python"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in SOURCES or not path.is_file():
                continue
            files += 1
            relative = path.relative_to(root)
            room = relative.parts[1] if folder == "src" else None
            if folder == "src" and (len(relative.parts) < 3 or room not in LEVEL):
                violations.append(f"{relative}: every source file of src lies in a room "
                                  f"({', '.join(LEVEL)})")
                continue
            for number, quoted, target in includes(path):
                if ".." in target.split("/"):
                    why = "includes are written from the root of src or include, never with .."
                elif folder == "include/siltstone":
                    why = why_not_public(target)
                elif folder == "src":
                    why = why_not_room(room, target)
                else:
                    why = why_not_face(root, folder, path, quoted, target)
                if why:
                    violations.append(f"{relative}:{number}: includes {target}: {why}")
    return violations, files


def self_test():
    """One tree in which each rule is broken once, and once kept."""
    good = {
        "include/siltstone/tensor.h": "#include <cstdint>\n#include \"siltstone/result.h\"\n",
        "src/base/bytes.cc": '#include "base/bytes.h"\n#include <zstd.h>\n',
        "src/delta/kernels/scalar.cc": '#include "delta/diff.h"\n#include "tensor/safetensors.h"\n',
        "src/store/local.cc": '#include "base/files.h"\n#include "siltstone/store.h"\n',
        "cli/verbs.cc": '#include "verbs.h"\n#include <CLI/CLI.hpp>\n#include "siltstone/store.h"\n',
        "cli/verbs.h": "#include <nlohmann/json.hpp>\n",
    }
    bad = {
        "include/siltstone/bad.h": "#include <zstd.h>\n",
        "include/siltstone/worse.h": '#include "base/bytes.h"\n',
        "src/base/up.cc": '#include "tensor/safetensors.h"\n',
        "src/store/beside.cc": '#include "delta/diff.h"\n',
        "src/store/tensors.cc": '#  include "tensor/safetensors.h"\n',
        "src/delta/dots.cc": '#include "../base/bytes.h"\n',
        "src/stray.cc": "\n",
        "cli/deep.cc": '#include "repo/commit.h"\n',
        "cli/angle.cc": "#include <repo/commit.h>\n",
        "python/deep.cc": '#include "base/bytes.h"\n',
    }
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in {**good, **bad}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        violations, files = check(root)
    noticed = {line.split(":")[0] for line in violations}
    if files != len(good) + len(bad) or noticed != set(bad):
        print("layers: self-test failed:", sorted(noticed ^ set(bad)), file=sys.stderr)
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test and self_test():
        return 1
    violations, files = check(options.root)
    for line in violations:
        print(line, file=sys.stderr)
    if files == 0:
        print(f"layers: no source file under {options.root}", file=sys.stderr)
        return 1
    print(f"layers: {files} files, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
