"""Recording: one run of an engine's own weight loader, over tracked tensors of a whole catalogue.

The method is that of a provenance tensor: sources are `Tracked` (tracked.py), parameters are scratch
(aside.py), a dispatch mode sees every write of the recording thread, and only writes into memory that the
loader made itself are executed. Limits: worker threads are seen through their sources only, which is why a
recording with workers also looks for bytes that changed unseen; nothing here can tell whether the engine
permuted parameters after loading, which is why every slot has to be proven by value.
"""

import re
import threading

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import Unsupported
from ..tensors import TORCH_NAMES
from .aside import Aside, storage_key
from .coverage import pattern
from .resolve import Event, Outcome, resolve
from .slotmap import SlotMap, sources_of
from .tracked import Lost, NeedsValue, Rules, Slice, Tracked, aten, is_view, tracked_in
from .words import torch_dtype

MAX_RUNS = 64
FILLS = {aten.zero_.default, aten.fill_.Scalar, aten.fill_.Tensor}


def _geometry(tensor):
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


_written = {}


def _written_arguments(func, args, kwargs):
    """The arguments that an operation writes, by its schema, lists flattened."""
    where = _written.get(func)
    if where is None:
        schema = enumerate(func._schema.arguments)
        where = [(i, a.name) for i, a in schema if a.alias_info is not None and a.alias_info.is_write]
        _written[func] = where
    out = []
    for i, name in where:
        value = args[i] if i < len(args) else kwargs.get(name)
        out += value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return out


