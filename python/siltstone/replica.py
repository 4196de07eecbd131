"""Replica and Follower: weights in memory or in a folder that move from version to version in place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from . import _core
from ._threads import ends_at_exit
from .errors import InvalidArgument

GIB = 1 << 30


class Replica:
    """Weights that hold a known version. Made by `Repository.replica`.

    `stage` does everything slow or fallible - fetch, check, decode, prove - and leaves the weights as
    they are; `commit` is the short rest, during which nobody may read them. Its time depends on what
    changed, not on the model's size.

    Threads: one call at a time (InvalidArgument otherwise); a follower is such a call. Nobody else may
    write to the weights.
    """

    def __init__(self, core, repository, target):
        self._core = core
        self.repository = repository
        self.target = target

    def __repr__(self):
        if self._core is None:
            return "<siltstone.Replica, closed>"
        return f"<siltstone.Replica at {self.version.name if self.version else None}>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Let go of the weights or, after a follower has ended, of the folder's lock. The weights stay."""
        self._core = self.target = None

    @property
    def core(self) -> _core.Replica:
        if self._core is None:
            raise InvalidArgument("this replica is closed")
        return self._core

    @property
    def version(self) -> _core.Version | None:
        """The Version that the weights hold; None for a folder that is empty yet."""
        return self.core.version

    def stage(self, ref: str | _core.Version = "main", *, repair: bool = False, threads: int = 0,
              memory_bytes: int = GIB, progress: Callable[[int, int], Any] | None = None) -> Staged:
        """Fetch and prove what leads to a version; returns a Staged. The weights stay as they are.

        repair: rebuild everything from the bucket, whatever the weights hold now.
        Raises Mismatch if somebody else wrote to the weights.
        """
        staged = self.core.stage(
            self.repository._core, self.repository.version(ref), repair, threads, memory_bytes, progress
        )
        return Staged(self, staged)

    def commit(self, staged: Staged) -> _core.CommitReport:
        """Apply a staged change; returns a CommitReport."""
        return self.core.commit(staged._core)

    def update(self, ref: str | _core.Version = "main", **options: Any) -> _core.CommitReport:
        """Stage and commit."""
        with self.stage(ref, **options) as staged:
            return staged.commit()

    def newest(self, branch: str = "main") -> _core.Version:
        """The version to stage next for who follows a branch."""
        return self.repository.head(branch)

    def move(self, ref: str | _core.Version = "main", *, ahead: Staged | None = None, **options: Any) -> Any:
        """Commit what was staged `ahead`, if it leads to this version; else stage it first. None if it is held."""
        version = self.repository.version(ref)
        if version == self.version and not options.get("repair"):
            return None
        if ahead is None or ahead.target != version or options.get("repair"):
            return self.update(version, **options)
        return ahead.commit()

    def follow(self, branch: str = "main", *, on_version: Callable[[_core.FollowStep], Any] | None = None,
               pause: Callable[[_core.Version], AbstractContextManager] | None = None, interval: float = 1.0,
               until: int | None = None, repair: bool = False, threads: int = 0,
               memory_bytes: int = GIB) -> Follower:
        """Move to every new version of a branch, in a thread of its own; returns a Follower.

        on_version: called with a FollowStep after each version, in that thread.
        pause: called with the Version to come, returns a context manager that lies around the commit,
            and around nothing else: where an engine is paused.
        interval: seconds between looks at the branch. until: sequence number of the last version wanted.
        """
        return Follower(self, branch, on_version, pause, interval, until, repair, threads, memory_bytes)


class Staged:
    """A proven change that has not been applied. A context manager: leaving it discards the change."""

    def __init__(self, replica, core):
        self._replica = replica
        self._core = core

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.discard()

    @property
    def target(self) -> _core.Version:
        """The Version it leads to."""
        return self._core.target

    @property
    def bytes_fetched(self) -> int:
        return self._core.bytes_fetched

    @property
    def changed_elements(self) -> int:
        return self._core.changed_elements

    @property
    def seconds(self) -> float:
        """How long staging took."""
        return self._core.seconds

    def commit(self) -> _core.CommitReport:
        """Apply it; returns a CommitReport."""
        return self._replica.commit(self)

    def discard(self) -> None:
        self._core.discard()


class Follower:
    """A thread that moves a replica to every new version. Made by `Replica.follow`; already running.

    Passing failures of the store are waited out. Any other error, and whatever a callback raises, ends
    it and is raised by `stop`, `join` and `check`. A context manager: leaving it stops the thread.
    """

    def __init__(self, replica, branch, on_version, pause, interval, until, repair, threads, memory_bytes):
        if not interval > 0:
            raise InvalidArgument(f"interval must be positive, found {interval!r}")
        self.replica = replica
        self._stop = _core.StopFlag()
        self._error = None

        def around(version, commit):
            with pause(version) or nullcontext():
                commit()

        arguments = (
            replica.core, replica.repository._core, branch, interval, until, self._stop, repair, threads, memory_bytes,
            on_version, around if pause is not None else None,
        )
        self._thread = threading.Thread(target=self._run, args=arguments, name="siltstone-follow", daemon=True)
        self._thread.start()
        ends_at_exit(self)

    def _at_exit(self):
        self._stop.set()
        self._thread.join()

    def _run(self, core, *arguments):
        try:
            core.follow(*arguments)
        except BaseException as error:  # told to whoever asks
            self._error = error

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._at_exit()
        if kind is None:
            self.check()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def version(self) -> _core.Version | None:
        """The Version that the weights hold."""
        return self.replica.version

    def check(self) -> None:
        """Raise what ended the thread, if anything did; once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it ends by itself (`until`, or an error, which is raised); returns whether it did."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self.check()
        return True

    def stop(self) -> None:
        """End the thread, after the step it is in, and raise what it failed with."""
        self._at_exit()
        self.check()
