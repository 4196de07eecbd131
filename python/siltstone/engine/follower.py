"""A follower whose commits are those of an engine."""

from __future__ import annotations

import dataclasses
import random
import threading
from contextlib import nullcontext

from .. import _core
from .._threads import ends_at_exit
from ..errors import Cancelled, Corrupt, InvalidArgument, NotFound, Unavailable
from ..replica import Follower


@dataclasses.dataclass(frozen=True)
class FollowStep:
    """One version that a follower applied; `previous` is the name of the one before."""

    previous: str | None
    version: _core.Version
    bytes_fetched: int
    stage_seconds: float
    commit_seconds: float


class EngineFollower(Follower):
    """A Follower of an EngineReplica. Made by its `follow`; already running.

    The core's loop commits what it staged by itself: guards and the engine's loader would be left out.
    """

    def __init__(self, replica, branch, on_version, pause, interval, until, repair, options):
        if not interval > 0:
            raise InvalidArgument(f"interval must be positive, found {interval!r}")
        self.replica = replica
        self._branch, self._on_version, self._pause = branch, on_version, pause
        self._interval, self._until, self._repair, self._options = interval, until, repair, options
        self._stop = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run, name="siltstone-follow", daemon=True)
        self._thread.start()
        ends_at_exit(self)

    def _run(self):
        failures = 0  # in a row; they stretch the interval
        try:
            while not self._stop.is_set() and not self._arrived():
                try:
                    moved = self._step()
                    failures = 0
                except Unavailable:
                    moved, failures = False, min(failures + 1, 5)
                if not moved and not self._arrived():
                    self._stop.wait(self._interval * random.uniform(0.5, 1.5) * 2**failures)
        except BaseException as error:  # told to whoever asks
            if not (isinstance(error, Cancelled) and self._stop.is_set()):
                self._error = error

    def _arrived(self):
        held = self.version
        if self._until is None or self._repair or held is None:
            return False
        return held.branch == self._branch and held.seq >= self._until

    def _wanted(self):
        """The version to move to, or None."""
        try:
            head = self.replica.repository.head(self._branch)
        except NotFound:  # the branch may get its first version later
            return None
        held = self.version
        if held is not None and held.branch == head.branch and head.seq < held.seq:
            raise Corrupt(
                f"the branch's head is {head.name}, older than {held.name}, which is held already: the bucket has "
                "lost versions"
            )
        if self._until is not None and head.seq > self._until:
            head = self.replica.repository.version(f"{self._branch}@{self._until}")
        return head if head != held or self._repair else None

    def _step(self):
        """Whether there was a new version."""
        version, held = self._wanted(), self.version
        if version is None:
            return False
        going_on = lambda *_: not self._stop.is_set()  # noqa: E731
        with self.replica.stage(version, repair=self._repair, progress=going_on, **self._options) as staged:
            fetched, seconds = staged.bytes_fetched, staged.seconds
            with (self._pause(version) if self._pause else None) or nullcontext():
                report = staged.commit()
        self._repair = False
        if self._on_version is not None:
            previous = held.name if held is not None else None
            self._on_version(FollowStep(previous, version, fetched, seconds, report.seconds))
        return True
