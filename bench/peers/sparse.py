"""Positions and values of the words that changed, each position stored one way or another.

Tensors are integers (bf16 as int16), so every comparison is of bits. An unchanged tensor is no bytes,
as the projects leave it out of their files.
"""

import struct

import numpy
import torch
import zstandard

COUNT = struct.Struct("<Q")


def changed_positions(old, new):
    return torch.nonzero(old.reshape(-1) != new.reshape(-1)).squeeze(1)


def store(target, positions, values):
    target.view(-1).index_copy_(0, positions, values)
    return target


def packed(*tensors):
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


class Reader:
    def __init__(self, payload):
        self.payload = payload
        self.offset = 0

    def count(self):
        (value,) = COUNT.unpack_from(self.payload, self.offset)
        self.offset += COUNT.size
        return value

    def byte(self):
        self.offset += 1
        return self.payload[self.offset - 1]

    def words(self, dtype, count):
        array = numpy.frombuffer(self.payload, dtype=dtype, count=count, offset=self.offset)
        self.offset += array.nbytes
        return array

    def tensor(self, dtype, count):
        return torch.from_numpy(self.words(dtype, count).copy())


def integer_dtype(tensor):
    return {1: numpy.int8, 2: numpy.int16, 4: numpy.int32, 8: numpy.int64}[tensor.element_size()]


def gaps_of(positions):
    """Distance to the change before; the first counts from zero."""
    return torch.diff(positions, prepend=positions.new_zeros(1))


class Raw:
    name = "raw-int32"
    title = "int32 index + value"
    stands_for = "TRL prototype `raw`, vLLM sparse_nccl, verl, vime"

    def encode(self, old, new):
        if new.numel() >= 2**31:
            raise OverflowError("an int32 index cannot address this tensor")
        positions = changed_positions(old, new)
        if positions.numel() == 0:
            return b""
        values = new.reshape(-1)[positions]
        return COUNT.pack(positions.numel()) + packed(positions.to(torch.int32), values)

    def decode(self, target, payload):
        if not payload:
            return target
        reader = Reader(payload)
        count = reader.count()
        positions = reader.tensor(numpy.int32, count).to(torch.int64)
        return store(target, positions, reader.tensor(integer_dtype(target), count))


class Gap16:
    name = "gap-uint16"
    title = "uint16 gap + value"
    stands_for = "TRL prototype `gap_delta`"

    def encode(self, old, new):
        positions = changed_positions(old, new)
        if positions.numel() == 0:
            return b""
        gaps = gaps_of(positions)
        wide = int(gaps.max()) > 65535
        stored = gaps.to(torch.uint32 if wide else torch.uint16)
        values = new.reshape(-1)[positions]
        return COUNT.pack(positions.numel()) + bytes([wide]) + packed(stored, values)

    def decode(self, target, payload):
        if not payload:
            return target
        reader = Reader(payload)
        count = reader.count()
        wide = reader.byte()
        gaps = reader.tensor(numpy.uint32 if wide else numpy.uint16, count)
        positions = gaps.to(torch.int64).cumsum(0)
        return store(target, positions, reader.tensor(integer_dtype(target), count))


class Compressed:
    """One zstd frame around the payload of another method."""

    def __init__(self, inner, level, name, title, stands_for):
        self.inner, self.level = inner, level
        self.name, self.title, self.stands_for = name, title, stands_for
        self.compressor = zstandard.ZstdCompressor(level=level)
        self.decompressor = zstandard.ZstdDecompressor()

    def encode(self, old, new):
        payload = self.inner.encode(old, new)
        return self.compressor.compress(payload) if payload else b""

    def decode(self, target, payload):
        return self.inner.decode(target, self.decompressor.decompress(payload)) if payload else target


class GapXor:
    """Gaps in the narrowest of 16, 32 and 64 bits; the value is old XOR new."""

    name = "gap-xor"

    def encode(self, old, new):
        positions = changed_positions(old, new)
        if positions.numel() == 0:
            return b""
        gaps = gaps_of(positions)
        largest = int(gaps.max())
        width = 0 if largest < 2**16 else 1 if largest < 2**32 else 2
        stored = gaps.to((torch.uint16, torch.uint32, torch.int64)[width])
        values = new.reshape(-1)[positions] ^ old.reshape(-1)[positions]
        return COUNT.pack(positions.numel()) + bytes([width]) + packed(stored, values)

    def decode(self, target, payload):
        if not payload:
            return target
        reader = Reader(payload)
        count = reader.count()
        gaps = reader.tensor((numpy.uint16, numpy.uint32, numpy.int64)[reader.byte()], count)
        positions = gaps.to(torch.int64).cumsum(0)
        values = reader.tensor(integer_dtype(target), count) ^ target.view(-1)[positions]
        return store(target, positions, values)


