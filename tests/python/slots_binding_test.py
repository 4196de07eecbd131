"""Binding a map to a live model: what moves is seen, wrong maps do not pass, cached ones are checked."""

import dataclasses
import json
import pickle

import pytest

torch = pytest.importorskip("torch")

import slots_bits as bits  # noqa: E402
import slots_zoo as zoo  # noqa: E402

import siltstone  # noqa: E402
from siltstone import slots  # noqa: E402


def bound(name, layout=zoo.Layout()):
    """(binding, checkpoint) of a pattern whose model holds that checkpoint."""
    pattern = zoo.PATTERNS[name]
    weights = bits.checkpoint(pattern.model(layout))
    model = bits.loaded(pattern, layout, weights)
    slot_map = slots.record(model, bits.catalogue(model), model.load_weights)
    return slots.bind(slot_map, model), model, weights


def proven(slot_map, model, weights):
    """Names whose bits in the model are those of the checkpoint, as far as the map places them."""
    binding = slots.bind(slot_map, model)
    out = set()
    for name in {slot.tensor for slot in slot_map.slots}:
        gathered = slots.gather(binding, name)
        at = torch.cat([tile_elements(t) for piece in gathered.tiles for t in piece.pieces()])
        got, true = (bits.words(t.reshape(-1))[at] for t in (gathered.values, weights[name]))
        if gathered.consistent and torch.equal(got, true):
            out.add(name)
    return out


def tile_elements(t):
    rows = torch.arange(t.rows)[:, None] * t.source_row_stride
    return (t.source_begin + rows + torch.arange(t.columns) * t.source_column_stride).flatten()


def with_tiles(slot_map, name, change):
    """The map with the tiles of one source changed."""
    replaced = [
        dataclasses.replace(s, tiles=tuple(change(t) for t in s.tiles)) if s.tensor == name else s
        for s in slot_map.slots
    ]
    return dataclasses.replace(slot_map, slots=replaced)


@pytest.mark.parametrize("layout", zoo.LAYOUTS, ids=str)
@pytest.mark.parametrize(
    "name", ["fused_qkv", "experts", "stacked_experts_transposed", "vocabulary", "regrouped", "repeated"]
)
def test_a_true_map_is_proven(name, layout):
    binding, model, weights = bound(name, layout)
    assert proven(binding.map, model, weights) == {slot.tensor for slot in binding.map.slots}


def test_swapped_halves_are_not_proven():
    binding, model, weights = bound("gate_up")
    gate, up = binding.map.slots
    swapped = [dataclasses.replace(gate, tiles=up.tiles), dataclasses.replace(up, tiles=gate.tiles)]
    assert proven(dataclasses.replace(binding.map, slots=swapped), model, weights) == set()


def test_swapped_experts_are_not_proven():
    binding, model, weights = bound("experts")
    slot_of = {slot.tensor: slot for slot in binding.map.slots}
    a, b = slot_of["experts.1.w2"], slot_of["experts.2.w2"]
    others = [slot for slot in binding.map.slots if slot not in (a, b)]
    wrong = [dataclasses.replace(a, tiles=b.tiles), dataclasses.replace(b, tiles=a.tiles)]
    found = proven(dataclasses.replace(binding.map, slots=others + wrong), model, weights)
    assert found == {slot.tensor for slot in others}


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t._replace(
            destination_begin=t.destination_begin + (t.rows - 1) * t.destination_row_stride,
            destination_row_stride=-t.destination_row_stride,
        ),
        lambda t: t._replace(
            destination_row_stride=t.destination_column_stride, destination_column_stride=t.destination_row_stride
        ),
        lambda t: t._replace(source_begin=t.source_begin + 1, columns=t.columns - 1),
        lambda t: t._replace(destination_begin=t.destination_begin + 1, columns=t.columns - 1),
    ],
    ids=["flipped", "transposed", "source shifted", "destination shifted"],
)
def test_changed_rows_are_not_proven(change):
    model = zoo.PATTERNS["passed_around"].model(zoo.Layout())
    weights = bits.checkpoint(model)
    model = bits.loaded(model.pattern, zoo.Layout(), weights)
    slot_map = slots.record(model, bits.catalogue(model), model.load_weights)
    n = zoo.HIDDEN
    square = with_tiles(slot_map, "w", lambda t: slots.Tile(0, 0, n, n, n, 1, n, 1))
    assert proven(square, model, weights) == {"w"}
    assert proven(with_tiles(square, "w", change), model, weights) == set()


