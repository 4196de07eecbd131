#!/usr/bin/env python3
"""A second reader of delta packs, written from docs/format/*.md alone. Standard library only.

usage: decode.py PACK --tensor NAME --dtype BF16 --shape 2,5 --old FILE [--earlier FILE] --out FILE

Applies what the pack holds for one tensor to the tensor's old bytes and writes the new ones. It proves
checksums and sums on the way and refuses whatever the documents say a reader must refuse. Sections of
codec momentum need the bytes that the version before had.
"""

import argparse
import hashlib
import json
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import class_codec  # noqa: E402
import digest  # noqa: E402
from bits import Bits, FormatError, need  # noqa: E402
import zstd  # noqa: E402
from xxh64 import xxh64  # noqa: E402


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
CHUNK = 65536
HEADER = struct.Struct("<I16s16sBBBB")
NEEDS = {1: 0, 2: 1, 3: 0, 4: 2, 5: 2, 6: 3}
CONTEXTS = {4: 1, 6: 3}
MANTISSA_BITS = {"F8_E5M2": 2, "F8_E4M3": 3, "F8_E4M3FNUZ": 3, "F8_E5M2FNUZ": 2, "F16": 10, "BF16": 7, "F32": 23,
                 "F64": 52}


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
        need(begin == at and end > begin and (end - begin) % 4 == 0, "hole, overlap or odd length")
        need(end <= len(body), "an entry ends behind the pack")
        entries[name] = body[begin:end]
        at = end
    need(at == len(body), "bytes behind the entries")
    check_tables(metadata.get("siltstone.sums"), metadata.get("siltstone.chunks"), entries, body)
    return entries


def check_tables(sums, chunks, entries, body):
    need(sums is not None or chunks is None, "hashes without sums")
    if sums is not None:
        need(sums == "".join(digest.text(change_of(entry)) for entry in entries.values()), "sums of the entries")
    if chunks is not None:
        found = (hashlib.sha256(body[at:at + CHUNK]).hexdigest() for at in range(0, len(body), CHUNK))
        need(chunks == "".join(found), "hashes of the chunks")


def change_of(entry):
    """What the sections of an entry add to the tensor's sum, from their headers."""
    total, at = (0, 0), 0
    while at < len(entry):
        need(len(entry) - at >= HEADER.size, "section is cut off")
        _, before, after, *_ = HEADER.unpack_from(entry, at)
        total = digest.add(total, digest.subtract(struct.unpack("<QQ", after), struct.unpack("<QQ", before)))
        units, _ = number(entry, at + HEADER.size)
        need(units > 0, "a section without bytes")
        at += 4 * units
    return total


