"""The C++ library behind siltstone's Python classes; use those."""

from collections.abc import Mapping
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Artifact:
    """Bytes from which a version can be rebuilt."""

    @property
    def kind(self) -> str:
        """'anchor' (all of it) or 'delta' (from its parent's state)."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def changed_elements(self) -> int: ...

    @property
    def objects(self) -> int: ...

    @property
    def packed(self) -> bool: ...

class Version:
    """
    One immutable commit of a branch. Versions compare equal if they are the same commit; `root` tells whether weights are equal.
    """

    @property
    def name(self) -> str:
        """'main@3'."""

    @property
    def branch(self) -> str: ...

    @property
    def seq(self) -> int:
        """Position on its branch, from 0."""

    @property
    def commit_hash(self) -> str:
        """SHA-256 of the commit's bytes, hexadecimal."""

    @property
    def parent(self) -> str | None:
        """Name of the version before, or None."""

    @property
    def root(self) -> str:
        """Digest of every tensor's name, dtype, shape and bytes."""

    @property
    def step(self) -> int | None:
        """The trainer's own count, or None."""

    @property
    def message(self) -> str: ...

    @property
    def time(self) -> str:
        """UTC, ISO 8601; for display alone."""

    @property
    def epoch(self) -> int:
        """Rises when another writer takes the branch over."""

    @property
    def fence(self) -> bool:
        """Made to take the branch over; the state is the parent's."""

    @property
    def artifacts(self) -> list[Artifact]: ...

    def __eq__(self, other: object | None) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

class PublishReport:
    """What a publish did."""

    @property
    def version(self) -> Version: ...

    @property
    def kind(self) -> str:
        """'delta' when there is a delta, even beside an anchor."""

    @property
    def bytes_written(self) -> int:
        """Of all objects it created."""

    @property
    def section_bytes(self) -> int: ...

    @property
    def changed_elements(self) -> int: ...

    @property
    def total_elements(self) -> int: ...

    @property
    def total_bytes(self) -> int:
        """Of the full model's tensors."""

    @property
    def base(self) -> str:
        """Where the previous state was read from."""

    @property
    def seconds(self) -> float: ...

    def __repr__(self) -> str: ...

class CheckoutReport:
    """What a checkout did."""

    @property
    def version(self) -> Version: ...

    @property
    def bytes_fetched(self) -> int: ...

    @property
    def bytes_written(self) -> int: ...

    @property
    def files(self) -> int: ...

    @property
    def seconds(self) -> float: ...

class LoadReport:
    """What a load did."""

    @property
    def version(self) -> Version: ...

    @property
    def bytes_fetched(self) -> int: ...

    @property
    def seconds(self) -> float: ...

class VerifyReport:
    """What a verification found."""

    @property
    def versions(self) -> int: ...

    @property
    def objects(self) -> int: ...

    @property
    def bytes_read(self) -> int: ...

    @property
    def problems(self) -> list[str]:
        """Empty: everything is as it should be."""

class TensorDiff:
    """How one tensor differs."""

    @property
    def name(self) -> str: ...

    @property
    def change(self) -> str:
        """'changed', 'added', 'removed' or 'retyped'."""

    @property
    def elements(self) -> int: ...

    @property
    def changed_elements(self) -> int: ...

class DiffReport:
    """How two versions differ."""

    @property
    def from_root(self) -> str: ...

    @property
    def to_root(self) -> str: ...

    @property
    def total_elements(self) -> int: ...

    @property
    def changed_elements(self) -> int: ...

    @property
    def tensors(self) -> list[TensorDiff]:
        """Those that differ, by name."""

class CommitReport:
    """What a commit of a replica did."""

    @property
    def outcome(self) -> str:
        """'APPLIED'; anything else was raised instead."""

    @property
    def version(self) -> Version: ...

    @property
    def seconds(self) -> float:
        """How long readers had to wait."""

class FollowStep:
    """One version that a follower applied."""

    @property
    def previous(self) -> str | None:
        """Name of the version before, or None."""

    @property
    def version(self) -> Version: ...

    @property
    def bytes_fetched(self) -> int: ...

    @property
    def stage_seconds(self) -> float: ...

    @property
    def commit_seconds(self) -> float: ...

def tensor_digest(array: Annotated[NDArray, dict(order='C', device='cpu', writable=False)]) -> str: ...

class RetainedBase:
    """A copy of the last published state in the publisher's memory."""

    def __init__(self) -> None: ...

    @property
    def version(self) -> str | None: ...

    def size_bytes(self, arg: str, /) -> int: ...

def open_repository(url: str, create: bool, transfers: int, bytes_per_second: int, total_seconds: float, relay: str) -> Repository: ...

