"""Repository: open a bucket, publish versions into it, read any of them back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from . import _core, tensors
from .errors import InvalidArgument
from .publisher import Publisher, check_options
from .replica import Replica

GIB = 1 << 30
PathLike = str | os.PathLike
Progress = Callable[[int, int], Any] | None


def open(  # noqa: A001 - siltstone.open reads as the builtin does
    url: PathLike, *, create: bool = False, transfers: int = 16, limit_rate: int = 0, timeout: float = 300,
    relay: str | None = None,
) -> Repository:
    """Open the repository in a bucket.

    url: a directory (str or path), ``s3://bucket/prefix?endpoint=...&region=...``,
        ``hf://buckets/namespace/name/prefix``, ``http(s)://host/path`` (read only), ``file:///path``, or
        ``mem://name`` (this process only). Credentials are found as `aws` finds them.
    create: make a repository there if there is none; several processes may do so at once.
    transfers: requests at once to a bucket behind a network.
    limit_rate: bytes per second of all its transfers together; 0 for no limit.
    timeout: seconds for which a request that fails in passing is made again.
    relay: ``http://host:port`` of a relay to read through (``siltstone relay``; default: $SILTSTONE_RELAY).

    Raises NotFound if there is no repository, Unsupported if it needs a newer program. Blocking.
    """
    relay = os.environ.get("SILTSTONE_RELAY", "") if relay is None else relay
    return Repository(_core.open_repository(os.fspath(url), create, transfers, limit_rate, timeout, relay))


def init(url: PathLike, *, single_writer: bool = False) -> Repository:
    """Create a repository in an empty or absent bucket.

    single_writer: take a store that cannot keep two writers from overwriting each other's versions; only
        one process may ever write then, and nothing checks that.

    Raises Conflict if the bucket holds a repository already, Unsupported if its store does not do what the
    commit protocol rests on.
    """
    return Repository(_core.init_repository(os.fspath(url), single_writer))


def opened(repository: Repository | PathLike) -> Repository:
    """The Repository itself, or the one at a path or URL, made if there is none."""
    return repository if isinstance(repository, Repository) else open(repository, create=True)


class Repository:
    """The versions in a bucket. Made by `siltstone.open` and `siltstone.init`.

    Versions are named by strings as on the command line - "main" (a branch's head), "main@12",
    "tag:NAME", "root:HEX" - or given as `Version`.

    Threads: all methods may be called from several threads; one publish per branch at a time. Every
    method blocks with the GIL released. Ctrl-C stops long ones, after which nothing of them is visible.
    `progress` functions get bytes done and bytes in all, on the calling thread, several times a second;
    what they raise stops the call and is raised. A process that forks opens its own repository.
    """

    def __init__(self, core):
        self._core = core

    def __repr__(self):
        return f"<siltstone.Repository {self.url}>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    @property
    def url(self) -> str:
        return self._core.url

    @property
    def repo_id(self) -> str:
        """32 hexadecimal digits, drawn when the repository was created."""
        return self._core.repo_id

    @property
    def single_writer(self) -> bool:
        """Whether nothing keeps a second writer from overwriting this bucket's versions (see `init`)."""
        return self._core.single_writer

    def version(self, ref: str | _core.Version = "main") -> _core.Version:
        """The Version of that name. Raises NotFound."""
        return ref if isinstance(ref, _core.Version) else self._core.resolve(ref)

    __getitem__ = version

    def head(self, branch: str = "main") -> _core.Version:
        """The branch's newest Version, cheaply: what a follower polls. Raises NotFound."""
        return self._core.head(branch)

    def log(self, ref: str | _core.Version = "main", limit: int | None = None) -> list[_core.Version]:
        """Versions from `ref` back, newest first, at most `limit`."""
        ref = ref.name if isinstance(ref, _core.Version) else ref
        return self._core.log(ref, (1 << 64) - 1 if limit is None else limit)

    def tensors(self, ref: str | _core.Version = "main") -> dict[str, tuple[str, tuple[int, ...]]]:
        """{name: (dtype, shape)} of a version; dtypes as safetensors spells them."""
        return {name: (dtype, tuple(shape)) for name, dtype, shape, _ in self._core.tensors(self.version(ref))}

    def digests(self, ref: str | _core.Version = "main") -> dict[str, str]:
        """{name: digest} of a version, as `siltstone.digest` tells a tensor's; no words are read."""
        version = self.version(ref)
        return dict(zip(self.tensors(version), self._core.digests(version), strict=True))

    def publisher(self, branch: str = "main", **options: Any) -> Publisher:
        """A Publisher, which keeps what it published last and so finds changes at memory speed."""
        return Publisher(self, branch, **options)

    def publish(self, source: Any, branch: str = "main", *, step: int | None = None, message: str = "",
                progress: Progress = None, cache: PathLike | None = None, **options: Any) -> _core.PublishReport:
        """Publish once and keep nothing: a path of a checkpoint, or what `Publisher.publish` takes.

        The state before is read from the cache on disk (`cache`: a folder, default that of the command
        line) if `source` is a path, else from the bucket; to publish again and again use `publisher`.
        """
        if not isinstance(source, (str, os.PathLike)):
            with self.publisher(branch, **options) as publisher:
                return publisher.publish(source, step=step, message=message, progress=progress)
        for only in ("dtype", "companions"):
            if options.pop(only, None):
                raise InvalidArgument(f"{only} is for tensors; files are published as they are")
        check_options(options)
        cache = _core.default_cache() if cache is None else os.fspath(cache)
        return self._core.publish_files(
            os.fspath(source),
            progress,
            branch=branch,
            step=step,
            message=message,
            cache=cache,
            **options,
        )

    def load(self, ref: str | _core.Version = "main", into: Any = None, *, some: bool = False, threads: int = 0,
             memory_bytes: int = GIB, progress: Progress = None) -> Any:
        """Rebuild a version in memory, proven.

        into: a torch module or a dict of CPU tensors, filled in place; names, dtypes and shapes must be
            the version's (Mismatch otherwise, before anything is written). A tied tensor is found under
            any of its names. After another error its content is unspecified.
        some: `into` is a dict of some of the version's tensors; the others are read for the proof alone.
        Without `into`, returns a new dict of torch tensors, sorted by name; with it, returns `into`.
        """
        version = self.version(ref)
        infos = self._core.tensors(version)
        target = tensors.empty_tensors(infos) if into is None else into
        if some:
            infos = [info for info in infos if info[0] in target]
        self._core.load(version, *tensors.to_write(target, infos).lists, some, threads, memory_bytes, progress)
        return target

    def checkout(self, ref: str | _core.Version, folder: PathLike, *, replace: bool = False, threads: int = 0,
                 memory_bytes: int = GIB, progress: Progress = None) -> _core.CheckoutReport:
        """Rebuild a version into an absent or empty folder, every file byte for byte.

        Versions published with their companion files give a folder that `from_pretrained` opens.
        replace: the folder may hold files: they are removed. Raises Conflict otherwise.
        """
        return self._core.checkout(
            self.version(ref), os.fspath(folder), replace, threads, memory_bytes, progress
        )

    def replica(self, target: Any, at: str | _core.Version | None = None, *, load: bool = True, threads: int = 0,
                memory_bytes: int = GIB) -> Replica:
        """A Replica: weights that can be moved from version to version in place.

        target: a torch module or a dict of contiguous CPU tensors, or the path of a folder.
        at: for tensors, the version they start at (default: the head of "main").
        load: fill the tensors with it first; without it they must hold it already (Mismatch otherwise).
        """
        if isinstance(target, (str, os.PathLike)):
            if at is not None:
                raise InvalidArgument("a folder knows its own version; stage another one")
            return Replica(_core.Replica.open(os.fspath(target), self._core), self, None)
        version = self.version("main" if at is None else at)
        views = tensors.to_write(target, self._core.tensors(version))
        if load:
            self._core.load(version, *views.lists, False, threads, memory_bytes, None)
        return Replica(_core.Replica.adopt(*views.lists, version), self, target)

    def diff(self, old: str | _core.Version, new: str | _core.Version, *, threads: int = 0,
             progress: Progress = None) -> _core.DiffReport:
        """Which tensors differ between two versions, and in how many elements."""
        return self._core.diff(self.version(old), self.version(new), threads, progress)

    def verify(self, ref: str | _core.Version | None = None, *, data: bool = False, threads: int = 0,
               memory_bytes: int = GIB, progress: Progress = None) -> _core.VerifyReport:
        """Check every version of every branch, or one. data: read every byte and rebuild every version.

        Returns what was found; an empty `problems` says that all is well.
        """
        name = ref.name if isinstance(ref, _core.Version) else ref
        return self._core.verify(name, data, threads, memory_bytes, progress)

    def import_from(self, folder: PathLike, branch: str = "main", *, layout: str | None = None,
                    base: PathLike | None = None, unchecked: bool = False, momentum: bool = False, threads: int = 0,
                    memory_bytes: int = GIB, progress: Progress = None) -> _core.ImportReport:
        """Publish what TRL's prototype or slime wrote into a folder, as far as it is newer than the branch's head.

        Each foreign version becomes one version, whose `step` is its number; call it again as more come.

        layout: "trl" or "slime"; None tells them apart.
        base: the model that the first delta builds on, published as step 0.
        unchecked: accept digests that cannot be computed (blake3), and gaps in TRL's numbering.

        Raises Mismatch if a version does not follow the one before, Corrupt if it is not what the folder
        promises; what was published before stays. Holds the model in memory twice.
        """
        base = "" if base is None else os.fspath(base)
        return _core.import_from(
            self._core, os.fspath(folder), branch, layout, base, unchecked, momentum, threads, memory_bytes, progress
        )

    def export_to(self, folder: PathLike, versions: str | _core.Version = "main", *, layout: str, encoding: str = "",
                  threads: int = 0, memory_bytes: int = GIB, progress: Progress = None) -> _core.ExportReport:
        """Write versions into a folder as TRL's prototype or slime would have, under their sequence numbers.

        versions: a version, "FROM..TO", or a branch, which means all of it. The first is written whole,
            unless the folder holds the version before it; what is there already is left as it is.
        encoding: for "trl" "gap_delta" (the default), "raw" or "indices"; for "slime" "xor" or "overwrite".

        Raises Conflict if the folder holds another version of that number: nothing is overwritten.
        """
        versions = versions.name if isinstance(versions, _core.Version) else versions
        return _core.export_to(
            self._core, versions, os.fspath(folder), layout, encoding, threads, memory_bytes, progress
        )

    def tag(self, name: str, ref: str | _core.Version = "main") -> None:
        """Name a version for good. Raises Conflict if the tag exists."""
        self._core.tag(name, self.version(ref))

    def tags(self) -> dict[str, str]:
        """{tag: name of its version}."""
        return self._core.tags()

    def branch(self, name: str, ref: str | _core.Version = "main") -> None:
        """A new branch that starts at a version and shares its data. Raises Conflict if it exists."""
        self._core.branch(name, self.version(ref))

    def branches(self) -> dict[str, str]:
        """{branch: name of its newest version}."""
        return self._core.branches()

    def fence(self, branch: str = "main") -> _core.Version:
        """Take a branch over from any other writer: their next publish raises Conflict."""
        return self._core.fence(branch)
