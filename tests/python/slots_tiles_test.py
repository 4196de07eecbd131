"""The tile algebra against index maps that are written out element by element."""

import random

import pytest

torch = pytest.importorskip("torch")

from siltstone.slots import tiles as algebra  # noqa: E402
from siltstone.slots.compress import from_pairs  # noqa: E402
from siltstone.slots.coverage import Hole, Pattern, indices, intersects, pattern, uncovered  # noqa: E402


def pairs_of(pieces):
    """[(source, destination)] of pieces, sorted."""
    out = []
    for piece in pieces:
        for t in piece.pieces():
            for r in range(t.rows):
                for c in range(t.columns):
                    source = t.source_begin + r * t.source_row_stride + c * t.source_column_stride
                    out.append(
                        (source, t.destination_begin + r * t.destination_row_stride + c * t.destination_column_stride)
                    )
    return sorted(out)


def pairs_of_views(source, destination):
    """The same of two strided views of storages that hold their own offsets."""
    return sorted(zip(source.expand(destination.shape).flatten().tolist(), destination.flatten().tolist(), strict=True))


def built(source, destination):
    source = source.expand(destination.shape)
    return algebra.build(
        source.storage_offset(),
        destination.storage_offset(),
        tuple(source.shape),
        source.stride(),
        destination.stride(),
    )


def numbered(*shape):
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


