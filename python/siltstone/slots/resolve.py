"""From the writes of a recording, in order, to slots: what each place holds in the end, and whose it is."""

import contextlib
import dataclasses
from typing import NamedTuple

import torch

from ..tensors import DTYPES
from .coverage import intersects, pattern
from .slotmap import CASTS, Padding, Slot, SlotMap
from .tiles import TooScattered, build, coalesced
from .tracked import Tracked
from .words import torch_dtype


class NoSlot(Exception):
    """A copy that is no slot, and why."""


class Event(NamedTuple):
    """One write into a destination. Geometries are (offset, sizes, strides) in elements.

    `source` is (name, geometry, conversions) of a copy; `value` that of a constant fill; a write with neither is
    foreign: by `operation`, with values computed from the sources `names`, or from none.
    """

    destination: int
    geometry: tuple
    dtype: torch.dtype
    source: tuple | None = None
    value: float | None = None
    operation: str = ""
    names: tuple[str, ...] = ()


@dataclasses.dataclass
class Outcome:
    """What a finished run has left.

    rebound   parameter -> (what was there instead of its scratch, the source that was out then or None)
    leaked    tensors that were on the model and had not been before
    unseen    destinations that worker threads wrote to without a source
    kept      sources that are copied nowhere and of which somebody still holds a tensor
    astray    refused sources that may have gone where nothing is seen
    """

    events: list[Event]
    refused: dict[str, str]
    rebound: dict[str, tuple[torch.Tensor, str | None]]
    leaked: list[torch.Tensor]
    unseen: set[int]
    kept: set[str]
    astray: set[str]


def cast_of(source_dtype: str, destination_dtype: str, event: Event) -> str:
    """The cast of a copy, or NoSlot with the reason to refuse it."""
    steps = [tuple(DTYPES.get(str(d).removeprefix("torch."), str(d)) for d in step) for step in event.source[2]]
    if event.dtype.itemsize != torch_dtype(destination_dtype).itemsize:
        raise NoSlot("the loader writes the parameter as elements of another size")
    offset, sizes, strides = event.geometry
    if not pattern(offset, zip(strides, sizes, strict=True)).tells_apart:
        raise NoSlot("the loader writes to a view that overlaps itself")
    if not steps:
        return "none"
    if steps == [(source_dtype, destination_dtype)] and steps[0] in CASTS:
        return CASTS[steps[0]]
    way = " to ".join([steps[0][0], *(to for _, to in steps)])
    raise NoSlot(f"the loader converts {way}")


def _slots(sources, destinations, events, refused):
    """{(source, destination): Slot} of the copies; refuses what is no slot."""
    tiles, casts = {}, {}
    for event in events:
        if event.source is None or event.source[0] in refused:
            continue
        name, (begin, sizes, strides), _ = event.source
        key = (name, event.destination)
        try:
            casts[key] = cast_of(sources[name].dtype, destinations[event.destination].dtype, event)
            tiles.setdefault(key, set()).update(build(begin, event.geometry[0], sizes, strides, event.geometry[2]))
        except NoSlot as error:
            refused[name] = str(error)
        except TooScattered:
            refused[name] = "its elements are scattered over the parameter"
    return {
        key: Slot(*key, tuple(coalesced(pieces)), casts[key]) for key, pieces in tiles.items() if key[0] not in refused
    }


def _overlaps(events):
    """(earlier, later, same place) of all events that write a common element, as indices."""
    by_destination = {}
    for i, event in enumerate(events):
        offset, sizes, strides = event.geometry
        place = pattern(offset, zip(strides, sizes, strict=True))
        by_destination.setdefault(event.destination, []).append((place.begin, place.last, i, place))
    for places in by_destination.values():
        open_places = []
        for begin, last, i, place in sorted(places):
            open_places = [other for other in open_places if other[1] >= begin]
            for _, _, j, other in open_places:
                if place == other or intersects(place, other):
                    yield min(i, j), max(i, j), place == other
            open_places.append((begin, last, i, place))


