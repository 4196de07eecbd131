"""An engine that several ranks run together, as serving engines shard a decoder, and the versions that it takes."""

import dataclasses

import torch
from engine_weights import bits, step

import siltstone

BF16 = torch.bfloat16
HIDDEN, HEAD, HEADS, KV_HEADS, INNER, EXPERTS = 32, 8, 4, 2, 24, 4
VOCABULARY, PADDED = 38, 48
LAYERS = 2


def checkpoint(seed):
    """A decoder's tensors as a trainer publishes them: every second layer has experts."""
    draw = torch.Generator().manual_seed(seed)
    out = {"embed.weight": bits(draw, VOCABULARY, HIDDEN), "norm.weight": bits(draw, HIDDEN)}
    for i in range(LAYERS):
        at = f"layers.{i}."
        for part, heads in zip("qkv", (HEADS, KV_HEADS, KV_HEADS), strict=True):
            out[f"{at}{part}.weight"] = bits(draw, heads * HEAD, HIDDEN)
        out[at + "o.weight"] = bits(draw, HIDDEN, HEADS * HEAD)
        for e in [f"experts.{e}." for e in range(EXPERTS)] if i % 2 else [""]:
            out |= {at + e + f"{name}.weight": bits(draw, INNER, HIDDEN) for name in ("gate", "up")}
            out[at + e + "down.weight"] = bits(draw, HIDDEN, INNER)
    out["lm_head.weight"] = out["embed.weight"].clone()  # tied: the loader skips it
    return out


def publish(bucket, count):
    """[weights] of that many versions in a new bucket."""
    versions = [checkpoint(1)]
    for seed in range(count - 1):
        versions.append(step(versions[-1], seed))
    with siltstone.open(bucket, create=True).publisher() as publisher:
        for weights in versions:
            publisher.publish(weights)
    return versions


@dataclasses.dataclass
class Layout:
    """How the model is cut: projections over `tp` ranks, experts too or, whole ones, over `ep`; layers over `pp`."""

    tp: int = 1
    ep: int = 1
    pp: int = 1


class RankEngine(torch.nn.Module):
    """One rank of it. Replicates key heads where there are fewer than ranks, pads its vocabulary."""

    def __init__(self, layout, rank, drop=None):
        super().__init__()
        self.layout, self.rank, self._drop = layout, rank, drop
        self.first = rank if layout.tp > 1 else 0
        tp = layout.tp
        self.kv = max(1, KV_HEADS // tp)
        self._add("embed", PADDED // tp, HIDDEN)
        self._add("norm", HIDDEN)
        for i in self._layers():
            self._add(f"{i}_qkv", (HEADS // tp + 2 * self.kv) * HEAD, HIDDEN)
            self._add(f"{i}_o", HIDDEN, HEADS * HEAD // tp)
            experts = (EXPERTS // layout.ep,) if i % 2 else ()
            self._add(f"{i}_gate_up", *experts, 2 * INNER // tp, HIDDEN)
            self._add(f"{i}_down", *experts, HIDDEN, INNER // tp)

    def _add(self, name, *shape):
        self.register_parameter(name, torch.nn.Parameter(torch.full(shape, 7.0, dtype=BF16), requires_grad=False))

    def _layers(self):
        return range(self.rank % self.layout.pp, LAYERS, self.layout.pp)

    def load_weights(self, weights):
        for name, w in weights:
            if name == self._drop or name == "lm_head.weight":
                continue
            if name == "embed.weight":
                rows = PADDED // self.layout.tp
                mine = w[self.first * rows : (self.first + 1) * rows]
                self.embed.data[: mine.shape[0]].copy_(mine)
                self.embed.data[mine.shape[0] :].fill_(0)
            elif name == "norm.weight":
                self.norm.data.copy_(w)
            else:
                _, layer, *parts, part, _ = name.split(".")
                if int(layer) in self._layers():
                    self._layer(int(layer), part, w, int(parts[1]) if parts else None)

    def _layer(self, i, part, w, expert):
        own, tp = EXPERTS // self.layout.ep, self.layout.tp
        if expert is not None and expert // own != (self.rank if self.layout.ep > 1 else 0):
            return

        def parameter(name):
            whole = getattr(self, f"{i}_{name}").data
            return whole if expert is None else whole[expert % own]

        if part in "qkv":
            heads, replicas = (HEADS // tp, 1) if part == "q" else (self.kv, max(1, tp // KV_HEADS))
            begin = {"q": 0, "k": HEADS // tp, "v": HEADS // tp + self.kv}[part] * HEAD
            rows = heads * HEAD
            parameter("qkv").narrow(0, begin, rows).copy_(w.narrow(0, self.first // replicas * rows, rows))
        elif part in ("gate", "up"):
            rows = INNER // tp
            mine = w.narrow(0, self.first * rows, rows)
            parameter("gate_up").narrow(0, rows * (part == "up"), rows).copy_(mine)
        else:
            target = parameter(part)
            target.copy_(w.narrow(1, self.first * target.shape[1], target.shape[1]))

    def bits(self):
        return {name: p.data.view(torch.int16).clone() for name, p in self.named_parameters()}


class MixedEngine(RankEngine):
    """One that keeps its norm in fp32 and quantises an output projection of each rank's slice."""

    def __init__(self, layout, rank):
        super().__init__(layout, rank)
        self.norm = torch.nn.Parameter(self.norm.float(), requires_grad=False)
        shape = getattr(self, "0_o").shape
        self.register_parameter("0_o", torch.nn.Parameter(torch.zeros(shape, dtype=torch.int8), requires_grad=False))
        self.scale = torch.nn.Parameter(torch.zeros(shape[0], 1), requires_grad=False)
        self.fails = []

    def load_weights(self, weights):
        def others():
            for name, w in weights:
                if name != "layers.0.o.weight":
                    yield name, w
                    continue
                if self.fails and self.fails.pop():
                    raise RuntimeError("out of scales")
                columns = w.shape[1] // self.layout.tp
                mine = w.narrow(1, self.first * columns, columns).float().nan_to_num(0, 1, -1).clamp(-1, 1)
                self.scale.data.copy_(mine.abs().amax(1, keepdim=True) / 127 + 1e-9)
                getattr(self, "0_o").data.copy_((mine / self.scale).round())

        super().load_weights(others())

    def bits(self):
        return {name: p.data.view(torch.uint8).clone() for name, p in self.named_parameters()}


def loaded(layout, rank, weights, drop=None, kind=RankEngine):
    """A rank that was loaded with a version at its start."""
    model = kind(layout, rank, drop) if kind is RankEngine else kind(layout, rank)
    model.load_weights(weights.items())
    return model


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
