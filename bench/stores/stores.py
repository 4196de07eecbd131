#!/usr/bin/env python3
"""Publishing to and fetching from an S3 server, beside `aws s3 cp` of the same bytes and one conditional PUT.

usage: stores.py [--mib 100] [--rounds 5] [--rate MIB] [--build build]

A Ceph gateway with its objects in memory runs on loopback (tests/servers). A model of 33 tensors, of which a third changes
in nearly every word, makes a delta of about --mib MiB. Each round, taking turns who goes first:
  publish   `siltstone publish` of one step, with its base in the cache on disk
  up        `aws s3 cp` of a file of as many bytes as that delta has
  fetch     the objects of that step are fetched and proven by SHA-256 (bench/stores/fetch.cc, its own time)
  apply     a replica in memory takes that step: fetch again, decode, prove, apply (the same)
  waited    the same where decoding waits for all of the delta; "overlap" is its ratio to apply
  down      `aws s3 cp` of the same file back
  pull      `siltstone pull` of that step into a folder, which writes the whole model anew
Wall time of whole commands where not said otherwise, so interpreter start is in aws's; what `aws --version` takes is
printed beside, and "fetch ratio" is taken without it. --rate limits fetch, apply and waited to so many MiB/s.
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
STEPPING = 32  # tensors


def words_of(mebibytes, seed):
    """bf16 words of one exponent range, drawn anew: nearly every one differs from those of another seed."""
    source = random.Random(seed)
    words = bytearray(b"".join(source.randbytes(1 << 20) for _ in range(mebibytes)))
    words[1::2] = words[1::2].translate(bytes(0x3C | (value & 0x81) for value in range(256)))
    return words


def write_model(folder, frozen, moving):
    """A step changes the moving tensors alone, so that the delta is far below half the model."""
    folder.mkdir()
    header, at = {}, 0
    rows = len(moving) // 2 // ROW
    cuts = [rows * i // STEPPING * 2 * ROW for i in range(STEPPING + 1)]
    tensors = [("frozen", frozen)]
    tensors += [(f"moving.{i:02}", moving[begin:end]) for i, (begin, end) in enumerate(zip(cuts, cuts[1:]))]
    for name, words in tensors:
        header[name] = {"dtype": "BF16", "shape": [len(words) // 2 // ROW, ROW], "data_offsets": [at, at + len(words)]}
        at += len(words)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + frozen + moving)


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
        self.url, self.endpoint = "s3://bench/model", ceph.endpoint
        self.rows = []

    def siltstone(self, *words):
        return seconds([self.program, *words, "--json"], self.env)

    def fetch(self, url):
        program = ROOT / self.options.build / "bench/stores/fetch"
        return map(float, seconds([program, url, "main@0", "main@1", self.options.rate << 20], self.env)[1].split())

    def aws(self, *words):
        return seconds(["aws", "s3", "cp", "--only-show-errors", *words], self.env)[0]

    def round(self, number):
        """In a bucket of its own, so that no delta comes after so many that an anchor is due."""
        url, replica = f"{self.url}-{number}?endpoint={self.endpoint}", self.work / "replica"
        models = [self.work / name for name in ("before", "after")]
        for seed, model in enumerate(models):
            write_model(model, self.frozen, words_of(self.options.mib * 16 // 10, 2 * number + seed))
        self.siltstone("init", url)
        self.siltstone("publish", url, models[0])
        self.siltstone("pull", url, replica)
        flat, down_to = self.work / "flat", self.work / "down"
        (publish, report), up = in_turn(number, lambda: self.siltstone("publish", url, models[1]),
                                        lambda: self.aws(flat, f"s3://bench/flat{number}"))
        report = json.loads(report)
        assert report["kind"] == "delta" and not report["anchor_written"]
        start = seconds(["aws", "--version"], self.env)[0]
        (fetch, apply, waited), down = in_turn(number, lambda: self.fetch(url),
                              lambda: self.aws(f"s3://bench/flat{number}", down_to))
        pull = self.siltstone("pull", url, replica)[0]
        for folder in (*models, replica):
            shutil.rmtree(folder)
        share = report["bytes_written"] / flat.stat().st_size
        self.rows.append({"mib": report["bytes_written"] / 2**20, "publish": publish, "up": up, "fetch": fetch, "apply": apply, "waited": waited,
                          "down": down, "pull": pull, "publish ratio": up * share / publish,
                          "fetch ratio": (down - start) * share / fetch, "overlap": waited / apply})
        print("  ".join(f"{name} {value:.2f}" for name, value in self.rows[-1].items()), flush=True)

    def run(self):
        self.frozen = words_of(self.options.mib * 3, 10**6)
        (self.work / "flat").write_bytes(random.Random(0).randbytes(self.options.mib << 20))
        for number in range(self.options.rounds):
            self.round(number)
        for name in self.rows[0]:
            print(f"median {name}: {statistics.median(row[name] for row in self.rows):.2f}")
        starts = [seconds(["aws", "--version"], self.env)[0] for _ in range(5)]
        print(f"aws --version takes {statistics.median(starts):.2f} s")
        commit = ROOT / self.options.build / "bench/stores/empty_commit"
        print(seconds([commit, f"s3://bench/commits?endpoint={self.endpoint}"], self.env)[1], end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=100, help="of a delta")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=0, help="MiB per second; 0: no limit")
    parser.add_argument("--build", default="build")
    options = parser.parse_args()
    with Ceph() as ceph, tempfile.TemporaryDirectory(prefix="siltstone-bench-") as work:
        ceph.create_bucket("bench")
        Bench(options, ceph, Path(work)).run()


if __name__ == "__main__":
    main()
