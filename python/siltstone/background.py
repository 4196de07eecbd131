"""BackgroundPublisher: a training step pays for a copy of its weights; the rest happens behind it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from . import tensors
from ._threads import ends_at_exit
from .errors import InvalidArgument


class BackgroundPublisher:
    """A Publisher whose `submit` returns as soon as the weights are copied.

    `submit` copies them to host memory (fp32 as bf16 if the publisher was made so: 2 bytes per element) at
    the speed of memory; comparing, encoding and uploading happen in a thread, version by version. At most
    `depth` copies wait behind the one in work: `submit` then blocks until there is room. A publish that
    fails is raised by the next `submit`, `flush` or `close`, once; those behind it go on from the last
    version that was committed, so nothing drifts. A program that ends publishes what was submitted first.

    Threads: `submit`, `flush` and `close` from one thread. A context manager: leaving it flushes, unless
    an exception is passing through.
    """

    def __init__(self, publisher: Any, *, depth: int = 1, on_published: Callable[[Any], Any] | None = None):
        """on_published: called with each PublishReport, in the thread of the publisher."""
        if depth < 1:
            raise InvalidArgument(f"depth must be at least 1, found {depth!r}")
        self.publisher = publisher
        self._on_published = on_published
        self._waiting = queue.Queue(depth)
        self._errors = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="siltstone-publish", daemon=True)
        self._thread.start()
        ends_at_exit(self)

    def _at_exit(self):
        self.close(flush=False)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(flush=kind is None)

    def _work(self):
        while (job := self._waiting.get()) is not None:
            weights, step, message = job
            try:
                report = self.publisher.publish(weights, step=step, message=message)
                if self._on_published is not None:
                    self._on_published(report)
            except BaseException as error:  # raised by the next call
                self._errors.put(error)
            finally:
                job = weights = None
                self._waiting.task_done()
        self._waiting.task_done()

    def check(self) -> None:
        """Raise the first failure that nobody was told of yet."""
        try:
            error = self._errors.get_nowait()
        except queue.Empty:
            return
        raise error

    def submit(self, source: Any, *, step: int | None = None, message: str = "") -> None:
        """Publish what the weights are now, soon. source: as for `Publisher.publish`."""
        self.check()
        if not self._thread.is_alive():
            raise InvalidArgument("this publisher is closed")
        self._waiting.put((tensors.snapshot(source, self.publisher.rounds_to_bf16), step, message))

    def flush(self) -> None:
        """Wait until all is published; raises what failed."""
        self._waiting.join()
        self.check()

    def close(self, *, flush: bool = True) -> None:
        """End the thread, after what was submitted is published."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        if flush:
            self.check()
