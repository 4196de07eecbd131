"""The live model, set aside while a loader runs: nothing of it is read or written, all of it comes back.

Every tensor that hangs on the model points at scratch memory of equal size, shape and strides: anonymous
pages that read as zeros and cost nothing until something writes to them. What loaders look places up in, integers
that are no parameters (which expert is whose), is there as a copy. Rebinding an attribute, replacing a Parameter,
filling a list: all undone at the end, one level into containers. Generation must be paused.
"""

import collections
import mmap
import types

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..errors import InternalError
from ..tensors import DTYPES
from .slotmap import Destination, layout_of

_NORESERVE = 0x4000  # MAP_NORESERVE of Linux; the module names it from Python 3.13 on
_ALIGNMENT = 64
_HELPER_DEPTH = 2  # module -> quant_method -> its kernel or config
_CONTAINERS = (list, dict, set, collections.OrderedDict, collections.defaultdict)
_NOT_HELPERS = (torch.nn.Module, torch.Tensor, type, types.ModuleType, types.FunctionType, types.MethodType)


def storage_key(tensor):
    """Tells storages apart as long as they live."""
    return tensor.untyped_storage()._cdata


def is_plain(tensor):
    """Whether it is dense memory; wrappers, sparse and uninitialised ones are nothing to copy into."""
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin) or tensor.layout is not torch.strided:
        return False
    return not tensor.is_meta and not is_traceable_wrapper_subclass(tensor)