def test_a_wrong_replica_is_not_proven():
    binding, model, weights = bound("broadcast")
    assert proven(binding.map, model, weights) == {"w"}
    with torch.no_grad():
        model.w.view(torch.int16)[2, 1, 3] ^= 1
    gathered = slots.gather(binding, "w")
    assert gathered.complete and not gathered.consistent


def test_what_is_no_image_of_a_widened_tensor_is_not_proven():
    binding, model, weights = bound("widened")
    with torch.no_grad():
        bits.words(model.w.data)[0, 0] ^= 1
    assert not slots.gather(binding, "w").consistent


def test_a_permutation_after_loading_is_seen_by_value_and_traced():
    """As an engine that swaps [gate, up] after loading: the recorded map is plausible, and wrong."""
    binding, model, weights = bound("gate_up")

    def swap():
        with torch.no_grad():
            model.gate_up.data.copy_(torch.cat(model.gate_up.data.chunk(2)[::-1]))

    swap()
    assert binding.check() == [] and proven(binding.map, model, weights) == set()
    traced = slots.trace(model, bits.catalogue(model), model.load_weights, finish=swap)
    assert proven(traced, model, weights) == {"gate", "up"}
    again = dataclasses.replace(binding.map, slots=[], refused=dict.fromkeys(("gate", "up"), "not proven"))
    assert again.merged(traced).slots == traced.slots


def test_tracing_rejects_arithmetic_after_loading():
    _, model, _ = bound("gate_up")

    def requantize():
        model.gate_up.data.mul_(1.5)

    traced = slots.trace(model, bits.catalogue(model), model.load_weights, finish=requantize)
    assert set(traced.refused) == {"gate", "up"}


def test_tracing_some_parameters_leaves_the_others_out():
    _, model, _ = bound("scalars")
    traced = slots.trace(model, bits.catalogue(model), model.load_weights, parameters=["a"])
    assert {slot.tensor for slot in traced.slots} == {"a"} and traced.ignored == {"b", "c.1", "c.2"}


def test_a_traced_place_that_another_tensor_has_is_not_merged():
    model = zoo.PATTERNS["tied_and_loaded_twice"].model(zoo.Layout())
    slot_map = slots.record(model, bits.catalogue(model), model.load_weights)
    slot_map = dataclasses.replace(slot_map, shadows=[], refused={"embed": "for the test"})
    traced = slots.trace(model, bits.catalogue(model, {"embed"}), model.load_weights)
    assert [s.tensor for s in traced.slots] == ["embed"]
    merged = slot_map.merged(traced)
    assert [s.tensor for s in merged.slots] == ["head"] and "together" in merged.refused["embed"]


def test_a_shard_gathers_what_it_has():
    binding, _, weights = bound("column_shard", zoo.Layout(2, 1))
    gathered = slots.gather(binding, "down")
    half = zoo.INNER // 2
    assert not gathered.complete and gathered.consistent and gathered.values.shape == weights["down"].shape
    assert torch.equal(bits.words(gathered.values)[:, half:], bits.words(weights["down"])[:, half:])
    assert not bits.words(gathered.values)[:, :half].any()
    (tile,) = gathered.tiles
    assert (tile.source_begin, tile.rows, tile.columns) == (half, zoo.HIDDEN, half)


def test_a_constant_tensor_is_never_called_proven():
    binding, model, _ = bound("fused_qkv", zoo.Layout(2, 1))
    gathered = slots.gather(binding, "q.bias")
    assert not gathered.constant
    with torch.no_grad():
        model.bias.fill_(1)
        model.weight[3, 3] = 5
    assert all(slots.gather(binding, f"{i}.bias").constant for i in "qkv")
    assert not slots.gather(binding, "q.weight").constant


def test_what_cannot_be_gathered_says_why():
    binding, *_ = bound("plus_one")
    with pytest.raises(siltstone.Unsupported, match="'w' has no slot: the loader computes with add"):
        slots.gather(binding, "w")
    binding, *_ = bound("vocabulary")
    with pytest.raises(siltstone.Unsupported, match="puts it nowhere"):
        slots.gather(binding, "head")
    with pytest.raises(siltstone.InvalidArgument, match="not in the catalogue"):
        slots.gather(binding, "heads")


