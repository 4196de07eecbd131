"""A SlotMap bound to a live model: addresses to guard, and bits to read for the proof by value.

A binding is made after everything that moves parameters (post-processing, graph capture) and is checked before
every use. It holds weak references only: it keeps no memory of the engine alive.
"""

import dataclasses
import weakref
from typing import NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from ..errors import Mismatch, Unsupported
from ..tensors import DTYPES
from .aside import holders, is_plain, named_tensors, storage_key, tensors_in
from .coverage import uncovered
from .slotmap import SlotMap, layout_of
from .words import torch_dtype, words


class Derived(NamedTuple):
    """A tensor on the model that shares no storage with a parameter: made from weights, perhaps, and stale then."""

    path: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    bytes: int


@dataclasses.dataclass
class Gathered:
    """What lies in the slots of a source.

    values       as the source's shape and dtype; of the parameter's dtype if the slot narrows, which nothing undoes.
                 Elements that this rank lacks are zero.
    tiles        the pieces of its slots
    complete     whether they are all elements of the source
    consistent   whether all places of one element agree, and widened elements are exact images
    constant     whether all bits read are equal elements: such a tensor looks right wherever it lies, so that its
                 place rests on the recording alone
    """

    values: torch.Tensor
    tiles: list
    complete: bool
    consistent: bool
    constant: bool


class _Row:
    """What a parameter was when it was bound."""

    def __init__(self, tensor):
        self.tensor = weakref.ref(tensor)
        self.storage = StorageWeakRef(tensor.untyped_storage())  # keeps the key from being used again
        self.facts = self._facts(tensor)

    @staticmethod
    def _facts(tensor):
        return {
            "storage": storage_key(tensor),
            "address": tensor.data_ptr(),
            "shape": tuple(tensor.shape),
            "strides": tensor.stride(),
            "dtype": tensor.dtype,
            "device": tensor.device,
            "storage size": tensor.untyped_storage().nbytes(),
        }

    def difference(self, now):
        """Why a tensor is not the one that was bound, or None."""
        if now is None:
            return "is gone"
        if now is not self.tensor():
            return "was replaced by another tensor"
        if not is_plain(now):
            return "is no dense memory any more"
        facts = self._facts(now)
        changed = [what for what, value in self.facts.items() if facts[what] != value]
        return f"has another {', '.join(changed)}" if changed else None


class Binding:
    """The live tensors of a map. Made by `bind`.

    map       the SlotMap
    unbound   {destination: why no live storage fits it}; slots there cannot be used
    """

    def __init__(self, slot_map, model):
        self.map = slot_map
        self._model = model
        self._rows = {}
        self.unbound = {}
        found = dict(named_tensors(model))
        for number in {slot.destination for slot in [*slot_map.slots, *slot_map.shadows]}:
            destination = slot_map.destinations[number]
            reason = _misfit(destination, found)
            if reason:
                self.unbound[number] = reason
            else:
                self._rows.update((name, _Row(found[name])) for name in destination.parameters)

    def moved(self) -> dict[str, str]:
        """{parameter: why it is not as it was bound}; anything there voids the binding."""
        found = dict(named_tensors(self._model))
        differences = ((name, row.difference(found.get(name))) for name, row in self._rows.items())
        return {name: why for name, why in differences if why}

    def check(self) -> list[str]:
        """`moved`, one sentence each."""
        return [f"parameter '{name}' {why}" for name, why in self.moved().items()]

    def storage(self, number: int) -> torch.Tensor:
        """The whole live storage of a destination, flat, in the elements that its offsets count."""
        if number in self.unbound:
            raise Mismatch(self.unbound[number])
        destination = self.map.destinations[number]
        name = destination.parameters[0]
        tensor = self._rows[name].tensor()
        if tensor is None or self._rows[name].difference(tensor):
            raise Mismatch(f"parameter '{name}' is not what was bound: bind the map again and prove it")
        flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return flat.set_(tensor.untyped_storage(), 0, (destination.elements,), (1,))


def _misfit(destination, found):
    """Why the live parameters are not the storage that was recorded, or None."""
    missing = [name for name in destination.parameters if name not in found]
    if missing:
        return f"the model has no parameter '{missing[0]}'"
    tensors = [found[name] for name in destination.parameters]
    for name, tensor, layout in zip(destination.parameters, tensors, destination.layouts, strict=True):
        if not is_plain(tensor):
            return f"parameter '{name}' is no dense memory"
        code = DTYPES.get(str(tensor.dtype).removeprefix("torch."))
        if code != destination.dtype:
            return f"parameter '{name}' is {code} and was recorded as {destination.dtype}"
        if storage_key(tensor) != storage_key(tensors[0]):
            return f"parameter '{name}' was tied to '{destination.parameters[0]}' and has its own storage now"
        if layout_of(tensor) != layout:
            return f"parameter '{name}' lies differently in its storage than when it was recorded"
    elements = tensors[0].untyped_storage().nbytes() // tensors[0].dtype.itemsize
    if elements != destination.elements:
        return f"parameter '{name}' has a storage of {elements} elements, recorded were {destination.elements}"
    return None


