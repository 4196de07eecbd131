"""Tracked tensors: what a loader gets instead of weights. They know their place in the checkpoint, no value.

A Tracked carries an origin: which elements of which source it shows, kept as a meta tensor that views the
source's own storage, so that its offset and strides are the source slice. `Rules` says what each operation
does to origins; it works below `__torch_function__`, where the vocabulary is small: views are known by their
schema, and everything that is neither a view nor a copy loses the origin instead of failing.
"""

import gc
import weakref
from typing import NamedTuple

import torch
from torch.utils._pytree import tree_map

aten = torch.ops.aten

RESHAPES = {aten.view.default, aten._unsafe_view.default, aten._reshape_alias.default}
COPIES = {
    aten.clone.default,
    aten._to_copy.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift.default,
    aten.lift_fresh.default,
}


class NeedsValue(Exception):
    """The loader asked for a value, and there is none. `names` are the sources that it depends on."""

    def __init__(self, names, what):
        super().__init__(f"{what} of {', '.join(sorted(names))} has no value while a loader is recorded")
        self.names = tuple(names)
        self.what = what


class Slice(NamedTuple):
    """Elements of one source. `late`: a reshape that `view` cannot express; the destination is split instead."""

    name: str
    view: torch.Tensor
    conversions: tuple[tuple[torch.dtype, torch.dtype], ...] = ()
    late: bool = False

    @property
    def reasons(self):
        return {self.name: ""}


class Pieces(NamedTuple):
    """What `cat` made: slices one after another along a dimension."""

    dim: int
    slices: tuple[tuple[int, int, Slice], ...]  # (begin, length, slice)

    @property
    def reasons(self):
        return {each.name: "" for _, _, each in self.slices}


class Lost(NamedTuple):
    """Computed from sources: no place in the checkpoint any more. `reasons` says for each source by what."""

    reasons: dict[str, str]


class Sentinel(float):
    """What `.item()` gives: stands for the element when it is filled in somewhere, and has no value else."""

    def __new__(cls, number, rules, name):
        self = super().__new__(cls, -(2.0**52) - number)  # exact in a double, and no loader's constant
        self._rules, self._name = rules, name
        return self

    def __repr__(self):
        return f"<value of {self._name}>"

    __str__ = __repr__

    def __format__(self, _):
        return repr(self)

    def __reduce__(self):
        raise self._rules.value_asked([self._name], "pickling the .item()")

    __hash__ = float.__hash__


def _no_value(operation):
    def asked(self, *_):
        raise self._rules.value_asked([self._name], f"{operation} on the .item()")

    return asked


_FLOAT_OPERATIONS = (
    "eq ne lt le gt ge bool int float trunc round floor ceil abs neg pos "
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod divmod rdivmod pow rpow"
).split()
for _operation in _FLOAT_OPERATIONS:
    setattr(Sentinel, f"__{_operation}__", _no_value(_operation))


class Tracked(torch.Tensor):
    """A tensor without memory. `origin` is a Slice, Pieces or Lost."""

    @staticmethod
    def __new__(cls, rules, origin, dtype, device, shape, strides=None):
        self = torch.Tensor._make_wrapper_subclass(cls, shape, strides=strides, dtype=dtype, device=device)
        self.rules, self.origin = rules, origin
        rules.made.append(weakref.ref(self))
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return tracked_in(args, kwargs)[0].rules.dispatch(func, args, kwargs)

    @property
    def names(self):
        return tuple(self.origin.reasons)

    def item(self):
        return self.rules.item(self)

    def __repr__(self):
        return f"Tracked({', '.join(self.names)}, shape={tuple(self.shape)})"


def _no_memory(method):
    def asked(self, *_, **__):
        raise self.rules.value_asked(self.names, f"{method}()")

    return asked


for _method in (
    "tolist numpy data_ptr storage untyped_storage __array__ __dlpack__ __bool__ __int__ __float__ __index__ "
    "__complex__ __contains__ __reduce_ex__ __deepcopy__"
).split():
    setattr(Tracked, _method, _no_memory(_method))


def tracked_in(args, kwargs):
    """The Tracked among an operation's arguments, which nest one list deep."""
    out = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tracked):
            out.append(value)
        elif isinstance(value, (list, tuple)):
            out += [each for each in value if isinstance(each, Tracked)]
    return out


_views = {}


def is_view(func):
    """Whether the result aliases the first argument and nothing is written, by the schema."""
    known = _views.get(func)
    if known is None:
        returns = func._schema.returns
        known = bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
        _views[func] = known
    return known


