"""How an engine's replica is made: record, prove, divide, adopt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

from .. import _core, slots
from ..errors import InvalidArgument, Mismatch
from ..replica import GIB
from ..tensors import empty_tensors
from .division import divide, loading
from .left_out import SKIPPED, LeftOut
from .places import places, refuse, unproven
from .rank_replica import attach_rank
from .ranks import Ranks
from .replica import EngineReplica


class _At:
    """The version that an engine is attached at, and how."""

    def __init__(self, repository, ref, skipped, memory_bytes):
        self.repository, self.skipped, self.memory_bytes = repository, skipped, memory_bytes
        self.version = repository.version(ref)
        self.catalogue = repository.tensors(self.version)
        self.digests = repository.digests(self.version)

    def unproven(self, binding):
        return unproven(binding, self.digests)

    def fetch(self, slot_map, have):
        """{name: words} of all tensors that a map refuses; those of `have` are there already."""
        fetched = empty_tensors((name, *self.catalogue[name], 0) for name in slot_map.refused if name not in have)
        if fetched:
            self.repository.load(self.version, fetched, some=True, memory_bytes=self.memory_bytes)
        return {name: have[name] if name in have else fetched[name] for name in slot_map.refused}

    def replica(self, model, binding, left_out, kept, reloads=None):
        core = _core.Replica.adopt_share(self.repository._core, self.version, *places(binding, kept))
        return EngineReplica(core, self.repository, model, binding, kept, reloads, left_out, self.digests)


def attach(repository: Any, model: torch.nn.Module, load: Callable, at: str | _core.Version, *,
           adjust: Callable[[slots.SlotMap], slots.SlotMap] | None = None, reload: Callable | None = None,
           unloadable: Callable[[slots.SlotMap], dict[str, str]] | None = None, skipped: Iterable[str] = SKIPPED,
           ranks: Ranks | None = None, host_copy: str = "auto", host_folder: str = "/dev/shm",
           memory_bytes: int = GIB) -> EngineReplica:
    """An EngineReplica of a model that holds version `at`, in host memory.

    load         the engine's own loader, called with an iterator of (name, tensor)
    adjust       corrects the recorded map for what the engine does to parameters after loading
    reload       loads tensors into the running engine, called in the same way; it must leave the parameters of all
                 others alone. With it, tensors that cannot be written in place are loaded at once and then after every
                 commit that changes them, in whole layers. Without it they are refused
    unloadable   gives for a map {tensor: why} of what `reload` is known to load wrongly; these are refused
    skipped      patterns ("*.mtp.*") of tensors that the engine may leave out. Any other one that its loader puts
                 nowhere must be equal to one that it loads, tied, in every version that is applied
    ranks        of an engine that several processes run together: each of them calls this with its own part of the
                 model, and gets a RankReplica
    host_copy    whether the ranks of a host share a copy of the weights in checkpoint layout, which one of them
                 decodes into: "auto", if some rank holds parts of tensors only; "always"; or "never"
    host_folder  where that copy is mapped from: a file system in memory, or any folder with room for it

    The engine must not run meanwhile. Raises Unsupported, with names and reasons, if a tensor cannot be written in
    place or what the engine holds is not `at`; nothing was changed then. Raises ReloadFailed if the loader fails; the
    engine's parameters hold no version then.
    """
    ranks = ranks or Ranks()
    target = ranks.all(lambda: _At(repository, at, tuple(skipped), memory_bytes))
    slot_map = ranks.all(lambda: _recorded(model, target, load, adjust))
    if ranks.size > 1:
        options = {"host_copy": host_copy, "host_folder": host_folder, "reload": reload, "unloadable": unloadable}
        return attach_rank(target, model, slot_map, ranks, **options)
    left_out = LeftOut([slot_map], target.digests, target.skipped)
    binding = slots.bind(slot_map, model)
    if not slot_map.refused:
        with contextlib.suppress(InvalidArgument, Mismatch):  # looked into below, tensor by tensor
            return target.replica(model, binding, left_out, {})
    reasons = {**slot_map.refused, **target.unproven(binding)}
    if not reasons:
        return target.replica(model, binding, left_out, {})
    if reload is None:
        refuse(reasons, target.version, target.catalogue)
    return _attach_with_reloads(target, model, slot_map, left_out, reasons, reload, unloadable)


def _recorded(model, target, load, adjust):
    slot_map = slots.record(model, target.catalogue, load)
    return slot_map if adjust is None else adjust(slot_map)


def _attach_with_reloads(target, model, slot_map, left_out, reasons, reload, unloadable):
    division = divide(model, slot_map, reasons, unloadable, unproven=target.unproven, fetch=target.fetch)
    with loading(target.version):
        binding, kept, reloads = division.settle(reasons, reload)
        return target.replica(model, binding, left_out, kept, reloads)