class _Owners:
    """Who owns what after all writes: the later write does."""

    def __init__(self, events, refused):
        self.refused = refused
        self.shadowed_by = {}  # source -> {its events that others overwrite wholly: by which sources}
        self.spoiled = set()  # fills that something else overwrites in part
        for earlier, later, same_place in _overlaps(events):
            self._later_wins(events, earlier, later, same_place)

    def _later_wins(self, events, earlier, later, same_place):
        first, second = events[earlier], events[later]
        if first.source is None:
            if second.source is None and first.value is not None:
                self.spoiled.add(earlier)
            return
        name = first.source[0]
        if second.source is None:
            how = f"with {second.operation}" if second.operation else f"with the constant {second.value}"
            self._refuse(name, f"the loader overwrites it {how}")
        elif second.source[0] == name:
            if first != second:
                self._refuse(name, "the loader copies two parts of it to the same place")
        elif same_place:
            self.shadowed_by.setdefault(name, {}).setdefault(earlier, set()).add(second.source[0])
        else:
            self._refuse(name, f"the loader overwrites a part of it with '{second.source[0]}'")

    def _refuse(self, name, reason):
        self.refused.setdefault(name, reason)

    def shadows(self, events):
        """The sources whose every write is overwritten by sources that have slots; refuses the half-hidden."""
        writes = {}
        for event in events:
            if event.source:
                writes[event.source[0]] = writes.get(event.source[0], 0) + 1
        out = set()
        for name, by in self.shadowed_by.items():
            if len(by) == writes[name]:
                out.add(name)
            else:
                self._refuse(name, "the loader overwrites a part of it with another tensor")
        unknown = [n for n in out if self.refused.keys() & set().union(*self.shadowed_by[n].values())]
        for name in unknown:
            self._refuse(name, "the loader overwrites it with a tensor whose place is not known")
        return out - set(unknown)


def _refuse_rebound(sources, destinations, outcome):
    """Sources that memory got hold of in ways that no operation shows."""
    for tensor in outcome.leaked:
        if isinstance(tensor, Tracked):
            for name, reason in tensor.origin.reasons.items():
                outcome.refused.setdefault(name, reason or "the loader puts it on the model in place of a copy")
    rebound = {i for i, d in enumerate(destinations) if any(name in outcome.rebound for name in d.parameters)}
    written = set()
    for event in outcome.events:
        if event.source:
            written.add(event.source[0])
            if event.destination in rebound | outcome.unseen:
                how = "rebinds" if event.destination in rebound else "changes, in a worker thread,"
                parameter = destinations[event.destination].parameters[0]
                outcome.refused.setdefault(event.source[0], f"the loader {how} parameter '{parameter}'")
    for parameter, (tensor, by) in outcome.rebound.items():
        suspects = [n for n, s in sources.items() if n not in written and s.elements >= tensor.numel() > 0]
        for name in [by] if by else suspects:
            outcome.refused.setdefault(name, f"the loader rebinds parameter '{parameter}' instead of copying")


def _reached(destinations, outcome):
    """{refused source: its destinations} of those that went nowhere else."""
    out = {}
    numbers = {name: i for i, d in enumerate(destinations) for name in d.parameters}
    hidden = set(outcome.astray)
    for tensor in outcome.leaked:
        if isinstance(tensor, Tracked) and all(tensor is not now for now, _ in outcome.rebound.values()):
            hidden.update(tensor.names)
    for event in outcome.events:
        for name in (event.source[0],) if event.source else event.names:
            out.setdefault(name, set()).add(event.destination)
    for parameter, (tensor, by) in outcome.rebound.items():
        for name in tensor.names if isinstance(tensor, Tracked) else [by] if by else ():
            if parameter in numbers:
                out.setdefault(name, set()).add(numbers[parameter])
            else:
                hidden.add(name)
    return {n: tuple(sorted(found)) for n, found in out.items() if n in outcome.refused and n not in hidden}


def _padding(events, spoiled):
    """The constant fills that stay, but for those in more pieces than a map takes: nothing relies on them."""
    out = []
    for i, event in enumerate(events):
        if event.value is not None and i not in spoiled:
            offset, sizes, strides = event.geometry
            with contextlib.suppress(TooScattered):
                tiles = build(0, offset, sizes, _row_major(sizes), strides)
                out.append(Padding(event.destination, event.value, tuple(tiles)))
    return out


def resolve(sources, destinations, outcome: Outcome) -> SlotMap:
    """The SlotMap of a finished recording."""
    refused, events = outcome.refused, outcome.events
    _refuse_rebound(sources, destinations, outcome)
    slots = _slots(sources, destinations, events, refused)
    owners = _Owners(events, refused)
    shadows = owners.shadows(events)
    for name in outcome.kept:
        refused.setdefault(name, "the loader keeps it and copies it nowhere")
    accepted = [slot for slot in slots.values() if slot.tensor not in refused]
    placed = {slot.tensor for slot in accepted}
    return SlotMap(
        sources,
        destinations,
        slots=[slot for slot in accepted if slot.tensor not in shadows],
        shadows=[slot for slot in accepted if slot.tensor in shadows],
        refused=dict(refused),
        reached=_reached(destinations, outcome),
        ignored={name for name in sources if name not in placed and name not in refused},
        padding=_padding(events, owners.spoiled),
    )


def _row_major(sizes):
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= size
    return strides[::-1]
