#!/usr/bin/env python3
"""A second reader of delta packs, written from docs/format/*.md alone. Standard library only.

usage: decode.py PACK --tensor NAME --dtype BF16 --shape 2,5 --old FILE --out FILE

Applies what the pack holds for one tensor to the tensor's old bytes and writes the new ones. It proves
checksums and sums on the way and refuses whatever the documents say a reader must refuse.
"""

import argparse
import json
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import digest  # noqa: E402
import zstd  # noqa: E402
from xxh64 import xxh64  # noqa: E402


class FormatError(ValueError):
    """Bytes that break a rule of the documents. `code` is "corrupt" or "unsupported"."""

    def __init__(self, message, code="corrupt"):
        super().__init__(message)
        self.code = code


def need(condition, message, code="corrupt"):
    if not condition:
        raise FormatError(message, code)


# name: (code, bits of an element, bytes of a word, order)
DTYPES = {
    "BOOL": (1, 8, 1, "unsigned"), "F4": (2, 4, 1, "unsigned"), "F6_E2M3": (3, 6, 1, "unsigned"),
    "F6_E3M2": (4, 6, 1, "unsigned"), "U8": (5, 8, 1, "unsigned"), "I8": (6, 8, 1, "signed"),
    "F8_E5M2": (7, 8, 1, "sign-magnitude"), "F8_E4M3": (8, 8, 1, "sign-magnitude"),
    "F8_E8M0": (9, 8, 1, "unsigned"), "F8_E4M3FNUZ": (10, 8, 1, "sign-magnitude"),
    "F8_E5M2FNUZ": (11, 8, 1, "sign-magnitude"), "I16": (12, 16, 2, "signed"),
    "U16": (13, 16, 2, "unsigned"), "F16": (14, 16, 2, "sign-magnitude"),
    "BF16": (15, 16, 2, "sign-magnitude"), "I32": (16, 32, 4, "signed"), "U32": (17, 32, 4, "unsigned"),
    "F32": (18, 32, 4, "sign-magnitude"), "C64": (19, 64, 8, "unsigned"),
    "F64": (20, 64, 8, "sign-magnitude"), "I64": (21, 64, 8, "signed"), "U64": (22, 64, 8, "unsigned"),
}
HEADER = struct.Struct("<4sBBHBBHIQQQQQQ16s16sQ")
NEEDS = {1: 0, 2: 1, 3: 0}


def matrix(dtype, shape):
    """(rows, columns) in words."""
    _, bits, word, _ = DTYPES[dtype]
    elements = 1
    for dimension in shape:
        elements *= dimension
    if bits < 8:
        return elements * bits // 8, 1
    if elements == 0:
        return 0, 0
    if len(shape) < 2:
        return elements, 1
    return elements // shape[-1], shape[-1]


def _no_duplicates(pairs):
    keys = [key for key, _ in pairs]
    need(len(keys) == len(set(keys)), "duplicate key")
    return dict(pairs)