class Recording(TorchDispatchMode, Rules):
    """What the loader does, in order.

    events      all writes into destinations
    refused     source -> reason
    astray      refused sources that may have gone where nothing is seen
    workers     whether worker threads took part
    """

    def __init__(self, destinations, numbers):
        TorchDispatchMode.__init__(self)
        Rules.__init__(self)
        self.events = []
        self.refused = {}
        self.astray = set()
        self.workers = False
        self.filled = set()  # values of sentinels that were filled in
        self._destinations, self._numbers = destinations, numbers
        self._born = {}  # storage key -> weak reference, which keeps the key from being used again
        self._thread = threading.get_ident()
        self._lock = threading.RLock()

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # nothing here is compiled: leaving the compiler out saves its import and half the time

    def written(self):
        """The sources that are copied somewhere."""
        return {event.source[0] for event in self.events if event.source}

    def refuse(self, name, reason):
        self.refused.setdefault(name, reason)

    def value_asked(self, names, what):
        self.astray.update(names)
        return super().value_asked(names, what)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if is_view(func) and not isinstance(args[0], Tracked) and func is not aten.lift_fresh.default:
            return func(*args, **(kwargs or {}))  # most calls: a parameter is narrowed
        return self.dispatch(func, args, kwargs or {})

    def dispatch(self, func, args, kwargs):
        with self._lock:
            self.workers = self.workers or threading.get_ident() != self._thread
            written = _written_arguments(func, args, kwargs)
            if written:
                return self._write(func, args, kwargs, written)
            if tracked_in(args, kwargs):
                return self.derive(func, args, kwargs)
            result = func(*args, **kwargs)
            self._note_born(func, result)
            return result

    def _note_born(self, func, result):
        if func is aten._unsafe_view.default or is_view(func) and func is not aten.lift_fresh.default:
            return
        for tensor in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta and not isinstance(tensor, Tracked):
                storage = tensor.untyped_storage()
                self._born[storage._cdata] = StorageWeakRef(storage)

    def _write(self, func, args, kwargs, written):
        """Runs what writes into the loader's own memory only; notes and suppresses the rest."""
        sources = tracked_in(args, kwargs)
        if not sources and all(storage_key(each) in self._born for each in written):
            return func(*args, **kwargs)
        if any(isinstance(each, Tracked) for each in written):
            for name in [name for x in sources for name in x.names]:
                self.refuse(name, f"the loader changes it in place with {func.overloadpacket.__name__}")
        elif func is aten.copy_.default and sources:
            self._copy(args[0], args[1])
        elif func in FILLS:
            self._fill(args[0], args[1] if len(args) > 1 else 0.0)
        else:
            self._foreign(func, written, sources)
        returns = func._schema.returns
        return None if not returns else written[0] if len(returns) == 1 else tuple(written)

    def _foreign(self, func, written, sources):
        for x in sources:
            for name, reason in x.origin.reasons.items():
                self.refuse(name, reason or f"the loader writes it with {func.overloadpacket.__name__}")
        names = tuple(name for x in sources for name in x.names)
        for each in written:
            self._note(each, operation=func.overloadpacket.__name__, names=names)

    def _note(self, tensor, names=(), **what):
        """One event, if it is in a destination; under another element size the words from its begin to its end.

        `names` are the sources that it was computed from.
        """
        number = self._numbers.get(storage_key(tensor))
        if number is None:
            self.astray.update(names)
        if number is None or not tensor.numel():
            return
        geometry, dtype = _geometry(tensor), self._destinations[number].dtype
        size, ours = tensor.dtype.itemsize, torch_dtype(dtype).itemsize
        if size != ours:
            span = pattern(geometry[0], zip(geometry[2], geometry[1], strict=True))
            begin, end = span.begin * size // ours, -(-(span.last + 1) * size // ours)
            geometry = (begin, (end - begin,), (1,))
            what = {"operation": "elements of another size"} if "source" not in what else what
        self.events.append(Event(number, geometry, tensor.dtype, names=names, **what))

    def _fill(self, tensor, value):
        if isinstance(value, Tracked):
            return self._copy(tensor, value)
        if isinstance(value, torch.Tensor):
            value = value.item()
        origin, dtype = self.sentinels.get(value, (None, None)) if isinstance(value, float) else (None, None)
        if origin is None:
            constant = {"operation": "complex numbers"} if isinstance(value, complex) else {"value": float(value)}
            return self._note(tensor, **constant)
        self.filled.add(value)
        whole = origin._replace(view=origin.view.reshape(()), late=False)
        return self._copy_slice(tensor, whole, dtype, tensor.shape)

    def _copy(self, tensor, x):
        if isinstance(x.origin, Lost):
            return self._lost(tensor, x.origin.reasons)
        if isinstance(x.origin, Slice):
            return self._copy_slice(tensor, x.origin, x.dtype, x.shape)
        if x.shape != tensor.shape:
            return self._lost(tensor, dict.fromkeys(x.names, "the loader broadcasts what it has concatenated"))
        for begin, length, each in x.origin.slices:
            part = tensor.narrow(x.origin.dim, begin, length)
            self._copy_slice(part, each, x.dtype, part.shape)

    def _lost(self, tensor, reasons):
        for name, reason in reasons.items():
            self.refuse(name, reason)
        self._note(tensor, operation="a copy of what was computed", names=tuple(reasons))

    def _copy_slice(self, tensor, origin, dtype, shape):
        """`shape` is what the loader sees of a slice; it differs from the origin's after a late reshape."""
        if storage_key(tensor) not in self._numbers:
            self.astray.add(origin.name)
            return self.refuse(origin.name, "the loader copies it into memory that is no parameter")
        try:
            if origin.late and shape == tensor.shape:
                tensor, view = tensor.view(origin.view.shape), origin.view
            elif origin.late:
                return self._lost(tensor, {origin.name: "the loader broadcasts what it has reshaped"})
            else:
                view = origin.view if origin.view.shape == tensor.shape else origin.view.expand(tensor.shape)
        except RuntimeError:
            return self._lost(tensor, {origin.name: "the loader reshapes it in a way that is not affine"})
        conversions = origin.conversions
        if dtype is not tensor.dtype:
            conversions += ((dtype, tensor.dtype),)
        self._note(tensor, source=(origin.name, _geometry(view), conversions))


class _Feed:
    """The iterator that the loader gets.

    last         what it gave last
    rebound_by   {parameter: source}: which source was out when a watched parameter was rebound
    """

    def __init__(self, recording, sources, device, aside, watched):
        self.last = None
        self.ended = False
        self.rebound_by = {}
        self._recording, self._sources, self._device = recording, sources, device
        self._rebound = aside.watch(watched) if watched else tuple

    def __iter__(self):
        for name, source in self._sources.items():
            self.last = name
            dtype = torch_dtype(source.dtype)
            yield name, self._recording.source(name, source.shape, dtype, self._device)
            for parameter in self._rebound():
                self.rebound_by.setdefault(parameter, name)
        self.ended = True