def bind(slot_map: SlotMap, model: torch.nn.Module) -> Binding:
    """Finds the live storages that a map's slots are in; `unbound` has those that do not fit."""
    return Binding(slot_map, model)


def derived(model: torch.nn.Module) -> list[Derived]:
    """Tensors that hang on modules and their helper objects and share no storage with a parameter or buffer."""
    seen = {storage_key(tensor) for _, tensor in named_tensors(model) if is_plain(tensor)}
    out = []
    for path, attributes in holders(model):
        for name, tensor in tensors_in(attributes):
            if is_plain(tensor) and storage_key(tensor) not in seen:
                seen.add(storage_key(tensor))
                label = f"{path}.{name}" if path else name
                size = tensor.untyped_storage().nbytes()
                out.append(Derived(label, tuple(tensor.shape), tensor.dtype, size))
    return out


def _view(flat, begin, sizes, strides):
    """A strided view, or for negative strides a copy."""
    flips = [k for k, stride in enumerate(strides) if stride < 0]
    begin += sum((sizes[k] - 1) * strides[k] for k in flips)
    view = flat.as_strided(sizes, [abs(stride) for stride in strides], begin)
    return view.flip(flips) if flips else view


def _source_side(t, flat):
    return _view(flat, t.source_begin, (t.rows, t.columns), (t.source_row_stride, t.source_column_stride))


def _destination_side(t, flat):
    strides = (t.destination_row_stride, t.destination_column_stride)
    return _view(flat, t.destination_begin, (t.rows, t.columns), strides)


def _unwidened(tensor, dtype):
    """(what was widened to this, whether it is exactly that)."""
    if dtype is torch.bfloat16:  # by bits, which keeps the payload of a NaN
        bits = words(tensor)
        return (bits >> 16).to(torch.int16).view(dtype), not bool((bits & 0xFFFF).any())
    back = tensor.to(dtype)
    return back, torch.equal(words(back.to(tensor.dtype)), words(tensor))


class _Reader:
    """Reads the slots of one source into one flat tensor of words."""

    def __init__(self, binding, source, slots):
        self._binding, self._source = binding, source
        self._narrow = all(slot.cast == "narrow" for slot in slots)
        code = binding.map.destinations[slots[0].destination].dtype if self._narrow else source.dtype
        self.dtype = torch_dtype(code)
        device = binding.storage(slots[0].destination).device
        self.values = torch.zeros(source.elements, dtype=self.dtype, device=device)
        self.consistent = True
        self.constant = True
        self._first = None

    def _pieces(self, slot):
        """(source side of the values, words that lie in the parameter) of each tile."""
        flat = self._binding.storage(slot.destination)
        dtype = torch_dtype(self._source.dtype)
        for piece in slot.tiles:
            for t in piece.pieces():
                bits = _destination_side(t, flat)
                if slot.cast == "widen":
                    bits, exact = _unwidened(bits, dtype)
                    self.consistent = self.consistent and exact
                yield _source_side(t, self.values), words(bits).to(self.values.device)

    def read(self, slot):
        for place, bits in self._pieces(slot):
            words(place).copy_(bits)
            self._first = bits[0, 0] if self._first is None else self._first
            self.constant = self.constant and bool((bits == self._first).all())

    def compare(self, slot):
        for place, bits in self._pieces(slot):
            if slot.cast == "narrow" and not self._narrow:
                place = place.to(torch_dtype(self._binding.map.destinations[slot.destination].dtype))
            self.consistent = self.consistent and torch.equal(words(place), bits)


def gather(binding: Binding, name: str) -> Gathered:
    """The bits of a source out of the live parameters, for a comparison with the version's.

    Reads only. Raises Unsupported for a source without a slot, Mismatch where the parameters are not those bound.
    """
    slots = binding.map.of(name)
    if not slots:
        reason = binding.map.refused.get(name, "the loader of this rank puts it nowhere")
        raise Unsupported(f"tensor '{name}' has no slot: {reason}")
    source = binding.map.sources[name]
    reader = _Reader(binding, source, slots)
    whole = [slot for slot in slots if slot.cast != "narrow"] or slots
    for slot in whole:
        reader.read(slot)
    patterns = [piece.source_pattern() for slot in whole for piece in slot.tiles]
    hole = uncovered(patterns, source.elements)
    several = sum(p.elements for p in patterns) > source.elements - hole.elements
    for slot in slots:
        if several or slot not in whole:
            reader.compare(slot)
    tiles = [piece for slot in slots for piece in slot.tiles]
    values = reader.values.reshape(source.shape)
    return Gathered(values, tiles, not hole.elements, reader.consistent, reader.constant)
