"""SlotMaps as text. What is read is a hint from anywhere: bounded, checked against itself, and then proven by value.

A map that passes has every tile inside its source and its destination; that it tells the truth about an engine
nothing here can know.
"""

import json

from ..errors import Corrupt, Unsupported
from ..tensors import TORCH_NAMES
from .slotmap import CASTS, Destination, Padding, Slot, SlotMap, Source
from .tiles import RowTable, Tile

FORMAT = "siltstone-slots"
VERSION = 2
MAX_CHARACTERS = 1 << 28
MAX_ELEMENTS = 1 << 48
MAX_DIMENSIONS = 32


def to_json(slot_map: SlotMap) -> str:
    """The map as one JSON object."""
    return json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "sources": [[name, source.dtype, source.shape] for name, source in slot_map.sources.items()],
            "destinations": [[d.dtype, d.elements, d.parameters, d.layouts] for d in slot_map.destinations],
            "slots": [_slot_out(slot) for slot in slot_map.slots],
            "shadows": [_slot_out(slot) for slot in slot_map.shadows],
            "refused": slot_map.refused,
            "reached": slot_map.reached,
            "ignored": sorted(slot_map.ignored),
            "padding": [[p.destination, p.value.hex(), p.tiles] for p in slot_map.padding],
        },
        separators=(",", ":"),
        allow_nan=False,
    )


def _slot_out(slot):
    return [slot.tensor, slot.destination, slot.cast, slot.tiles]


def from_json(text: str) -> SlotMap:
    """The map that `to_json` wrote. Raises Corrupt for anything else, Unsupported for a newer version."""
    if len(text) > MAX_CHARACTERS:
        raise Corrupt(f"a slot map of {len(text)} characters: at most {MAX_CHARACTERS} are read")
    try:
        return _Reader(json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)).map
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        if isinstance(error, (Corrupt, Unsupported)):
            raise
        raise Corrupt(f"not a slot map: {error}") from error


def _unique(pairs):
    out = dict(pairs)
    if len(out) != len(pairs):
        raise Corrupt("not a slot map: a key comes twice")
    return out


def _no_constant(name):
    raise Corrupt(f"not a slot map: it has the number {name}")


def _integer(value, least, most, what):
    if type(value) is not int or not least <= value <= most:
        raise Corrupt(f"not a slot map: {what} is {value!r:.40}, expected an integer from {least} to {most}")
    return value


def _of(kind, value, what):
    if type(value) is not kind:
        raise Corrupt(f"not a slot map: {what} is a {type(value).__name__}, expected a {kind.__name__}")
    return value


def _fields(value, count, what):
    if len(_of(list, value, what)) != count:
        raise Corrupt(f"not a slot map: {what} has {len(value)} fields, expected {count}")
    return value


def _dtype(value, what):
    if value not in TORCH_NAMES:
        raise Corrupt(f"not a slot map: {what} has dtype {value!r:.40}, which is not known")
    return value


