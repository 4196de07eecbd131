"""Replicas of engines that compute what they serve: what has no place of its own goes through the loader again."""

import contextlib
import time

import pytest
import torch

import siltstone
from siltstone import engine, slots
from siltstone.engine.reload import groups, layer_of

HIDDEN, VOCABULARY, PADDED = 32, 40, 64
SKIPPED = ["rotary.*"]
ROWS = {"q": ("qkv", 0, 32), "k": ("qkv", 32, 16), "v": ("qkv", 48, 16), "gate": ("up", 0, 48), "up": ("up", 48, 48)}
PLAIN, INT8, FLOAT = "layers.0.", "layers.1.", "layers.2."


def parameter(*shape, dtype=torch.bfloat16):
    return torch.nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False)


def checkpoint():
    """A decoder's tensors as a trainer publishes them."""
    draw = torch.Generator().manual_seed(1)
    shapes = {"embed.weight": (VOCABULARY, HIDDEN), "norm.weight": (HIDDEN,), "head.weight": (VOCABULARY, HIDDEN)}
    for layer in (PLAIN, INT8, FLOAT):
        shapes |= {f"{layer}{name}.weight": (rows, HIDDEN) for name, (_, _, rows) in ROWS.items()}
    shapes["rotary.inv_freq"] = (8,)
    return {name: torch.randn(shape, generator=draw).to(torch.bfloat16) for name, shape in shapes.items()}


def step(weights, seed, only=""):
    """A third of the words takes other mantissas; `only` in tensors of that prefix."""
    draw = torch.Generator().manual_seed(seed)
    out = {}
    for name, tensor in weights.items():
        words = tensor.view(torch.int16).clone()
        hit = torch.rand(words.shape, generator=draw) < (0.3 if name.startswith(only) else 0.0)
        words[hit] ^= torch.randint(1, 1 << 7, words.shape, generator=draw, dtype=torch.int16)[hit]
        out[name] = words.view(torch.bfloat16)
    return out


class Quantised(torch.nn.Module):
    """A layer that keeps eight bits of each weight, and one scale for all that it has fused."""

    def __init__(self, rows):
        super().__init__()
        self.weight = parameter(rows, HIDDEN, dtype=torch.int8)
        self.scale = parameter(1, dtype=torch.float32)
        self._parts = {}

    def load(self, begin, tensor):
        self._parts[begin] = tensor
        if sum(part.shape[0] for part in self._parts.values()) == self.weight.shape[0]:
            whole = torch.cat([self._parts[key] for key in sorted(self._parts)]).float()
            self._parts.clear()
            scale = whole.abs().max() / 127
            self.scale.data.copy_(scale.reshape(1))
            self.weight.data.copy_((whole / scale).round())


class Plain(torch.nn.Module):
    def __init__(self, rows, dtype):
        super().__init__()
        self.weight = parameter(rows, HIDDEN, dtype=dtype)

    def load(self, begin, tensor):
        self.weight.data.narrow(0, begin, tensor.shape[0]).copy_(tensor)


