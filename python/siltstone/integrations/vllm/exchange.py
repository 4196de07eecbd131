"""One request of a vLLM server and its answer, with what they say of versions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from siltstone._version_needs import NotHeld, VersionNeeds, error_answer, status_of, version_name

from .held import Held


async def answer_json(send: Any, status: int, body: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    data = json.dumps(body).encode()
    plain = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*plain, *(headers or [])]})
    await send({"type": "http.response.body", "body": data})


class Exchange:
    """What passes between the app and the client of one request: `receive` and `send` of ASGI.

    The answer's headers name the version at the request's beginning and at the answer's. If the request needs one
    version exactly and the weights move on, the app is told that the client has gone; an answer that has not begun
    becomes 412, and a stream of events ends with such an error instead of its next one.
    """

    def __init__(self, held: Held, needs: VersionNeeds, receive: Any, send: Any):
        self._held, self._needs = held, needs
        self._receive, self._send = receive, send
        self._first, self._moves = held.name, held.moves
        self._asked = self._begun = self._streams = False
        self._over = asyncio.Event()

    async def receive(self) -> dict:
        if self._needs.exactly is None or not self._asked:
            message = await self._receive()
            self._asked = not message.get("more_body", False)
            return message
        waits = [asyncio.ensure_future(wait) for wait in (self._receive(), self._lost())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[0].result() if waits[0].done() else {"type": "http.disconnect"}
        finally:
            for wait in waits:
                wait.cancel()

    async def _lost(self):
        await self._held.moved_from(self._moves)
        if self._begun:
            await self._over.wait()

    async def end(self) -> None:
        """After the app: answers a request of which the app was told that its client has gone."""
        if self.broken and not self._begun and not self._over.is_set():
            await self._refuse()

    @property
    def broken(self) -> bool:
        """Whether the weights moved away from the one version that the request needs."""
        return self._needs.exactly is not None and self._held.moves != self._moves

    async def send(self, message: dict) -> None:
        if self._over.is_set():
            return
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._streams and self.broken:
            event = f"data: {json.dumps(self._error())}\n\n".encode()
            self._over.set()
            await self._send({"type": "http.response.body", "body": event})
        else:
            await self._send(message)

    async def _refuse(self):
        self._over.set()
        error = self._error()
        await answer_json(self._send, error["error"]["code"], error, self._held.headers(self._first))

    async def _begin(self, message):
        if self.broken and message["status"] < 400:
            return await self._refuse()
        self._begun = True
        headers = [*message.get("headers", []), *self._held.headers(self._first)]
        kind = dict(headers).get(b"content-type", b"")
        self._streams = kind.startswith(b"text/event-stream")
        await self._send({**message, "headers": headers})

    def _error(self):
        error = NotHeld(f"the weights moved to {version_name(self._held.version)} before the answer was complete")
        return error_answer(status_of(error), error)