class _Reader:
    """Reads the parts in order; each is checked against those before it."""

    def __init__(self, fields):
        _of(dict, fields, "the text")
        if fields["format"] != FORMAT:
            raise Corrupt(f"not a slot map: its format is {fields['format']!r:.40}")
        if fields["version"] != VERSION:
            raise Unsupported(f"a slot map of version {fields['version']!r:.40}, known is {VERSION}: record again")
        self._sources, self._destinations = {}, []
        for each in _of(list, fields["sources"], "sources"):
            self._source(*_fields(each, 3, "a source"))
        for each in _of(list, fields["destinations"], "destinations"):
            self._destination(*_fields(each, 4, "a destination"))
        self.map = SlotMap(
            self._sources,
            self._destinations,
            slots=self._slots(fields["slots"]),
            shadows=self._slots(fields["shadows"]),
            refused={
                _of(str, n, "a name"): _of(str, r, "a reason")
                for n, r in _of(dict, fields["refused"], "refused").items()
            },
            reached={
                name: self._reached(name, numbers)
                for name, numbers in _of(dict, fields["reached"], "what is reached").items()
            },
            ignored={_of(str, name, "a name") for name in _of(list, fields["ignored"], "ignored")},
            padding=[self._padding(*_fields(p, 3, "padding")) for p in _of(list, fields["padding"], "padding")],
        )
        self._classes()

    def _source(self, name, dtype, shape):
        sizes = [_integer(size, 0, MAX_ELEMENTS, f"the shape of '{name}'") for size in _of(list, shape, "a shape")]
        source = Source(_of(str, dtype, "a dtype"), tuple(sizes))
        if len(sizes) > MAX_DIMENSIONS or source.elements > MAX_ELEMENTS or _of(str, name, "a name") in self._sources:
            raise Corrupt(f"not a slot map: source '{name}' comes twice or is too large")
        self._sources[name] = source

    def _destination(self, dtype, elements, parameters, layouts):
        names = tuple(_of(str, name, "a parameter") for name in _of(list, parameters, "parameters"))
        if not names or len(names) != len(_of(list, layouts, "layouts")):
            raise Corrupt("not a slot map: a destination has no parameters, or no layout for each")
        _integer(elements, 1, MAX_ELEMENTS, f"the size of '{names[0]}'")
        out = []
        for layout in layouts:
            begin, dims = _fields(layout, 2, "a layout")
            if len(_of(list, dims, "a layout")) > MAX_DIMENSIONS:
                raise Corrupt(f"not a slot map: '{names[0]}' has {len(dims)} dimensions")
            pairs = [_fields(dim, 2, "a dimension") for dim in dims]
            checked = tuple(tuple(_integer(x, 1, MAX_ELEMENTS, "a dimension") for x in pair) for pair in pairs)
            out.append((_integer(begin, 0, elements, "an offset"), checked))
        self._destinations.append(Destination(names, _dtype(dtype, names[0]), elements, tuple(out)))

    def _slots(self, slots):
        return [self._slot(*_fields(slot, 4, "a slot")) for slot in _of(list, slots, "slots")]

    def _slot(self, name, number, cast, tiles):
        source = self._sources.get(name)
        if source is None:
            raise Corrupt(f"not a slot map: it has a slot of '{name!r:.40}', which is no source")
        destination = self._at(number)
        pair = (_dtype(source.dtype, name), destination.dtype)
        if cast not in ("none", CASTS.get(pair)) or cast is None:
            raise Corrupt(f"not a slot map: '{name}' is cast {cast!r:.40} from {pair[0]} to {pair[1]}")
        pieces = [_tile(t, source.elements, destination.elements) for t in _of(list, tiles, "tiles")]
        if not pieces:
            raise Corrupt(f"not a slot map: a slot of '{name}' has no tiles")
        return Slot(name, number, tuple(pieces), cast)

    def _reached(self, name, numbers):
        if name not in self._sources:
            raise Corrupt(f"not a slot map: '{name!r:.40}' reaches a parameter and is no source")
        for number in _of(list, numbers, "what a source reaches"):
            self._at(number)
        return tuple(numbers)

    def _padding(self, number, value, tiles):
        pieces = (_tile(t, MAX_ELEMENTS, self._at(number).elements) for t in _of(list, tiles, "tiles"))
        return Padding(number, float.fromhex(_of(str, value, "a constant")), tuple(pieces))

    def _at(self, number):
        return self._destinations[_integer(number, 0, len(self._destinations) - 1, "a destination")]

    def _classes(self):
        """Every source is exactly one of placed, shadow, refused, ignored."""
        m = self.map
        classes = [{s.tensor for s in m.slots}, {s.tensor for s in m.shadows}, set(m.refused), m.ignored]
        if sum(map(len, classes)) != len(m.sources) or set().union(*classes) != set(m.sources):
            raise Corrupt("not a slot map: a source is in no class or in several")


def _tile(fields, source_elements, destination_elements):
    """A Tile of eight integers, or a RowTable of six of which the second is a list; wholly inside both sides."""
    if len(_of(list, fields, "a tile")) == 6:
        table = RowTable(fields[0], tuple(_of(list, fields[1], "a row table")), *fields[2:])
        if not table.destinations:
            raise Corrupt("not a slot map: a row table has no rows")
        for t in table.pieces():
            _checked(t, source_elements, destination_elements)
        _checked(table.rows_only(), source_elements, table.elements)
        return table
    return _checked(Tile(*_fields(fields, 8, "a tile")), source_elements, destination_elements)


def _checked(t, source_elements, destination_elements):
    for value in t:
        _integer(value, -MAX_ELEMENTS, MAX_ELEMENTS, "a number of a tile")
    for value in (t.rows, t.columns, t.source_row_stride, t.source_column_stride):
        _integer(value, 1, MAX_ELEMENTS, "a size or source stride of a tile")
    reach = [p for p in t.destination_patterns()][0]
    inside = 0 <= t.source_begin and t.source_end <= source_elements
    inside = inside and 0 <= reach.begin and reach.last < destination_elements
    if not inside or t.source_row_stride <= (t.columns - 1) * t.source_column_stride:
        raise Corrupt(f"not a slot map: tile {tuple(t)} leaves its tensor or comes upon itself")
    return t