def named_tensors(model):
    """All (name, tensor) of parameters and buffers, tied ones under each name."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def holders(model):
    """(path, attributes) of each module and each helper object that hangs on one, every object once."""
    seen = set()
    for path, module in model.named_modules():
        yield from _holders(path, module, seen, 0)


def _holders(path, holder, seen, depth):
    if id(holder) in seen:
        return
    seen.add(id(holder))
    attributes = vars(holder)
    yield path, attributes
    for name, value in list(attributes.items()):
        if isinstance(value, _NOT_HELPERS) or not hasattr(value, "__dict__"):
            continue
        if depth < _HELPER_DEPTH:
            yield from _holders(f"{path}.{name}" if path else name, value, seen, depth + 1)


def tensors_in(attributes):
    """(name, tensor) of attributes and of what is in their lists and dicts."""
    for name, value in attributes.items():
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items() if isinstance(item, torch.Tensor))
        elif isinstance(value, (list, tuple)):
            yield from ((f"{name}.{i}", item) for i, item in enumerate(value) if isinstance(item, torch.Tensor))


def destinations_of(model):
    """([Destination], {storage key: its number}) of all parameters and buffers that are plain memory."""
    groups = {}
    for name, tensor in named_tensors(model):
        if is_plain(tensor) and tensor.numel():
            groups.setdefault(storage_key(tensor), []).append((name, tensor))
    out, numbers = [], {}
    for key, members in groups.items():
        codes = {DTYPES.get(str(tensor.dtype).removeprefix("torch."), "") for _, tensor in members}
        first = members[0][1]
        if len(codes) == 1 and "" not in codes:
            numbers[key] = len(out)
            elements = first.untyped_storage().nbytes() // first.dtype.itemsize
            names, layouts = zip(*((name, layout_of(tensor)) for name, tensor in members), strict=True)
            out.append(Destination(names, codes.pop(), elements, layouts))
    return out, numbers


def _scratch(sizes):
    """Storages of given sizes in bytes, all in one mapping, which lives as long as one of them."""
    padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    memory = mmap.mmap(-1, sum(padded) + _ALIGNMENT, flags=flags)
    out, begin = [], 0
    for size, room in zip(sizes, padded, strict=True):
        empty = torch.empty(0, dtype=torch.uint8, device="cpu")
        part = torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=begin) if size else empty
        out.append(part.untyped_storage())
        begin += room
    return out


class _Containers:
    """What the lists, dicts and sets among some attributes held."""

    def __init__(self, attributes):
        self._saved = [(value, value.copy()) for value in attributes.values() if type(value) in _CONTAINERS]

    def restore(self):
        for value, saved in self._saved:
            if type(value) is list:
                value[:] = saved
            elif _differ(value, saved):
                value.clear()
                value.update(saved)


def _differ(now, saved):
    if isinstance(now, set):
        return now != saved
    return list(now) != list(saved) or any(now[key] is not value for key, value in saved.items())


class Aside:
    """A context: inside it, the model's tensors are scratch.

    numbers     scratch storage key -> number of its destination
    rebound     after the end: {name: what was there instead} of tensors whose memory or object was replaced
    leaked      after the end: tensors that the loader had left on the model in place of others
    """

    def __init__(self, model):
        self._model = model
        self.destinations, live = destinations_of(model)
        self.numbers = {}
        self.rebound = {}
        self.leaked = []
        self._live = live

    def __enter__(self):
        self._names = dict(named_tensors(self._model))
        self._attributes, held, self._labels = [], {}, {}
        for path, attributes in holders(self._model):
            self._attributes.append(attributes)
            for name, tensor in tensors_in(attributes):
                held[id(tensor)] = tensor
                self._labels[id(tensor)] = f"{path}.{name}" if path else name
        self._labels.update((id(tensor), name) for name, tensor in reversed(self._names.items()))
        tensors = {key: t for key, t in held.items() if is_plain(t)}
        self._attributes += [vars(tensor) for tensor in tensors.values() if hasattr(tensor, "__dict__")]
        self._saved = [(attributes, dict(attributes), _Containers(attributes)) for attributes in self._attributes]
        self._known = held
        storages = {storage_key(t): t.untyped_storage() for t in tensors.values()}
        scratch = _scratch([storage.nbytes() for storage in storages.values()])
        self.scratch = dict(zip(storages, scratch, strict=True))
        self.numbers = {self.scratch[key]._cdata: number for key, number in self._live.items()}
        self._copies = self._copy_tables(tensors.values())
        self._swapped = []  # (tensor, its live data, its scratch data)
        try:
            with torch.no_grad():
                for tensor in tensors.values():
                    self._swap(tensor)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _copy_tables(self, tensors):
        """Fills the scratch of integers that are no parameters; {storage key: its bytes}."""
        weights = {storage_key(p) for _, p in self._model.named_parameters(remove_duplicate=False) if is_plain(p)}
        tables = {
            storage_key(t): t
            for t in tensors
            if not t.dtype.is_floating_point and not t.dtype.is_complex and storage_key(t) not in weights
        }
        copies = {}
        for key, tensor in tables.items():
            live = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
            _bytes_of(self.scratch[key]).copy_(live)
            copies[self.scratch[key]._cdata] = _bytes_of(self.scratch[key]).clone()
        return copies

    def changed(self):
        """Numbers of the destinations whose scratch is not what it was: something wrote to it."""
        out = set()
        for storage in self.scratch.values():
            if storage._cdata in self.numbers:
                copied = storage._cdata in self._copies
                if not self._is_as_copied(storage) if copied else _bytes_of(storage).any():
                    out.add(self.numbers[storage._cdata])
        return out

    def untouched_tables(self):
        """Numbers of the destinations that hold what was copied into them."""
        copied = (storage for storage in self.scratch.values() if storage._cdata in self._copies)
        return {self.numbers.get(storage._cdata) for storage in copied if self._is_as_copied(storage)}

    def _is_as_copied(self, storage):
        return torch.equal(_bytes_of(storage), self._copies[storage._cdata])

    def watch(self, labels):
        """A function that tells which of a few tensors are not their scratch now, or have made room for others."""
        watched = []
        for tensor, _, aside in self._swapped:
            label = self._labels[id(tensor)]
            if label in labels:
                path, _, name = label.rpartition(".")
                owner = self._model.get_submodule(path) if label in self._names else None
                watched.append((label, tensor, aside, owner, name))

        def rebound():
            for label, tensor, aside, owner, name in watched:
                if getattr(owner, name, tensor) is not tensor or not _same_memory(tensor, aside):
                    yield label

        return rebound

    def _swap(self, tensor):
        data, storage = tensor.data, self.scratch[storage_key(tensor)]
        with torch.inference_mode(tensor.is_inference()):  # .data must be of the same kind
            aside = torch.empty(0, dtype=tensor.dtype, device="cpu")
            aside.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        self._swapped.append((tensor, data, aside))
        tensor.data = aside

    def __exit__(self, *_):
        found = dict(named_tensors(self._model))
        self.rebound = {name: now for name, now in found.items() if self._names.get(name) is not now}
        for attributes, saved, containers in self._saved:
            self.leaked += [tensor for _, tensor in tensors_in(attributes) if id(tensor) not in self._known]
            if _differ(attributes, saved):
                attributes.clear()
                attributes.update(saved)
            containers.restore()
        failures = []
        with torch.no_grad():
            for tensor, data, aside in self._swapped:
                if not _same_memory(tensor, aside):
                    self.rebound[self._labels[id(tensor)]] = tensor.data
                try:
                    tensor.data = data
                except RuntimeError as error:  # the others have to come back all the same
                    failures.append(f"'{self._labels[id(tensor)]}': {error}")
        if failures:
            raise InternalError(f"parameters could not be restored after running the loader: {failures[0]}")


def _bytes_of(storage):
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _same_memory(tensor, aside):
    """Whether a tensor still is the scratch it was pointed at."""
    try:
        same = storage_key(tensor) == storage_key(aside)
    except RuntimeError:  # the memory of a tracked tensor, which has none
        return False
    return same and tensor.shape == aside.shape and tensor.stride() == aside.stride()
