"""Replicas of running engines: recorded with the engine's loader, proven, moved in place."""

import time

import pytest
import torch
from engine_weights import bits, step

import siltstone
from siltstone import engine

HIDDEN, VOCABULARY, PADDED = 32, 40, 64
LAYERS = 3
SKIPPED = ["rotary.*"]


def checkpoint(seed):
    """A decoder's tensors as a trainer publishes them."""
    draw = torch.Generator().manual_seed(seed)

    out = {"embed.weight": bits(draw, VOCABULARY, HIDDEN), "norm.weight": bits(draw, HIDDEN)}
    for i in range(LAYERS):
        out |= {f"layers.{i}.{name}.weight": bits(draw, rows, HIDDEN) for name, rows in (("q", 32), ("k", 16), ("v", 16))}
        out |= {f"layers.{i}.{name}.weight": bits(draw, 48, HIDDEN) for name in ("gate", "up")}
    out["lm_head.weight"] = out["embed.weight"].clone()
    out["rotary.inv_freq"] = bits(draw, 8)
    return out


class Engine(torch.nn.Module):
    """What serving engines do: fused projections, a padded vocabulary, a tied head, names that it skips."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Parameter(torch.full((PADDED, HIDDEN), 7.0, dtype=torch.bfloat16), requires_grad=False)
        self.norm = torch.nn.Parameter(torch.zeros(HIDDEN, dtype=torch.bfloat16), requires_grad=False)
        for kind, rows in (("qkv", 64), ("gate_up", 96)):
            weights = [torch.zeros(rows, HIDDEN, dtype=torch.bfloat16) for _ in range(LAYERS)]
            setattr(self, kind, torch.nn.ParameterList(torch.nn.Parameter(w, requires_grad=False) for w in weights))

    def load_weights(self, weights):
        rows = {"q": ("qkv", 0), "k": ("qkv", 32), "v": ("qkv", 48), "gate": ("gate_up", 0), "up": ("gate_up", 48)}
        for name, tensor in weights:
            if name == "embed.weight":
                self.embed.data[:VOCABULARY].copy_(tensor)
            elif name == "norm.weight":
                self.norm.data.copy_(tensor)
            elif name.startswith("layers."):
                _, layer, part, _ = name.split(".")
                kind, begin = rows[part]
                getattr(self, kind)[int(layer)].data.narrow(0, begin, tensor.shape[0]).copy_(tensor)

    def bits(self):
        return {name: p.data.view(torch.int16).clone() for name, p in self.named_parameters()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def cold(weights):
    """An engine that was loaded with a version at its start."""
    model = Engine()
    model.load_weights(weights.items())
    return model


@pytest.fixture
def run(tmp_path):
    """A repository with six versions, and their weights."""
    repository = siltstone.open(tmp_path / "bucket", create=True)
    versions = [checkpoint(1)]
    for seed in range(5):
        versions.append(step(versions[-1], seed))
    with repository.publisher() as publisher:
        for weights in versions:
            publisher.publish(weights)
    return repository, versions


def test_versions_arrive_as_the_loader_would_put_them(run):
    repository, versions = run
    model = cold(versions[0])
    addresses = {name: p.data_ptr() for name, p in model.named_parameters()}
    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED)
    assert equal(model.bits(), cold(versions[0]).bits()), "attaching changes nothing"
    assert replica.left_out.tied == {"lm_head.weight": "embed.weight"}
    assert replica.left_out.skipped == {"rotary.inv_freq"}
    for seq in (1, 2, 5):
        before = model.bits()
        staged = replica.stage(f"main@{seq}")
        assert equal(model.bits(), before), "staging changes nothing"
        staged.commit()
        assert equal(model.bits(), cold(versions[seq]).bits())
        assert replica.version.seq == seq
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == addresses


def test_an_engine_that_holds_something_else_is_refused(run):
    repository, versions = run
    model = cold(versions[1])
    before = model.bits()
    with pytest.raises(siltstone.Unsupported, match=r"tensors of main@0 cannot be written in place.*its bits are not"):
        engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED)
    assert equal(model.bits(), before)


def test_memory_that_was_rearranged_after_loading_is_noticed(run):
    repository, versions = run
    model = cold(versions[0])
    weight = model.gate_up[1].data
    weight.copy_(weight.roll(48, 0))  # up before gate, as some kernels want it
    with pytest.raises(siltstone.Unsupported) as refused:
        engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED)
    assert "'layers.1.gate.weight'" in str(refused.value) and "'layers.1.up.weight'" in str(refused.value)
    assert str(refused.value).startswith("2 of ")


def test_a_loader_that_computes_is_refused_by_name(run):
    repository, versions = run
    model = cold(versions[0])

    def load(weights):
        for name, tensor in weights:
            model.load_weights([(name, tensor + 1 if name == "norm.weight" else tensor)])

    with pytest.raises(siltstone.Unsupported, match="1 of .* tensors .*'norm.weight'"):
        engine.attach(repository, model, load, "main@0", skipped=SKIPPED)


def test_what_the_loader_leaves_out_is_named(run):
    repository, versions = run
    model = cold(versions[0])
    with pytest.raises(siltstone.Unsupported, match="leaves out 1 tensors.*'rotary.inv_freq'.*`skipped`"):
        engine.attach(repository, model, model.load_weights, "main@0")

    def load(weights):
        model.load_weights((name, tensor) for name, tensor in weights if name != "layers.1.up.weight")

    with pytest.raises(siltstone.Unsupported, match="leaves out 1 tensors.*'layers.1.up.weight'"):
        engine.attach(repository, model, load, "main@0", skipped=SKIPPED)


def test_tied_tensors_move_together_or_not_at_all(run):
    repository, versions = run
    model = cold(versions[0])
    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED)
    untied = step(versions[5], 9)
    untied["lm_head.weight"].view(torch.int16)[0, 0] ^= 1
    repository.publish(untied)
    with pytest.raises(siltstone.Mismatch, match="'embed.weight' and 'lm_head.weight' are one .* and differ in main@6"):
        replica.stage("main@6")
    replica.update("main@5")
    assert equal(model.bits(), cold(versions[5]).bits())


def test_a_parameter_that_moved_stops_the_commit(run):
    repository, versions = run
    model = cold(versions[0])
    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED)
    staged = replica.stage("main@1")
    model.norm.data = model.norm.data.clone()
    before = model.bits()
    with pytest.raises(siltstone.Mismatch, match="norm"):
        staged.commit()
    assert equal(model.bits(), before)


def test_a_word_that_somebody_else_wrote_stops_the_staging(run):
    repository, versions = run
    model = cold(versions[0])
    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED)
    model.qkv[0].data.view(torch.int16)[3, 3] ^= 1
    with pytest.raises(siltstone.Mismatch):
        replica.stage("main@1")
    replica.update("main@1", repair=True)
    assert equal(model.bits(), cold(versions[1]).bits())


def test_versions_are_staged_ahead(run):
    repository, versions = run
    model = cold(versions[0])
    replica = engine.attach(repository, model, model.load_weights, "main@0", skipped=SKIPPED)
    prefetch = engine.Prefetch(replica, interval=0.01)
    try:
        until = time.monotonic() + 60
        while prefetch._staged is None and time.monotonic() < until:
            time.sleep(0.01)
        staged = prefetch._staged
        assert staged.target.seq == 5
        assert equal(model.bits(), cold(versions[0]).bits())
        assert prefetch.commit("main@5").version.seq == 5
        assert equal(model.bits(), cold(versions[5]).bits())
        assert prefetch.commit("main@5") is None, "it is there already"
        assert prefetch.commit("main@2").version.seq == 2, "another version than the newest"
        assert equal(model.bits(), cold(versions[2]).bits())
    finally:
        prefetch.close()