def init_repository(url: str, single_writer: bool) -> Repository: ...

def default_cache() -> str: ...

class Repository:
    @property
    def url(self) -> str: ...

    @property
    def repo_id(self) -> str: ...

    @property
    def single_writer(self) -> bool: ...

    def head(self, arg: str, /) -> Version: ...

    def resolve(self, arg: str, /) -> Version: ...

    def log(self, arg0: str, arg1: int, /) -> list[Version]: ...

    def fence(self, arg: str, /) -> Version: ...

    def tag(self, arg0: str, arg1: Version, /) -> None: ...

    def tags(self) -> dict: ...

    def branch(self, arg0: str, arg1: Version, /) -> None: ...

    def branches(self) -> dict: ...

    def tensors(self, version: Version) -> list: ...

    def digests(self, version: Version) -> list[str]: ...

    def publish_tensors(self, names: list, dtypes: list, arrays: list, f32_as_bf16: bool, companions: Mapping[str, bytes], retained: RetainedBase | None, progress: object | None, **options) -> PublishReport: ...

    def publish_files(self, path: str, progress: object | None, **options) -> PublishReport: ...

    def load(self, version: Version, names: list, dtypes: list, arrays: list, some: bool, threads: int, memory_bytes: int, progress: object | None) -> LoadReport: ...

    def checkout(self, version: Version, folder: str, replace: bool, threads: int, memory_bytes: int, progress: object | None) -> CheckoutReport: ...

    def diff(self, from_: Version, to: Version, threads: int, progress: object | None) -> DiffReport: ...

    def verify(self, version: str | None, data: bool, threads: int, memory_bytes: int, progress: object | None) -> VerifyReport: ...

class Staged:
    @property
    def target(self) -> Version: ...

    @property
    def bytes_fetched(self) -> int: ...

    @property
    def changed_elements(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    def digests(self) -> list: ...

    def changes(self) -> Annotated[memoryview, dict(dtype='uint8', shape=(None,))]: ...

    def discard(self) -> None: ...

class StopFlag:
    def __init__(self) -> None: ...

    def set(self) -> None: ...

class CommitNow:
    def __call__(self) -> CommitReport: ...

class Replica:
    @staticmethod
    def adopt(names: list, dtypes: list, arrays: list, at: Version) -> Replica: ...

    @staticmethod
    def adopt_slots(repository: Repository, at: Version, slots: list, destinations: list) -> Replica: ...

    @staticmethod
    def adopt_share(repository: Repository, at: Version, slots: list, destinations: list) -> Replica: ...

    @staticmethod
    def open(folder: str, repository: Repository) -> Replica: ...

    @property
    def version(self) -> Version | None: ...

    def stage(self, repository: Repository, target: Version, repair: bool, threads: int, memory_bytes: int, progress: object | None) -> Staged: ...

    def commit(self, staged: Staged) -> CommitReport: ...

    def follow(self, repository: Repository, branch: str, interval_seconds: float, until_seq: int | None, stop: StopFlag, repair: bool, threads: int, memory_bytes: int, on_version: object | None, around_commit: object | None) -> None: ...

class Shard:
    @staticmethod
    def adopt(repository: Repository, at: Version, names: list, copy: list, slots: list, destinations: list) -> Shard: ...

    @property
    def version(self) -> Version: ...

    def stage(self, changes: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', writable=False)], target: Version, threads: int, memory_bytes: int) -> Staged: ...

    def commit(self, staged: Staged) -> CommitReport: ...

class ImportReport:
    """What an import did."""

    @property
    def layout(self) -> str:
        """'trl' or 'slime'."""

    @property
    def versions(self) -> int:
        """How many it published."""

    @property
    def head(self) -> Version | None:
        """The branch's newest Version, or None."""

    @property
    def bytes_written(self) -> int: ...

    @property
    def skipped(self) -> list[str]:
        """What was left out, with the reason."""

    @property
    def pending(self) -> str:
        """The newest version, if its writer is not done; else empty."""

    @property
    def seconds(self) -> float: ...

class ExportReport:
    """What an export did."""

    @property
    def versions(self) -> int:
        """How many it wrote."""

    @property
    def present(self) -> int:
        """How many the folder held already."""

    @property
    def bytes_written(self) -> int: ...

    @property
    def seconds(self) -> float: ...

def import_from(repository: Repository, folder: str, branch: str, layout: str | None, base: str, unchecked: bool, momentum: bool, threads: int, memory_bytes: int, progress: object | None) -> ImportReport: ...

def export_to(repository: Repository, range: str, folder: str, layout: str, encoding: str, threads: int, memory_bytes: int, progress: object | None) -> ExportReport: ...
