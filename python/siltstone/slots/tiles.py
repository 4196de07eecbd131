"""Tiles: which source elements lie where, as two-dimensional affine pieces.

Everything is counted in elements. A source index is flat and row-major in the checkpoint's tensor; a
destination offset counts from the begin of a parameter's storage. A strided view of a source that is copied
into a strided view of a parameter becomes a few tiles, whatever its rank: neighbouring dimensions that are
affine on both sides merge, the two largest that are left stay, the others are enumerated.
"""

import itertools
import math
from typing import NamedTuple

from .coverage import Pattern, pattern

# A source in more pieces is not worth a map: the dense route moves it.
MAX_PIECES = 1 << 16


class TooScattered(Exception):
    """A copy would need more than MAX_PIECES tiles."""


class Tile(NamedTuple):
    """Source element `source_begin + r * source_row_stride + c * source_column_stride` lies at
    `destination_begin + r * destination_row_stride + c * destination_column_stride`, for each r < rows, c < columns.

    Source strides are positive and `source_row_stride > (columns - 1) * source_column_stride`, also where
    there is one row or column only: `locate` needs no special case. Destination strides may be negative.
    """

    source_begin: int
    destination_begin: int
    rows: int
    columns: int
    source_row_stride: int
    source_column_stride: int
    destination_row_stride: int
    destination_column_stride: int

    @property
    def elements(self) -> int:
        return self.rows * self.columns

    @property
    def source_end(self) -> int:
        last = (self.rows - 1) * self.source_row_stride + (self.columns - 1) * self.source_column_stride
        return self.source_begin + last + 1

    def locate(self, indices):
        """(hit, offsets) of an int64 array of source indices; an offset means nothing where there is no hit."""
        x = indices - self.source_begin
        row = x // self.source_row_stride
        rest = x - row * self.source_row_stride
        column = rest // self.source_column_stride
        hit = (x >= 0) & (row < self.rows) & (column < self.columns) & (rest == column * self.source_column_stride)
        offsets = row * self.destination_row_stride + column * self.destination_column_stride
        return hit, offsets + self.destination_begin

    def pieces(self) -> list["Tile"]:
        return [self]

    def source_pattern(self) -> Pattern:
        rows, columns = (self.source_row_stride, self.rows), (self.source_column_stride, self.columns)
        return pattern(self.source_begin, (rows, columns))

    def destination_patterns(self) -> list[Pattern]:
        rows, columns = (self.destination_row_stride, self.rows), (self.destination_column_stride, self.columns)
        return [pattern(self.destination_begin, (rows, columns))]


class RowTable(NamedTuple):
    """Rows that lie anywhere: row r of the source begins at `destinations[r]`. Only index tracing finds these."""

    source_begin: int
    destinations: tuple[int, ...]
    columns: int
    source_row_stride: int
    source_column_stride: int
    destination_column_stride: int

    @property
    def rows(self) -> int:
        return len(self.destinations)

    @property
    def elements(self) -> int:
        return self.rows * self.columns

    @property
    def source_end(self) -> int:
        return self.rows_only().source_end

    def locate(self, indices):
        hit, rows = self.rows_only().locate(indices)
        row, column = rows // self.columns, rows % self.columns
        table = indices.new_tensor(self.destinations)
        return hit, table[row.clamp(0, self.rows - 1)] + column * self.destination_column_stride

    def pieces(self) -> list[Tile]:
        return [
            tile(
                self.source_begin + r * self.source_row_stride,
                begin,
                columns=(self.columns, self.source_column_stride, self.destination_column_stride),
            )
            for r, begin in enumerate(self.destinations)
        ]

    def source_pattern(self) -> Pattern:
        return self.rows_only().source_pattern()

    def destination_patterns(self) -> list[Pattern]:
        return [pattern(begin, ((self.destination_column_stride, self.columns),)) for begin in self.destinations]

    def rows_only(self) -> Tile:
        """The same source elements, numbered row by row."""
        strides = (self.source_row_stride, self.source_column_stride, self.columns, 1)
        return Tile(self.source_begin, 0, self.rows, self.columns, *strides)


def tile(source_begin, destination_begin, rows=(1, 0, 0), columns=(1, 0, 0)) -> Tile:
    """The tile of two dimensions (size, source stride, destination stride), those of size one made canonical."""
    column_count, source_column, destination_column = columns if columns[0] > 1 else (1, 1, 1)
    row_count, source_row, destination_row = rows
    if row_count == 1:
        source_row, destination_row = column_count * source_column, column_count * destination_column
    strides = (source_row, source_column, destination_row, destination_column)
    return Tile(source_begin, destination_begin, row_count, column_count, *strides)


