"""Tensor sums and state roots, written from docs/format/digest.md. Standard library only."""

import hashlib
import struct

_MASK = (1 << 64) - 1
_MASK32 = (1 << 32) - 1


def _splitmix64(state):
    z = (state + 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return z ^ z >> 31


_KEYS = [_splitmix64((0x53494C5453544F4E + i * 0x9E3779B97F4A7C15) & _MASK) for i in range(1056)]


def _term(word, key):
    low = (word + key) & _MASK32
    high = ((word >> 32) + (key >> 32)) & _MASK32
    return low * high


def sum_at(data, offset=0):
    """(a, b) of bytes that start at byte `offset` (a multiple of 8) of their tensor."""
    data = bytes(data) + bytes(-len(data) % 8)
    a = b = 0
    for number, (word,) in enumerate(struct.iter_unpack("<Q", data), offset // 8):
        block, j = divmod(number, 1024)
        a += _term(word, _KEYS[j]) * (_splitmix64(block) | 1)
        b += _term(word, _KEYS[j + 32]) * (_splitmix64(~block & _MASK) | 1)
    return a & _MASK, b & _MASK


def add(*sums):
    return sum(a for a, _ in sums) & _MASK, sum(b for _, b in sums) & _MASK


def subtract(x, y):
    return (x[0] - y[0]) & _MASK, (x[1] - y[1]) & _MASK


def text(total):
    return struct.pack("<QQ", *total).hex()


def root(rows):
    """Hexadecimal root of rows (name, dtype code, shape, sum)."""
    sha = hashlib.sha256(b"siltstone-state-v1\n")
    for name, code, shape, total in sorted(rows, key=lambda row: row[0].encode()):
        name = name.encode()
        sha.update(struct.pack("<I", len(name)) + name + bytes([code, len(shape)]))
        sha.update(struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<QQ", *total))
    return sha.hexdigest()