class Engine(torch.nn.Module):
    """Layer 0 is as in the checkpoint, but fused; layer 1 quantises q, k, v; layer 2 is fp32. The head is transposed
    and replaced at each load. `given` are the names that the loader was given; `faults` how many loads fail, after
    that many tensors."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = parameter(PADDED, HIDDEN), parameter(HIDDEN), parameter(HIDDEN, VOCABULARY)
        layers = []
        for layer in (PLAIN, INT8, FLOAT):
            dtype = torch.float32 if layer == FLOAT else torch.bfloat16
            qkv = Quantised(64) if layer == INT8 else Plain(64, dtype)
            layers.append(torch.nn.ModuleDict({"qkv": qkv, "up": Plain(96, dtype)}))
        self.layers = torch.nn.ModuleList(layers)
        self.given, self.faults, self.fails_after = [], 0, 3

    def load_weights(self, weights):
        for name, tensor in weights:
            if name == "embed.weight":
                self.embed.data[:VOCABULARY].copy_(tensor)
            elif name == "norm.weight":
                self.norm.data.copy_(tensor)
            elif name == "head.weight":
                self.head = torch.nn.Parameter(tensor.t().contiguous(), requires_grad=False)
            elif name.startswith("layers."):
                _, layer, part, _ = name.split(".")
                fused, begin, _ = ROWS[part]
                self.layers[int(layer)][fused].load(begin, tensor)

    def reload(self, weights):
        self.given.append([])

        def watched():
            for name, tensor in weights:
                if self.faults and len(self.given[-1]) == self.fails_after:
                    self.faults -= 1
                    for layer in self.layers:
                        if isinstance(layer["qkv"], Quantised):
                            layer["qkv"]._parts.clear()
                    raise RuntimeError("the loader has a bad day")
                self.given[-1].append(name)
                yield name, tensor

        self.load_weights(watched())

    def bits(self):
        words = {1: torch.int8, 2: torch.int16, 4: torch.int32}
        return {name: p.data.contiguous().view(words[p.dtype.itemsize]).clone() for name, p in self.named_parameters()}


IN_PLACE = ("embed", "norm", "layers.0.qkv.weight", "layers.0.up.weight")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def cold(weights):
    """An engine that was loaded with a version at its start."""
    model = Engine()
    model.load_weights(weights.items())
    return model


def addresses(model):
    return {name: p.data_ptr() for name, p in model.named_parameters() if name in IN_PLACE}


@pytest.fixture
def run(tmp_path):
    """A repository with eight versions, and their weights. The last two change layer 0 alone, and layer 2 alone."""
    repository = siltstone.open(tmp_path / "bucket", create=True)
    versions = [checkpoint()]
    for seed in range(5):
        versions.append(step(versions[-1], seed))
    versions.append(step(versions[-1], 8, PLAIN))
    versions.append(step(versions[-1], 9, FLOAT))
    with repository.publisher() as publisher:
        for weights in versions:
            publisher.publish(weights)
    return repository, versions


def attached(repository, model, at="main@0", **options):
    return engine.attach(repository, model, model.load_weights, at, reload=model.reload, **{"skipped": SKIPPED, **options})


def of(layer):
    return {f"{layer}{name}.weight" for name in ROWS}


def test_versions_arrive_as_a_cold_load_would_put_them(run):
    repository, versions = run
    model = cold(versions[0])
    before = addresses(model)
    replica = attached(repository, model)
    assert equal(model.bits(), cold(versions[0]).bits())
    for seq in (1, 2, 5, 3, 0, 7):
        held = model.bits()
        staged = replica.stage(f"main@{seq}")
        assert equal(model.bits(), held), "staging changes nothing"
        report = staged.commit()
        assert equal(model.bits(), cold(versions[seq]).bits())
        assert replica.version.seq == report.version.seq == seq
        assert (report.outcome, report.reloaded) == ("APPLIED", 11)
    assert addresses(model) == before


def test_what_goes_which_way_is_told(run):
    repository, versions = run
    replica = attached(repository, cold(versions[0]))
    assert replica.reloaded.keys() == of(INT8) | of(FLOAT) | {"head.weight"}
    assert replica.kept.keys() == replica.reloaded.keys() and replica.left_out.skipped == {"rotary.inv_freq"}
    assert {slot.tensor for slot in replica.map.slots} == of(PLAIN) | {"embed.weight", "norm.weight"}
    assert replica.reloaded["layers.2.q.weight"] == "the engine keeps it as F32"
    assert replica.reloaded["layers.1.gate.weight"] == "it is loaded together with 'layers.1.k.weight'"
    assert replica.reloaded["head.weight"] == "the loader puts it on the model in place of a copy"
    told = replica.summary()
    assert told.startswith("7 tensors (0.0 MiB) are written in place, 11 tensors (0.0 MiB) are reloaded by the engine")
    assert told.endswith("and 6 more), 1 tensor (0.0 MiB) has no place of its own in the engine")


def test_layers_that_did_not_change_are_not_loaded(run):
    repository, versions = run
    model = cold(versions[5])
    replica = attached(repository, model, "main@5")
    model.given.clear()
    assert replica.update("main@6").reloaded == 0
    assert model.given == [] and equal(model.bits(), cold(versions[6]).bits())
    assert replica.update("main@7").reloaded == 5
    assert [set(names) for names in model.given] == [of(FLOAT)]
    assert equal(model.bits(), cold(versions[7]).bits())


def test_without_a_loader_for_them_they_are_refused(run):
    repository, versions = run
    model = cold(versions[0])
    with pytest.raises(siltstone.Unsupported, match="9 of 19 tensors of main@0 cannot be written in place"):
        engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED)


def test_what_the_loader_is_known_to_get_wrong_is_refused(run):
    repository, versions = run
    model = cold(versions[0])
    before = model.bits()
    with pytest.raises(siltstone.Unsupported, match="'layers.1.up.weight': it is loaded.*; it packs once only"):
        attached(repository, model, unloadable=lambda _: {"layers.1.up.weight": "it packs once only"})
    assert equal(model.bits(), before) and not model.given
    replica = attached(repository, model, unloadable=lambda _: {"norm.weight": "it is never reloaded"})
    assert "norm.weight" not in replica.reloaded


def test_an_engine_that_holds_another_version_is_brought_to_it(run):
    repository, versions = run
    model = cold(versions[3])
    before = addresses(model)
    replica = attached(repository, model)
    assert equal(model.bits(), cold(versions[0]).bits())
    assert replica.reloaded.keys() == of(INT8) | of(FLOAT) | {"head.weight"}, "its own words are written in place"
    replica.update("main@2")
    assert equal(model.bits(), cold(versions[2]).bits()) and addresses(model) == before


def test_a_loader_that_keeps_what_it_gets_does_not_get_the_copies(run):
    repository, versions = run
    model = cold(versions[0])

    def reload(weights):
        def spoiled():
            for name, tensor in weights:
                yield name, tensor
                tensor.zero_()

        model.load_weights(spoiled())
        model.head.data.mul_(1)

    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED, reload=reload)
    for name, tensor in replica.kept.items():
        assert torch.equal(tensor, versions[0][name])


# Failures


@pytest.mark.parametrize("after", [0, 3, 10])
def test_a_loader_that_fails_leaves_the_version_before(run, after):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    model.faults, model.fails_after = 1, after
    with pytest.raises(engine.ReloadFailed, match="main@4.*bad day; the engine holds main@0 again") as failed:
        replica.update("main@4")
    assert failed.value.outcome == "UNCHANGED" and isinstance(failed.value.__cause__, RuntimeError)
    assert replica.version.seq == 0 and equal(model.bits(), cold(versions[0]).bits())
    replica.update("main@4")
    assert replica.version.seq == 4 and equal(model.bits(), cold(versions[4]).bits())


def test_a_way_back_that_fails_poisons_and_a_repair_heals(run):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    model.faults = 2
    with pytest.raises(engine.ReloadFailed, match="hold no version.*main@1.*going back to main@0 failed") as failed:
        replica.update("main@1")
    assert failed.value.outcome == "POISONED" and replica.version is None
    for version in ("main@0", "main@1", "main@2"):
        with pytest.raises(siltstone.Mismatch, match="hold no version.*stage with repair"):
            replica.update(version)
    model.faults = 1
    with pytest.raises(engine.ReloadFailed, match="hold no version") as failed:
        replica.update("main@2", repair=True)
    assert failed.value.outcome == "POISONED" and replica.version is None, "there was nothing to go back to"
    assert replica.update("main@2", repair=True).reloaded == 11
    assert replica.version.seq == 2 and equal(model.bits(), cold(versions[2]).bits())
    replica.update("main@3")
    assert equal(model.bits(), cold(versions[3]).bits())


def test_what_was_staged_before_the_parameters_were_lost_is_not_committed(run):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    model.faults = 2
    with pytest.raises(engine.ReloadFailed):
        replica.update("main@1")
    repair = replica.stage("main@1", repair=True)
    later = replica.stage("main@2", repair=True)
    with pytest.raises(siltstone.InvalidArgument, match="staged last"):
        repair.commit()
    later.commit()
    assert equal(model.bits(), cold(versions[2]).bits())


def test_attaching_again_heals_too(run):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    model.faults = 2
    with pytest.raises(engine.ReloadFailed, match="attach again with main@[01]"):
        replica.update("main@1")
    replica.close()
    attached(repository, model, "main@1").update("main@2")
    assert equal(model.bits(), cold(versions[2]).bits())


def test_a_loader_that_fails_when_attached_is_told(run):
    repository, versions = run
    model = cold(versions[0])
    model.faults = 1
    with pytest.raises(engine.ReloadFailed, match="hold no version: loading main@0 .* failed.*bad day") as failed:
        attached(repository, model)
    assert failed.value.outcome == "POISONED"


def test_an_interrupted_loader_poisons(run):
    repository, versions = run
    model = cold(versions[0])

    def reload(weights):
        if model.faults:
            raise KeyboardInterrupt
        model.load_weights(weights)

    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED, reload=reload)
    model.faults = 1
    with pytest.raises(KeyboardInterrupt):
        replica.update("main@1")
    assert replica.version is None
    model.faults = 0
    replica.update("main@1", repair=True)
    assert equal(model.bits(), cold(versions[1]).bits())


def test_a_loader_that_leaves_tensors_lying_failed(run):
    repository, versions = run
    model = cold(versions[0])
    with pytest.raises(engine.ReloadFailed, match="took 1 of 11 tensors"):
        engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED, reload=lambda weights: next(weights))


def test_a_parameter_that_moved_stops_the_commit(run):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    staged = replica.stage("main@1")
    model.norm.data = model.norm.data.clone()
    before = model.bits()
    model.given.clear()
    with pytest.raises(siltstone.Mismatch, match="'norm' has another.*attach again"):
        staged.commit()
    assert equal(model.bits(), before) and model.given == [] and replica.version.seq == 0


def test_a_word_that_somebody_else_wrote_is_repaired(run):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    model.embed.data[3, 3] = 7
    model.layers[1]["qkv"].weight.data[3, 3] += 1
    with pytest.raises(siltstone.Mismatch):
        replica.stage("main@1")
    replica.update("main@1", repair=True)
    assert equal(model.bits(), cold(versions[1]).bits())


# What is loaded together


def test_layers_and_modules_are_told_by_their_names():
    assert layer_of("model.layers.13.mlp.experts.7.w1.weight") == "model.layers.13."
    assert layer_of("model.norm.weight") == "model.norm."
    assert layer_of("lm_head.weight") == layer_of("lm_head.scale") == "lm_head."
    assert layer_of("0.weight") == "0." and layer_of("scale") == layer_of("bias") == "."


class Shared(torch.nn.Module):
    """Parameters that several layers have a part in."""

    def __init__(self):
        super().__init__()
        self.embed = parameter(4, 4)
        self.head = self.embed
        self.stack = parameter(3, 4, 4)
        self.other = parameter(4, 4)

    def load(self, weights):
        for name, tensor in weights:
            if name.startswith("layers."):
                self.stack.data[int(name.split(".")[1])].copy_(tensor * 2 if name == "layers.1.w" else tensor)
            elif name == "head.w":
                self.head.data.copy_(tensor + 1)
            elif name == "lost.w":
                raise ValueError("not now")
            else:
                getattr(self, name.split(".")[0]).data.copy_(tensor)


def divided(*names):
    model = Shared()
    slot_map = slots.record(model, {name: ("BF16", (4, 4)) for name in names}, model.load)
    return [set(group) for group in groups(slot_map, slot_map.refused)]


def test_layers_in_one_parameter_are_loaded_together():
    assert divided("layers.0.w", "layers.1.w", "layers.2.w", "other.w") == [{"layers.0.w", "layers.1.w", "layers.2.w"}]


def test_what_is_tied_to_a_computed_tensor_is_loaded_with_it():
    assert divided("embed.w", "head.w", "other.w") == [{"embed.w", "head.w"}]


def test_tensors_whose_place_is_not_seen_are_loaded_together():
    assert divided("embed.w", "head.w", "lost.w", "lost.b", "other.w") == [{"embed.w", "head.w"}, {"lost.w", "lost.b"}]
    assert divided("embed.w", "layers.0.w", "lost.w", "7.lost.w", "7.w") == [{"lost.w", "7.lost.w", "7.w"}]


class Hidden(torch.nn.Module):
    """A loader that says nothing while it is recorded, and writes to, or moves, a neighbour's parameter."""

    def __init__(self, moves):
        super().__init__()
        self.packed, self.near, self.far, self.moves = parameter(4, 4), parameter(4, 4), parameter(4, 4), moves

    def load_weights(self, weights):
        for name, tensor in weights:
            if name == "packed.weight":
                self.packed.data.copy_(tensor / float(tensor.float().max()))
                if self.moves:
                    self.near.data = self.near.data.clone()
                else:
                    self.near.data[0].copy_(tensor[0])
            else:
                getattr(self, name.split(".")[0]).data.copy_(tensor)


