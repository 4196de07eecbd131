"""One rank's replica of an engine that several ranks run together: all of them move, or none does."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import torch

from .. import _core, slots
from ..errors import InvalidArgument, Mismatch, Unsupported
from ..replica import GIB
from .division import divide, loading
from .host import HostCopy
from .left_out import LeftOut
from .places import places, refuse, unplaced, unproven, unproven_beside
from .ranks import Ranks
from .reload import POISONED, UNCHANGED, ReloadFailed
from .replica import EngineReplica, EngineReport, EngineStaged


class RankReplica(EngineReplica):
    """An EngineReplica of one rank. Made by `attach` with `ranks`, on all of them together.

    ranks   whom it moves with
    host    the HostCopy that the ranks of this host decode from, or None: each rank has all words of what it holds,
            and decodes that by itself
    """

    def __init__(self, core, target, model, binding, left_out, ranks, host, reloads=None):
        kept = {name: host.tensors[name] for name in binding.map.refused} if host is not None else {}
        super().__init__(core, target.repository, model, binding, kept, reloads, left_out, target.digests)
        self.ranks, self.host = ranks, host
        self._some_reload = any(ranks.gather(bool(self._reloads.groups)))

    def close(self) -> None:
        super().close()
        self.kept = {}
        if self.host is not None:
            self.host.close()

    def summary(self) -> str:
        told = f"rank {self.ranks.rank} of {self.ranks.size}: {super().summary()}"
        if self.host is None:
            return f"{told}; each rank decodes what it holds"
        size = self.host.bytes / (1 << 20)
        return f"{told}; the ranks of this host share a copy of the weights ({size:.1f} MiB in {self.host.folder})"

    def newest(self, branch: str) -> _core.Version:
        """The version to stage next: the branch's, or what the leader of this host has staged."""
        if self.host is None or self.host.leader:
            return super().newest(branch)
        name = self.host.ready()
        return self.version if name is None else self.repository.version(name)

    def stage(self, ref: str | _core.Version = "main", *, repair: bool = False, threads: int = 0,
              memory_bytes: int = GIB, progress: Callable[[int, int], Any] | None = None) -> EngineStaged:
        """Stage for this rank, ahead of a `move` of all; with a host copy, after the leader has.

        Raises NotFound where it has not.
        """
        version = self.repository.version(ref)
        with self._claimed():
            if self._poison is not None and not repair:
                raise Mismatch(self._poison)
            return self._stage(version, repair, {"threads": threads, "memory_bytes": memory_bytes}, progress)

    def commit(self, staged: EngineStaged) -> EngineReport:
        raise InvalidArgument("the ranks of an engine move together: call update on every rank")

    def follow(self, *_: Any, **__: Any):
        raise InvalidArgument("the ranks of an engine move together: call update on every rank")

    def update(self, ref: str | _core.Version = "main", **options: Any) -> EngineReport | None:
        """`move`, with nothing staged ahead."""
        return self.move(ref, **options)

    def move(self, ref: str | _core.Version = "main", *, ahead: EngineStaged | None = None, repair: bool = False,
             threads: int = 0, memory_bytes: int = GIB) -> EngineReport | None:
        """Move all ranks to the version that rank 0 names; called on every rank. None if they hold it already.

        Nothing is written before every rank has staged and found its parameters in place; if one fails, all raise and
        hold the version that they held. So they do if a loader fails (ReloadFailed), unless it fails again on the way
        back.
        """
        if repair and self.host is not None:
            raise Unsupported("ranks that share a copy of the weights are not repaired: attach again")
        limits = {"threads": threads, "memory_bytes": memory_bytes}
        with self._claimed():
            if ahead is not self._last:
                ahead = None
            version, ready = self._named(ref, ahead)
            if version == self.version and not repair:
                return None
            staged = ahead
            if repair or not ready:
                staged = self._stage_all(version, repair, limits)
            begin, before = monotonic(), self.version
            self.ranks.all(lambda: self._check(staged))
            self._write(staged)
            if self._some_reload:
                self._reload_all(staged, before)
            self._poison = None
            return EngineReport(version, monotonic() - begin, sum(map(len, staged.groups)))

    def _named(self, ref, ahead):
        """(the version that rank 0 names, whether it is what every rank has staged)."""
        mine = None

        def name():
            nonlocal mine
            mine = self.repository.version(ref)
            return mine.name, ahead is not None and ahead.target == mine

        names, ready = zip(*self.ranks.agree(name), strict=True)
        if len(set(names)) > 1:
            return self.ranks.all(lambda: self.repository.version(names[0])), False
        return mine, all(ready)

    def _stage_all(self, version, repair, limits):
        if self.host is not None:  # the leaders, before any other rank looks for it
            self.ranks.all(lambda: self._lead(version, limits, None))
        return self.ranks.all(lambda: self._stage(version, repair, limits, None))

    def _lead(self, version, limits, progress):
        if self.host.leader:
            self.host.stage(version, self._check_tied, *limits.values(), progress)

    def _stage(self, version, repair, limits, progress):
        self._last, groups = None, []
        if self.host is None:
            staged = self.core.stage(self.repository._core, version, repair, *limits.values(), progress)
            self._check_tied(staged)
        else:
            self._lead(version, limits, progress)
            changes, names = self.host.changes(version)
            staged = self.core.stage(changes, version, *limits.values())
            groups = self._reloads.touched(names.__contains__)
        self._last = EngineStaged(self, staged, groups, {}, repair, limits)
        return self._last

    def _check_tied(self, staged):
        self.left_out.check(staged.target, dict(zip(self.map.sources, staged.digests(), strict=True)))

    def _write(self, staged):
        self._last = None
        try:
            self.ranks.all(lambda: self._write_here(staged))
        except BaseException as error:
            self._poisoned(f"a rank failed while it wrote: {error}")
            raise

    def _write_here(self, staged):
        self.core.commit(staged._core)
        if self.host is not None and self.host.leader:
            self.host.commit()

    def _poisoned(self, why, heals="attach again"):
        return super()._poisoned(why, heals)

    def _reload_all(self, staged, before):
        """Let the loader of every rank put in what it reloads; if one fails, all go back."""
        version = self.core.version
        try:
            self.ranks.all(lambda: self._reloads.put(staged.groups))
            return
        except Exception as error:  # a loader may raise anything
            failed = f"the engine's loader failed with {version.name}: {type(error).__name__}: {error}"
            self._poisoned(failed)
        except BaseException:
            self._poisoned("the engine's loader was interrupted")
            raise
        try:
            self._write(self._stage_all(before, False, staged.limits))
            self.ranks.all(lambda: self._reloads.put(staged.groups))
        except Exception as second:
            failed += f"; going back to {before.name} failed: {type(second).__name__}: {second}"
            raise ReloadFailed(self._poisoned(failed), POISONED) from second
        self._poison = None
        raise ReloadFailed(f"{failed}; the engine holds {before.name} again", UNCHANGED)