class Rules:
    """What operations that write nothing do to Tracked tensors. The subclass says what writes do."""

    def __init__(self):
        self.sentinels = {}  # value -> (Slice, dtype)
        self._whole = {}  # shape -> meta tensor, which all sources of that shape share
        self.made = []  # weak references to every Tracked

    def kept(self, settled):
        """Sources other than the settled ones of which somebody still holds a tensor."""
        names = self._alive() - settled
        if names:
            gc.collect()  # else a cycle may be all that holds them
            names = self._alive() - settled
        return names

    def _alive(self):
        tensors = (made() for made in self.made)
        return {name for tensor in tensors if tensor is not None for name in tensor.names}

    def value_asked(self, names, what):
        """The exception to raise; the sources are refused even where the loader catches it."""
        for name in names:
            self.refuse(name, f"the loader needs its value: {what}")
        return NeedsValue(names, what)

    def source(self, name, shape, dtype, device):
        whole = self._whole.get(shape)
        if whole is None:
            whole = self._whole[shape] = torch.empty(shape, dtype=torch.int8, device="meta")
        return self._slice(Slice(name, whole), dtype, device)

    def item(self, x):
        if not isinstance(x.origin, Slice) or x.numel() != 1:
            raise self.value_asked(x.names, ".item()")
        value = Sentinel(len(self.sentinels) + 1, self, x.origin.name)
        self.sentinels[float.__add__(value, 0.0)] = (x.origin, x.dtype)
        return value

    def derive(self, func, args, kwargs):
        """The result of an operation that writes nothing and has a Tracked among its arguments."""
        first = args[0] if args else None
        if func in (aten.cat.default, aten.stack.default):
            result = self._cat(func, *args, **kwargs)
        elif not isinstance(first, Tracked) or isinstance(first.origin, Lost) or len(tracked_in(args, kwargs)) > 1:
            result = None
        elif func in COPIES:
            result = self._copied(first, **kwargs)
        elif not isinstance(first.origin, Slice):
            result = None
        elif func in RESHAPES:
            result = self._reshaped(first, args[1])
        elif func is aten.view.dtype:
            result = self._reinterpreted(first, args[1])
        elif is_view(func) and func is not aten.as_strided.default and not first.origin.late:
            result = self._viewed(func, first, args, kwargs)
        else:
            result = None
        return self._lose(func, args, kwargs) if result is None else result

    def _slice(self, origin, dtype, device):
        return Tracked(self, origin, dtype, device, origin.view.shape, origin.view.stride())

    def _viewed(self, func, x, args, kwargs):
        try:
            views = func(x.origin.view, *args[1:], **kwargs)
        except RuntimeError:  # not a view of what was permuted and then copied
            return None
        wrap = lambda view: self._slice(x.origin._replace(view=view), x.dtype, x.device)  # noqa: E731
        return wrap(views) if isinstance(views, torch.Tensor) else [wrap(view) for view in views]

    def _reshaped(self, x, size):
        """`view`, also for the operations that trust the strides of their argument: an origin has others."""
        if x.origin.late:
            return None
        try:
            return self._slice(x.origin._replace(view=x.origin.view.view(size)), x.dtype, x.device)
        except RuntimeError:
            shape = torch.empty(x.shape, dtype=torch.int8, device="meta").view(size).shape
            return Tracked(self, x.origin._replace(late=True), x.dtype, x.device, shape)

    def _reinterpreted(self, x, dtype):
        """The same bits under another name: fine while elements keep their size and have not been converted."""
        if dtype.itemsize != x.dtype.itemsize or x.origin.conversions:
            return None
        return Tracked(self, x.origin, dtype, x.device, x.shape, x.stride())

    def _copied(self, x, *_, dtype=None, device=None, **__):
        """Keeps the elements; `_to_copy` may convert them and claim another device."""
        dtype, origin = dtype or x.dtype, x.origin
        if dtype is not x.dtype:
            if not isinstance(origin, Slice):
                return None
            origin = origin._replace(conversions=(*origin.conversions, (x.dtype, dtype)))
        return Tracked(self, origin, dtype, device or x.device, x.shape)

    def _cat(self, func, tensors, dim=0):
        parts = list(tensors)
        if func is aten.stack.default:
            parts = [part.unsqueeze(dim) for part in parts]
        first = parts[0]
        whole = all(isinstance(p, Tracked) and isinstance(p.origin, Slice) and not p.origin.late for p in parts)
        if not whole or any(p.dtype is not first.dtype or p.dim() != first.dim() for p in parts):
            return None
        dim %= first.dim()
        slices, begin = [], 0
        for part in parts:
            slices.append((begin, part.shape[dim], part.origin))
            begin += part.shape[dim]
        shape = (*first.shape[:dim], begin, *first.shape[dim + 1 :])
        return Tracked(self, Pieces(dim, tuple(slices)), first.dtype, first.device, shape)

    def _lose(self, func, args, kwargs):
        """Only the result's shape is computed. What no shape can tell needs values."""
        sources = tracked_in(args, kwargs)
        operation = f"the loader computes with {func.overloadpacket.__name__}"
        reasons = {name: reason or operation for x in sources for name, reason in x.origin.reasons.items()}

        def meta(value):
            if not isinstance(value, torch.Tensor):
                return value
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")

        def wrap(value):
            if not isinstance(value, torch.Tensor):
                raise self.value_asked(reasons, str(func))
            return Tracked(self, Lost(reasons), value.dtype, sources[0].device, value.shape)

        try:
            on_meta = {key: "meta" if key == "device" else meta_value for key, meta_value in kwargs.items()}
            result = func(*tree_map(meta, args), **tree_map(meta, on_meta))
        except (RuntimeError, NotImplementedError) as error:
            raise self.value_asked(reasons, str(func)) from error
        return tree_map(wrap, result)
