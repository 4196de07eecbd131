"""What a recording tells: plain data, without a reference to a tensor, a module or a device.

A SlotMap can be pickled, sent between ranks and cached (`to_json`, `from_json` in `cache`). However it
came to a process, it is a claim about a layout until the values under it have been compared.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from ..errors import InvalidArgument, Mismatch
from .coverage import Hole, intersects, pattern, uncovered
from .tiles import RowTable, Tile

# What a copy between two dtypes may do to the bits. Widening is exact and can be undone; narrowing rounds to
# nearest even. Every other conversion is refused.
CASTS = {
    ("BF16", "F32"): "widen",
    ("F16", "F32"): "widen",
    ("F32", "BF16"): "narrow",
    ("F32", "F16"): "narrow",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint tensor as the published version has it; dtype as safetensors spells it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclasses.dataclass(frozen=True)
class Destination:
    """One storage of the engine and all parameters and buffers in it; offsets count from the storage's begin.

    `layouts` has for each parameter (offset, sizes and strides of memory as a canonical pattern): a transposed
    view of the same memory is the same layout.
    """

    parameters: tuple[str, ...]
    dtype: str
    elements: int
    layouts: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a source tensor lies in one destination. `cast` is "none", "widen" or "narrow" (CASTS)."""

    tensor: str
    destination: int
    tiles: tuple[Tile | RowTable, ...]
    cast: str = "none"


@dataclasses.dataclass(frozen=True)
class Padding:
    """A region that the loader fills with a constant; the tiles' source side numbers the region itself.

    Elements of it that a slot has too belong to the slot: the loader copied there later.
    """

    destination: int
    value: float
    tiles: tuple[Tile, ...]


@dataclasses.dataclass
class SlotMap:
    """The slots of one rank.

    sources        name -> Source, the whole catalogue
    destinations   the storages that slots number
    slots          of the sources whose place is known; one per source and destination
    shadows        slots of sources that another one overwrites wholly (tied tensors loaded under both names):
                   never written through, but their bits must agree with the parameters
    refused        name -> why the place is not known, or is not a copy
    reached        name -> the destinations that a refused source has a part in, where the recording has seen all of
                   them; a refused source that is not in it may go anywhere
    ignored        sources that the loader did not put anywhere: another rank's, an alias, or one it skips. Whether
                   that is right is for the caller to say: `holes` over all ranks
    padding        constant fills
    """

    sources: dict[str, Source]
    destinations: list[Destination]
    slots: list[Slot] = dataclasses.field(default_factory=list)
    shadows: list[Slot] = dataclasses.field(default_factory=list)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    reached: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    ignored: set[str] = dataclasses.field(default_factory=set)
    padding: list[Padding] = dataclasses.field(default_factory=list)

    def of(self, name: str) -> list[Slot]:
        """The slots of one source, shadows included; empty where it has none."""
        if name not in self.sources:
            raise InvalidArgument(f"tensor '{name}' is not in the catalogue that was recorded")
        index = self.__dict__.get("_index")
        if index is None:
            index = self.__dict__["_index"] = {}
            for slot in [*self.slots, *self.shadows]:
                index.setdefault(slot.tensor, []).append(slot)
        return index.get(name, [])

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_index"}

    def contiguous(self, name: str) -> tuple[int, int, int] | None:
        """(destination, begin, elements) if the whole source is one uncast run of a storage, else None.

        Such a tensor can be a plain view of the parameter. Only its first run counts if it has several.
        """
        elements = self.sources[name].elements if name in self.sources else 0
        for slot in self.of(name):
            for tile in slot.tiles if slot.cast == "none" else ():
                run = isinstance(tile, Tile) and tile.source_column_stride == tile.destination_column_stride == 1
                if run and (tile.rows, tile.columns, tile.source_begin) == (1, elements, 0):
                    return slot.destination, tile.destination_begin, elements
        return None

    def merged(self, traced: "SlotMap") -> "SlotMap":
        """This map with what index tracing found for sources that this one refuses."""
        if traced.destinations != self.destinations:
            raise Mismatch("the traced map was made on other parameters: record and trace the same model")
        known = {name for name in self.refused if name in traced.sources and name not in traced.refused}
        taken = _places(self.slots + self.shadows)
        refused = {name: traced.refused.get(name, reason) for name, reason in self.refused.items()}
        slots = [slot for slot in traced.slots if slot.tensor in known]
        for slot in slots:
            if any(
                intersects(p, q) for p in _places([slot])[slot.destination] for q in taken.get(slot.destination, ())
            ):
                refused[slot.tensor] = "another tensor has its place: trace both of them together"
                known.discard(slot.tensor)
        return dataclasses.replace(
            self,
            slots=self.slots + [slot for slot in slots if slot.tensor in known],
            refused={name: reason for name, reason in refused.items() if name not in known},
            ignored=self.ignored | (known & traced.ignored),
        )

    def unwritten(self) -> dict[str, Hole]:
        """By parameter: elements under no slot and no padding, which no version will ever change."""
        covering = _places([*self.slots, *self.shadows, *self.padding])
        out = {}
        for number, destination in enumerate(self.destinations):
            hole = uncovered(covering.get(number, ()), destination.elements)
            if hole.elements:
                out[destination.parameters[0]] = hole
        return out


def _places(regions):
    """{destination: patterns of all tiles there}."""
    out = {}
    for region in regions:
        patterns = out.setdefault(region.destination, [])
        for tile in region.tiles:
            patterns += tile.destination_patterns()
    return out


def holes(maps: Iterable[SlotMap]) -> dict[str, Hole]:
    """By source: elements that no rank has a place for. Replicas may have them several times.

    A source that is refused on any rank is judged by its reason there, not here. Raises Mismatch if the maps
    are of different catalogues.
    """
    maps = list(maps)
    out = {}
    for name, source in maps[0].sources.items() if maps else ():
        patterns = []
        for rank, each in enumerate(maps):
            if each.sources.get(name) != source or len(each.sources) != len(maps[0].sources):
                raise Mismatch(f"the map of rank {rank} was recorded with another catalogue: tensor '{name}' differs")
            patterns += [tile.source_pattern() for slot in each.of(name) for tile in slot.tiles]
        if any(name in each.refused for each in maps):
            continue
        hole = uncovered(patterns, source.elements)
        if hole.elements:
            out[name] = hole
    return out


def layout_of(tensor):
    """(offset, canonical dims) of the memory that a tensor spans in its storage."""
    begin, dims = pattern(tensor.storage_offset(), zip(tensor.stride(), tensor.shape, strict=True))
    return begin, dims


def sources_of(catalogue) -> dict[str, Source]:
    """The catalogue as Sources: a dict as `Repository.tensors` gives, or (name, dtype, shape) tuples."""
    if isinstance(catalogue, Mapping):
        catalogue = ((name, *rest) for name, rest in catalogue.items())
    out = {}
    for name, dtype, shape in catalogue:
        if name in out:
            raise InvalidArgument(f"the catalogue has tensor '{name}' twice")
        out[name] = Source(dtype, tuple(int(size) for size in shape))
    return out
