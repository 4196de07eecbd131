#!/usr/bin/env python3
"""Our codecs beside what others store, on the same checkpoints, in one run on one machine.

usage: peers.py [--pair OLD NEW | --trace FOLDER] [--siltstone build/siltstone] [--markdown OUT.md]
                [--methods NAME...] [--skip NAME...] [--repeat 3] [--heading TEXT] [--work DIR]
       peers.py --list

A trace is a folder of consecutive steps, FOLDER/*/model.safetensors; its figures are means over the
neighbouring pairs, without the first one: what came before a pair is known then. README.md beside this file says what the rows stand for and how they are measured.
`--methods siltstone` measures our rows only, and --markdown puts them in place of the old ones.
This program and our rows need the standard library only; requirements.txt lists what the others need.
"""

import argparse
import filecmp
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import checkpoints
import commands
import tables
from tables import Row

HERE = Path(__file__).resolve().parent
LARGE = 512 << 20
MODULES = ("torch", "numpy", "zstandard")
EFFORTS = ("fast", "default", "max")
OURS = "siltstone"


def run_worker(*arguments):
    """The worker's answer. Its modules stay out of this process, so that children start small."""
    env = dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536") if arguments[0] == "memory" else None
    done = subprocess.run([sys.executable, str(HERE / "worker.py"), *map(str, arguments)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])
    return json.loads(done.stdout)


def flat(pairs):
    return [path for pair in pairs for path in pair]


def speed(dense, seconds):
    return dense / 1e9 / seconds if seconds else 0.0


def measure_tensors(row, pairs, repeat, dense):
    result = run_worker("measure", row.name, repeat, *flat(pairs))
    row.size, row.exact = result["bytes"], result["exact"]
    row.encode_speed = speed(dense, statistics.median(result["encode_seconds"]))
    row.decode_speed = speed(dense, statistics.median(result["decode_seconds"]))
    row.mebibytes = run_worker("memory", row.name, *flat(pairs))["mebibytes"]


def measure_command(row, method, pairs, repeat, dense, work):
    repeat = 1 if method.slow else repeat
    if not shutil.which(method.program):
        raise RuntimeError(f"{method.program} is not installed")
    encode_seconds, decode_seconds = [0.0] * repeat, [0.0] * repeat
    row.size, row.mebibytes, row.exact = 0, 0.0, True
    with tempfile.TemporaryDirectory(prefix="siltstone-peers-", dir=work) as folder:
        patch, result = Path(folder, "patch"), Path(folder, "result")
        for old, new in pairs:
            for number in range(repeat):
                encoded = commands.run(method.encode_command(old, new, patch))
                decoded = commands.run(method.decode_command(old, patch, result))
                encode_seconds[number] += encoded.seconds
                decode_seconds[number] += decoded.seconds
                row.mebibytes = max(row.mebibytes, encoded.mebibytes, decoded.mebibytes)
            row.size += patch.stat().st_size
            row.exact = row.exact and filecmp.cmp(result, new, shallow=False)
    row.encode_speed = speed(dense, statistics.median(encode_seconds))
    row.decode_speed = speed(dense, statistics.median(decode_seconds))


class Ours:
    """`siltstone bench`, a process per codec and pair; memory is beyond that of a pair without changes."""

    def __init__(self, program, pairs, earlier, repeat):
        self.program, self.pairs, self.repeat = program, pairs, repeat
        self.earlier = earlier  # what came before each pair; empty: not known

    def options(self, number):
        return ("--earlier", self.earlier[number]) if self.earlier else ()

    def bench(self, old, new, *options):
        done = commands.run([self.program, "bench", old, new, "--json", "--quiet", *options])
        return json.loads(done.output), done.mebibytes

    @staticmethod
    def title(name):
        return f"Siltstone effort {name}" if name in EFFORTS else f"Siltstone `{name}`"

    def rows(self):
        old = self.pairs[0][0]
        report, self.loaded = self.bench(old, old, "--rounds", 1, *self.options(0))
        return [Row(f"{OURS}-{result['name']}", self.title(result["name"])) for result in report["results"]]

    def measure(self, row):
        """Returns the facts of the pairs."""
        facts = dict.fromkeys(("dense", "words", "changed", "tensors"), 0)
        row.size, row.mebibytes, row.exact = 0, 0.0, True
        encode_seconds = decode_seconds = 0.0
        for number, (old, new) in enumerate(self.pairs):
            report, peak = self.bench(old, new, "--codec", row.name[len(OURS) + 1:], "--rounds", self.repeat,
                                      *self.options(number))
            for fact, key in (("dense", "dense_bytes"), ("words", "elements"), ("changed", "changed_elements"),
                              ("tensors", "tensors")):
                facts[fact] += report[key]
            (result,) = report["results"]
            row.size += result["section_bytes"]
            row.exact = row.exact and result["exact"]
            encode_seconds += result["encode_seconds"]
            decode_seconds += result["decode_seconds"]
            row.mebibytes = max(row.mebibytes, peak - self.loaded)
        row.encode_speed = speed(facts["dense"], encode_seconds)
        row.decode_speed = speed(facts["dense"], decode_seconds)
        return facts


