"""A copy of the weights that the ranks of a host share, in checkpoint layout.

A rank of a tensor-parallel engine has slices of tensors. What a delta's codecs rest on are whole ones: so one rank of
each host, the leader, keeps them in memory that all its ranks map, fetches, proves and decodes each version once for
all of them, and hands them the changed words.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

import torch

from .. import _core
from ..errors import IOFailure, NotFound
from ..slots.words import torch_dtype

PREFIX = "siltstone-ranks-"
ALIGNMENT = 64


def _identity(folder):
    """What two processes have in common that see the same folder of the same running machine."""
    found = os.stat(folder)
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), found.st_dev, found.st_ino


def _size_bytes(dtype, shape):
    return math.prod(shape) * torch_dtype(dtype).itemsize


def _layout(sizes):
    """({name: offset}, size in bytes) of tensors behind one another."""
    offsets, end = {}, 0
    for name, size in sorted(sizes.items()):
        offsets[name] = end
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end


def _map(path):
    with open(path, "r+b") as file:
        return torch.frombuffer(mmap.mmap(file.fileno(), 0), dtype=torch.uint8)


def _sweep(folder):
    """Removes what leaders that were killed have left."""
    for left in Path(folder).glob(PREFIX + "*"):
        with contextlib.suppress(OSError), open(left / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


class _Folder:
    """Where a leader puts files for the others; removed by it, or by the next leader if it was killed."""

    def __init__(self, folder):
        _sweep(folder)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        self._lock = open(self.path / "unlocked", "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(self.path / "unlocked", self.path / "lock")  # which nobody sees without its lock

    def reserve(self, size):
        """A file of so many bytes, which are there: to write to it cannot fail later."""
        path = self.path / "weights"
        try:
            with open(path, "xb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise IOFailure(
                error.errno,
                f"{self.path.parent} has no room for a copy of the weights ({size / (1 << 20):.0f} MiB): "
                f"{error.strerror}; name a folder that has, or give the container more shared memory",
            ) from None
        return path

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


class HostCopy:
    """Whole tensors of a version in memory that the ranks of one host share. Made by all ranks together.

    leader     whether this rank moves it
    bytes      its size
    tensors    {name: tensor} on that memory; read by all ranks, written by the leader's commits
    """

    def __init__(self, ranks, target, names, folder):
        """target: what `attach` knows of the version; names: the tensors that this rank has something of."""
        self.repository = target.repository
        self.folder = folder
        self._folder = self._core = self._staged = self._target = None
        hosts = ranks.agree(lambda: (_identity(folder), sorted(names)))
        where = hosts[ranks.rank][0]
        here = [rank for rank, (other, _) in enumerate(hosts) if other == where]
        self.leader = here[0] == ranks.rank
        self.names = sorted(set().union(*(hosts[rank][1] for rank in here)))
        self._digests = target.digests
        sizes = {name: _size_bytes(*target.catalogue[name]) for name in self.names}
        self._offsets, size = _layout(sizes)
        self.bytes = max(size, 1)

        def reserve():
            self._folder = _Folder(folder)
            return self._folder.reserve(self.bytes)

        try:
            self._shared = ranks.agree(lambda: reserve() if self.leader else None)[here[0]]
            self._memory = ranks.all(lambda: _map(self._shared))
            if self.leader:
                os.unlink(self._shared)  # it lives as long as it is mapped
            self.tensors = {name: self._view(name, *target.catalogue[name], sizes[name]) for name in self.names}
            ranks.all(lambda: self._load(target) if self.leader else None)
        except BaseException:
            self.close()
            raise

    def _view(self, name, code, shape, size):
        begin = self._offsets[name]
        return self._memory[begin : begin + size].view(torch_dtype(code)).reshape(shape)

    def _load(self, target):
        if self.tensors:
            into = dict(self.tensors)
            self.repository.load(target.version, into, some=True, memory_bytes=target.memory_bytes)
        places = []
        for name, tensor in self.tensors.items():
            row = [0, self._offsets[name] // tensor.itemsize, 1, tensor.numel(), 0, 1, 0, 1]
            tiles = torch.tensor([row] if tensor.numel() else [], dtype=torch.int64).reshape(-1, 8)
            places.append((name, 0, tiles))
        self._core = _core.Replica.adopt_share(self.repository._core, target.version, places, [self._memory])

    # The leader's part.

    def stage(self, version, check, threads, memory_bytes, progress):
        """Stage a version, and after check(staged) lay out what it changes for the ranks of this host."""
        if self._target == version:
            return
        self._drop()
        staged = self._core.stage(self.repository._core, version, False, threads, memory_bytes, progress)
        check(staged)
        digests = dict(zip(self._digests, staged.digests(), strict=True))
        changed = [name for name, digest in digests.items() if digest != self._digests[name]]
        path = self._file(version)
        unfinished = path.with_suffix(".unfinished")
        try:
            path.with_suffix(".names").write_text("\n".join(changed))
            unfinished.write_bytes(staged.changes())
            unfinished.rename(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            what = f"what {version.name} changes cannot be written to {path}: {error.strerror}"
            raise IOFailure(error.errno, what) from None
        self._staged, self._target, self._next_digests = staged, version, digests

    def commit(self):
        """Move the copy. REQUIRES: every rank has staged, and none stages now."""
        self._core.commit(self._staged)
        self._digests = self._next_digests
        self._drop()

    def _drop(self):
        if self._target is not None:
            self._file(self._target).unlink(missing_ok=True)
            self._file(self._target).with_suffix(".names").unlink(missing_ok=True)
        self._staged = self._target = None

    # Every rank's part.

    def _file(self, version):
        return self._shared.with_name(quote(version.name, safe="") + ".changes")

    def ready(self):
        """The name of the version whose changes are laid out, or None."""
        found = sorted(self._shared.parent.glob("*.changes"))
        return unquote(found[-1].stem) if found else None

    def changes(self, version):
        """What a version changes, as the leader has staged it: bytes, and the names of the tensors."""
        try:
            with open(self._file(version), "rb") as file:
                changes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return changes, set(self._file(version).with_suffix(".names").read_text().split("\n"))
        except FileNotFoundError:
            raise NotFound(f"the leader of this host has not staged {version.name} yet") from None

    def close(self):
        if self._folder is not None:
            self._folder.close()
        self._folder = self._core = self._staged = self._target = None
        self.tensors = {}
        self._memory = None

