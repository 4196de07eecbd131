"""Which tensors are written in place and which are reloaded: found by reloading them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch

from .. import slots
from .reload import POISONED, ReloadFailed, Reloads, groups, refuse_unloadable, unseen, why, without

OTHER_BITS = "its bits are not the version's: they were rearranged after loading, or are another version's"


class Division:
    """Divides the tensors of a version until a reload of some leaves the others alone.

    slot_map   of all tensors
    unproven   gives for a Binding {tensor: why it cannot be written in place}
    fetch      gives for a map {tensor: its words} of all that it has no slots for; called with what is there already
    refuse     called with {tensor: why it is to be reloaded}, each time before that happens; raises if it must not be
    """

    def __init__(self, model: torch.nn.Module, slot_map: slots.SlotMap, *, unproven: Callable, fetch: Callable,
                 refuse: Callable):
        self._model, self._map = model, slot_map
        self._unproven, self._fetch, self._refuse = unproven, fetch, refuse

    def settle(self, reasons: dict[str, str], load: Callable) -> tuple[slots.Binding, dict[str, torch.Tensor], Reloads]:
        """(what is written through, what is kept, what is reloaded); the engine holds the version then.

        reasons   {tensor: why it cannot be written in place}, some
        load      the engine's loader
        """
        if OTHER_BITS in reasons.values():  # another version's, perhaps: bring the engine to this one and look again
            _, _, reloads = self._apart(reasons, {}, load)
            reloads.put(reloads.groups)
            reasons = {**self._map.refused, **self._unproven(slots.bind(self._map, self._model))}
        kept, tangled = {}, False
        while True:
            binding, kept, reloads = self._apart(reasons, kept, load, tangled)
            disturbed = self._reload(binding, reloads, set(unseen(self._map, reasons)))
            if not disturbed:
                return binding, kept, reloads
            reasons, tangled = {**reasons, **disturbed}, True  # nothing tells by which of them

    def _apart(self, reasons, kept, load, tangled=False):
        names = groups(self._map, reasons, tangled=tangled)
        told = why(names, reasons)
        self._refuse(told)
        binding = slots.bind(without(self._map, told), self._model)
        kept = self._fetch(binding.map, kept)
        return binding, kept, Reloads(load, kept, names)

    def _reload(self, binding, reloads, hidden):
        """Loads all groups; {tensor: why} of those in place that this gets at.

        Where the recording has not seen what the loader writes, it is given wrong weights first: right ones, written
        over what is the same, would not show.
        """
        blind = [group for group in reloads.groups if hidden.intersection(group)]
        disturbed = {}
        if blind:
            reloads.put(blind, backwards=True)
            disturbed = self._disturbed(binding)
        if not disturbed:
            reloads.put(reloads.groups)
            disturbed = self._disturbed(binding)
        return disturbed

    def _disturbed(self, binding):
        moved = binding.moved()
        if not moved:
            return dict.fromkeys(self._unproven(binding), "a reload of other tensors writes to it")
        numbers = {i for i, d in enumerate(binding.map.destinations) if moved.keys() & set(d.parameters)}
        there = [*binding.map.slots, *binding.map.shadows]
        names = {slot.tensor for slot in there if slot.destination in numbers}
        return dict.fromkeys(names, "a reload of other tensors moves its parameter")


def divide(model: torch.nn.Module, slot_map: slots.SlotMap, reasons: dict[str, str], unloadable: Callable | None, *,
           unproven: Callable, fetch: Callable) -> Division:
    """The Division that refuses what `unloadable` gives for the map. Raises Unsupported, before anything is loaded."""
    known = unloadable(slot_map) if unloadable is not None else {}

    def refuse(told):
        refuse_unloadable(told, known)

    refuse(why(groups(slot_map, reasons), reasons))
    return Division(model, slot_map, unproven=unproven, fetch=fetch, refuse=refuse)


@contextmanager
def loading(version):
    """Around what puts a version into an engine with its loader: whatever fails leaves it at none."""
    try:
        yield
    except Exception as error:  # a loader may raise anything
        raise ReloadFailed(
            f"the engine's parameters hold no version: loading {version.name} into them failed: "
            f"{type(error).__name__}: {error}",
            POISONED,
        ) from error