def _merged(sizes, source_strides, destination_strides):
    """Dimensions (size, source stride, destination stride) by ascending source stride, affine neighbours as one."""
    dims = [d for d in zip(sizes, source_strides, destination_strides, strict=True) if d[0] != 1]
    dims.sort(key=lambda d: d[1])
    out = []
    for size, source, destination in dims:
        if out and source:
            inner, inner_source, inner_destination = out[-1]
            if source == inner * inner_source and destination == inner * inner_destination:
                out[-1] = (inner * size, inner_source, inner_destination)
                continue
        out.append((size, source, destination))
    return out


def _kept(dims):
    """The dimensions that a tile keeps, inner one first: the largest two that tell every element apart."""
    largest = sorted((d for d in dims if d[1] > 0), key=lambda d: d[0], reverse=True)[:2]
    kept = sorted(largest, key=lambda d: d[1])
    if len(kept) == 2 and kept[1][1] <= (kept[0][0] - 1) * kept[0][1]:
        return largest[:1]  # an overlapping window over the source, as `unfold` makes
    return kept


def build(source_begin, destination_begin, sizes, source_strides, destination_strides) -> list[Tile]:
    """The tiles of copying one strided view into another of the same sizes.

    A source stride of 0 is fan-out: one source element in several places, in one tile each. Raises
    TooScattered above MAX_PIECES.
    """
    if 0 in sizes:
        return []
    dims = _merged(sizes, source_strides, destination_strides)
    kept = _kept(dims)
    others = list(dims)
    for dim in kept:
        others.remove(dim)
    if math.prod(size for size, _, _ in others) > MAX_PIECES:
        raise TooScattered
    shape = {"columns": kept[0]} if kept else {}
    if len(kept) == 2:
        shape["rows"] = kept[1]
    out = []
    for at in itertools.product(*(range(size) for size, _, _ in others)):
        source = sum(i * d[1] for i, d in zip(at, others, strict=True))
        destination = sum(i * d[2] for i, d in zip(at, others, strict=True))
        out.append(tile(source_begin + source, destination_begin + destination, **shape))
    return out


def coalesced(tiles) -> list[Tile]:
    """The tiles by ascending source, those that continue one another as one."""
    out = []
    for t in sorted(tiles):
        joined = _joined(out[-1], t) if out else None
        if joined:
            out[-1] = joined
        else:
            out.append(t)
    return out


def _joined(a, b):
    """One tile for both if b goes on where a ends, as a run or as further rows."""
    steps = (b.source_begin - a.source_begin, b.destination_begin - a.destination_begin)
    a_columns = (a.columns, a.source_column_stride, a.destination_column_stride)
    if a.rows == b.rows == 1 and a_columns[1:] == (b.source_column_stride, b.destination_column_stride):
        if steps == (a.columns * a.source_column_stride, a.columns * a.destination_column_stride):
            return tile(a.source_begin, a.destination_begin, columns=(a.columns + b.columns, *a_columns[1:]))
    if a_columns != (b.columns, b.source_column_stride, b.destination_column_stride) or a.rows == 1:
        return None
    rows = (a.source_row_stride, a.destination_row_stride)
    if steps != (a.rows * rows[0], a.rows * rows[1]):
        return None
    if b.rows > 1 and rows != (b.source_row_stride, b.destination_row_stride):
        return None
    return tile(a.source_begin, a.destination_begin, (a.rows + b.rows, *rows), a_columns)


def invert(pieces, indices):
    """Where source elements lie: (which, offsets), as int64 tensors of equal length.

    `indices` is a one-dimensional int64 tensor of source indices in any order. `which` numbers its elements;
    one appears as often as it has places, and not at all where no piece has it.
    """
    import torch

    order = torch.argsort(indices, stable=True)
    ascending = indices[order]
    bounds = torch.tensor([(p.source_begin, p.source_end) for p in pieces], dtype=torch.int64).reshape(-1, 2)
    spans = torch.searchsorted(ascending, bounds.to(ascending.device)).tolist()
    which, offsets = [order[:0]], [ascending[:0]]
    for piece, (first, last) in zip(pieces, spans, strict=True):
        if first == last:
            continue
        hit, where = piece.locate(ascending[first:last])
        which.append(order[first:last][hit])
        offsets.append(where[hit])
    return torch.cat(which), torch.cat(offsets)
