"""Versions: what vLLM's routes say and are asked about versions, and a server that follows a bucket by itself.

    SILTSTONE_BUCKET=/data/bucket SILTSTONE_AT=main@7 \\
    vllm serve MODEL --weight-transfer-config '{"backend": "siltstone"}' \\
        --middleware siltstone.integrations.vllm.Versions

An ASGI middleware, for vLLM 0.27 and later; docs/guides/vllm.md has its settings, headers and routes. Without
SILTSTONE_BUCKET a driver moves the server through vLLM's routes, and the middleware learns from what passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import siltstone
from siltstone._version_needs import RETRY_SECONDS, VersionNeeds, error_answer, status_of
from siltstone.errors import Conflict, InvalidArgument, Unavailable

from .exchange import Exchange, answer_json
from .follow import Follower, Settings, cannot_follow
from .held import Held

STATUS = "/siltstone/status"
MOST_BYTES = 1 << 16  # of the body of an update's request; larger ones are not ours


def _said(*path):
    def look(body):
        for key in path:
            body = body.get(key) if isinstance(body, dict) else None
        return body if isinstance(body, str) else None

    return look


# Routes that change the version, and what of their body names the new one.
MOVING = {
    "/init_weight_transfer_engine": _said("init_info", "at"),
    "/update_weights": _said("update_info", "version"),
    "/finish_weight_update": _said("weight_version"),
    "/update_weight_version": _said("new_version"),
    "/start_weight_update": None,
}
PAUSING = ("/pause", "/resume", "/sleep", "/wake_up")


class Versions:
    """The middleware; vLLM makes one in the process of its routes.

    Each answer names the versions that it can have been made with; requests wait for one, or are refused, as their
    headers say. Bodies of answers pass as they come.
    """

    def __init__(self, app: Any):
        self.app = app
        self.held = Held()
        self.settings, self.follower = Settings(), None

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            try:
                await self._route(scope, receive, send)
            except siltstone.Error as error:
                await self._refuse(send, error)

    async def _live(self, scope, receive, send):
        try:
            follows = self._begin(scope["app"].state)
        except siltstone.Error as error:
            await receive()
            return await send({"type": "lifespan.startup.failed", "message": str(error)})
        try:
            await self.app(scope, receive, send)
        finally:
            if follows is not None:
                follows.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await follows

    def _begin(self, state):
        """The task that follows, or None. Raises InvalidArgument if this server cannot do what it was told."""
        self.settings = Settings.of()
        if (getattr(getattr(state, "args", None), "api_server_count", None) or 1) > 1:
            raise InvalidArgument("versions are known to one process of routes alone: use --api-server-count 1")
        if self.settings.bucket is None:
            return None
        client = getattr(state, "engine_client", None)
        if reason := cannot_follow(client):
            raise InvalidArgument(f"this server cannot follow {self.settings.bucket}: {reason}")
        self.follower = Follower(client, self.held, self.settings)
        return asyncio.create_task(self.follower.run())

    @property
    def _stuck(self):
        return None if self.follower is None else self.follower.stuck

    async def _route(self, scope, receive, send):
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        method = scope["method"]
        if (method, path) == ("GET", STATUS):
            return await answer_json(send, 200, self.status())
        if (method, path) == ("GET", "/health") and self._stuck:
            raise Unavailable(self._stuck)
        if method == "POST" and path in MOVING:
            return await self._watch(scope, receive, send, MOVING[path])
        if method == "POST" and path in PAUSING and self.follower is not None:
            async with self.follower.lock:  # a resume must not come into an update
                await self.app(scope, receive, send)
            return self.follower.resumed() if path == "/resume" else None
        await self._ask(scope, receive, send)

    def status(self) -> dict:
        """What GET /siltstone/status answers."""
        return {
            "weight_version": self.held.name,
            "following": None if self.follower is None else self.follower.status(),
        }

    async def _ask(self, scope, receive, send):
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        needs = VersionNeeds.of(lambda name: headers.get(name.lower().encode()))
        await self.held.wait(needs, self.settings.version_wait)
        needs.check(self.held.version)
        exchange = Exchange(self.held, needs, receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.broken:
                raise
        await exchange.end()

    async def _watch(self, scope, receive, send, name_of):
        """A request by which somebody else moves the server: what it names is held once it was done."""
        if self.follower is not None and self.follower.stuck is None:
            raise Conflict("these weights follow their branch by themselves: there is nothing to update")
        body = bytearray()

        async def listen():
            message = await receive()
            if len(body) <= MOST_BYTES:
                body.extend(message.get("body", b""))
            return message

        async def learn(message):
            if message["type"] == "http.response.start" and message["status"] == 200:
                self._learn(scope["path"], name_of, bytes(body))
            await send(message)

        await self.app(scope, listen, learn)

    def _learn(self, path, name_of, body):
        if name_of is None:
            return
        try:
            name = name_of(json.loads(body)) if len(body) <= MOST_BYTES else None
        except ValueError:
            name = None
        if name is not None or path.endswith("/update_weights"):  # which moved, wherever to
            self.held.move(name)

    async def _refuse(self, send, error):
        status = status_of(error)
        more = [(b"retry-after", str(RETRY_SECONDS).encode())] if status == 503 else []
        await answer_json(send, status, error_answer(status, error), [*more, *self.held.headers()])
