"""Tiles out of single elements: what index tracing reads back is pairs, and pairs that are affine are tiles."""

import math

import torch

from .tiles import MAX_PIECES, RowTable, TooScattered, build, tile

# A table pays when rows lie in no order: below this many rows per tile, from this many tiles on.
TABLE_ROWS_PER_TILE = 4
TABLE_TILES = 8


def from_pairs(sources, destinations) -> list:
    """Tiles and row tables with exactly the elements source -> destination of two int64 tensors.

    A source may appear several times, a destination once. Raises TooScattered.
    """
    order = torch.argsort(destinations, stable=True)
    order = order[torch.argsort(sources[order], stable=True)]
    sources, destinations = sources[order], destinations[order]
    copies = _occurrence(sources)
    out = []
    for layer in range(int(copies.max()) + 1 if copies.numel() else 0):
        chosen = copies == layer
        runs = _runs(sources[chosen], destinations[chosen])
        if len(runs) > MAX_PIECES * TABLE_ROWS_PER_TILE:
            raise TooScattered
        for span in _spans(runs):
            out += _pieces(span)
    if len(out) > MAX_PIECES:
        raise TooScattered
    return out


def _occurrence(ascending):
    """For each element of a sorted array, how many equal ones precede it."""
    at = torch.arange(ascending.numel())
    first = torch.ones_like(ascending, dtype=torch.bool)
    first[1:] = ascending[1:] != ascending[:-1]
    return at - torch.cummax(torch.where(first, at, 0), 0).values


def _runs(sources, destinations):
    """[(source, destination, count, source step, destination step)] of a sorted layer, each run as long as it goes."""
    count = sources.numel()
    if count < 2:
        return [(s, d, 1, 1, 1) for s, d in zip(sources.tolist(), destinations.tolist(), strict=True)]
    source_steps, destination_steps = sources.diff(), destinations.diff()
    change = (source_steps.diff() != 0) | (destination_steps.diff() != 0)
    segment_ends = [*(change.nonzero().flatten() + 1).tolist(), count - 1]  # in steps, exclusive
    begins, ends = [], []
    at = 0
    for end in segment_ends:
        if at < end:  # else this segment is the one step between two runs
            begins.append(at)
            ends.append(end)
            at = end + 1
    if at < count:
        begins.append(at)
        ends.append(at)
    steps = torch.tensor(begins).clamp(max=count - 2)
    columns = (sources[begins], destinations[begins], source_steps[steps], destination_steps[steps])
    return [
        (s, d, end - begin + 1, ss if end > begin else 1, ds if end > begin else 1)
        for begin, end, s, d, ss, ds in zip(begins, ends, *(c.tolist() for c in columns), strict=True)
    ]


def _spans(runs):
    """Stretches of runs alike in all but where they lie, whose sources are equally far apart."""
    span = []
    for run in runs:
        alike = span and run[2:] == span[-1][2:]
        if alike and len(span) > 1:
            alike = run[0] - span[-1][0] == span[-1][0] - span[-2][0]
        if span and not alike:
            yield span
            span = []
        span.append(run)
    if span:
        yield span


def _affine(values):
    """Nested dimensions (size, step), outer first, of a sequence that counts like an odometer, or None."""
    dims = []
    while len(values) > 1:
        steps = values.diff()
        breaks = (steps != steps[0]).nonzero()
        size = int(breaks[0]) + 1 if len(breaks) else len(values)
        if len(values) % size:
            return None
        groups = values.reshape(-1, size)
        if bool((groups - groups[:, :1] != groups[0] - groups[0, 0]).any()):
            return None
        dims.insert(0, (size, int(steps[0])))
        values = groups[:, 0]
    return dims


def _pieces(span):
    source, destination, columns, source_step, destination_step = span[0]
    if len(span) == 1:
        return [tile(source, destination, columns=(columns, source_step, destination_step))]
    stride = span[1][0] - source
    sources, destinations = (torch.tensor(each) for each in list(zip(*span, strict=True))[:2])
    dims = _affine(destinations)
    if dims is not None:
        sizes = [size for size, _ in dims]
        source_strides = [stride * math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        destination_strides = [step for _, step in dims]
        return build(
            source,
            destination,
            (*sizes, columns),
            (*source_strides, source_step),
            (*destination_strides, destination_step),
        )
    groups = _runs(sources, destinations)
    if len(groups) >= TABLE_TILES and len(span) < TABLE_ROWS_PER_TILE * len(groups):
        return [RowTable(source, tuple(destinations.tolist()), columns, stride, source_step, destination_step)]
    shape = (columns, source_step, destination_step)
    return [tile(s, d, (rows, rs, rd), shape) for s, d, rows, rs, rd in groups]
