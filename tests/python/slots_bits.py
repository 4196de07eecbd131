"""Bits for the tests of slots: random words, real loads, and a plain scatter through a map."""

import torch

from siltstone import slots
from siltstone.tensors import DTYPES

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def words(tensor):
    return tensor.detach().view(WORDS[tensor.dtype.itemsize])


def code(dtype):
    return DTYPES[str(dtype).removeprefix("torch.")]


def catalogue(model, names=None):
    return [(n, code(d), s) for n, (d, s) in model.sources.items() if names is None or n in names]


def random_bits(dtype, shape, seed, finite=False):
    """Any bits: NaNs with payloads, infinities, negative zeros, subnormals."""
    count = torch.Size(shape).numel() * dtype.itemsize
    generator = torch.Generator().manual_seed(seed)
    out = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator).view(dtype)
    if finite and dtype.is_floating_point:
        words(out)[~out.double().isfinite()] = 1
    return out.reshape(shape)


def checkpoint(model, seed=0):
    """Random bits for all sources; finite where the parameter is narrower, for rounding a NaN is nobody's promise."""
    narrowed = {name for name, _ in model.sources.items() if model.pattern.name == "narrowed"}
    return {n: random_bits(d, s, seed + i, n in narrowed) for i, (n, (d, s)) in enumerate(model.sources.items())}


def loaded(pattern, layout, weights):
    """A model with the weights as the engine's own loader brings them in, over bits that show what it left alone."""
    model = pattern.model(layout)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            words(parameter.data).copy_(words(random_bits(parameter.dtype, parameter.shape, 1000 + i, finite=True)))
        model.load_weights(iter({name: w.clone() for name, w in weights.items()}.items()))
    return model


def patched(weights, names, seed=77):
    """({name: flat positions}, new weights): a fifth of the elements of some tensors with other bits."""
    changed, out = {}, {name: w.clone() for name, w in weights.items()}
    for i, name in enumerate(names):
        w = out[name]
        generator = torch.Generator().manual_seed(seed + i)
        at = torch.randperm(w.numel(), generator=generator)[: max(1, w.numel() // 5)]
        finite = bool(weights[name].double().isfinite().all()) if w.is_floating_point() else False
        words(w).view(-1)[at] = words(random_bits(w.dtype, (w.numel(),), seed + 100 + i, finite))[at]
        changed[name] = at
    return changed, out


def scatter(binding, name, at, tensor):
    """Writes elements of a source into the live parameters, as an engine would."""
    for slot in binding.map.slots:
        if slot.tensor == name:
            storage = binding.storage(slot.destination)
            which, offsets = slots.invert(slot.tiles, at)
            values = tensor.reshape(-1)[at[which]]
            if slot.cast != "none":
                values = values.to(storage.dtype)
            words(storage)[offsets] = words(values)


def same(a, b):
    """Whether two modules have the same bits in all parameters."""
    pairs = zip(a.named_parameters(), b.named_parameters(), strict=True)
    return all(n == m and torch.equal(words(p), words(q)) for (n, p), (m, q) in pairs)


def places(slot_map, name):
    """{(destination, offset): source element} by brute force."""
    out = {}
    for slot in slot_map.of(name):
        for piece in slot.tiles:
            for t in piece.pieces():
                for r in range(t.rows):
                    for c in range(t.columns):
                        at = t.destination_begin + r * t.destination_row_stride + c * t.destination_column_stride
                        source = t.source_begin + r * t.source_row_stride + c * t.source_column_stride
                        assert (slot.destination, at) not in out
                        out[slot.destination, at] = source
    return out