def _family(name):
    return re.sub(r"\d+", "#", name)


class _Dropped(dict):
    """Sources that are left out of the next run, with the reason; a whole family after its second failure."""

    def __init__(self, sources):
        super().__init__()
        self._sources = sources
        for name, source in sources.items():
            if not hasattr(torch, TORCH_NAMES.get(source.dtype, "")):
                self[name] = f"torch has no dtype for {source.dtype}"

    def blame(self, error, feed):
        """Drops what an exception of the loader belongs to."""
        cause = error
        while cause is not None and not isinstance(cause, NeedsValue):
            cause = cause.__cause__ or cause.__context__
        if cause is None and (feed.ended or feed.last is None):
            raise Unsupported(f"the loader failed outside of any tensor: {type(error).__name__}: {error}") from error
        names = cause.names if cause else (feed.last,)
        raised = type(error).__name__ + (f": {error}" if str(error) else " in the loader")
        reason = f"the loader needs its value: {cause.what}" if cause else raised
        for name in names:
            family = _family(name)
            repeated = any(_family(other) == family for other in self)
            alike = [other for other in self._sources if _family(other) == family] if repeated else [name]
            for other in alike:
                self.setdefault(other, reason)


class _Run:
    """One run of the loader, over and the model restored."""

    def __init__(self, aside, recording, feed, failure, unseen, kept):
        self.aside, self.recording, self.feed, self.failure = aside, recording, feed, failure
        self._unseen, self._kept = unseen, kept

    def outcome(self, dropped):
        refused = {**self.recording.refused, **dropped}
        astray = self.recording.astray | set(dropped)
        for value, (origin, _) in self.recording.sentinels.items():
            if value not in self.recording.filled:
                refused.setdefault(origin.name, "the loader reads its value with .item() and does not fill it in")
                astray.add(origin.name)
        rebound = {
            parameter: (tensor, self.feed.rebound_by.get(parameter)) for parameter, tensor in self.aside.rebound.items()
        }
        return Outcome(self.recording.events, refused, rebound, self.aside.leaked, self._unseen, self._kept, astray)


def _run(model, sources, load, device, watched):
    failure, unseen, kept = None, set(), set()
    with Aside(model) as aside:
        recording = Recording(aside.destinations, aside.numbers)
        feed = _Feed(recording, sources, device, aside, watched)
        try:
            with torch.no_grad(), recording:
                load(iter(feed))
        except Exception as error:  # a loader may raise anything; the caller finds out what is to blame
            failure = error
        if recording.workers:
            unseen = aside.changed()
        if failure is None:
            kept = recording.kept(recording.written() | set(recording.refused))
    return _Run(aside, recording, feed, failure, unseen, kept)


def record(model: torch.nn.Module, catalogue, load, *, device=None) -> SlotMap:
    """The slots of a model's parameters, from one run of its own loader in which no weight moves.

    catalogue   (name, dtype, shape) of all tensors of the published version, or a dict name -> (dtype, shape)
                as `Repository.tensors` gives; dtypes as safetensors spells them
    load        called with an iterator of (name, tensor), like `model.load_weights`; in one call for the whole
                catalogue, because loaders keep what they fuse
    device      where the sources claim to be; by default where the first parameter is

    Generation must be paused: while this runs, the model's tensors are scratch memory. Afterwards all of them are
    what and where they were, also if this raises. A loader that fails with a tensor, or asks for its values, is run
    again without it. Raises Unsupported if it fails for another reason.
    """
    sources = sources_of(catalogue)
    dropped = _Dropped(sources)
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    watched = set()
    for _ in range(MAX_RUNS):
        fed = {name: source for name, source in sources.items() if name not in dropped}
        run = _run(model, fed, load, device, watched)
        if run.failure is not None:
            dropped.blame(run.failure, run.feed)
        elif run.aside.rebound and not watched:
            watched = set(run.aside.rebound)  # memory changes hands without an operation: once more, looking closely
        else:
            return resolve(sources, run.aside.destinations, run.outcome(dropped))
    raise Unsupported(f"the loader failed with {len(dropped)} tensors in {MAX_RUNS} runs: it cannot be recorded")
