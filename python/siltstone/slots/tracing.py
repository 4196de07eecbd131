"""Index tracing: the fallback that understands any permutation and rejects any arithmetic.

Instead of weights the loader gets the digits of each element's own number, pass by pass into scratch, and what
then lies in a parameter says which element it is. Each digit is loaded twice, mirrored the second time, and both
must agree; a last pass of random finite bits must come back exactly. That takes 2 * digits + 1 real loads of the
sources asked for and about 40 bytes per traced parameter element: for a layer at a time, not for a model.
Scratch is host memory, so a `finish` that needs kernels of an accelerator cannot be traced.
"""

import torch

from ..errors import Unsupported
from ..tensors import TORCH_NAMES
from .aside import Aside, destinations_of, named_tensors, storage_key
from .compress import from_pairs
from .slotmap import CASTS, Slot, SlotMap, layout_of, sources_of
from .tiles import TooScattered
from .words import torch_dtype, words

# Digits are written as 1..base: integers that the dtype holds exactly, also negated. 0 is "not written".
BASES = {
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("BF16", "U8"), 128),
    "I8": 127,
    **dict.fromkeys(("F16", "I16", "U16"), 1024),
    **dict.fromkeys(("F32", "F64", "I32", "U32", "I64", "U64"), 1 << 20),
}
_SEED = 20


class _Failed(Exception):
    def __init__(self, name, reason):
        super().__init__(reason)
        self.name = name


def trace(model: torch.nn.Module, catalogue, load, *, parameters=None, finish=None) -> SlotMap:
    """The slots of a few sources, found by loading the numbers of their elements.

    catalogue    the sources to trace, as for `record`: those of a layer, together with what it fuses
    load         called once per pass with an iterator of (name, tensor): real host tensors
    parameters   names of the parameters to look at; by default all, which reads all of the model's size
    finish       called without arguments after each load, for post-processing that only permutes the parameters
                 of the layer. It runs on scratch memory and must not depend on live weights.

    The model is set aside as for `record`. A source with an element that is not an exact copy is refused.
    """
    sources = sources_of(catalogue)
    refused = {
        name: f"no digits can be told apart in {source.dtype}"
        for name, source in sources.items()
        if source.dtype not in BASES or not hasattr(torch, TORCH_NAMES[source.dtype])
    }
    while True:
        tracer = _Tracer(model, {n: s for n, s in sources.items() if n not in refused}, load, parameters, finish)
        try:
            tracer.run()
        except _Failed as failure:
            if failure.name is None:
                raise Unsupported(f"the loader failed outside of any tensor: {failure}") from failure.__cause__
            refused[failure.name] = str(failure)
        else:
            return tracer.result(sources, refused)


class _Found:
    """What has been read back of one destination."""

    def __init__(self, elements):
        self.index = torch.zeros(elements, dtype=torch.int64)
        self.good = torch.ones(elements, dtype=torch.bool)
        self.written = None


