"""Recording: every pattern of the zoo in every layout, bit for bit against the loader itself."""

import types

import pytest

torch = pytest.importorskip("torch")

import slots_bits as bits  # noqa: E402
import slots_zoo as zoo  # noqa: E402

import siltstone  # noqa: E402
from siltstone import slots  # noqa: E402

every_layout = pytest.mark.parametrize("layout", zoo.LAYOUTS, ids=str)


@pytest.fixture(params=zoo.PATTERNS.values(), ids=zoo.PATTERNS.keys())
def pattern(request):
    return request.param


def record(model, **options):
    return slots.record(model, bits.catalogue(model), model.load_weights, **options)


def differential(pattern, layout, slot_map):
    """Scattered changes of the bits must give what a load of the changed checkpoint gives."""
    weights = bits.checkpoint(pattern.model(layout))
    model = bits.loaded(pattern, layout, weights)
    binding = slots.bind(slot_map, model)
    assert not binding.unbound and not binding.check()
    placed = {slot.tensor for slot in slot_map.slots}
    for name in placed:
        gathered = slots.gather(binding, name)
        assert gathered.consistent
        if gathered.complete and gathered.values.dtype is weights[name].dtype:
            assert torch.equal(bits.words(gathered.values), bits.words(weights[name]))
    changed, after = bits.patched(weights, sorted(placed))
    for name, at in changed.items():
        bits.scatter(binding, name, at, after[name])
    assert bits.same(model, bits.loaded(pattern, layout, after))
    assert not binding.check()


@every_layout
def test_a_pattern_is_placed_exactly_or_refused(pattern, layout):
    model = pattern.model(layout)
    slot_map = record(model)
    names = set(model.sources)
    classes = [{s.tensor for s in slot_map.slots + slot_map.shadows}, set(slot_map.refused), slot_map.ignored]
    assert set().union(*classes) == names and sum(map(len, classes)) == len(names)
    if pattern.recorded == "slot":
        assert not slot_map.refused
    if pattern.recorded == "refused":
        assert set(slot_map.refused) == names and all(slot_map.refused.values())
    assert slots.from_json(slots.to_json(slot_map)) == slot_map
    differential(pattern, layout, slot_map)


@pytest.mark.parametrize("layout", zoo.LAYOUTS[::2], ids=str)
def test_a_pattern_is_traced_exactly_or_refused(pattern, layout):
    model = pattern.model(layout)
    recorded = record(model)
    traced = slots.trace(model, bits.catalogue(model), model.load_weights)
    if pattern.traced == "slot":
        assert not traced.refused
        if not recorded.refused:
            assert all(bits.places(traced, name) == bits.places(recorded, name) for name in model.sources)
            assert [s.cast for s in traced.slots] == [s.cast for s in recorded.slots]
        merged = recorded.merged(traced)
        assert not merged.refused
        differential(pattern, layout, merged)
    if pattern.traced == "refused":
        assert set(traced.refused) == set(model.sources) and not traced.slots
    assert slots.from_json(slots.to_json(traced)) == traced


@every_layout
def test_a_refused_source_goes_where_it_is_said_to_go_and_nowhere_else(pattern, layout):
    slot_map = record(pattern.model(layout))
    weights = bits.checkpoint(pattern.model(layout))
    before = dict(bits.loaded(pattern, layout, weights).named_parameters())
    assert slot_map.reached.keys() <= slot_map.refused.keys()
    for name, numbers in slot_map.reached.items():
        _, changed = bits.patched(weights, [name])
        reached = {parameter for number in numbers for parameter in slot_map.destinations[number].parameters}
        for parameter, tensor in bits.loaded(pattern, layout, changed).named_parameters():
            assert parameter in reached or torch.equal(bits.words(tensor), bits.words(before[parameter]))


