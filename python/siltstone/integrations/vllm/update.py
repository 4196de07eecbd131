"""The calls of an update of a vLLM server, in order: told once, made over HTTP or within the server's own process."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Any

import siltstone
from siltstone.errors import InvalidArgument, Unavailable

PAUSE_MODES = ("keep", "wait", "abort")
UNHELD = "hold no version"  # what a worker says if its weights are partial


class Stuck(siltstone.Error):
    """Workers could neither take a version nor go back: the server, without weights to answer with, stays paused."""


def checked_pause_mode(mode: str) -> str:
    if mode not in PAUSE_MODES:
        raise InvalidArgument(f"pause_mode must be one of {', '.join(PAUSE_MODES)}, found {mode!r}")
    return mode


def attach_steps(told: dict[str, Any]) -> Generator[tuple, Any, None]:
    """As `steps`. What is told leaves the weights alone, or reloads some: if that leaves none, the server is paused."""
    try:
        yield "attach", told
    except Exception as error:
        if UNHELD not in str(error):
            raise
        yield "pause", "abort", True
        raise Stuck(f"{error}; the server is paused: start it again, or attach it again and then resume it") from error


def steps(version: str, pause_mode: str, keep_caches: bool) -> Generator[tuple, Any, float]:
    """Each a method's name and its arguments; is thrown what the method raised. Gives the seconds of the pause.

    All that can fail for other reasons than the update comes before it. Whatever fails, the server is resumed with
    what it holds; only if that is no version, Stuck is raised instead.
    """
    begin = time.monotonic()
    try:
        yield "pause", pause_mode, keep_caches
        if not keep_caches:
            yield ("reset_caches",)
        yield from _session(version)
    except (Exception, KeyboardInterrupt) as error:
        if UNHELD in str(error):
            raise Stuck(
                f"{error}; the server stays paused: start it again, or update it with repair and then resume it"
            ) from error
        try:
            yield ("resume",)
        except Exception as second:
            raise Unavailable(f"{error}; generation may still be paused: {second}") from error
        raise
    yield ("resume",)
    return time.monotonic() - begin


def _session(version):
    try:
        yield ("start",)
        yield "update", version
    except Exception:
        with suppress(Exception):  # ends what is open, here or since a driver died; newer servers do it
            yield "finish", None
        raise
    yield "finish", version


def run(steps: Generator, calls: Any) -> Any:
    """Makes the calls on an object that has the methods."""
    go_on = partial(next, steps)
    while True:
        try:
            name, *arguments = go_on()
        except StopIteration as end:
            return end.value
        try:
            go_on = partial(steps.send, getattr(calls, name)(*arguments))
        except (Exception, KeyboardInterrupt) as error:
            go_on = partial(steps.throw, error)


async def run_async(steps: Generator, calls: Any) -> Any:
    """As `run`, for methods that are coroutines. Cancelled, it makes no more calls: the server is about to end."""
    go_on = partial(next, steps)
    while True:
        try:
            name, *arguments = go_on()
        except StopIteration as end:
            return end.value
        try:
            go_on = partial(steps.send, await getattr(calls, name)(*arguments))
        except Exception as error:
            go_on = partial(steps.throw, error)