def _refused(maps):
    """{tensor: why} of what a loader does not copy, or what no rank has."""
    out = {}
    for slot_map in maps:
        out.update(slot_map.refused)
    placed = {slot.tensor for slot_map in maps for slot in slot_map.slots}
    for name, hole in slots.holes(maps).items():
        if name in placed:
            out.setdefault(name, f"no rank has a place for {hole.elements} of its elements")
    return out


def _parts(slot_map):
    """The tensors that a rank has some elements of, not all."""
    return slots.holes([slot_map]).keys() - slot_map.ignored


def attach_rank(target: Any, model: torch.nn.Module, slot_map: slots.SlotMap, ranks: Ranks, *, host_copy: str,
                host_folder: str, reload: Callable | None, unloadable: Callable | None) -> RankReplica:
    """The RankReplica of this rank; `target` is what `attach` knows of the version. Collective."""
    if host_copy not in ("auto", "always", "never"):
        raise InvalidArgument(f"host_copy must be auto, always or never, found {host_copy!r}")
    binding = slots.bind(slot_map, model)
    maps = ranks.gather(slot_map)
    if reload is None:
        own = {slot.tensor: why for slot in slot_map.slots if (why := unplaced(binding, slot))}
        ranks.all(lambda: refuse({**_refused(maps), **own}, target.version, target.catalogue))
    left_out = ranks.all(lambda: LeftOut(maps, target.digests, target.skipped))
    parts = set().union(*ranks.agree(lambda: _parts(slot_map)))
    if host_copy == "never" and (parts or reload is not None):
        raise Unsupported(
            f"ranks hold parts of {len(parts)} tensors, such as '{min(parts)}': what changes there can be decoded from "
            "whole tensors only, of which the ranks of a host have to share a copy"
            if parts
            else "what ranks reload, they reload from a copy of the weights that the ranks of a host share"
        )
    if not parts and host_copy != "always" and reload is None:
        core = ranks.all(lambda: _adopt_share(target, binding))
        return RankReplica(core, target, model, binding, left_out, ranks, None)
    names = target.catalogue if reload is not None else {slot.tensor for slot in slot_map.slots}
    host = HostCopy(ranks, target, names, host_folder)
    try:
        reloads = None
        if reload is not None:
            binding, reloads = ranks.all(lambda: _divided(model, slot_map, target.version, host, reload, unloadable))
        core = ranks.all(lambda: _adopt_shard(target, binding, host))
        return RankReplica(core, target, model, binding, left_out, ranks, host, reloads)
    except BaseException:
        host.close()
        raise


def _divided(model, slot_map, version, host, reload, unloadable):
    """(what is written through, what is reloaded) on this rank."""

    def unproven_parts(binding):
        return unproven_beside(binding, host.tensors)

    binding = slots.bind(slot_map, model)
    reasons = {**slot_map.refused, **unproven_parts(binding)}
    if not reasons:
        return binding, None
    division = divide(
        model, slot_map, reasons, unloadable, unproven=unproven_parts,
        fetch=lambda wanted, _: {name: host.tensors[name] for name in wanted.refused},
    )  # fmt: skip
    with loading(version):
        binding, _, reloads = division.settle(reasons, reload)
    return binding, reloads


def _adopt_share(target, binding):
    try:
        return _core.Replica.adopt_share(target.repository._core, target.version, *places(binding, {}))
    except Mismatch:
        refuse(unproven(binding, target.digests), target.version, target.catalogue)
        raise


def _adopt_shard(target, binding, host):
    words = [tensor.reshape(-1).view(torch.uint8) for tensor in host.tensors.values()]
    core = target.repository._core
    return _core.Shard.adopt(core, target.version, list(host.tensors), words, *places(binding, {}))