def test_a_tensor_in_one_run_is_told_apart_from_the_others():
    assert bound("fused_qkv")[0].map.contiguous("k.weight") == (
        0,
        zoo.HEADS * zoo.HEAD * zoo.HIDDEN,
        2 * zoo.HEAD * zoo.HIDDEN,
    )
    assert bound("fused_on_disk")[0].map.contiguous("gate_up") == (0, 0, 2 * zoo.INNER * zoo.HIDDEN)
    assert bound("fused_on_disk", zoo.Layout(2, 0))[0].map.contiguous("gate_up") is None
    assert bound("transposed")[0].map.contiguous("w") is None
    assert bound("widened")[0].map.contiguous("w") is None
    assert bound("scalars")[0].map.contiguous("b") == (1, 0, 1)


# ---- guards ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, reason",
    [
        (
            lambda m: setattr(m, "gate_up", torch.nn.Parameter(m.gate_up.data, requires_grad=False)),
            "was replaced by another tensor",
        ),
        (lambda m: setattr(m.gate_up, "data", m.gate_up.data.clone()), "has another storage, address"),
        (lambda m: setattr(m.gate_up, "data", m.gate_up.data[:-1]), "has another shape"),
        (lambda m: setattr(m.gate_up, "data", m.gate_up.data.t()), "has another shape, strides"),
        (lambda m: setattr(m.gate_up, "data", m.gate_up.data.view(torch.float16)), "has another dtype"),
        (lambda m: m.gate_up.data.untyped_storage().resize_(1 << 20), "storage size"),
        (lambda m: m.__delattr__("gate_up"), "is gone"),
    ],
    ids=["replaced", "moved", "cut", "transposed", "reinterpreted", "resized", "deleted"],
)
def test_a_parameter_that_is_not_what_was_bound_is_seen(change, reason):
    binding, model, _ = bound("gate_up")
    assert binding.check() == []
    change(model)
    (problem,) = binding.check()
    assert problem.startswith("parameter 'gate_up'") and reason in problem


def test_what_was_replaced_is_not_read():
    binding, model, _ = bound("gate_up")
    model.gate_up.data = model.gate_up.data.clone()
    with pytest.raises(siltstone.Mismatch, match="not what was bound"):
        slots.gather(binding, "gate")
    model.gate_up = torch.nn.Parameter(model.gate_up.data, requires_grad=False)
    with pytest.raises(siltstone.Mismatch, match="not what was bound"):
        slots.gather(binding, "gate")


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(9, 4)
        self.head = torch.nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight

    def load_weights(self, weights):
        for name, w in weights:
            self.get_parameter(name).data.copy_(w)


def test_tied_parameters_are_one_destination_and_stay_so():
    model = Tied()
    slot_map = slots.record(model, {"embed.weight": ("F32", (9, 4))}, model.load_weights)
    (destination,) = slot_map.destinations
    assert destination.parameters == ("embed.weight", "head.weight")
    assert slots.bind(slot_map, model).unbound == {}
    model.head.weight = torch.nn.Parameter(model.head.weight.data.clone())
    binding = slots.bind(slot_map, model)
    assert "was tied to 'embed.weight'" in binding.unbound[0]
    with pytest.raises(siltstone.Mismatch, match="tied"):
        slots.gather(binding, "embed.weight")


def test_parameters_that_share_a_flat_buffer_keep_their_offsets():
    model = torch.nn.Module()
    flat = torch.zeros(40)
    model.a, model.b = (torch.nn.Parameter(part, requires_grad=False) for part in (flat[4:16].view(3, 4), flat[20:40]))

    def load(weights):
        for name, w in weights:
            getattr(model, name).data.copy_(w)

    slot_map = slots.record(model, [("a", "F32", (3, 4)), ("b", "F32", (20,))], load)
    assert slot_map.contiguous("a") == (0, 4, 12) and slot_map.contiguous("b") == (0, 20, 20)
    assert slot_map.unwritten() == {"a": slots.Hole(8, 0)}
    assert slots.bind(slot_map, model).unbound == {}
    model.b.data = flat[:20]
    assert "lies differently" in slots.bind(slot_map, model).unbound[0]


@pytest.mark.parametrize(
    "dtype, shape, reason",
    [(zoo.BF16, (7, 4), "elements, recorded|lies differently"), (zoo.F32, (6, 4), "recorded as")],
)
def test_a_map_of_another_model_does_not_bind(dtype, shape, reason):
    def model(dtype, shape):
        out = torch.nn.Module()
        out.w = torch.nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False)
        return out

    first = model(zoo.BF16, (6, 4))
    slot_map = slots.record(first, [("w", "BF16", (6, 4))], lambda ws: [first.w.data.copy_(w) for _, w in ws])
    (problem,) = slots.bind(slot_map, model(dtype, shape)).unbound.values()
    assert any(text in problem for text in reason.split("|"))
    assert "no parameter 'w'" in slots.bind(slot_map, torch.nn.Module()).unbound[0]