@pytest.mark.parametrize("moves", [False, True])
def test_a_neighbour_that_a_reload_gets_at_is_loaded_with_it(tmp_path, moves):
    repository = siltstone.open(tmp_path / "bucket", create=True)
    draw = torch.Generator().manual_seed(2)
    versions = [
        {name: torch.randn((4, 4), generator=draw).to(torch.bfloat16) for name in ("far.w", "near.w", "packed.weight")}
        for _ in range(3)
    ]
    versions[0]["near.w"][0] = versions[0]["packed.weight"][0]  # nothing to be seen at first
    versions[1]["packed.weight"] = versions[0]["packed.weight"]  # nor is it loaded by itself
    with repository.publisher() as publisher:
        for weights in versions:
            publisher.publish(weights)

    def loaded(weights):
        model = Hidden(moves)
        model.load_weights(weights.items())
        return {name: p.data.clone() for name, p in model.named_parameters()}, model

    _, model = loaded(versions[0])
    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED, reload=model.load_weights)
    assert replica.reloaded.keys() == {"near.w", "packed.weight"}
    how = "moves its parameter" if moves else "writes to it"
    assert replica.reloaded["near.w"] == f"a reload of other tensors {how}"
    for seq in (1, 2, 0):
        replica.update(f"main@{seq}")
        expected, _ = loaded(versions[seq])
        assert all(torch.equal(p.data, expected[name]) for name, p in model.named_parameters())


