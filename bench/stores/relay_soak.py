#!/usr/bin/env python3
"""Whether a relay's memory stays flat: publishes to a bucket and reads through a relay, for half an hour.

usage: relay_soak.py [--minutes 30] [--clients 50] [--build build]

Every two seconds a version of a model of 8 MiB is published into a directory. The clients wait for it at the relay
(Prefer: wait), then fetch its commit and its objects, some of them in ranges, some of them only half before they hang up.
The cache is bounded to 64 MB, so that it evicts all the time. Prints the relay's resident memory every minute, and the
least and the most of the second quarter of the time and of the last. What is being sent comes and goes (half a MiB a
client at most), what leaks stays: it fails if the least grew by more than a tenth.
"""

import argparse
import http.client
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = 4 << 10


def write_model(folder, words):
    folder.mkdir(exist_ok=True)
    text = json.dumps({"w": {"dtype": "BF16", "shape": [len(words) // 2 // ROWS, ROWS],
                             "data_offsets": [0, len(words)]}}).encode()
    text += b" " * (-len(text) % 8)
    part = folder / "model.safetensors.part"
    part.write_bytes(struct.pack("<Q", len(text)) + text + words)
    part.rename(folder / "model.safetensors")


def memory_of(process):
    """Resident MiB without mapped files, which belong to the page cache."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"RssAnon:\s*(\d+)", status)[1]) / 1024


class Client(threading.Thread):
    def __init__(self, address, number, until):
        super().__init__(daemon=True)
        self.address, self.until, self.random = address, until, random.Random(number)
        self.objects = self.versions = 0
        self.failure = None

    def run(self):
        try:
            connection, seq = http.client.HTTPConnection(self.address, timeout=120), 0
            while time.monotonic() < self.until:
                seq = self.follow(connection, seq)
        except Exception as failure:  # noqa: BLE001 - told by the main thread
            self.failure = failure

    def follow(self, connection, seq):
        connection.request("GET", f"/log/main/{seq:020d}.json", headers={"Prefer": "wait=20"})
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            return seq
        for artifact in json.loads(content)["artifacts"]:
            for item in artifact.get("objects", []):
                self.fetch(connection, item["key"], item["length"])
        self.versions += 1
        return seq + 1

    def fetch(self, connection, key, length):
        headers, half = {}, self.random.random() < 0.1
        if self.random.random() < 0.5:
            begin = self.random.randrange(length)
            headers["Range"] = f"bytes={begin}-{length - 1}"
        connection.request("GET", f"/{key}", headers=headers)
        reply = connection.getresponse()
        if half:
            reply.read(length // 4)
            connection.close()  # and is opened anew by the next request
        else:
            reply.read()
        self.objects += 1


def publish_until(end, program, bucket, model, words):
    source, version = random.Random(5), 0
    while time.monotonic() < end:
        for _ in range(20_000):
            words[2 * source.randrange(len(words) // 2)] ^= 1
        write_model(model, words)
        subprocess.run([program, "publish", bucket, model, "-q"], check=True, stdout=subprocess.DEVNULL)
        version += 1
        time.sleep(2)
    return version


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--build", default="build")
    options = parser.parse_args()
    program = ROOT / options.build / "siltstone"
    with tempfile.TemporaryDirectory(prefix="siltstone-soak-") as scratch:
        os.environ["SILTSTONE_CACHE"] = scratch + "/base"
        bucket, end = Path(scratch) / "bucket", time.monotonic() + 60 * options.minutes
        subprocess.run([program, "init", bucket, "-q"], check=True, stdout=subprocess.DEVNULL)
        relay = subprocess.Popen([program, "relay", bucket, "--listen", "127.0.0.1:0", "--cache", scratch + "/cache",
                                  "--cache-size", "64MB", "--interval", "0.5", "--json"], stdout=subprocess.PIPE,
                                 text=True)
        try:
            soak(options, program, bucket, Path(scratch) / "model", relay, end)
        finally:
            relay.terminate()
            relay.wait()


def soak(options, program, bucket, model, relay, end):
    address = json.loads(relay.stdout.readline())["url"].removeprefix("http://")
    clients = [Client(address, number, end) for number in range(options.clients)]
    writer = threading.Thread(target=publish_until, args=(end, program, bucket, model, bytearray(8 << 20)), daemon=True)
    for thread in (*clients, writer):
        thread.start()
    samples, begin = [], time.monotonic()
    while time.monotonic() < end:
        time.sleep(min(5, max(0.1, end - time.monotonic())))
        samples.append(memory_of(relay))
        if len(samples) % 12 == 0:
            print(f"{(time.monotonic() - begin) / 60:.0f} min: {samples[-1]:.1f} MiB, "
                  f"{sum(client.objects for client in clients)} objects served", flush=True)
    for thread in (*clients, writer):
        thread.join(180)
    failures = [str(client.failure) for client in clients if client.failure]
    quarter = len(samples) // 4
    early, late = samples[quarter:2 * quarter], samples[-quarter:]
    for name, part in (("second", early), ("last", late)):
        print(f"{name} quarter: {min(part):.1f} to {max(part):.1f} MiB")
    if failures or min(late) > 1.1 * min(early):
        sys.exit(f"the relay's memory grew, or {len(failures)} clients failed: {failures[:3]}")


if __name__ == "__main__":
    main()
