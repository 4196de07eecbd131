"""The places of a version's tensors in an engine: as the core takes them, and proven by value."""

from __future__ import annotations

import torch

from .. import slots
from ..tensors import digest
from .division import OTHER_BITS


def unproven(binding: slots.Binding, digests: dict[str, str]) -> dict[str, str]:
    """{tensor: why} of the recorded tensors whose bits in the engine are not those of a version."""
    out = {}
    for slot in binding.map.slots:
        name = slot.tensor
        if name in out:
            continue
        if slot.destination in binding.unbound:
            out[name] = binding.unbound[slot.destination]
        elif slot.cast != "none":
            out[name] = f"the engine keeps it as {binding.map.destinations[slot.destination].dtype}"
        else:
            found = slots.gather(binding, name)
            if not found.complete:
                out[name] = "this rank holds a part of it only"
            elif not found.consistent or digest(found.values) != digests[name]:
                out[name] = OTHER_BITS
    return out


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def places(binding, kept):
    """(slots, destinations) as the core takes them."""
    numbers, destinations, places = {}, [], []
    for slot in binding.map.slots:
        if slot.destination not in numbers:
            numbers[slot.destination] = len(destinations)
            destinations.append(binding.storage(slot.destination).view(torch.uint8))
        rows = [piece for t in slot.tiles for piece in t.pieces()]
        places.append((slot.tensor, numbers[slot.destination], torch.tensor(rows, dtype=torch.int64).reshape(-1, 8)))
    for name, tensor in kept.items():
        words = _flat(tensor)
        whole = torch.tensor([[0, 0, 1, tensor.numel(), 0, 1, 0, 1]] if tensor.numel() else [], dtype=torch.int64)
        places.append((name, len(destinations), whole.reshape(-1, 8)))
        destinations.append(words)
    return places, destinations
