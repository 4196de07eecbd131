"""Staging beside whatever an engine does."""

from __future__ import annotations

import threading
from typing import Any

from .. import _core
from .._threads import ends_at_exit
from ..replica import GIB, Replica


class Prefetch:
    """A thread that stages the newest version of a branch beside whatever the engine does.

    `commit(version)` applies what was staged, or stages first if that is another version; it waits for a staging that
    is under way. A failure of the thread is kept in `error` until it succeeds: it looks again after `interval` seconds.
    """

    def __init__(self, replica: Replica, branch: str = "main", *, interval: float = 1.0, threads: int = 1,
                 memory_bytes: int = GIB):
        self.replica = replica
        self.error = None
        self._branch, self._interval = branch, interval
        self._options = {"threads": threads, "memory_bytes": memory_bytes}
        self._staged = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="siltstone-prefetch", daemon=True)
        self._thread.start()
        ends_at_exit(self)

    @property
    def staged(self) -> _core.Version | None:
        """The Version that a commit applies at once, or None."""
        staged = self._staged
        return None if staged is None else staged.target

    def _at_exit(self):
        self.close()

    def close(self) -> None:
        """End the thread; what was staged is dropped."""
        self._stop.set()
        self._thread.join()
        self._drop()

    def _drop(self):
        staged, self._staged = self._staged, None
        if staged is not None:
            staged.discard()

    def _run(self):
        while not self._stop.wait(self._interval):
            try:
                self._look()
                self.error = None
            except Exception as error:
                self.error = error

    def _look(self):
        head = self.replica.newest(self._branch)
        with self._lock:
            held = self._staged.target if self._staged is not None else self.replica.version
            if not self._stop.is_set() and head != held:
                self._stage(head)

    def _stage(self, version):
        self._drop()
        self._staged = self.replica.stage(version, **self._options)

    def commit(self, ref: str | _core.Version, *, repair: bool = False) -> Any:
        """Move the weights to a version; returns what the replica's commit does, None if they hold it already.

        repair: rebuild everything from the bucket, whatever they hold and whatever is staged.
        """
        with self._lock:
            ahead, self._staged = self._staged, None
            report = self.replica.move(ref, ahead=ahead, repair=repair, **self._options)
            if report is None:
                self._staged = ahead
            return report