def random_view(rng, t):
    """Some views on top of one another, as loaders take them."""
    for _ in range(rng.randrange(4)):
        dim = rng.randrange(t.dim())
        what = rng.randrange(4)
        if what == 0 and t.shape[dim] > 1:
            begin = rng.randrange(t.shape[dim])
            t = t.narrow(dim, begin, rng.randrange(1, t.shape[dim] - begin + 1))
        elif what == 1:
            t = t.transpose(dim, rng.randrange(t.dim()))
        elif what == 2:
            t = t[(slice(None),) * dim + (slice(None, None, rng.randrange(1, 3)),)]
        elif t.shape[dim] % 2 == 0:
            t = t.unflatten(dim, (2, t.shape[dim] // 2))
    return t


def test_built_tiles_are_the_copy_they_were_built_from():
    rng = random.Random(1)
    for _ in range(400):
        source = random_view(rng, numbered(*(rng.choice((1, 2, 3, 4, 6)) for _ in range(rng.randrange(1, 5)))))
        shape = list(source.shape)
        if rng.random() < 0.3:
            shape.insert(0, rng.randrange(1, 4))  # broadcast: fan-out
        order = rng.sample(range(len(shape)), len(shape))
        spacious = [shape[i] + rng.randrange(3) for i in order]
        destination = numbered(*spacious).permute(*(order.index(i) for i in range(len(shape))))
        destination = destination[tuple(slice(0, size) for size in shape)]
        pieces = built(source, destination)
        assert pairs_of(pieces) == pairs_of_views(source, destination)
        assert pairs_of(algebra.coalesced(pieces)) == pairs_of(pieces)
        assert all(t.source_row_stride > (t.columns - 1) * t.source_column_stride > -1 for t in pieces)


def test_every_copy_that_a_loader_makes_is_few_tiles():
    def count(source, destination):
        return len(algebra.coalesced(built(source, destination)))

    w = numbered(8, 6, 10)
    assert count(w, numbered(8, 6, 10)) == 1
    assert count(w[:, 2:4], numbered(8, 2, 10)) == 1
    assert count(w.transpose(1, 2), numbered(8, 10, 6)) == 6  # of eight experts, six and ten: eight and ten stay
    assert count(numbered(600, 1, 4).squeeze(1), numbered(600, 4)) == 1
    assert count(numbered(600, 2, 16).transpose(0, 1), numbered(2, 600, 16)) == 2
    assert count(numbered(5).expand(3, 5), numbered(3, 5)) == 3
    assert count(numbered(1, 1), numbered(1, 1)) == 1
    assert built(numbered(0, 4), numbered(0, 4)) == []


def test_a_window_that_shows_elements_several_times_is_fanned_out():
    source = numbered(10).unfold(0, 4, 2)
    destination = numbered(4, 4)
    assert pairs_of(built(source, destination)) == pairs_of_views(source, destination)


def test_what_is_scattered_is_refused_before_it_is_written_out():
    shape, side = (1 << 12, 1 << 12, 1 << 12), 1 << 30
    with pytest.raises(algebra.TooScattered):
        algebra.build(0, 0, (*shape, 2), (side * 4, side * 2, side, 1), (1, side, side * 8, side * 16))


def test_inverting_gives_each_place_of_each_source_element():
    rng = random.Random(2)
    for _ in range(200):
        source = random_view(rng, numbered(*(rng.randrange(1, 7) for _ in range(3))))
        destination = numbered(rng.randrange(1, 3), *source.shape)
        pieces = built(source, destination)
        expected = {}
        for s, d in pairs_of(pieces):
            expected.setdefault(s, []).append(d)
        asked = torch.tensor([rng.randrange(250) for _ in range(60)])
        which, offsets = algebra.invert(pieces, asked)
        for i, s in enumerate(asked.tolist()):
            assert sorted(offsets[which == i].tolist()) == sorted(expected.get(s, []))
    which, offsets = algebra.invert([], torch.tensor([1, 2]))
    assert which.numel() == offsets.numel() == 0


def test_tiles_beyond_32_bits_are_exact():
    rows, columns = 1 << 20, 1 << 14  # 2^34 elements, which nobody allocates
    (t,) = algebra.build(0, 0, (rows, columns // 2), (columns, 1), (1, rows))
    row, column = torch.tensor([0, 77, rows - 1, rows - 1]), torch.tensor([0, 8191, 8191, 8192])
    which, offsets = algebra.invert([t], row * columns + column)
    assert which.tolist() == [0, 1, 2] and offsets.tolist() == (row + column * rows)[:3].tolist()
    left, right = t.source_pattern(), t._replace(source_begin=columns // 2).source_pattern()
    assert uncovered([left, right], rows * columns) == Hole(0, 0)
    assert uncovered([left], rows * columns) == Hole(rows * columns // 2, columns // 2)
    assert not intersects(left, right) and intersects(left, Pattern((rows - 1) * columns, ((1, 4),)))


def random_pattern(rng, period=None):
    stride = period or rng.randrange(1, 12)
    inner = (rng.randrange(1, 3) if period is None else 1, rng.randrange(1, 5))
    return pattern(rng.randrange(40), (inner, (stride, rng.randrange(1, 6))))


def test_holes_and_overlaps_are_those_of_the_elements():
    rng = random.Random(3)
    for i in range(1500):
        period = rng.choice((None, 7, 10))
        patterns = [random_pattern(rng, period) for _ in range(rng.randrange(1, 6))]
        sets = [set(indices(p).tolist()) for p in patterns]
        total = max(max(s) for s in sets) + rng.randrange(1, 4)
        missing = sorted(set(range(total)) - set().union(*sets))
        assert uncovered(patterns, total) == Hole(len(missing), missing[0] if missing else 0)
        a, b = patterns[0], patterns[-1]
        assert intersects(a, b) == bool(sets[0] & sets[-1]), (i, a, b)
    assert uncovered([], 0) == Hole(0, 0) and uncovered([], 5) == Hole(5, 0)


def test_coverage_of_many_elements_goes_in_windows(monkeypatch):
    monkeypatch.setattr("siltstone.slots.coverage.WINDOW_ELEMENTS", 16)
    rng = random.Random(4)
    for _ in range(300):
        patterns = [random_pattern(rng) for _ in range(4)]
        sets = [set(indices(p).tolist()) for p in patterns]
        missing = sorted(set(range(200)) - set().union(*sets))
        assert uncovered(patterns, 200) == Hole(len(missing), missing[0])
        assert intersects(*patterns[:2]) == bool(sets[0] & sets[1])


def test_compressing_single_elements_keeps_them_all():
    rng = random.Random(5)
    for _ in range(300):
        source = random_view(rng, numbered(*(rng.randrange(1, 6) for _ in range(3))))
        shape = (rng.randrange(1, 3), *source.shape)
        pairs = list(zip(source.expand(shape).flatten().tolist(), numbered(*shape).flatten().tolist(), strict=True))
        if rng.random() < 0.3:
            pairs = rng.sample(pairs, rng.randrange(1, len(pairs) + 1))
        rng.shuffle(pairs)
        sources, destinations = torch.tensor(pairs).T
        assert pairs_of(from_pairs(sources, destinations)) == sorted(pairs)


def test_compressing_finds_the_structure():
    def pieces(w):
        return from_pairs(w.flatten(), torch.arange(w.numel()))

    w = numbered(48, 32)
    assert len(pieces(w)) == len(pieces(w.t())) == len(pieces(w.flip(0))) == len(pieces(w[:, 8:20])) == 1
    assert len(pieces(w.view(24, 2, 32).transpose(0, 1))) == 2
    assert len(pieces(numbered(4, 16, 24).transpose(1, 2).reshape(4, 2, 12, 16)[:, :, :6])) == 8
    (table,) = pieces(w[torch.randperm(48, generator=torch.Generator().manual_seed(0)), :31])
    assert isinstance(table, algebra.RowTable) and (table.rows, table.columns) == (48, 31)
    with pytest.raises(algebra.TooScattered):
        from_pairs(torch.arange(1 << 20), torch.randperm(1 << 20, generator=torch.Generator().manual_seed(0)))


def test_a_row_table_inverts_like_its_rows():
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    w = numbered(40, 6)[rows][:, 1:5]
    (table,) = from_pairs(w.flatten(), torch.arange(w.numel()))
    assert isinstance(table, algebra.RowTable)
    asked = torch.arange(250)
    which, offsets = algebra.invert([table], asked)
    assert sorted(zip(asked[which].tolist(), offsets.tolist(), strict=True)) == pairs_of([table])
    assert set(indices(table.source_pattern()).tolist()) == set(w.flatten().tolist())
    assert sum(p.elements for p in table.destination_patterns()) == table.elements == w.numel()
