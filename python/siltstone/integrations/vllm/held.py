"""Which version the weights of a server are, as far as the process with its routes can know."""

from __future__ import annotations

import asyncio
import contextlib

from siltstone._version_needs import FIRST, HELD, VersionNeeds, parse_version, version_name
from siltstone.errors import InvalidArgument


class Held:
    """A version, or none that is known, and those who wait for one. For one event loop.

    version  ("main", 12) or None
    moves    grows with every change
    """

    def __init__(self):
        self.version, self.moves = None, 0
        self._changed = asyncio.Event()

    @property
    def name(self) -> str | None:
        return None if self.version is None else version_name(self.version)

    def headers(self, first: str | None = None) -> list[tuple[bytes, bytes]]:
        """Of an answer that was begun under version `first`; default: the one held."""
        if self.name is None:
            return []
        told = {HELD: self.name, FIRST: first or self.name}
        return [(name.lower().encode(), value.encode()) for name, value in told.items()]

    def move(self, name: str | None) -> None:
        """A name that is no version's stands for weights that nothing is known of."""
        try:
            version = None if name is None else parse_version(name)
        except InvalidArgument:
            version = None
        if version == self.version:
            return
        self.version, self.moves = version, self.moves + 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def moved_from(self, moves: int) -> None:
        """Returns once `moves` is another number."""
        while self.moves == moves:
            await self._changed.wait()

    async def wait(self, needs: VersionNeeds, seconds: float) -> None:
        """Until the weights are new enough, or the time is over."""

        async def reached():
            while not needs.reached(self.version):
                await self._changed.wait()

        if not needs.reached(self.version):
            with contextlib.suppress(asyncio.TimeoutError):  # who checks the needs says so
                await asyncio.wait_for(reached(), seconds)