def test_a_reload_that_moves_others_takes_them_with_it(run):
    repository, versions = run
    model = cold(versions[0])

    def reload(weights):
        model.reload(weights)
        model.norm.data = model.norm.data.clone()

    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED, reload=reload)
    assert replica.reloaded["norm.weight"] == "a reload of other tensors moves its parameter"
    assert "embed.weight" not in replica.reloaded
    replica.update("main@7")
    assert equal(model.bits(), cold(versions[7]).bits())


# Those who call it


def test_a_follower_goes_through_the_loader(run):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    steps, paused = [], []

    @contextlib.contextmanager
    def pause(version):
        before = model.bits()
        yield
        paused.append((version.seq, equal(before, model.bits())))

    with replica.follow(on_version=steps.append, pause=pause, interval=0.01, until=7) as follower:
        assert follower.join(60)
    assert [step.version.seq for step in steps] == [seq for seq, _ in paused] and steps[-1].version.seq == 7
    assert not any(same for _, same in paused)
    assert steps[0].previous == "main@0" and steps[0].bytes_fetched > 0 and steps[0].commit_seconds > 0
    assert equal(model.bits(), cold(versions[7]).bits())


def test_a_follower_ends_with_what_the_loader_failed_with(run):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    model.faults = 1
    follower = replica.follow(interval=0.01)
    with pytest.raises(engine.ReloadFailed, match="holds main@0 again"):
        follower.join(60)
    assert not follower.running and equal(model.bits(), cold(versions[0]).bits())
    with replica.follow(interval=0.01, repair=True, until=4) as follower:
        assert follower.join(60)
    assert equal(model.bits(), cold(versions[4]).bits())


def test_a_follower_stops_when_it_is_told_to(run):
    repository, versions = run
    replica = attached(repository, cold(versions[7]), "main@7")
    follower = replica.follow(interval=0.01)
    assert follower.running and not follower.join(0.1)
    follower.stop()
    assert not follower.running and follower.version.seq == 7


def test_versions_are_staged_ahead(run):
    repository, versions = run
    model = cold(versions[0])
    replica = attached(repository, model)
    prefetch = engine.Prefetch(replica, interval=0.01)
    try:
        until = time.monotonic() + 60
        while prefetch._staged is None and time.monotonic() < until:
            time.sleep(0.01)
        model.faults = 2
        with pytest.raises(engine.ReloadFailed, match="hold no version"):
            prefetch.commit("main@7")
        with pytest.raises(siltstone.Mismatch, match="hold no version"):
            prefetch.commit("main@7")
        assert prefetch.commit("main@7", repair=True).version.seq == 7
        assert equal(model.bits(), cold(versions[7]).bits())
        assert prefetch.commit("main@7") is None
        assert prefetch.commit("main@2").version.seq == 2
        assert equal(model.bits(), cold(versions[2]).bits())
    finally:
        prefetch.close()
