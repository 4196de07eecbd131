"""Loaders that misbehave: whatever they do, the model stays as it was and nothing wrong becomes a slot."""

import contextlib

import pytest

torch = pytest.importorskip("torch")

import siltstone  # noqa: E402
from siltstone import slots  # noqa: E402


class Own(torch.nn.Module):
    """One parameter of eight words and a loader given by the test."""

    def __init__(self, load=None):
        super().__init__()
        self.w = torch.nn.Parameter(torch.arange(8.0), requires_grad=False)
        self.load = load
        self.copy_of_w = self.w.clone()
        self.history = [1]
        self.helper = type("Helper", (), {})()
        self.helper.scale = torch.full((2,), 3.0)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def record(self, sources=(("a", "F32", (8,)),)):
        return slots.record(self, sources, lambda weights: self.load(self, weights))


def whole_state(model):
    tensors = (model.w, model.copy_of_w, model.helper.scale, model.seen)
    return (
        [(id(t), t.data_ptr(), t.tolist()) for t in tensors],
        list(model.history),
        set(vars(model)),
        set(vars(model.helper)),
    )


UNKNOWN = torch.ones(2)  # hangs on nothing that could be found


def vandal(model, weights):
    UNKNOWN.zero_()
    for _, w in weights:
        UNKNOWN.copy_(w[:2])
        model.w.data.copy_(w)
        model.copy_of_w.mul_(2)
        model.copy_of_w = None
        model.helper.scale.zero_()
        model.helper.more = w
        model.history.append(w)
        model.seen += 1
        model.w.data = torch.zeros(3)
        del model._parameters["w"]
        model.extra = 1


def test_a_loader_may_do_anything_to_the_model():
    model = Own(vandal)
    before = whole_state(model)
    assert set(model.record().refused) == {"a"}
    assert whole_state(model) == before
    assert UNKNOWN.tolist() == [1, 1]


def test_a_loader_that_raises_is_run_again_without_that_tensor():
    def load(model, weights):
        for name, w in weights:
            model.w.data[:4].copy_(w) if name == "good" else model.w.data.zero_()
            if name == "bad":
                raise KeyError("no parameter of that name")

    model = Own(load)
    before = whole_state(model)
    slot_map = model.record([("bad", "F32", (4,)), ("good", "F32", (4,))])
    assert slot_map.refused == {"bad": "KeyError: 'no parameter of that name'"}
    assert [s.tensor for s in slot_map.slots] == ["good"]
    assert whole_state(model) == before


def test_a_loader_that_fails_on_its_own_is_an_error():
    def load(model, weights):
        list(weights)
        raise RuntimeError("weights are missing")

    model = Own(load)
    before = whole_state(model)
    for run in (slots.record, slots.trace):
        with pytest.raises(siltstone.Unsupported, match="weights are missing"):
            run(model, [("a", "F32", (8,))], lambda weights: load(model, weights))
    assert whole_state(model) == before


def test_an_interrupted_recording_restores_the_model():
    def load(model, weights):
        model.w.data = torch.zeros(1)
        raise KeyboardInterrupt

    model = Own(load)
    before = whole_state(model)
    with pytest.raises(KeyboardInterrupt):
        model.record()
    assert whole_state(model) == before


def test_a_family_of_failing_tensors_costs_few_runs():
    runs = []

    def load(model, weights):
        runs.append(0)
        for name, w in weights:
            if name.startswith("layer"):
                w.tolist()
            model.w.data.copy_(w)

    names = [f"layers.{i}.scale" for i in range(200)]
    slot_map = Own(load).record([*((name.removesuffix("s"), "F32", (8,)) for name in names), ("last", "F32", (8,))])
    assert set(slot_map.refused) == set(names) and len(runs) == 3


def test_a_value_that_is_asked_for_is_refused_even_if_the_loader_goes_on():
    def load(model, weights):
        for _, w in weights:
            model.w.data.copy_(w)
            with contextlib.suppress(Exception):
                float(w[0])

    assert "value" in Own(load).record().refused["a"]


def test_an_item_that_is_used_for_anything_but_filling_is_refused():
    def use(operation):
        def load(model, weights):
            for _, w in weights:
                model.w.data[0].fill_(operation(w[0].item()))
                model.w.data[1:].copy_(w[1:])

        return Own(load).record()

    assert not use(lambda x: x).refused
    for operation in (lambda x: x * 2, lambda x: x if x > 0 else x, float, lambda x: torch.tensor(x), lambda x: 0.0):
        assert set(use(operation).refused) == {"a"}


