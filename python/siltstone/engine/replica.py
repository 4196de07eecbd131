"""The replica over a live model: what is staged for it, and how it is committed."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any

from .. import _core
from ..errors import InvalidArgument, Mismatch
from ..replica import GIB, Replica, Staged
from ..slots.words import torch_dtype
from .follower import EngineFollower, FollowStep
from .reload import POISONED, UNCHANGED, ReloadFailed, Reloads, some


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
    reloaded   {tensor: why its place is not written}: after a commit that changed it, the engine's loader puts it in
    kept       those tensors, in memory of their own, as the checkpoint has them
    left_out   the tensors that the engine's loader leaves out, and why it may
    """

    def __init__(self, core, repository, model, binding, kept, reloads, left_out, digests):
        super().__init__(core, repository, model)
        self.left_out = left_out
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
        left = self.left_out.tied.keys() | self.left_out.skipped
        if left:
            told.append(f"{_amount(sources, left, 'has', 'have')} no place of its own in the engine")
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
            digests = dict(zip(self.map.sources, staged._core.digests(), strict=True))
            self.left_out.check(version, digests)
            touched = self._reloads.groups
            if not repair:
                touched = self._reloads.touched(lambda name: self._digests[name] != digests[name])
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

    def _poisoned(self, why, heals="stage with repair, or attach again"):
        self._poison = f"the engine's parameters hold no version: {why}; {heals} with {self.core.version.name}"
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
