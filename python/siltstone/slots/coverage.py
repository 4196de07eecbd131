"""Which elements strided patterns cover: whether two of them meet, and what a set of them leaves out.

Both questions are answered on rectangles where all patterns are rows of one matrix, which is nearly always,
and else on the elements themselves in bounded windows. Costs then follow the patterns, not the elements.
"""

import bisect
from typing import NamedTuple

import torch

WINDOW_ELEMENTS = 1 << 22  # 32 MiB of indices at a time
MAX_CELLS = 1 << 22


class Pattern(NamedTuple):
    """`begin + sum of i[k] * stride[k]` for all i[k] < size[k].

    dims are (stride, size), with positive strides that ascend.
    """

    begin: int
    dims: tuple[tuple[int, int], ...]

    @property
    def last(self) -> int:
        return self.begin + sum(stride * (size - 1) for stride, size in self.dims)

    @property
    def elements(self) -> int:
        count = 1
        for _, size in self.dims:
            count *= size
        return count

    @property
    def tells_apart(self) -> bool:
        """Whether each dimension steps over all inner ones: no element comes twice, and division finds each."""
        reach = 0
        for stride, size in self.dims:
            if stride <= reach:
                return False
            reach += stride * (size - 1)
        return True


class Hole(NamedTuple):
    """What is missing: how many elements, and the first of them."""

    elements: int
    first: int


def pattern(begin, dims) -> Pattern:
    """The canonical Pattern: no dimension of one, no negative stride, mergeable neighbours merged."""
    kept = []
    for stride, size in dims:
        if stride < 0:
            begin, stride = begin + stride * (size - 1), -stride
        if size != 1 and stride:
            kept.append((stride, size))
    merged = []
    for stride, size in sorted(kept):
        if merged and stride == merged[-1][0] * merged[-1][1]:
            merged[-1] = (merged[-1][0], merged[-1][1] * size)
        else:
            merged.append((stride, size))
    return Pattern(begin, tuple(merged))


def _run_rectangles(begin, length, period):
    end = begin + length
    top, bottom = -(-begin // period), end // period
    if top > bottom:  # within one row
        return [(bottom, top, begin % period, begin % period + length)]
    head = [(top - 1, top, begin % period, period)] if begin % period else []
    body = [(top, bottom, 0, period)] if top < bottom else []
    tail = [(bottom, bottom + 1, 0, end % period)] if end % period else []
    return head + body + tail


def _rectangles(p, period):
    """The pattern as (row begin, row end, column begin, column end) of a matrix of that width, or None."""
    if not p.dims or (len(p.dims) == 1 and p.dims[0][0] == 1):
        return _run_rectangles(p.begin, p.elements, period)
    (inner, width), (outer, height) = p.dims if len(p.dims) == 2 else ((1, 1), p.dims[0])
    row, column = divmod(p.begin, period)
    if len(p.dims) > 2 or inner != 1 or outer != period or column + width > period:
        return None
    return [(row, row + height, column, column + width)]


def _all_rectangles(patterns, elements):
    """(period, rectangles of each pattern), or None if the patterns are not rows of one matrix."""
    strides = {stride for p in patterns for stride, _ in p.dims if stride > 1}
    if len(strides) > 1:
        return None
    period = strides.pop() if strides else max(elements, 1)
    rectangles = [_rectangles(p, period) for p in patterns]
    return None if None in rectangles else (period, rectangles)


def indices(p, first=0, count=None):
    """The elements of a pattern, from the `first` of them on in row-major order, as an int64 tensor."""
    x = torch.arange(first, p.elements if count is None else min(first + count, p.elements))
    out = torch.full_like(x, p.begin)
    for stride, size in p.dims:
        out += x % size * stride
        x = x // size
    return out


def _contains(p, where):
    """Which of these elements a pattern has."""
    if not p.tells_apart:
        return torch.isin(where, indices(p))
    x = where - p.begin
    hit = x >= 0
    for stride, size in reversed(p.dims):
        step = x // stride
        hit &= step < size
        x = x - step * stride
    return hit & (x == 0)


def intersects(a: Pattern, b: Pattern) -> bool:
    """Whether two patterns have an element in common."""
    if a.last < b.begin or b.last < a.begin:
        return False
    fitted = _all_rectangles((a, b), max(a.last, b.last) + 1)
    if fitted:
        return any(
            p[0] < q[1] and q[0] < p[1] and p[2] < q[3] and q[2] < p[3] for p in fitted[1][0] for q in fitted[1][1]
        )
    small, large = sorted((a, b), key=lambda p: p.elements)
    return any(
        bool(_contains(large, indices(small, first, WINDOW_ELEMENTS)).any())
        for first in range(0, small.elements, WINDOW_ELEMENTS)
    )


def _uncovered_rectangles(fitted, elements):
    period, rectangles = fitted
    universe = _run_rectangles(0, elements, period)
    flat = universe + [r for group in rectangles for r in group]
    rows = sorted({at for r in flat for at in r[:2]})
    columns = sorted({at for r in flat for at in r[2:]})
    if len(rows) * len(columns) > MAX_CELLS:
        return None
    covered = torch.ones(len(rows) - 1, len(columns) - 1, dtype=torch.bool)

    def cells(r):
        at = [bisect.bisect_left(rows, x) for x in r[:2]] + [bisect.bisect_left(columns, x) for x in r[2:]]
        return slice(at[0], at[1]), slice(at[2], at[3])

    for r in universe:
        covered[cells(r)] = False
    for r in flat[len(universe) :]:
        covered[cells(r)] = True
    missing = (~covered).nonzero().tolist()
    if not missing:
        return Hole(0, 0)
    area = sum((rows[i + 1] - rows[i]) * (columns[j + 1] - columns[j]) for i, j in missing)
    return Hole(area, rows[missing[0][0]] * period + columns[missing[0][1]])


def _uncovered_elements(patterns, elements):
    total, earliest = 0, 0
    for begin in range(0, elements, WINDOW_ELEMENTS):
        end = min(begin + WINDOW_ELEMENTS, elements)
        missing = torch.ones(end - begin, dtype=torch.bool)
        for p in patterns:
            _clear(missing, p, begin, end)
        count = int(missing.sum())
        if count and not total:
            earliest = begin + int(missing.nonzero()[0])
        total += count
    return Hole(total, earliest)


def _clear(missing, p, begin, end):
    """Clears what a pattern covers of the window [begin, end); descends until parts are small."""
    if p.last < begin or p.begin >= end:
        return
    inside = p.begin >= begin and p.last < end
    if not p.dims or (inside and p.elements <= WINDOW_ELEMENTS):
        missing[indices(p) - begin] = False
        return
    (stride, size), inner = p.dims[-1], p.dims[:-1]
    reach = Pattern(p.begin, inner).last - p.begin
    first = max(0, -(-(begin - reach - p.begin) // stride))
    last = min(size - 1, (end - 1 - p.begin) // stride)
    if not inner:
        missing[p.begin + first * stride - begin : p.begin + last * stride - begin + 1 : stride] = False
        return
    for i in range(first, last + 1):
        _clear(missing, Pattern(p.begin + i * stride, inner), begin, end)


def uncovered(patterns, elements) -> Hole:
    """What a union of patterns leaves out of [0, elements)."""
    patterns = list(set(patterns))
    if elements == 0 or any(p.begin == 0 and p.dims == ((1, elements),) for p in patterns):
        return Hole(0, 0)
    fitted = _all_rectangles(patterns, elements)
    hole = _uncovered_rectangles(fitted, elements) if fitted else None
    return _uncovered_elements(patterns, elements) if hole is None else hole