def catalogue():
    rows = [Row(*fields) for fields in run_worker("--list")]
    return rows + [Row(m.name, m.title, m.stands_for) for m in commands.METHODS.values()]


def is_ours(name):
    return name == OURS or name.startswith(OURS + "-")


def wanted(arguments, row):
    family = {row.name} | ({OURS} if is_ours(row.name) else set())
    if family & set(arguments.skip):
        return False
    return not arguments.methods or bool(family & set(arguments.methods))


def only_ours(arguments):
    return bool(arguments.methods) and all(map(is_ours, arguments.methods))


def check_names(arguments, rows):
    named = set(arguments.methods or []) | set(arguments.skip)
    unknown = {name for name in named if not is_ours(name)} - {row.name for row in rows}
    if unknown:
        sys.exit(f"peers: no method {', '.join(sorted(unknown))}; --list names them")


def attempt(row, work):
    print(f"peers: {row.name}", file=sys.stderr, flush=True)
    try:
        return work()
    except (RuntimeError, OSError) as error:
        row.failure = f"fails: {error}"
        return None


def measure(arguments, pairs, earlier=()):
    """Returns the rows and the facts of the pairs; `earlier` are the checkpoints before them."""
    rows, facts = [], None
    if arguments.siltstone:
        ours = Ours(arguments.siltstone, pairs, earlier, arguments.repeat)
        for row in ours.rows():
            if wanted(arguments, row):
                rows.append(row)
                facts = attempt(row, lambda row=row: ours.measure(row)) or facts
    if only_ours(arguments):
        return rows, facts
    others = catalogue()
    check_names(arguments, others)
    counted = run_worker("count", *flat(pairs))
    if facts and any(facts[key] != counted[key] for key in ("dense", "words", "changed")):
        sys.exit(f"peers: siltstone counts {facts}, the others count {counted}")
    facts = facts or counted
    for row in others:
        if not wanted(arguments, row):
            continue
        rows.append(row)
        command = commands.METHODS.get(row.name)
        if command and command.slow and facts["dense"] / len(pairs) > LARGE and not arguments.methods:
            row.failure = "left out above 512 MiB: slow"
        elif command:
            attempt(row, lambda row=row, command=command: measure_command(
                row, command, pairs, arguments.repeat, facts["dense"], arguments.work))
        else:
            attempt(row, lambda row=row: measure_tensors(row, pairs, arguments.repeat, facts["dense"]))
    return rows, facts


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--pair", nargs=2, type=Path, metavar=("OLD", "NEW"))
    source.add_argument("--trace", type=Path)
    default = HERE.parents[1] / "build/siltstone"
    parser.add_argument("--siltstone", type=Path, default=default if default.exists() else None,
                        help="our program (default: build/siltstone of this checkout, if it is there)")
    parser.add_argument("--markdown", type=Path, default=None, help="put the table into this file")
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--skip", nargs="+", default=[])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--heading", default=None)
    parser.add_argument("--work", type=Path, default=None, help="folder for temporary files")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse()
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing and not only_ours(arguments):
        sys.exit(f"peers: {sys.executable} lacks {', '.join(missing)}; see bench/peers/requirements.txt")
    if arguments.list:
        for row in catalogue():
            print(f"{row.name:<20} {row.title} ({row.stands_for})")
        return 0
    if arguments.repeat < 1:
        sys.exit("peers: --repeat is at least 1")
    earlier = []
    if arguments.trace:
        paths = checkpoints.trace_paths(arguments.trace)
        pairs = list(zip(paths, paths[1:]))
        if len(pairs) > 1:
            earlier, pairs = paths, pairs[1:]
    elif arguments.pair:
        pairs = [tuple(arguments.pair)]
    else:
        sys.exit("peers: give --pair OLD NEW or --trace FOLDER")

    rows, facts = measure(arguments, pairs, earlier)
    if facts is None:
        sys.exit(f"peers: {next((row.failure for row in rows), 'nothing to measure: no program, no method')}")
    heading = arguments.heading or (arguments.trace or pairs[0][1].parent).name
    lines = tables.section(heading, rows, facts, len(pairs), arguments.repeat)
    print("\n".join(lines))
    if arguments.markdown:
        text = arguments.markdown.read_text() if arguments.markdown.exists() else ""
        arguments.markdown.write_text(tables.merged(text, lines))
    return 0 if all(row.exact for row in rows if not row.failure) else 1


if __name__ == "__main__":
    sys.exit(main())
