#!/usr/bin/env python3
"""Publishing to and fetching from an S3 server, beside `aws s3 cp` of the same bytes and one conditional PUT.

usage: stores.py [--mib 100] [--rounds 7] [--build build]

A Ceph gateway with its objects in memory runs on loopback (tests/servers). A model whose words all change each
step makes deltas of about --mib MiB. Each round, taking turns who goes first:
  publish   `siltstone publish` of one step, with its base in the cache on disk
  up        `aws s3 cp` of a file of as many bytes as that delta has
  pull      `siltstone pull` of that step into a folder that holds the one before: fetch, prove, decode, write
  down      `aws s3 cp` of the same file back
Wall time of whole commands, so interpreter start is in aws's; what `aws --version` takes is printed beside it.
"""

import argparse
import json
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from servers.ceph import Ceph  # noqa: E402 - found through the path above

ROW = 4096


def write_model(folder, mebibytes, seed):
    """bf16 words of one exponent range, drawn anew: nearly every word differs from the last model's."""
    folder.mkdir()
    size = mebibytes << 20
    words = bytearray(random.Random(seed).randbytes(size))
    words[1::2] = words[1::2].translate(bytes(0x3C | (value & 0x81) for value in range(256)))
    rows = size // 2 // ROW
    header = json.dumps({"w": {"dtype": "BF16", "shape": [rows, ROW], "data_offsets": [0, rows * ROW * 2]}}).encode()
    header += b" " * (-len(header) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + words[: rows * ROW * 2])


def seconds(command, env):
    begin = time.perf_counter()
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr}")
    return time.perf_counter() - begin, done.stdout


def in_turn(number, first, second):
    """Both results, in the order given; who runs first alternates."""
    if number % 2 == 0:
        one = first()
        return one, second()
    two = second()
    return first(), two


class Bench:
    def __init__(self, options, ceph, work):
        self.options, self.work = options, work
        self.program = ROOT / options.build / "siltstone"
        self.env = dict(ceph.environment(), SILTSTONE_CACHE=str(work / "cache"))
        self.url = f"s3://bench/model?endpoint={ceph.endpoint}"
        self.rows = []

    def siltstone(self, *words):
        return seconds([self.program, *words, "--json"], self.env)

    def aws(self, *words):
        return seconds(["aws", "s3", "cp", "--only-show-errors", *words], self.env)[0]

    def round(self, number):
        model = self.work / f"model{number}"
        write_model(model, self.options.model_mib, number)
        flat = self.work / "flat"
        if not flat.exists():
            flat.write_bytes(random.Random(0).randbytes(self.options.mib << 20))
        (publish, report), up = in_turn(number, lambda: self.siltstone("publish", self.url, model),
                                        lambda: self.aws(flat, f"s3://bench/flat{number}"))
        shipped = json.loads(report)["section_bytes"]
        (pull, _), down = in_turn(number, lambda: self.siltstone("pull", self.url, self.work / "replica"),
                                  lambda: self.aws(f"s3://bench/flat{number}", self.work / "down"))
        shutil.rmtree(model)
        scale = (self.options.mib << 20) / shipped
        self.rows.append({"mib": shipped / 2**20, "publish": publish, "up": up, "pull": pull, "down": down,
                          "publish ratio": up / (publish * scale), "fetch ratio": down / (pull * scale)})
        print("  ".join(f"{name} {value:.2f}" for name, value in self.rows[-1].items()), flush=True)

    def run(self):
        first = self.work / "first"
        write_model(first, self.options.model_mib, 10**6)
        self.siltstone("init", self.url)
        self.siltstone("publish", self.url, first)
        self.siltstone("pull", self.url, self.work / "replica")
        for number in range(self.options.rounds):
            self.round(number)
        for name in self.rows[0]:
            print(f"median {name}: {statistics.median(row[name] for row in self.rows):.2f}")
        print(f"aws --version takes {statistics.median(seconds(['aws', '--version'], self.env)[0] for _ in range(5)):.2f} s")
        commit = ROOT / self.options.build / "bench/stores/empty_commit"
        print(seconds([commit, self.url.replace("/model", "/commits")], self.env)[1], end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=100, help="of a delta")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--build", default="build")
    options = parser.parse_args()
    options.model_mib = options.mib * 16 // 9  # what a delta of them weighs: eight mantissa and sign bits, and one
    with Ceph() as ceph, tempfile.TemporaryDirectory(prefix="siltstone-bench-") as work:
        ceph.create_bucket("bench")
        Bench(options, ceph, Path(work)).run()


if __name__ == "__main__":
    main()
