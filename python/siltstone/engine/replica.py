"""The replica over a live model, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from .. import _core, slots
from ..errors import Mismatch, Unsupported
from ..replica import GIB, Replica
from ..tensors import digest, empty_tensors

SHOWN = 5  # names in a message


class EngineReplica(Replica):
    """A Replica over the parameters of a model. Made by `attach`.

    map      the SlotMap that is written through
    kept     tensors of the version that the engine has no place for (aliases, what it never loads), in memory
             of their own: they are part of the version, and so of its proof
    """

    def __init__(self, core, repository, model, binding, kept):
        super().__init__(core, repository, model)
        self.binding = binding
        self.map = binding.map
        self.kept = kept

    def commit(self, staged) -> _core.CommitReport:
        """Apply a staged change. Raises Mismatch, before anything is written, if a parameter has moved."""
        moved = self.binding.check()
        if moved:
            raise Mismatch(f"the engine's parameters are not where they were recorded: {_some(moved)}")
        return super().commit(staged)


def _some(texts: Iterable[str]) -> str:
    texts = list(texts)
    return "; ".join(texts[:SHOWN]) + (f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")


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
                out[name] = "its bits are not the version's: they were rearranged after loading, or are another version's"
    return out


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def _places(binding, kept):
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


def attach(repository: Any, model: torch.nn.Module, load: Callable, at: str | _core.Version, *,
           adjust: Callable[[slots.SlotMap], slots.SlotMap] | None = None, memory_bytes: int = GIB) -> EngineReplica:
    """An EngineReplica of a model that holds version `at`, in host memory.

    load     the engine's own loader, called with an iterator of (name, tensor)
    adjust   corrects the recorded map for what the engine does to parameters after loading

    The engine must not run meanwhile. Raises Unsupported, with names and reasons, if a tensor cannot be written in
    place or what the engine holds is not `at`; nothing was changed then.
    """
    version = repository.version(at)
    catalogue = repository.tensors(version)
    slot_map = slots.record(model, catalogue, load)
    if adjust is not None:
        slot_map = adjust(slot_map)
    binding = slots.bind(slot_map, model)
    reasons = {**slot_map.refused, **unproven(binding, repository.digests(version))}
    if reasons:
        told = _some(f"'{name}': {reason}" for name, reason in sorted(reasons.items()))
        raise Unsupported(
            f"{len(reasons)} of {len(catalogue)} tensors of {version.name} cannot be written in place: {told}"
        )
    placed = {slot.tensor for slot in slot_map.slots}
    infos = [(name, dtype, shape, 0) for name, (dtype, shape) in catalogue.items() if name not in placed]
    kept = empty_tensors(infos)
    if kept:
        repository.load(version, kept, some=True, memory_bytes=memory_bytes)
    core = _core.Replica.adopt_slots(repository._core, version, *_places(binding, kept))
    return EngineReplica(core, repository, model, binding, kept)
