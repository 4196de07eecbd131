"""The replica over a live model: what is staged for it, and how it is committed."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any

import torch

from .. import _core, slots
from ..errors import InvalidArgument, Mismatch, Unsupported
from ..replica import GIB, Replica, Staged
from ..slots.words import torch_dtype
from ..tensors import digest, empty_tensors
from .division import OTHER_BITS, Division
from .follower import EngineFollower, FollowStep
from .reload import POISONED, UNCHANGED, ReloadFailed, Reloads, groups, refuse_unloadable, some, why


@dataclasses.dataclass(frozen=True)
class EngineReport:
    """What a commit did: a CommitReport, with what the loader had to do.

    seconds    how long the engine had to wait, loader included
    reloaded   how many tensors the engine's loader put in
    """

    version: _core.Version
    seconds: float
    reloaded: int
    outcome: str = "APPLIED"


class EngineStaged(Staged):
    """A proven change of an engine. `groups` are the tensors that its loader will have to put in."""

    def __init__(self, replica, core, groups, digests, repair, limits):
        super().__init__(replica, core)
        self.groups, self.digests, self.repair, self.limits = groups, digests, repair, limits


class EngineReplica(Replica):
    """A Replica over the parameters of a model. Made by `attach`.

    map        the SlotMap that is written through
    kept       tensors of the version that are not written in place (aliases, what the engine never loads, what its
               loader reloads), in memory of their own: they are part of the version, and so of its proof
    reloaded   {tensor: why its place is not written}: after a commit that changed it, the engine's loader puts it in
    """

    def __init__(self, core, repository, model, binding, kept, reloads, digests):
        super().__init__(core, repository, model)
        self.binding = binding
        self.map = binding.map
        self.kept = kept
        self._reloads = reloads or Reloads(None, kept, [])
        self._digests = digests  # of the version that the core holds
        self._last = None  # what was staged last: only that may be committed
        self._poison = None  # why the parameters hold no version
        self._busy = threading.Lock()

    @property
    def reloaded(self) -> dict[str, str]:
        return dict(self.map.refused)

    @property
    def version(self) -> _core.Version | None:
        """The Version that the parameters hold; None if they hold none."""
        return self.core.version if self._poison is None else None

    def summary(self) -> str:
        """What goes which way, in a sentence."""
        sources, reasons = self.map.sources, self.map.refused
        placed = {slot.tensor for slot in self.map.slots}
        told = [f"{_amount(sources, placed, 'is', 'are')} written in place"]
        if reasons:
            first = some(f"'{name}': {reason}" for name, reason in reasons.items())
            told.append(f"{_amount(sources, reasons, 'is', 'are')} reloaded by the engine after a change ({first})")
        idle = self.kept.keys() - reasons.keys()
        if idle:
            told.append(f"{_amount(sources, idle, 'has', 'have')} no place in the engine")
        return ", ".join(told)

    @contextmanager
    def _claimed(self):
        if not self._busy.acquire(blocking=False):
            raise InvalidArgument("the replica is in use by another call")
        try:
            yield
        finally:
            self._busy.release()

    def stage(self, ref: str | _core.Version = "main", *, repair: bool = False, threads: int = 0,
              memory_bytes: int = GIB, progress: Callable[[int, int], Any] | None = None) -> EngineStaged:
        """Fetch and prove what leads to a version. The engine stays as it is.

        repair: rebuild everything from the bucket and reload all that is reloaded, whatever the engine holds now.
        Raises Mismatch if somebody else wrote to the parameters, or if they hold no version and this is no repair.
        """
        version = self.repository.version(ref)
        with self._claimed():
            if self._poison is not None and not repair:
                raise Mismatch(self._poison)
            self._last = None
            limits = {"threads": threads, "memory_bytes": memory_bytes}
            staged = super().stage(version, repair=repair, progress=progress, **limits)
            digests = self.repository.digests(version) if self._reloads.groups else {}
            touched = self._reloads.groups if repair else self._reloads.touched(self._digests, digests)
            self._last = EngineStaged(self, staged._core, touched, digests, repair, limits)
            return self._last

    def commit(self, staged: EngineStaged) -> EngineReport:
        """Apply a staged change: write the words that differ, then let the engine's loader put in what it reloads.

        Raises Mismatch, before anything is written, if a parameter has moved; ReloadFailed if the loader failed: its
        `outcome` tells whether the engine holds the version that it held, or none.
        """
        with self._claimed():
            self._check(staged)
            self._last = None
            begin, before = monotonic(), self.version
            version = super().commit(staged).version
            if staged.groups:
                self._reload(staged, before)
            self._poison = None
            self._digests = staged.digests
            return EngineReport(version, monotonic() - begin, sum(map(len, staged.groups)))

    def _check(self, staged):
        if self._poison is not None and not staged.repair:
            raise Mismatch(self._poison)
        if staged is not self._last:
            raise InvalidArgument("this change is not what was staged last for this replica: stage again")
        moved = self.binding.check()
        if moved:
            raise Mismatch(
                f"the engine's parameters are not where they were recorded: {some(moved)}; attach again, with the "
                "version that they hold"
            )

    def _reload(self, staged, before):
        try:
            self._reloads.put(staged.groups)
        except Exception as error:  # a loader may raise anything
            self._go_back(staged, before, error)
        except BaseException:
            self._poisoned("the engine's loader was interrupted")
            raise

    def _poisoned(self, why):
        self._poison = (
            f"the engine's parameters hold no version: {why}; stage with repair, or attach again with "
            f"{self.core.version.name}"
        )
        return self._poison

    def _go_back(self, staged, before, error):
        """Raises, whatever happens: the engine holds `before` again, or no version."""
        version = self.core.version
        failed = f"the engine's loader failed with {version.name}: {type(error).__name__}: {error}"
        if before is None:  # nothing to go back to
            raise ReloadFailed(self._poisoned(failed), POISONED) from error
        self._poisoned(failed)
        try:
            self.core.commit(self.core.stage(self.repository._core, before, False, *staged.limits.values(), None))
            self._reloads.put(staged.groups)
        except Exception as second:
            failed += f"; going back to {before.name} failed: {type(second).__name__}: {second}"
            raise ReloadFailed(self._poisoned(failed), POISONED) from error
        self._poison = None
        raise ReloadFailed(f"{failed}; the engine holds {before.name} again", UNCHANGED) from error

    def follow(self, branch: str = "main", *, on_version: Callable[[FollowStep], Any] | None = None,
               pause: Callable[[_core.Version], AbstractContextManager] | None = None, interval: float = 1.0,
               until: int | None = None, repair: bool = False, threads: int = 0,
               memory_bytes: int = GIB) -> EngineFollower:
        """As `Replica.follow`: every version goes through `stage` and `commit` of this replica."""
        options = {"threads": threads, "memory_bytes": memory_bytes}
        return EngineFollower(self, branch, on_version, pause, interval, until, repair, options)


def _amount(sources, names, singular, plural):
    size = sum(sources[name].elements * torch_dtype(sources[name].dtype).itemsize for name in names) / (1 << 20)
    noun, verb = ("tensor", singular) if len(names) == 1 else ("tensors", plural)
    return f"{len(names)} {noun} ({size:.1f} MiB) {verb}"


def unproven(binding: slots.Binding, digests: dict[str, str]) -> dict[str, str]:
    """{tensor: why} of the recorded tensors whose bits in the engine are not those of a version."""
    out = {}
    for slot in binding.map.slots:
        name = slot.tensor
        if name in out:
            continue
        if slot.destination in binding.unbound:
            out[name] = binding.unbound[slot.destination]
        elif slot.cast != "none":
            out[name] = f"the engine keeps it as {binding.map.destinations[slot.destination].dtype}"
        else:
            found = slots.gather(binding, name)
            if not found.complete:
                out[name] = "this rank holds a part of it only"
            elif not found.consistent or digest(found.values) != digests[name]:
                out[name] = OTHER_BITS
    return out


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def _places(binding, kept):
    """(slots, destinations) as the core takes them."""
    numbers, destinations, places = {}, [], []
    for slot in binding.map.slots:
        if slot.destination not in numbers:
            numbers[slot.destination] = len(destinations)
            destinations.append(binding.storage(slot.destination).view(torch.uint8))
        rows = [piece for t in slot.tiles for piece in t.pieces()]
        places.append((slot.tensor, numbers[slot.destination], torch.tensor(rows, dtype=torch.int64).reshape(-1, 8)))
    for name, tensor in kept.items():
        words = _flat(tensor)
        whole = torch.tensor([[0, 0, 1, tensor.numel(), 0, 1, 0, 1]] if tensor.numel() else [], dtype=torch.int64)
        places.append((name, len(destinations), whole.reshape(-1, 8)))
        destinations.append(words)
    return places, destinations


class _At:
    """The version that an engine is attached at."""

    def __init__(self, repository, ref, memory_bytes):
        self.repository, self._memory_bytes = repository, memory_bytes
        self.version = repository.version(ref)
        self.catalogue = repository.tensors(self.version)
        self.digests = repository.digests(self.version)

    def unproven(self, binding):
        return unproven(binding, self.digests)

    def fetch(self, slot_map, have):
        """{name: words} of all tensors that a map has no slots for; those of `have` are there already."""
        placed = {slot.tensor for slot in slot_map.slots}
        wanted = [name for name in self.catalogue if name not in placed]
        fetched = empty_tensors((name, *self.catalogue[name], 0) for name in wanted if name not in have)
        if fetched:
            self.repository.load(self.version, fetched, some=True, memory_bytes=self._memory_bytes)
        return {name: have[name] if name in have else fetched[name] for name in wanted}

    def replica(self, model, binding, kept, reloads=None):
        core = _core.Replica.adopt_slots(self.repository._core, self.version, *_places(binding, kept))
        return EngineReplica(core, self.repository, model, binding, kept, reloads, self.digests)


def attach(repository: Any, model: torch.nn.Module, load: Callable, at: str | _core.Version, *,
           adjust: Callable[[slots.SlotMap], slots.SlotMap] | None = None, reload: Callable | None = None,
           unloadable: Callable[[slots.SlotMap], dict[str, str]] | None = None,
           memory_bytes: int = GIB) -> EngineReplica:
    """An EngineReplica of a model that holds version `at`, in host memory.

    load         the engine's own loader, called with an iterator of (name, tensor)
    adjust       corrects the recorded map for what the engine does to parameters after loading
    reload       loads tensors into the running engine, called in the same way; it must leave the parameters of all
                 others alone. With it, tensors that cannot be written in place are loaded at once and then after every
                 commit that changes them, in whole layers. Without it they are refused
    unloadable   gives for a map {tensor: why} of what `reload` is known to load wrongly; these are refused

    The engine must not run meanwhile. Raises Unsupported, with names and reasons, if a tensor cannot be written in
    place or what the engine holds is not `at`; nothing was changed then. Raises ReloadFailed if the loader fails; the
    engine's parameters hold no version then.
    """
    target = _At(repository, at, memory_bytes)
    slot_map = slots.record(model, target.catalogue, load)
    if adjust is not None:
        slot_map = adjust(slot_map)
    binding = slots.bind(slot_map, model)
    reasons = {**slot_map.refused, **target.unproven(binding)}
    if not reasons:
        return target.replica(model, binding, target.fetch(slot_map, {}))
    if reload is None:
        told = some(f"'{name}': {reason}" for name, reason in sorted(reasons.items()))
        amount = f"{len(reasons)} of {len(target.catalogue)} tensors of {target.version.name}"
        raise Unsupported(f"{amount} cannot be written in place: {told}")
    return _attach_with_reloads(target, model, slot_map, reasons, reload, unloadable)


def _attach_with_reloads(target, model, slot_map, reasons, reload, unloadable):
    known = unloadable(slot_map) if unloadable is not None else {}

    def refuse(told):
        refuse_unloadable(told, known)

    refuse(why(groups(slot_map, reasons), reasons))  # before anything is loaded
    division = Division(model, slot_map, unproven=target.unproven, fetch=target.fetch, refuse=refuse)
    try:
        return target.replica(model, *division.settle(reasons, reload))
    except Exception as error:  # a loader may raise anything
        raise ReloadFailed(
            f"the engine's parameters hold no version: loading {target.version.name} into them failed: "
            f"{type(error).__name__}: {error}",
            POISONED,
        ) from error
