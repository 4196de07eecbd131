"""One rank's replica of an engine that several ranks run together: all of them move, or none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import _core, slots
from ..errors import InvalidArgument, Mismatch, Unsupported
from ..replica import GIB
from .host import HostCopy
from .left_out import LeftOut
from .places import places, unproven
from .ranks import Ranks
from .reload import some
from .replica import EngineReplica, EngineReport, EngineStaged


class RankReplica(EngineReplica):
    """An EngineReplica of one rank. Made by `attach` with `ranks`, on all of them together.

    ranks   whom it moves with
    host    the HostCopy that the ranks of this host decode from, or None: each rank has all words of what it holds,
            and decodes that by itself
    """

    def __init__(self, core, repository, model, binding, left_out, ranks, host):
        super().__init__(core, repository, model, binding, {}, None, left_out, {})
        self.ranks, self.host = ranks, host

    def close(self) -> None:
        super().close()
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
        """Stage for this rank, ahead of an `update` of all; with a host copy, after the leader has.

        Raises NotFound where it has not.
        """
        version = self.repository.version(ref)
        with self._claimed():
            self._last = None
            limits = {"threads": threads, "memory_bytes": memory_bytes}
            if self.host is None:
                staged = self.core.stage(self.repository._core, version, repair, threads, memory_bytes, progress)
                self._check_tied(staged)
            else:
                if self.host.leader:
                    self.host.stage(version, self._check_tied, threads, memory_bytes, progress)
                staged = self.core.stage(self.host.changes(version), version, threads, memory_bytes)
            self._last = EngineStaged(self, staged, [], {}, repair, limits)
            return self._last

    def commit(self, staged: EngineStaged) -> EngineReport:
        raise InvalidArgument("the ranks of an engine move together: call update on every rank")

    def follow(self, *_: Any, **__: Any):
        raise InvalidArgument("the ranks of an engine move together: call update on every rank")

    def update(self, ref: str | _core.Version = "main", *, ahead: EngineStaged | None = None, repair: bool = False,
               threads: int = 0, memory_bytes: int = GIB) -> EngineReport | None:
        """Move all ranks to the version that rank 0 names; called on every rank. None if they hold it already.

        Nothing is written before every rank has staged and found its parameters in place; if one fails, all raise and
        hold the version that they held.
        """
        if repair and self.host is not None:
            raise Unsupported("ranks that share a copy of the weights are not repaired: attach again")
        named = self.ranks.all(lambda: self.repository.version(ref).name)
        version = self.repository.version(self.ranks.gather(named)[0])
        if version == self.version and not repair:
            return None
        limits = {"threads": threads, "memory_bytes": memory_bytes}
        if self.host is not None:  # before any other rank of the host looks for it
            self.ranks.all(lambda: self._lead(version, limits))
        fits = ahead is not None and ahead is self._last and ahead.target == version and not repair
        staged = self.ranks.all(lambda: ahead if fits else self.stage(version, repair=repair, **limits))
        self.ranks.all(lambda: self._check(staged))
        return self._write(staged)

    def _lead(self, version, limits):
        if self.host.leader:
            self.host.stage(version, self._check_tied, *limits.values(), None)

    def _check_tied(self, staged):
        self.left_out.check(staged.target, dict(zip(self.map.sources, staged.digests(), strict=True)))

    def _write(self, staged):
        with self._claimed():
            self._last = None
            try:
                seconds = self.ranks.all(lambda: self._commit_here(staged))
            except BaseException as error:
                self._poisoned(f"a rank failed while it wrote: {error}")
                raise
            self._poison = None
            return EngineReport(self.version, seconds, 0)

    def _commit_here(self, staged):
        seconds = self.core.commit(staged._core).seconds
        if self.host is not None and self.host.leader:
            self.host.commit()
        return seconds


def _refused(maps):
    """{tensor: why} of what no rank could write in place, or one cannot."""
    out = {}
    for slot_map in maps:
        out.update(slot_map.refused)
        for slot in slot_map.slots:
            if slot.cast != "none":
                out[slot.tensor] = f"the engine keeps it as {slot_map.destinations[slot.destination].dtype}"
    placed = {slot.tensor for slot_map in maps for slot in slot_map.slots}
    for name, hole in slots.holes(maps).items():
        if name in placed:
            out.setdefault(name, f"no rank has a place for {hole.elements} of its elements")
    return out


def _refuse(reasons, version):
    if reasons:
        told = some(f"'{name}': {reason}" for name, reason in sorted(reasons.items()))
        raise Unsupported(f"{len(reasons)} tensors of {version.name} cannot be written in place: {told}")


def _parts(slot_map):
    """The tensors that a rank has some elements of, not all."""
    return slots.holes([slot_map]).keys() - slot_map.ignored


def attach_rank(target: Any, model: torch.nn.Module, slot_map: slots.SlotMap, ranks: Ranks, *, host_copy: str,
                host_folder: str) -> RankReplica:
    """The RankReplica of this rank; `target` is what `attach` knows of the version. Collective."""
    if host_copy not in ("auto", "always", "never"):
        raise InvalidArgument(f"host_copy must be auto, always or never, found {host_copy!r}")
    binding = slots.bind(slot_map, model)
    maps = ranks.gather(slot_map)
    ranks.all(lambda: _refuse({**_refused(maps), **_unbound(binding)}, target.version))
    left_out = ranks.all(lambda: LeftOut(maps, target.digests, target.skipped))
    parts = set().union(*ranks.gather(_parts(slot_map)))
    if host_copy == "never" and parts:
        raise Unsupported(
            f"ranks hold parts of {len(parts)} tensors, such as '{min(parts)}': what changes there can be decoded from "
            "whole tensors only, of which the ranks of a host have to share a copy"
        )
    if not parts and host_copy != "always":
        core = ranks.all(lambda: _adopt_share(target, binding))
        return RankReplica(core, target.repository, model, binding, left_out, ranks, None)
    names = {slot.tensor for slot in slot_map.slots}
    host = HostCopy(ranks, target.repository, target.version, names, host_folder, memory_bytes=target.memory_bytes)
    try:
        core = ranks.all(lambda: _adopt_shard(target, binding, host))
    except BaseException:
        host.close()
        raise
    return RankReplica(core, target.repository, model, binding, left_out, ranks, host)


def _unbound(binding):
    numbers = binding.unbound
    return {slot.tensor: numbers[slot.destination] for slot in binding.map.slots if slot.destination in numbers}


def _adopt_share(target, binding):
    try:
        return _core.Replica.adopt_share(target.repository._core, target.version, *places(binding, {}))
    except Mismatch:
        _refuse(unproven(binding, target.digests), target.version)
        raise


def _adopt_shard(target, binding, host):
    words = [tensor.reshape(-1).view(torch.uint8) for tensor in host.tensors.values()]
    core = target.repository._core
    return _core.Shard.adopt(core, target.version, list(host.tensors), words, *places(binding, {}))
