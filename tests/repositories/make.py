#!/usr/bin/env python3
"""Makes the archive of a small repository that later programs must open for ever.

usage: make.py SILTSTONE OUT.tar     (run once per released format; the archive is checked in)

Beside the tar stands OUT.json: for every version the SHA-256 of each of its files. Standard library only.
"""

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TENSORS = {
    "blocks.0.weight": ("BF16", [96, 64], 12288),
    "blocks.0.bias": ("F32", [33], 132),
    "counts": ("I64", [5], 40),
    "mask": ("BOOL", [7], 7),
    "quantised": ("F8_E4M3", [64, 8], 512),
    "packed": ("F4", [10], 5),
    "scalar": ("F16", [], 2),
    "empty": ("F32", [0, 4], 0),
}


# Another set of tensors begins with an anchor: this one makes a packed one.
PACKED_STEP = 7
LATER_TENSORS = TENSORS | {"blocks.1.weight": ("BF16", [64, 64], 8192)}


def write(folder, tensors, state, config):
    folder.mkdir(parents=True)
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += state[name]
    text = json.dumps(header).encode() + b"   "
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(config)


def main():
    program, out = sys.argv[1], Path(sys.argv[2])
    rng = random.Random(1)
    state = {name: bytearray(rng.randbytes(size)) for name, (_, _, size) in TENSORS.items()}
    expected = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        env = dict(os.environ, SILTSTONE_CACHE=str(work / "cache"))
        run = lambda *words: subprocess.run([program, *map(str, words)], check=True, env=env, stdout=subprocess.DEVNULL)
        run("init", work / "bucket")
        codecs = [None, "raw", "step", "dense", "class", "dense_delta", None, None, None]
        for step, codec in enumerate(codecs):
            folder = work / f"step_{step}"
            options = ["--codec", codec] if codec else []
            tensors = TENSORS
            if step >= PACKED_STEP:
                state.setdefault("blocks.1.weight", bytearray(rng.randbytes(8192)))
                tensors, options = LATER_TENSORS, ["--pack-anchors"]
            write(folder, tensors, state, json.dumps({"hidden_size": 64, "revision": step // 2}))
            run("publish", work / "bucket", folder, "--step", step, "-m", f"step {step}", *options)
            expected[f"main@{step}"] = {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
            for words in state.values():
                for _ in range(len(words) // 50 + (1 if words else 0)):
                    words[rng.randrange(len(words))] ^= 1 << rng.randrange(8)
        run("tag", work / "bucket", "release", "main@2")
        run("branch", work / "bucket", "experiment", "main@1")
        with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
            archive.add(work / "bucket", "bucket", filter=lambda info: None if ".tmp~" in info.name else info)
    out.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
