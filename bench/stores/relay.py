#!/usr/bin/env python3
"""What a relay serves to 200 connections, beside nginx with the same files.

usage: relay.py [--rounds 5] [--seconds 2] [--build build]

A bucket in a directory holds one version: packs of 16 MiB, a commit, companion files. wrk (Debian's package) asks one
server after the other, on loopback, over 200 kept connections, for
  commit      the newest commit, about 1 KiB
  1 MiB       a companion file of that size
  16 MiB      an object of that size
  4 MiB range what a replica asks for: a range in the middle of an object of 128 MiB
and then 200 replicas, with a connection each, fetch and prove all of the version (bench/stores/replicas.cc).
Who goes first alternates. Prints MB/s of both as medians, and the median of the paired ratios; then how many times the
relay fetched each object while 200 clients asked for all of them at once, and its memory before and after.
"""

import argparse
import json
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from servers.nginx import Nginx  # noqa: E402 - found through the path above

CLIENTS = 200
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "B": 1}


def write_model(folder, source):
    folder.mkdir()
    header, data, at = {}, [], 0
    for name, mebibytes in (("small", 16), ("large", 128)):
        size = mebibytes << 20
        header[name] = {"dtype": "U8", "shape": [size >> 12, 1 << 12], "data_offsets": [at, at + size]}
        data += [source.randbytes(1 << 20) for _ in range(mebibytes)]
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    (folder / "tokenizer.json").write_bytes(source.randbytes(1 << 20))


def rate_of(url, seconds, header):
    """MB/s that wrk sees."""
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "60s", url]
    if header:
        command[1:1] = ["-H", header]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    number, unit = re.search(r"Transfer/sec:\s*([\d.]+)(KB|MB|GB|B)", out).groups()
    return float(number) * UNITS[unit] / 1e6


def memory_of(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s*(\d+)", status)[1]) / 1024


def metric(url, name):
    with urllib.request.urlopen(url + "/metrics") as reply:
        return float(re.search(rf"^{name} (\S+)$", reply.read().decode(), re.M)[1])


def ask_all(url, names):
    """Every client fetches every object, all at once."""
    def client():
        for name in names:
            with urllib.request.urlopen(f"{url}/{name}") as reply:
                while reply.read(1 << 20):
                    pass
    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of one run of wrk")
    parser.add_argument("--build", default="build")
    options = parser.parse_args()
    program = ROOT / options.build / "siltstone"
    with tempfile.TemporaryDirectory(prefix="siltstone-bench-") as scratch:
        work, bucket = Path(scratch), Path(scratch) / "bucket"
        write_model(work / "model", random.Random(1))
        for words in (["init", bucket], ["publish", bucket, work / "model", "--no-cache", "-q"]):
            subprocess.run([program, *words], check=True, stdout=subprocess.DEVNULL)
        names = sorted(str(path.relative_to(bucket)) for path in bucket.rglob("*")
                       if path.is_file() and path.parent != bucket / "head" and ".tmp~" not in str(path))
        sizes = {name: (bucket / name).stat().st_size for name in names}
        relay = subprocess.Popen([program, "relay", bucket, "--listen", "127.0.0.1:0", "--cache", work / "cache",
                                  "--json"], stdout=subprocess.PIPE, text=True)
        try:
            url = json.loads(relay.stdout.readline())["url"]
            before = memory_of(relay)
            ask_all(url, names)
            fetched = metric(url, "siltstone_relay_fetched_objects_total")
            print(f"{CLIENTS} clients asked for all {len(names)} objects: {fetched:.0f} fetched; "
                  f"memory {before:.0f} -> {memory_of(relay):.0f} MiB", flush=True)
            with Nginx(bucket) as nginx:
                compare(options, url, nginx.endpoint, sizes)
            print(f"memory of the relay at the end: {memory_of(relay):.0f} MiB")
        finally:
            relay.terminate()
            relay.wait()


def rate_of_replicas(options, url):
    program = ROOT / options.build / "bench/stores/replicas"
    return float(subprocess.run([program, url, str(CLIENTS)], check=True, capture_output=True, text=True).stdout)


def in_pairs(options, relay, nginx, rate):
    """[(rate at the relay, rate at nginx)]"""
    pairs = []
    for number in range(options.rounds):
        servers = [relay, nginx] if number % 2 == 0 else [nginx, relay]
        found = {server: rate(server) for server in servers}
        pairs.append((found[relay], found[nginx]))
    return pairs


def report(case, pairs):
    one, other = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(first / second for first, second in pairs)
    print(f"{case}: relay {one:.0f} MB/s, nginx {other:.0f} MB/s, median ratio {ratio:.2f}", flush=True)


def compare(options, relay, nginx, sizes):
    largest = max(sizes, key=sizes.get)
    middle = sizes[largest] // 2
    cases = {"commit": (next(name for name in sizes if name.startswith("log/")), None),
             "1 MiB": (next(name for name in sizes if sizes[name] == 1 << 20), None),
             "4 MiB range": (largest, f"Range: bytes={middle}-{middle + (4 << 20) - 1}"),
             "whole object": (largest, None)}
    for case, (name, header) in cases.items():
        report(f"{case} ({sizes[name]:,} bytes)", in_pairs(
            options, relay, nginx, lambda server: rate_of(f"{server}/{name}", options.seconds, header)))  # noqa: B023
    report(f"{CLIENTS} replicas", in_pairs(options, relay, nginx, lambda server: rate_of_replicas(options, server)))


if __name__ == "__main__":
    main()
