"""The places of a version's tensors in an engine: as the core takes them, and proven by value."""

from __future__ import annotations

import torch

from .. import slots
from ..errors import Unsupported
from ..slots.words import words
from ..tensors import digest
from .division import OTHER_BITS
from .reload import some


def unplaced(binding: slots.Binding, slot: slots.Slot) -> str | None:
    """Why a slot cannot be written through, whatever lies there; None if its bits are all that is left to prove."""
    if slot.destination in binding.unbound:
        return binding.unbound[slot.destination]
    if slot.cast != "none":
        return f"the engine keeps it as {binding.map.destinations[slot.destination].dtype}"
    return None


def unproven(binding: slots.Binding, digests: dict[str, str]) -> dict[str, str]:
    """{tensor: why} of the recorded tensors whose bits in the engine are not those of a version."""
    out = {}
    for slot in binding.map.slots:
        name = slot.tensor
        if name in out:
            continue
        why = unplaced(binding, slot)
        if why is None:
            found = slots.gather(binding, name)
            if not found.complete:
                why = "this rank holds a part of it only"
            elif not found.consistent or digest(found.values) != digests[name]:
                why = OTHER_BITS
        if why is not None:
            out[name] = why
    return out


def unproven_beside(binding: slots.Binding, whole: dict[str, torch.Tensor]) -> dict[str, str]:
    """`unproven` of a rank that may hold parts of tensors, beside the whole ones."""
    out = {}
    for slot in binding.map.slots:
        why = unplaced(binding, slot)
        if why is None and not _holds(
            words(binding.storage(slot.destination)), slot, words(whole[slot.tensor].reshape(-1))
        ):
            why = OTHER_BITS
        if why is not None:
            out.setdefault(slot.tensor, why)
    return out


def refuse(reasons: dict[str, str], version, catalogue) -> None:
    """Raises Unsupported, with names and reasons, if there are any."""
    if reasons:
        told = some(f"'{name}': {reason}" for name, reason in sorted(reasons.items()))
        amount = f"{len(reasons)} of {len(catalogue)} tensors of {version.name}"
        raise Unsupported(f"{amount} cannot be written in place: {told}")


def _holds(place, slot, source):
    first = source.storage_offset()
    for tile in slot.tiles:
        for p in tile.pieces():
            size = (p.rows, p.columns)
            expected = source.as_strided(size, (p.source_row_stride, p.source_column_stride), first + p.source_begin)
            strides = (p.destination_row_stride, p.destination_column_stride)
            if not torch.equal(place.as_strided(size, strides, p.destination_begin), expected):
                return False
    return True


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
        whole = torch.tensor([[0, 0, 1, tensor.numel(), 0, 1, 0, 1]] if tensor.numel() else [], dtype=torch.int64)
        places.append((name, len(destinations), whole.reshape(-1, 8)))
        destinations.append(_flat(tensor))
    return places, destinations