def test_a_transposed_view_of_the_same_memory_binds():
    binding, model, weights = bound("passed_around")
    model.w = torch.nn.Parameter(model.w.data.t(), requires_grad=False)
    assert slots.bind(binding.map, model).unbound == {}
    assert proven(binding.map, model, weights) == {"w"}


def test_copies_that_were_derived_from_weights_are_listed():
    model = Tied()
    model.view_of_weight = model.head.weight.data.t()
    model.w_kc = model.head.weight.data.clone()
    model.quant_method = type("Method", (), {})()
    model.quant_method.kernel = type("Kernel", (), {})()
    model.quant_method.kernel.scales = [torch.ones(3, dtype=torch.bfloat16)]
    model.quant_method.again = model.w_kc
    found = {each.path: each for each in slots.derived(model)}
    assert set(found) == {"w_kc", "quant_method.kernel.scales.0"}
    assert found["w_kc"].shape == (9, 4) and found["w_kc"].bytes == 144


# ---- cached maps -----------------------------------------------------------------------------------------------


def everything():
    """A map with all that a map can have."""
    layout = zoo.Layout(2, 1)
    for name in (
        "vocabulary",
        "tied_and_loaded_twice",
        "plus_one",
        "widened",
        "rows_shuffled",
        "stacked_experts_at_once",
    ):
        model = zoo.PATTERNS[name].model(layout)
        yield slots.record(model, bits.catalogue(model), model.load_weights)
        yield slots.trace(model, bits.catalogue(model), model.load_weights)


def test_a_map_survives_text_and_pickle():
    for slot_map in everything():
        assert slots.from_json(slots.to_json(slot_map)) == slot_map
        slot_map.of(next(iter(slot_map.sources)))
        assert pickle.loads(pickle.dumps(slot_map)) == slot_map


def test_a_hostile_map_is_refused():
    model = zoo.PATTERNS["column_shard"].model(zoo.Layout(2, 1))
    good = json.loads(slots.to_json(slots.record(model, bits.catalogue(model), model.load_weights)))
    slots.from_json(json.dumps(good))

    def broken(change):
        fields = json.loads(json.dumps(good))
        change(fields)
        with pytest.raises((siltstone.Corrupt, siltstone.Unsupported)):
            slots.from_json(json.dumps(fields))

    for key in good:
        broken(lambda f, key=key: f.pop(key))
        for value in (None, 3, "x", [[]], [3], {"x": 3}, [None]):
            broken(lambda f, key=key, value=value: f.update({key: value}))
    for i in range(8):
        for value in (-1, 0, 1 << 20, 1 << 60, 1.0, True, None, "1", [1]):
            if value not in (0, True) and good["slots"][0][3][0][i] != value:
                broken(lambda f, i=i, value=value: f["slots"][0][3][0].__setitem__(i, value))
    for i, value in ((0, "no"), (1, 1), (1, -1), (2, "widen"), (2, ""), (3, []), (3, [[1] * 7])):
        broken(lambda f, i=i, value=value: f["slots"][0].__setitem__(i, value))
    broken(lambda f: f["ignored"].append("down"))
    broken(lambda f: f["reached"].update(down=[len(good["destinations"])]))
    broken(lambda f: f["reached"].update(nobody=[0]))
    broken(lambda f: f["sources"].append(f["sources"][0]))
    broken(lambda f: f["sources"][0].__setitem__(2, [1 << 40, 1 << 40]))
    broken(lambda f: f["slots"][0][3].append([0, [], 1, 1, 1, 1]))
    broken(lambda f: f["slots"][0][3].append([0, [0, 1 << 40], 1, 1, 1, 1]))
    broken(lambda f: f["slots"][0][3].append([0, [0, 1], 1 << 40, 1, 1, 1]))
    broken(lambda f: f["destinations"][0].__setitem__(1, 0))
    for text in ("", "[]", "{", "[" * 100000, '{"a":1,"a":2}', '{"format":NaN}', "1" * 5000, "null"):
        with pytest.raises(siltstone.Corrupt):
            slots.from_json(text)


def test_a_catalogue_must_name_each_tensor_once():
    with pytest.raises(siltstone.InvalidArgument, match="'a' twice"):
        slots.record(torch.nn.Module(), [("a", "F32", (1,)), ("a", "F32", (2,))], list)