@pytest.mark.parametrize("name", ["plus_one", "composed", "many_at_once", "rebound", "replaced"])
def test_a_refused_source_says_where_it_goes(name):
    slot_map = record(zoo.PATTERNS[name].model(zoo.Layout()))
    assert slot_map.reached.keys() == slot_map.refused.keys()
    assert all([slot_map.destinations[i].parameters for i in n] == [("w",)] for n in slot_map.reached.values())


@pytest.mark.parametrize("name", ["staged", "branching", "branching_on_item", "through_numpy", "kept"])
def test_a_refused_source_that_is_lost_from_sight_may_go_anywhere(name):
    slot_map = record(zoo.PATTERNS[name].model(zoo.Layout()))
    assert slot_map.refused and not slot_map.reached


def everything(model):
    """All that recording must not change: objects, addresses, shapes, bits, attributes."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers()), "derived": model.derived}
    return (
        {
            name: (id(t), t.data_ptr(), tuple(t.shape), t.stride(), t.dtype, bits.words(t.data).tolist())
            for name, t in tensors.items()
        },
        {key: id(value) for key, value in vars(model).items()},
        dict(model.pending),
        dict(vars(model.pattern)),
    )


def test_recording_and_tracing_leave_the_model_alone(pattern):
    model = pattern.model(zoo.Layout(2, 1))
    for i, parameter in enumerate(model.parameters()):
        bits.words(parameter.data).copy_(bits.words(bits.random_bits(parameter.dtype, parameter.shape, i)))
    before = everything(model)
    record(model)
    assert everything(model) == before
    slots.trace(model, bits.catalogue(model), model.load_weights)
    assert everything(model) == before


def test_what_is_filled_with_a_constant_is_padding():
    layout = zoo.Layout(2, 1)
    slot_map = record(zoo.PATTERNS["vocabulary"].model(layout))
    assert slot_map.ignored == {"head"} and slot_map.unwritten() == {}
    rows = zoo.VOCABULARY - zoo.PADDED // 2
    (padding,) = slot_map.padding
    (tile,) = padding.tiles
    assert padding.value == 0 and (tile.destination_begin, tile.elements) == (rows * zoo.HIDDEN, 3 * zoo.HIDDEN)


def test_all_ranks_together_have_every_element():
    for pattern in zoo.PATTERNS.values():
        ranks = [record(pattern.model(zoo.Layout(4, rank, True))) for rank in range(4)]
        skipped = {"head"} if pattern.name == "vocabulary" else set()
        assert set(slots.holes(ranks)) == skipped, pattern.name


def test_an_expert_that_no_rank_has_is_named():
    ranks = [record(zoo.PATTERNS["experts"].model(zoo.Layout(4, rank, True))) for rank in (0, 1, 3)]
    missing = slots.holes(ranks)
    assert set(missing) == {f"experts.2.{k}" for k in ("w1", "w2", "w3")}
    assert missing["experts.2.w1"] == slots.Hole(zoo.INNER * zoo.HIDDEN, 0)
    halves = [record(zoo.PATTERNS["column_shard"].model(zoo.Layout(4, rank))) for rank in (0, 1, 3)]
    assert slots.holes(halves) == {"down": slots.Hole(zoo.HIDDEN * zoo.INNER // 4, zoo.INNER // 2)}


def test_maps_of_different_catalogues_are_not_compared():
    model = zoo.PATTERNS["plain"].model(zoo.Layout())
    whole = record(model)
    part = slots.record(model, bits.catalogue(model, {"norm"}), model.load_weights)
    with pytest.raises(siltstone.Mismatch):
        slots.holes([part, whole])


def test_twenty_thousand_sources_are_recorded_in_little_memory(capsys):
    import resource
    import time

    layers, experts = 52, 128
    names = [f"{n}.{e}" for n in range(layers) for e in range(3 * experts)]

    class Many(torch.nn.Module):
        def __init__(self):
            super().__init__()
            shape = (3 * experts, 64, 32)
            self.layers = torch.nn.ParameterList(torch.empty(shape, dtype=torch.bfloat16) for _ in range(layers))

        def load_weights(self, weights):
            for name, w in weights:
                layer, expert = map(int, name.split("."))
                self.layers[layer].data[expert].copy_(w)

    model = Many()
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # noqa: E731
    before, begin = peak(), time.perf_counter()
    slot_map = slots.record(model, [(name, "BF16", (64, 32)) for name in names], model.load_weights)
    seconds = time.perf_counter() - begin
    with capsys.disabled():
        print(f" [{len(names)} sources in {seconds:.1f} s, {peak() - before:.0f} MiB more]", end="")
    assert len(slot_map.slots) == len(names) == 19968
    for i, slot in enumerate(slot_map.slots):
        assert slot.destination == i // (3 * experts)
        assert slot_map.contiguous(slot.tensor)[1:] == (i % (3 * experts) * 2048, 2048)
    assert peak() - before < 100
    assert slots.holes([slot_map]) == {} == slot_map.unwritten()


def test_reshapes_that_trust_strides_are_mapped_by_elements():
    """The C++ side of `reshape` calls operations that do not look at the strides of what they are given."""
    unsafe, alias = torch.ops.aten._unsafe_view.default, torch.ops.aten._reshape_alias.default
    for rows, columns in ((4, 4), (2, 8)):
        reshapes = {
            "unsafe": lambda w: unsafe(w.t().contiguous(), [16]),
            "alias": lambda w: alias(w.t().contiguous(), [16], [1]),
            "reshape": lambda w: w.t().reshape(16),
        }
        for reshape in reshapes.values():
            model = torch.nn.Module()
            model.w = torch.nn.Parameter(torch.zeros(16), requires_grad=False)

            def load(weights, model=model, reshape=reshape):
                for _, w in weights:
                    model.w.data.copy_(reshape(w))

            slot_map = slots.record(model, [("w", "F32", (rows, columns))], load)
            expected = torch.arange(16).reshape(rows, columns).t().reshape(16).tolist()
            assert [bits.places(slot_map, "w")[0, i] for i in range(16)] == expected


class Experts(torch.nn.Module):
    """Two of four experts; which ones says a table that the loader reads, in a helper object as vLLM has it."""

    def __init__(self, first):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 6, 4, dtype=torch.bfloat16), requires_grad=False)
        self.helper = types.SimpleNamespace(table=torch.full((4,), -1, dtype=torch.int32))
        self.helper.table[first : first + 2] = torch.arange(2, dtype=torch.int32)
        self.register_buffer("mask", self.helper.table >= 0)
        self.register_buffer("batches", torch.tensor(7))

    def load_weights(self, weights):
        for name, w in weights:
            if name == "batches":
                self.batches.copy_(w)
                continue
            place = self.helper.table[int(name)].item()
            assert (place >= 0) == self.mask[int(name)].item()
            if place >= 0:
                self.weight.data[place].copy_(w)


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("find", [slots.record, slots.trace])
def test_tables_that_a_loader_reads_are_there(find, first):
    model = Experts(first)
    catalogue = {f"{i}": ("BF16", (6, 4)) for i in range(4)} | {"batches": ("I64", ())}
    found = find(model, catalogue, model.load_weights)
    assert not found.refused and not found.shadows
    assert found.ignored == {f"{i}" for i in range(4)} - {f"{first}", f"{first + 1}"}
    for i in range(2):
        destination, begin, elements = found.contiguous(f"{first + i}")
        assert found.destinations[destination].parameters == ("weight",) and (begin, elements) == (24 * i, 24)
    (batches,) = found.of("batches")
    assert found.destinations[batches.destination].parameters == ("batches",)
    assert model.helper.table.tolist() == ([-1, -1, 0, 1] if first else [0, 1, -1, -1])
    assert model.batches.item() == 7
