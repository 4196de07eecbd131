"""Gate: who may touch the weights now - a token, or a change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager

from ..errors import InvalidArgument

MODES = ("abort", "wait", "keep")


class Aborted(Exception):
    """A pause ended this request."""


class Gate:
    """Lets generation pass a token at a time, and closes between two tokens.

    Requests enter `request`, and within it each of their tokens `token`. `exclusive` waits for the token that is
    under way and holds the next ones back; `pause` does so until `resume`, with `mode` saying what becomes of
    requests that have begun: "keep" freezes them, "wait" lets them end first, "abort" ends them. New requests
    wait for the resume.

    Threads: all methods from any.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._busy = False  # with a token or a change
        self._changes = 0  # that wait
        self._running = 0  # requests that have begun
        self._aborts = 0
        self._mode = None  # of the pause

    @property
    def paused(self) -> bool:
        return self._mode is not None

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds that only changes within `exclusive`; whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    @contextmanager
    def request(self):
        """Around one request; gives what its tokens pass to `token`."""
        with self._changed:
            self._changed.wait_for(lambda: self._mode is None)
            self._running += 1
            ticket = self._aborts
        try:
            yield ticket
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _open_to(self, ticket):
        if ticket != self._aborts:
            return True  # to be told
        return not self._busy and not self._changes and self._mode in (None, "wait")

    @contextmanager
    def token(self, ticket: int):
        """Around the computation of one token. Raises Aborted."""
        with self._changed:
            self._changed.wait_for(lambda: self._open_to(ticket))
            if ticket != self._aborts:
                raise Aborted
            self._busy = True
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def exclusive(self):
        """Around a change of the weights, paused or not."""
        with self._changed:
            self._changes += 1
            self._changed.wait_for(lambda: not self._busy)
            self._changes -= 1
            self._busy = True
        try:
            yield
        finally:
            self._leave()

    def _leave(self):
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def pause(self, mode: str = "abort") -> bool:
        """Close the gate; returns when it is, or False if a `resume` or another `pause` came first."""
        if mode not in MODES:
            raise InvalidArgument(f"mode must be one of {', '.join(MODES)}, found {mode!r}")
        with self._changed:
            self._mode = mode
            self._aborts += mode == "abort"
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._mode != mode or not (self._busy if mode == "keep" else self._running))
            return self._mode == mode

    def resume(self) -> None:
        with self._changed:
            self._mode = None
            self._changed.notify_all()