def test_a_tensor_that_overwrites_another_owns_the_place():
    def load(model, weights):
        for _, w in weights:
            model.w.data[: w.numel()].copy_(w)

    slot_map = Own(load).record([("a", "F32", (8,)), ("b", "F32", (8,))])
    assert [s.tensor for s in slot_map.slots] == ["b"] and [s.tensor for s in slot_map.shadows] == ["a"]
    assert not slot_map.refused
    three = Own(load).record([("a", "F32", (8,)), ("b", "F32", (8,)), ("c", "F64", (8,))])
    assert set(three.refused) == {"a", "b", "c"} and not three.shadows
    partly = Own(load).record([("a", "F32", (8,)), ("b", "F32", (4,))])
    assert [s.tensor for s in partly.slots] == ["b"] and "'b'" in partly.refused["a"]


def test_sources_claim_the_device_that_the_engine_has():
    devices = []

    def load(model, weights):
        for _, w in weights:
            devices.append(w.device.type)
            model.w.data.copy_(w.to("cpu"))

    model = Own(load)
    slot_map = slots.record(model, [("a", "F32", (8,))], lambda weights: load(model, weights), device="cuda")
    assert devices == ["cuda"] and slot_map.contiguous("a") == (0, 0, 8)


def test_a_rebinding_is_blamed_on_the_tensor_that_did_it():
    def load(model, weights):
        for name, w in weights:
            if name == "rebinds":
                model.w.data = w
            elif name == "copied":
                model.copy_of_w.data.copy_(w)

    slot_map = Own(load).record([("skipped", "F32", (8,)), ("rebinds", "F32", (8,)), ("also skipped", "F32", (9,))])
    assert set(slot_map.refused) == {"rebinds"} and slot_map.ignored == {"skipped", "also skipped"}

    def late(model, weights):
        model.w.data = dict(weights)["b"]

    slot_map = Own(late).record([("a", "F32", (2,)), ("b", "F32", (8,)), ("c", "F32", (8,))])
    assert set(slot_map.refused) == {"b", "c"} and slot_map.ignored == {"a"}  # which one, nobody saw


def test_a_fill_under_another_dtype_still_spoils_what_it_hits():
    def load(model, weights):
        for name, w in weights:
            part = model.w.data[:4] if name == "a" else model.w.data[4:]
            part.copy_(w)
        model.w.data.view(torch.uint8)[9:12].zero_()

    slot_map = Own(load).record([("a", "F32", (4,)), ("b", "F32", (4,))])
    assert [s.tensor for s in slot_map.slots] == ["b"] and not slot_map.padding
    assert "elements of another size" in slot_map.refused["a"]


class ShardedParameter(torch.nn.Parameter):
    """As engines have them: a Parameter that knows how it is sharded and loads itself."""

    def __new__(cls, data, **_):
        return super().__new__(cls, data, requires_grad=False)

    def __init__(self, data, rank):
        self.rank = rank
        self.loaded = 0

    def weight_loader(self, w, begin):
        size = w.shape[0] // 2
        self.loaded += 1
        part = self.data.narrow(0, begin, size)
        shard = w.narrow(0, self.rank * size, size)
        assert part.shape == shard.shape
        part.copy_(shard)


def test_parameters_of_a_class_of_their_own_load_themselves():
    model = torch.nn.Module()
    model.w = ShardedParameter(torch.ones(6, 4), rank=1)
    before = model.w

    def load(weights):
        for name, w in weights:
            model.w.weight_loader(w, "ab".index(name) * 3)

    slot_map = slots.record(model, [("a", "F32", (6, 4)), ("b", "F32", (6, 4))], load)
    assert [tuple(s.tiles[0][:4]) for s in slot_map.slots] == [(12, 0, 1, 12), (12, 12, 1, 12)]
    assert model.w is before and before.loaded == 0 and before.tolist() == torch.ones(6, 4).tolist()


def test_a_view_that_overlaps_itself_is_no_place():
    def load(model, weights):
        for _, w in weights:
            model.w.data.as_strided((3, 3), (2, 1)).copy_(w)

    assert "overlaps itself" in Own(load).record([("a", "F32", (3, 3))]).refused["a"]
