"""Reads safetensors files as raw bytes, tensor by tensor. Standard library only."""

import json
import math
import struct
from pathlib import Path
from typing import NamedTuple

DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2,
               "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


class Entry(NamedTuple):
    name: str
    dtype: str
    shape: tuple
    offset: int
    size: int

    @property
    def word_bytes(self):
        return DTYPE_BYTES[self.dtype]


class Checkpoint:
    def __init__(self, path):
        self.path = Path(path)
        self.file = self.path.open("rb", buffering=0)
        try:
            self.entries = self.read_entries()
        except Exception:
            self.close()
            raise

    def read_entries(self):
        (length,) = struct.unpack("<Q", self.file.read(8))
        header = json.loads(self.file.read(length))
        header.pop("__metadata__", None)
        entries = {}
        for name, fields in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = fields["data_offsets"]
            entry = Entry(name, fields["dtype"], tuple(fields["shape"]), 8 + length + begin, end - begin)
            if entry.size != math.prod(entry.shape) * entry.word_bytes:
                raise ValueError(f"{self.path}: {name}: size and shape disagree")
            entries[name] = entry
        return entries

    def read_into(self, entry, buffer):
        view = memoryview(buffer).cast("B")
        self.file.seek(entry.offset)
        filled = 0
        while filled < len(view):
            count = self.file.readinto(view[filled:])
            if not count:
                raise ValueError(f"{self.path}: {entry.name}: short file")
            filled += count

    def close(self):
        self.file.close()


def shared_entries(old, new):
    """Pairs of entries with equal name, dtype and shape, in the order of the new file; empty ones left out."""
    pairs = []
    for entry in new.entries.values():
        other = old.entries.get(entry.name)
        if other and other.dtype == entry.dtype and other.shape == entry.shape and entry.size:
            pairs.append((other, entry))
    return pairs


def header_bytes(tensors):
    """What stands before the data of a file of these tensors, name -> (dtype, shape), in this order."""
    header, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_checkpoint(path, tensors):
    """tensors: name -> (dtype, shape, bytes)."""
    for name, (dtype, shape, data) in tensors.items():
        if len(data) != math.prod(shape) * DTYPE_BYTES[dtype]:
            raise ValueError(f"{path}: {name}: size and shape disagree")
    with open(path, "wb") as file:
        file.write(header_bytes({name: fields[:2] for name, fields in tensors.items()}))
        for _, _, data in tensors.values():
            file.write(data)


def trace_paths(folder):
    paths = sorted(Path(folder).glob("*/model.safetensors"))
    if len(paths) < 2:
        raise ValueError(f"{folder}: fewer than two */model.safetensors")
    return paths
