"""The slow way: tensors that the engine's own loader puts in, because no place of theirs is proven.

A loader that quantises, casts or repacks leaves nothing that single words could be written to. Such tensors are kept
in memory as the checkpoint has them, and after a commit that changed them the loader gets them again. Loaders fuse,
and take scales and maxima over what they fuse, so what is loaded is a group: a whole layer, with every other group
that has a part in the same memory. A group is either written in place as a whole or reloaded as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import torch

from .. import slots
from ..errors import Error, Unsupported
from ..slots.words import words

SHOWN = 5  # names in a message

UNCHANGED, POISONED = "UNCHANGED", "POISONED"


class ReloadFailed(Error):
    """The engine's loader failed with tensors that it reloads.

    outcome   "UNCHANGED": the engine holds the version that it held before. "POISONED": its parameters hold no
              version, and nothing may be served from them until a change that was staged with repair is committed
    """

    def __init__(self, message: str, outcome: str):
        super().__init__(message)
        self.outcome = outcome


def some(texts: Iterable[str]) -> str:
    """The first few of many, for a message."""
    texts = list(texts)
    return "; ".join(texts[:SHOWN]) + (f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")


def layer_of(name: str) -> str:
    """What a tensor is loaded together with: the repeated layer that it is in, else the module."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: i + 1]) + "."
    return name.rpartition(".")[0] + "."


class _Components:
    """Labels, joined."""

    def __init__(self):
        self._above = {}

    def find(self, label):
        while self._above.setdefault(label, label) != label:
            label = self._above[label]
        return label

    def join(self, labels):
        first, *others = {self.find(label) for label in labels} or {None}
        for other in others:
            self._above[other] = first


def unseen(slot_map: slots.SlotMap, reasons: dict[str, str]) -> list[str]:
    """The refused tensors of which the recording does not tell where they go."""
    placed = {slot.tensor for slot in [*slot_map.slots, *slot_map.shadows]}
    return [name for name in reasons if name not in placed and name not in slot_map.reached]


def groups(slot_map: slots.SlotMap, reasons: dict[str, str], *, tangled: bool = False) -> list[tuple[str, ...]]:
    """The tensors to reload, in groups that are loaded as a whole.

    Layers that have a part in one storage are one group. So are all whose places are not known: each may have a
    part in another's. `tangled`: there is one group only.
    """
    layers, writers = _Components(), {}
    for slot in [*slot_map.slots, *slot_map.shadows]:
        writers.setdefault(slot.destination, set()).add(layer_of(slot.tensor))
    for name, numbers in slot_map.reached.items():
        for number in numbers:
            writers.setdefault(number, set()).add(layer_of(name))
    for labels in writers.values():
        layers.join(labels)
    layers.join({layer_of(name) for name in (reasons if tangled else unseen(slot_map, reasons))})
    out = {layers.find(layer_of(name)): [] for name in slot_map.sources if name in reasons}
    for name in slot_map.sources:
        out.get(layers.find(layer_of(name)), []).append(name)
    return [tuple(names) for names in out.values()]


def why(names: list[tuple[str, ...]], reasons: dict[str, str]) -> dict[str, str]:
    """{tensor: why it is reloaded} for every tensor of some groups; those with a reason of their own come first."""
    own = {name: reasons[name] for group in names for name in group if name in reasons}
    others = {}
    for group in names:
        first = next(name for name in group if name in own)
        others |= {name: f"it is loaded together with '{first}'" for name in group if name not in own}
    return own | others


def without(slot_map: slots.SlotMap, refused: dict[str, str]) -> slots.SlotMap:
    """The map with no place for some tensors: their parameters are neither written nor guarded."""
    return dataclasses.replace(
        slot_map,
        slots=[slot for slot in slot_map.slots if slot.tensor not in refused],
        shadows=[slot for slot in slot_map.shadows if slot.tensor not in refused],
        ignored={name for name in slot_map.ignored if name not in refused},
        refused=dict(refused),
    )


def _backwards(tensor):
    """The same elements in another order: weights that differ, of a size that a loader expects."""
    return words(tensor.reshape(-1)).flip(0).view(tensor.dtype).reshape(tensor.shape)


class Reloads:
    """The groups, tuples of names, that an engine's loader puts in from the tensors in `kept`."""

    def __init__(self, load: Callable, kept: dict[str, torch.Tensor], names: list[tuple[str, ...]]):
        self.groups = names
        self._load, self._kept = load, kept

    def touched(self, changed: Callable[[str], bool]) -> list[tuple[str, ...]]:
        """The groups in which a tensor has changed."""
        return [group for group in self.groups if any(map(changed, group))]

    def put(self, names: Iterable[tuple[str, ...]], *, backwards: bool = False) -> None:
        """Gives groups to the loader. It gets copies, which it may keep or change."""
        wanted = [name for group in names for name in group]
        given = 0

        def feed():
            nonlocal given
            for name in wanted:
                given += 1
                yield name, _backwards(self._kept[name]) if backwards else self._kept[name].clone()

        with torch.no_grad():
            self._load(feed())
        if given < len(wanted):
            raise Unsupported(f"it took {given} of {len(wanted)} tensors")


def refuse_unloadable(reasons: dict[str, str], unloadable: dict[str, str]) -> None:
    """Raises Unsupported if tensors would be reloaded, for these reasons, that the engine's loader gets wrong."""
    told = [f"'{name}': {reason}; {unloadable[name]}" for name, reason in reasons.items() if name in unloadable]
    if told:
        raise Unsupported(f"{len(told)} tensors can neither be written in place nor be reloaded: {some(told)}")