class _Tracer:
    def __init__(self, model, sources, load, parameters, finish):
        self._model, self._sources, self._load, self._finish = model, sources, load, finish
        self._begins, self._total = {}, 0  # number of each source's first element
        for name, source in sources.items():
            self._begins[name] = self._total
            self._total += source.elements
        self.destinations, _ = destinations_of(model)
        self._scope = [
            i for i, d in enumerate(self.destinations) if parameters is None or set(parameters) & set(d.parameters)
        ]
        self._found = {i: _Found(self.destinations[i].elements) for i in self._scope}
        codes = {source.dtype for source in sources.values()}
        codes |= {self.destinations[i].dtype for i in self._scope for code in codes if self._is_cast(code, i)}
        self._base = min((BASES[code] for code in codes), default=2)

    def _is_cast(self, code, destination):
        return (code, self.destinations[destination].dtype) in CASTS

    def run(self):
        place = 1
        while place < max(self._total, 2):
            self._digit(place)
            place *= self._base
        self._random_bits()

    def _digit(self, place):
        """One digit of all numbers, as it is and mirrored."""
        direct = self._pass(lambda name: self._digits(name, place, False))
        mirrored = self._pass(lambda name: self._digits(name, place, True))
        for i, found in self._found.items():
            value, other = direct[i], mirrored[i]
            written = (value != 0) | (other != 0)
            unsigned = self.destinations[i].dtype.startswith("U")
            other = self._base + 1 - other if unsigned else -other
            fits = (value == other) & (value == value.round()) & (value >= 1) & (value <= self._base)
            found.good &= fits | ~written
            if found.written is not None:
                found.good &= found.written == written
                written |= found.written
            found.written = written
            found.index += torch.where(fits, value - 1, 0).to(torch.int64) * place

    def _digits(self, name, place, mirror):
        source = self._sources[name]
        number = torch.arange(self._begins[name], self._begins[name] + source.elements)
        value = number // place % self._base + 1
        if mirror:
            value = self._base + 1 - value if source.dtype.startswith("U") else -value
        return value.to(torch_dtype(source.dtype)).reshape(source.shape)

    def _random_bits(self):
        """What was read so far predicts what random bits become; elements where it does not are not copies."""
        bits = {name: _random(source, _SEED + i) for i, (name, source) in enumerate(self._sources.items())}
        got = self._pass(lambda name: bits[name].reshape(self._sources[name].shape).clone(), raw=True)
        for i, found in self._found.items():
            found.good &= found.index < self._total
            ours = found.written & found.good
            for name, at in self._by_source(found, ours):
                value = bits[name][found.index[at] - self._begins[name]]
                if value.dtype is not got[i].dtype:
                    value = value.to(got[i].dtype)
                found.good[at] &= words(value) == words(got[i][at])

    def _by_source(self, found, mask):
        """(source, offsets that hold elements of it in ascending order) for one destination."""
        at = mask.nonzero().flatten()
        order = torch.argsort(found.index[at], stable=True)
        at = at[order]
        ends = torch.tensor([begin + self._sources[name].elements for name, begin in self._begins.items()])
        cuts = torch.searchsorted(found.index[at], ends, right=False).tolist()
        begin = 0
        for name, end in zip(self._begins, cuts, strict=True):
            if begin < end:
                yield name, at[begin:end]
            begin = end

    def _pass(self, value_of, raw=False):
        """One load into fresh scratch: {destination: its elements}, as float64 unless raw."""
        last, ended = None, False

        def feed():
            nonlocal last, ended
            for last in self._sources:  # noqa: B007 - read where the load fails
                yield last, value_of(last)
            ended = True

        with Aside(self._model) as aside, torch.no_grad():
            try:
                self._load(feed())
                if self._finish is not None:
                    self._finish()
            except Exception as error:  # a loader may raise anything
                name = None if ended else last
                raise _Failed(name, f"{type(error).__name__}: {error}") from error
            named = dict(named_tensors(self._model))
            tables = aside.untouched_tables()
            read = {i: self._read(named, self.destinations[i], raw) for i in self._scope}
            return {i: torch.zeros_like(found) if i in tables else found for i, found in read.items()}

    @staticmethod
    def _read(named, destination, raw):
        """A copy of the storage; nonsense that no digit decodes to where the loader left another layout."""
        dtype = torch_dtype(destination.dtype)
        tensors = [named.get(name) for name in destination.parameters]
        layouts = tuple(layout_of(t) if t is not None and t.dtype is dtype else None for t in tensors)
        storages = {storage_key(t): t.untyped_storage() for t in tensors if t is not None}
        storage = next(iter(storages.values()), None)
        same = layouts == destination.layouts and len(storages) == 1
        if not same or storage.nbytes() // dtype.itemsize != destination.elements:
            return torch.full((destination.elements,), 0.5, dtype=torch.float64).to(dtype if raw else torch.float64)
        flat = torch.empty(0, dtype=dtype, device=tensors[0].device).set_(storage, 0, (destination.elements,), (1,))
        return flat.clone().cpu() if raw else flat.to("cpu", torch.float64)

    def result(self, sources, refused):
        slots, refused = [], dict(refused)
        computed = [i for i, found in self._found.items() if bool((found.written & ~found.good).any())]
        for i, found in self._found.items():
            for name, at in self._by_source(found, found.written & found.good):
                where = f"parameter '{self.destinations[i].parameters[0]}'"
                pair = (sources[name].dtype, self.destinations[i].dtype)
                if i in computed:
                    refused.setdefault(name, f"{where} has elements that are no copies")
                elif pair[0] != pair[1] and pair not in CASTS:
                    refused.setdefault(name, f"the loader converts {pair[0]} to {pair[1]}")
                else:
                    try:
                        tiles = from_pairs(found.index[at] - self._begins[name], at)
                        slots.append(Slot(name, i, tuple(tiles), CASTS.get(pair, "none")))
                    except TooScattered:
                        refused.setdefault(name, f"its elements are scattered over {where}")
        slots = [slot for slot in slots if slot.tensor not in refused]
        lost = {n for n in self._sources if n not in refused} - {slot.tensor for slot in slots}
        if computed:
            first = self.destinations[computed[0]].parameters[0]
            refused |= dict.fromkeys(
                lost, f"it is found nowhere, and parameter '{first}' has elements that are no copies"
            )
        return SlotMap(sources, self.destinations, slots=slots, refused=refused, ignored=set() if computed else lost)


def _random(source, seed):
    """Flat random bits of a dtype, finite."""
    dtype = torch_dtype(source.dtype)
    generator = torch.Generator().manual_seed(seed)
    size = (source.elements * dtype.itemsize,)
    out = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).view(dtype)
    if out.is_floating_point():
        words(out)[~out.to(torch.float64).isfinite()] = 1  # a subnormal
    return out