def number(data, at):
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for i in range(9):
        need(at + i < len(data), "a number is cut off")
        byte = data[at + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            need(byte != 0 or i == 0, "a number in more bytes than it needs")
            return value, at + i + 1
    raise FormatError("a number of 2^63 or more")


class Section:
    def __init__(self, data, dtype, shape):
        code, _, word, order = DTYPES[dtype]
        need(len(data) >= HEADER.size, "section is cut off")
        checksum, before, after, version, codec, own_dtype, kind = HEADER.unpack_from(data)
        need(version != 0, "version 0")
        need(version == 1, "newer version", "unsupported")
        need(codec != 0, "codec 0")
        need(own_dtype in {row[0] for row in DTYPES.values()}, "dtype code", "unsupported")
        own_need, log2_block = kind >> 6, kind & 63
        need(13 <= log2_block <= 24, "block size")
        numbers, at = [], HEADER.size
        for _ in range(7):
            value, at = number(data, at)
            numbers.append(value)
        units, self.changed, params, self.row, self.rows, self.col, self.cols = numbers
        length = 4 * units
        need(params < 1 << 32, "length of the parameters")
        need(self.rows >= 1 and self.cols >= 1, "empty tile")
        elements = self.rows * self.cols
        own_word = next(row[2] for row in DTYPES.values() if row[0] == own_dtype)
        need(self.row + self.rows < 1 << 64 and self.col + self.cols < 1 << 64 and elements * own_word < 1 << 63,
             "tile overflows")
        need(1 <= self.changed <= elements, "number of changes")
        self.blocks = (elements + (1 << log2_block) - 1) >> log2_block
        least = at + self.blocks + params
        need(length >= least + -least % 4 + 4, "section length")
        need(length <= len(data), "section is cut off")
        self.data = data = data[:length]
        need(xxh64(data[4:]) & 0xFFFFFFFF == checksum, "checksum")
        need(codec in NEEDS, "unknown codec", "unsupported")
        need(own_need == NEEDS[codec] and (codec in CONTEXTS or params == 0), "need or parameters are not the codec's")
        need(own_dtype == code, "dtype is not the tensor's")
        rows, cols = matrix(dtype, shape)
        need(self.row + self.rows <= rows and self.col + self.cols <= cols, "tile outside the tensor")
        lengths = []
        for _ in range(self.blocks):
            value, at = number(data, at)
            lengths.append(4 * value)
        self.params = data[at:at + params]
        first = at + params + -(at + params) % 4
        need(not any(data[at + params:first]), "padding")
        need(first + sum(lengths) == length, "blocks do not end with the section")
        self.codec, self.word, self.order, self.log2_block = codec, word, order, log2_block
        self.mantissa_bits = MANTISSA_BITS.get(dtype)
        self.matrix_cols = cols
        self.before = struct.unpack("<QQ", before)
        self.after = struct.unpack("<QQ", after)
        self.payloads = []
        for size in lengths:
            self.payloads.append(data[first:first + size])
            first += size
        need(sum(1 for payload in self.payloads if payload) <= self.changed, "more blocks than changes")
        if codec in CONTEXTS:
            self.params = class_codec.Params(self.params, word, self.mantissa_bits, CONTEXTS[codec])

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

    def apply(self, tensor, earlier=None):
        """Changes the tensor (a bytearray) in place; `earlier` is what it was in the version before."""
        need(self.tile_sum(tensor) == self.before, "old words are not those the section starts from")
        ranges = self.ranges()
        tile = bytearray().join(tensor[begin:end] for begin, end in ranges)
        need(self.codec != 6 or earlier is not None, "the version before is needed", "unsupported")
        past = bytearray().join(earlier[begin:end] for begin, end in ranges) if self.codec == 6 else None
        step, counted = self.word << self.log2_block, 0
        for number, payload in enumerate(self.payloads):
            if payload:
                words = tile[number * step:(number + 1) * step]
                if self.codec in CONTEXTS:
                    counted += class_codec.apply(self.params, payload, words, Order(self.word, self.order),
                                                 past and past[number * step:(number + 1) * step])
                else:
                    counted += {1: _raw, 2: _step, 3: _dense, 5: _dense_delta}[self.codec](payload, words, self.word, self.order)
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
    need(len(payload) - at < 4 and not any(payload[at:]), "padding of a payload")


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


class Order:
    """Ranks of words in the order of their dtype."""

    def __init__(self, width, order):
        self.width, self.order = width, order
        self.mask, self.top = (1 << 8 * width) - 1, 1 << (8 * width - 1)

    def rank(self, word):
        if self.order == "unsigned":
            return word
        if self.order == "sign-magnitude" and word & self.top:
            return word ^ self.mask
        return word ^ self.top

    def word(self, rank):
        if self.order == "unsigned":
            return rank
        if self.order == "sign-magnitude" and not rank & self.top:
            return rank ^ self.mask
        return rank ^ self.top

    def distance(self, start, end):
        """From word to word, as a signed number of the word's size."""
        steps = (self.rank(end) - self.rank(start)) & self.mask
        return steps - self.mask - 1 if steps & self.top else steps

    def move(self, words, position, step):
        place = slice(position * self.width, (position + 1) * self.width)
        rank = self.rank(int.from_bytes(words[place], "little"))
        words[place] = self.word((rank + step) & self.mask).to_bytes(self.width, "little")


def _step(payload, words, width, order):
    count = _count(payload, words, width, 12)
    token_bytes, size_bytes = struct.unpack_from("<II", payload, 4)
    at = 12 + token_bytes
    need(at + size_bytes <= len(payload), "streams are longer than the payload")
    tokens = _stream(payload[12:at], count)
    sizes = iter(_stream(payload[at:at + size_bytes], sum(1 for token in tokens if token & 2)))
    bits = Bits(payload[at + size_bytes:])
    order = Order(width, order)
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
            need(not (distance == order.top and move == 2), "half the range must be downward")
        order.move(words, position, -distance if move & 1 else distance)
    need(bits.rest_is_padding(32), "bits are left over")
    return count


def _codes(payload, words, width):
    """The count, and a number for every word, out of byte planes."""
    count = _count(payload, words, width, 4 + 4 * width)
    at, size = 4 + 4 * width, len(words) // width
    codes = bytearray(len(words))
    for plane, stored in enumerate(struct.unpack_from(f"<{width}I", payload, 4)):
        need(at + stored <= len(payload), "a plane is longer than the payload")
        codes[plane::width] = _stream(payload[at:at + stored], size)
        at += stored
    _rest(payload, at)
    return count, [int.from_bytes(codes[i:i + width], "little") for i in range(0, len(codes), width)]


def _dense(payload, words, width, order):
    count, codes = _codes(payload, words, width)
    for i, code in enumerate(codes):
        word = code >> 1 | (code & 1) << (8 * width - 1) if order == "sign-magnitude" else code
        words[i * width:(i + 1) * width] = word.to_bytes(width, "little")
    return count


def _dense_delta(payload, words, width, order):
    count, codes = _codes(payload, words, width)
    order = Order(width, order)
    for i, code in enumerate(codes):
        order.move(words, i, -(code + 1) // 2 if code & 1 else code // 2)
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
    parser.add_argument("--earlier", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    shape = [int(part) for part in arguments.shape.split(",") if part]
    tensor = bytearray(arguments.old.read_bytes())
    earlier = arguments.earlier and arguments.earlier.read_bytes()
    try:
        entry = read_pack(arguments.pack.read_bytes()).get(arguments.tensor, b"")
        for section in sections_of(entry, arguments.dtype, shape):
            section.apply(tensor, earlier)
    except FormatError as error:
        sys.exit(f"decode: {error.code}: {error}")
    arguments.out.write_bytes(tensor)


if __name__ == "__main__":
    main()