class RowColumn:
    """Sorted rows and columns: row gaps of 8, 16 or 32 bits, column gaps of 16 or 32 bits that start
    again with the column itself in every new row."""

    name = "row-column"

    def encode(self, old, new):
        positions = changed_positions(old, new)
        if positions.numel() == 0:
            return b""
        width = new.shape[-1] if new.dim() > 1 else new.numel()
        rows = torch.div(positions, width, rounding_mode="floor")
        columns = positions - rows * width
        row_gaps = gaps_of(rows)
        same_row = row_gaps == 0
        same_row[0] = False
        column_gaps = columns.clone()
        column_gaps[1:] -= columns[:-1] * same_row[1:]
        largest = int(row_gaps.max())
        row_width = 0 if largest < 2**8 else 1 if largest < 2**16 else 2
        column_width = 0 if int(column_gaps.max()) < 2**16 else 1
        return (COUNT.pack(positions.numel()) + bytes([row_width, column_width])
                + packed(row_gaps.to((torch.uint8, torch.uint16, torch.int32)[row_width]),
                         column_gaps.to((torch.uint16, torch.int32)[column_width]),
                         new.reshape(-1)[positions]))

    def decode(self, target, payload):
        if not payload:
            return target
        reader = Reader(payload)
        count = reader.count()
        row_type = (numpy.uint8, numpy.uint16, numpy.int32)[reader.byte()]
        column_type = (numpy.uint16, numpy.int32)[reader.byte()]
        row_gaps = reader.tensor(row_type, count).to(torch.int64)
        column_gaps = reader.tensor(column_type, count).to(torch.int64)
        starts = row_gaps != 0
        starts[0] = True
        sums = column_gaps.cumsum(0)
        before = torch.nonzero(starts).squeeze(1)
        lengths = torch.diff(before, append=before.new_full((1,), count))
        columns = sums - torch.repeat_interleave(sums[before] - column_gaps[before], lengths)
        width = target.shape[-1] if target.dim() > 1 else target.numel()
        positions = row_gaps.cumsum(0) * width + columns
        return store(target, positions, reader.tensor(integer_dtype(target), count))


def varints(values):
    """LEB128 of an array of unsigned numbers."""
    values = values.astype(numpy.uint64)
    lengths = numpy.ones(len(values), dtype=numpy.int64)
    for shift in range(7, 64, 7):
        longer = values >> numpy.uint64(shift) != 0
        if not longer.any():
            break
        lengths += longer
    ends = numpy.cumsum(lengths)
    out = numpy.empty(ends[-1], dtype=numpy.uint8)
    starts = ends - lengths
    for index in range(int(lengths.max())):
        present = lengths > index
        chunk = (values[present] >> numpy.uint64(7 * index)) & numpy.uint64(127)
        more = (lengths[present] > index + 1).astype(numpy.uint8) << 7
        out[starts[present] + index] = chunk.astype(numpy.uint8) | more
    return out


def numbers(data):
    """The inverse of varints."""
    ends = numpy.flatnonzero(data < 128)
    starts = numpy.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    values = numpy.zeros(len(ends), dtype=numpy.int64)
    for index in range(int(lengths.max())):
        present = lengths > index
        values[present] |= (data[starts[present] + index].astype(numpy.int64) & 127) << (7 * index)
    return values


class VarintStreams:
    name = "varint-zstd1"
    title = "varint gap + value, a zstd-1 frame each"
    stands_for = "no project; the gap and value family at its best without knowing the old words"

    def __init__(self):
        self.compressor = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor()

    def encode(self, old, new):
        positions = changed_positions(old, new)
        if positions.numel() == 0:
            return b""
        gaps = self.compressor.compress(varints(gaps_of(positions).numpy()))
        values = self.compressor.compress(new.reshape(-1)[positions].numpy())
        return COUNT.pack(len(gaps)) + gaps + values

    def decode(self, target, payload):
        if not payload:
            return target
        (length,) = COUNT.unpack_from(payload)
        view = memoryview(payload)[COUNT.size:]
        gaps = numbers(numpy.frombuffer(self.decompressor.decompress(view[:length]), dtype=numpy.uint8))
        values = numpy.frombuffer(self.decompressor.decompress(view[length:]), dtype=integer_dtype(target))
        positions = torch.from_numpy(gaps.cumsum())
        return store(target, positions, torch.from_numpy(values.copy()))


class ByteOverwrite:
    """Positions and new values of single bytes; positions of 32 bits."""

    name = "overwrite"

    def encode(self, old, new):
        old_bytes, new_bytes = old.reshape(-1).view(torch.uint8), new.reshape(-1).view(torch.uint8)
        if new_bytes.numel() >= 2**32:
            raise OverflowError("32-bit byte positions cannot address this tensor")
        positions = torch.nonzero(old_bytes != new_bytes).squeeze(1)
        if positions.numel() == 0:
            return b""
        return (struct.pack("<I", positions.numel())
                + packed(positions.to(torch.uint32), new_bytes[positions]))

    def decode(self, target, payload):
        if not payload:
            return target
        (count,) = struct.unpack_from("<I", payload)
        reader = Reader(payload)
        reader.offset = 4
        positions = reader.tensor(numpy.uint32, count).to(torch.int64)
        target.view(-1).view(torch.uint8).index_copy_(0, positions, reader.tensor(numpy.uint8, count))
        return target


METHODS = [
    Raw(),
    Gap16(),
    Compressed(GapXor(), 1, "gap-xor-zstd1", "uint16 gap + XOR value, zstd-1", "NeMo-RL sparse refit"),
    Compressed(RowColumn(), 1, "row-column-zstd1", "row and column gaps + value, zstd-1", "PULSE (grail)"),
    VarintStreams(),
    Compressed(ByteOverwrite(), 1, "overwrite-zstd1", "uint32 byte position + byte, zstd-1",
               "slime and miles `overwrite`"),
]
