#!/usr/bin/env python3
"""Compares a replica, byte by byte, with the files the trainer wrote for the same version.

`siltstone pull --follow --on-update` runs this after each version. It shares no code with the
program: a few lines read safetensors headers, and the bytes themselves are compared, no digest.
One JSON line per version goes to the proof log; the exit status is 0 only for a proof.
"""

import argparse
import json
import os
import pathlib
import struct
import sys
import time

CHUNK_BYTES = 1 << 22


def read_header(file):
    """The header of an open safetensors file and where its data starts."""
    length = struct.unpack("<Q", file.read(8))[0]
    return json.loads(file.read(length)), 8 + length


def same_range(a, a_offset, b, b_offset, length):
    a.seek(a_offset)
    b.seek(b_offset)
    while length > 0:
        want = min(length, CHUNK_BYTES)
        left, right = a.read(want), b.read(want)
        if len(left) != want or left != right:
            return False
        length -= want
    return True


def compare_weights(a_path, b_path, problems):
    """Every byte of every tensor. Returns (tensors, bytes compared)."""
    with open(a_path, "rb") as a, open(b_path, "rb") as b:
        (a_header, a_data), (b_header, b_data) = read_header(a), read_header(b)
        a_header.pop("__metadata__", None)
        b_header.pop("__metadata__", None)
        if set(a_header) != set(b_header):
            problems.append(f"{a_path.name}: not the same tensors")
            return 0, 0
        compared = 0
        for name, ours in sorted(a_header.items()):
            theirs = b_header[name]
            if (ours["dtype"], ours["shape"]) != (theirs["dtype"], theirs["shape"]):
                problems.append(f"{name}: not the same dtype and shape")
                continue
            (a_start, a_end), (b_start, b_end) = ours["data_offsets"], theirs["data_offsets"]
            if a_end - a_start != b_end - b_start or not same_range(
                    a, a_data + a_start, b, b_data + b_start, a_end - a_start):
                problems.append(f"{name}: bytes differ")
                continue
            compared += a_end - a_start
        return len(a_header), compared


def same_file(a_path, b_path):
    size = a_path.stat().st_size
    if size != b_path.stat().st_size:
        return False
    with open(a_path, "rb") as a, open(b_path, "rb") as b:
        return same_range(a, 0, b, 0, size)


def files_of(folder):
    """Paths below a folder; hidden ones belong to the program that keeps the folder."""
    found = set()
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            found.add(relative)
    return found


def compare_folders(trainer, replica):
    """Returns (tensors, tensor bytes, files, problems); no problems means bit-identical."""
    problems = []
    wanted, found = files_of(trainer), files_of(replica)
    if not wanted:
        problems.append(f"{trainer}: the trainer wrote nothing there")
    for missing in sorted(wanted - found):
        problems.append(f"{missing}: missing in the replica")
    for extra in sorted(found - wanted):
        problems.append(f"{extra}: the trainer wrote no such file")
    tensors = compared = 0
    for relative in sorted(wanted & found):
        if relative.suffix == ".safetensors":
            count, size = compare_weights(trainer / relative, replica / relative, problems)
            tensors, compared = tensors + count, compared + size
        if not same_file(trainer / relative, replica / relative):
            problems.append(f"{relative}: files differ")
    if tensors == 0:
        problems.append("no tensor was compared")
    return tensors, compared, len(wanted), problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainer", type=pathlib.Path, required=True,
                        help="folder that holds step_NNNN; version main@N is step N")
    parser.add_argument("--log", type=pathlib.Path, required=True, help="proof log to append to")
    options = parser.parse_args()

    version = os.environ["SILTSTONE_VERSION"]
    sequence = int(version.rpartition("@")[2])
    start = time.monotonic()
    tensors, size, files, problems = compare_folders(
        options.trainer / f"step_{sequence:04d}", pathlib.Path(os.environ["SILTSTONE_DIR"]))
    line = {"version": version, "proven": not problems, "tensors": tensors,
            "tensor_bytes": size, "files": files, "problems": problems[:5],
            "root": os.environ.get("SILTSTONE_ROOT", ""),
            "seconds": round(time.monotonic() - start, 3)}
    with open(options.log, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    for problem in problems[:5]:
        print(f"prove: {version}: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
