"""The frame of the zoo (slots_zoo.py): what a pattern is, under which layouts, and how one is registered."""

import dataclasses
from collections.abc import Callable

import torch

BF16, F32, FP8 = torch.bfloat16, torch.float32, torch.float8_e4m3fn
HIDDEN, INNER, HEADS, KV_HEADS, HEAD = 16, 24, 4, 2, 4
EXPERTS, VOCABULARY, PADDED = 4, 37, 40


@dataclasses.dataclass(frozen=True)
class Layout:
    tp: int = 1
    rank: int = 0
    expert_parallel: bool = False

    def __str__(self):
        return f"tp{self.tp}-{self.rank}{'-ep' * self.expert_parallel}"

    @property
    def inner(self):
        return INNER // self.tp

    @property
    def heads(self):
        return HEADS // self.tp

    @property
    def kv_heads(self):
        return max(1, KV_HEADS // self.tp)

    def shard(self, w, dim, size=None):
        size = w.shape[dim] // self.tp if size is None else size
        return w.narrow(dim, self.rank * size, size)


LAYOUTS = [Layout(), Layout(2, 0), Layout(2, 1), Layout(4, 3), Layout(2, 1, True), Layout(4, 2, True)]


@dataclasses.dataclass
class Pattern:
    name: str
    load: Callable
    parameters: Callable
    sources: Callable
    recorded: str
    traced: str

    def model(self, layout):
        return Model(self, layout)


class Model(torch.nn.Module):
    def __init__(self, pattern, layout):
        super().__init__()
        self.pattern, self.layout, self.pending = pattern, layout, {}
        for name, (dtype, *shape) in pattern.parameters(layout).items():
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False))
        self.derived = torch.ones(3)

    @property
    def sources(self):
        return {name: (dtype, tuple(shape)) for name, (dtype, *shape) in self.pattern.sources(self.layout).items()}

    def load_weights(self, weights):
        self.pattern.load(self, self.layout, weights)


PATTERNS = {}


def pattern(parameters, sources, recorded="slot", traced="slot"):
    def register(load):
        def of(what):
            return what if callable(what) else lambda layout: what

        PATTERNS[load.__name__] = Pattern(load.__name__, load, of(parameters), of(sources), recorded, traced)
        return load

    return register


def one(*shape, dtype=BF16, stored=None, **expected):
    """A pattern with one source and one parameter, both called w."""
    return pattern({"w": (dtype, *shape)}, {"w": stored or (dtype, *shape)}, **expected)


def each(load):
    """A loader that is told about one source at a time."""

    def all_of_them(m, p, weights):
        for name, w in weights:
            load(m, p, name, w)

    all_of_them.__name__ = load.__name__
    return all_of_them