def read_pack(data):
    """The entries of a pack: name -> bytes of its sections."""
    need(len(data) >= 8, "no length field")
    length = struct.unpack_from("<Q", data)[0]
    need(length <= 100_000_000 and 8 + length <= len(data), "header is cut off or too long")
    need((8 + length) % 64 == 0, "data do not start at a multiple of 64")
    try:
        text = data[8:8 + length].decode("utf-8")
        need(text.startswith("{"), "header does not start with {")
        header = json.loads(text.rstrip(" "), object_pairs_hook=_no_duplicates)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(f"header: {error}") from error
    metadata = header.pop("__metadata__", None)
    need(isinstance(metadata, dict), "no metadata")
    need("siltstone.format" in metadata, "no format")
    need(metadata["siltstone.format"] == "1", "another format", "unsupported")
    need(metadata.get("siltstone.kind") == "delta", "not a delta")
    need("siltstone.from" in metadata, "no root to start from")
    body, at, entries = data[8 + length:], 0, {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        need(set(entry) == {"dtype", "shape", "data_offsets"}, "keys of an entry")
        begin, end = entry["data_offsets"]
        need(entry["dtype"] == "U8" and entry["shape"] == [end - begin], "an entry is not U8 bytes")
        need(begin == at and end > begin and (end - begin) % 16 == 0, "hole, overlap or odd length")
        need(end <= len(body), "an entry ends behind the pack")
        entries[name] = body[begin:end]
        at = end
    need(at == len(body), "bytes behind the entries")
    return entries


class Section:
    def __init__(self, data, dtype, shape):
        code, _, word, order = DTYPES[dtype]
        need(len(data) >= HEADER.size, "section is cut off")
        (magic, version, log2_block, codec, own_dtype, own_need, reserved, params, length, self.row,
         self.rows, self.col, self.cols, self.changed, before, after, checksum) = HEADER.unpack_from(data)
        need(magic == b"SLTS", "magic")
        need(version != 0, "version 0")
        need(version == 1, "newer version", "unsupported")
        need(13 <= log2_block <= 24, "block size")
        need(codec != 0, "codec 0")
        need(own_dtype in {row[0] for row in DTYPES.values()}, "dtype code", "unsupported")
        need(own_need <= 2, "need", "unsupported")
        need(reserved == 0, "reserved field")
        need(self.rows >= 1 and self.cols >= 1, "empty tile")
        elements = self.rows * self.cols
        own_word = next(row[2] for row in DTYPES.values() if row[0] == own_dtype)
        need(self.row + self.rows < 1 << 64 and self.col + self.cols < 1 << 64 and elements * own_word < 1 << 63,
             "tile overflows")
        need(1 <= self.changed <= elements, "number of changes")
        self.blocks = (elements + (1 << log2_block) - 1) >> log2_block
        first = 104 + 4 * self.blocks + params
        first += -first % 16
        need(length % 16 == 0 and length >= first + 16, "section length")
        need(length <= len(data), "section is cut off")
        self.data = data = data[:length]
        need(xxh64(data[:96] + bytes(8) + data[104:]) == checksum, "checksum")
        need(codec in NEEDS, "unknown codec", "unsupported")
        need(own_need == NEEDS[codec] and params == 0, "need or parameters are not the codec's")
        need(own_dtype == code, "dtype is not the tensor's")
        rows, cols = matrix(dtype, shape)
        need(self.row + self.rows <= rows and self.col + self.cols <= cols, "tile outside the tensor")
        need(not any(data[104 + 4 * self.blocks + params:first]), "padding")
        self.codec, self.word, self.order, self.log2_block = codec, word, order, log2_block
        self.matrix_cols = cols
        self.before = struct.unpack("<QQ", before)
        self.after = struct.unpack("<QQ", after)
        ends = [16 * end for end in struct.unpack_from(f"<{self.blocks}I", data, 104)]
        need(all(x <= y for x, y in zip([0] + ends, ends)), "offsets descend")
        need(first + ends[-1] == length, "last offset is not the section's end")
        self.payloads = [data[first + x:first + y] for x, y in zip([0] + ends, ends)]
        need(sum(1 for payload in self.payloads if payload) <= self.changed, "more blocks than changes")

    def ranges(self):
        """Byte ranges of the tile in its tensor, row by row (one range where rows touch)."""
        line = self.matrix_cols * self.word
        if self.cols == self.matrix_cols:
            return [(self.row * line, (self.row + self.rows) * line)]
        return [(row * line + self.col * self.word, row * line + (self.col + self.cols) * self.word)
                for row in range(self.row, self.row + self.rows)]

    def tile_sum(self, tensor):
        """Sum of the words whose first byte lies in the tile."""
        sums = []
        for begin, end in self.ranges():
            first, last = -(-begin // 8) * 8, min(len(tensor), -(-end // 8) * 8)
            if first < end:
                sums.append(digest.sum_at(tensor[first:last], first))
        return digest.add(*sums)

    def apply(self, tensor):
        """Changes the tensor (a bytearray) in place."""
        need(self.tile_sum(tensor) == self.before, "old words are not those the section starts from")
        ranges = self.ranges()
        tile = bytearray().join(tensor[begin:end] for begin, end in ranges)
        step, counted = self.word << self.log2_block, 0
        for number, payload in enumerate(self.payloads):
            if payload:
                words = tile[number * step:(number + 1) * step]
                counted += {1: _raw, 2: _step, 3: _dense}[self.codec](payload, words, self.word, self.order)
                tile[number * step:number * step + len(words)] = words
        need(counted == self.changed, "changes do not add up")
        at = 0
        for begin, end in ranges:
            tensor[begin:end] = tile[at:at + end - begin]
            at += end - begin
        need(self.tile_sum(tensor) == self.after, "result does not have the sum it should have")


def _count(payload, words, width, least):
    need(len(payload) >= least, "payload is cut off")
    count = struct.unpack_from("<I", payload)[0]
    need(1 <= count <= len(words) // width, "number of changes in a block")
    return count


def _rest(payload, at):
    need(len(payload) - at < 16 and not any(payload[at:]), "padding of a payload")


def _stream(stored, size):
    if len(stored) == size:
        return stored
    need(len(stored) < size, "a stream is longer than its content")
    try:
        return zstd.decompress(stored, size)
    except zstd.ZstdError as error:
        raise FormatError(f"stream: {error}") from error


def _raw(payload, words, width, _order):
    count = _count(payload, words, width, 4)
    need(len(payload) >= 4 + count * (4 + width), "payload is cut off")
    positions = struct.unpack_from(f"<{count}I", payload, 4)
    need(all(x < y for x, y in zip((-1,) + positions, positions)), "positions are not ascending")
    need(positions[-1] * width < len(words), "position outside the block")
    at = 4 + 4 * count
    for position in positions:
        words[position * width:(position + 1) * width] = payload[at:at + width]
        at += width
    _rest(payload, at)
    return count


class _Bits:
    def __init__(self, data):
        self.value, self.size, self.at = int.from_bytes(data, "little"), 8 * len(data), 0

    def read(self, count):
        need(self.at + count <= self.size, "bits are cut off")
        out = self.value >> self.at & ((1 << count) - 1)
        self.at += count
        return out


def _step(payload, words, width, order):
    count = _count(payload, words, width, 12)
    token_bytes, size_bytes = struct.unpack_from("<II", payload, 4)
    at = 12 + token_bytes
    need(at + size_bytes <= len(payload), "streams are longer than the payload")
    tokens = _stream(payload[12:at], count)
    sizes = iter(_stream(payload[at:at + size_bytes], sum(1 for token in tokens if token & 2)))
    bits = _Bits(payload[at + size_bytes:])
    mask, top = (1 << 8 * width) - 1, 1 << (8 * width - 1)

    def rank(word):
        if order == "unsigned":
            return word
        if order == "sign-magnitude" and word & top:
            return word ^ mask
        return word ^ top

    def word_of(value):
        if order == "unsigned":
            return value
        if order == "sign-magnitude" and not value & top:
            return value ^ mask
        return value ^ top

    position = -1
    for token in tokens:
        need(token <= 191, "token without meaning")
        kind, move = token >> 2, token & 3
        if kind < 2:
            gap = kind
        else:
            raw = kind // 2 - 1
            gap = ((2 + kind % 2) << raw) + bits.read(raw)
        position += 1 + gap
        need((position + 1) * width <= len(words), "gap leads out of the block")
        distance = 1
        if move & 2:
            size = next(sizes)
            need(size <= 8 * width - 2, "size of a move")
            distance = (1 << size) + bits.read(size) + 1
            need(not (distance == top and move == 2), "half the range must be downward")
        place = slice(position * width, (position + 1) * width)
        value = rank(int.from_bytes(words[place], "little"))
        value = (value - distance if move & 1 else value + distance) & mask
        words[place] = word_of(value).to_bytes(width, "little")
    need(bits.size - bits.at < 128 and bits.value >> bits.at == 0, "bits are left over")
    return count


def _dense(payload, words, width, _order):
    count = _count(payload, words, width, 4 + 4 * width)
    at, size = 4 + 4 * width, len(words) // width
    for plane, stored in enumerate(struct.unpack_from(f"<{width}I", payload, 4)):
        need(at + stored <= len(payload), "a plane is longer than the payload")
        words[plane::width] = _stream(payload[at:at + stored], size)
        at += stored
    _rest(payload, at)
    return count


def sections_of(entry, dtype, shape):
    out, at = [], 0
    while at < len(entry):
        section = Section(entry[at:], dtype, shape)
        out.append(section)
        at += len(section.data)
    for i, x in enumerate(out):
        for y in out[:i]:
            apart = (x.row >= y.row + y.rows or y.row >= x.row + x.rows or x.col >= y.col + y.cols
                     or y.col >= x.col + x.cols)
            need(apart, "tiles overlap")
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    for option in ("--tensor", "--dtype", "--shape"):
        parser.add_argument(option, required=True)
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    shape = [int(part) for part in arguments.shape.split(",") if part]
    tensor = bytearray(arguments.old.read_bytes())
    try:
        entry = read_pack(arguments.pack.read_bytes()).get(arguments.tensor, b"")
        for section in sections_of(entry, arguments.dtype, shape):
            section.apply(tensor)
    except FormatError as error:
        sys.exit(f"decode: {error.code}: {error}")
    arguments.out.write_bytes(tensor)


if __name__ == "__main__":
    main()
