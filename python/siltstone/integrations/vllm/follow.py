"""A vLLM server that follows a bucket by itself: what runs beside its routes, in the process that has them."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from siltstone.errors import InvalidArgument, Unavailable

from .held import Held
from .interface import BACKEND
from .update import Stuck, attach_steps, checked_pause_mode, run_async, steps
from .worker import PROGRESS

MOST_WAIT = 60.0  # seconds before what failed is tried again
REMEMBERED = 100  # pauses
log = logging.getLogger("vllm.siltstone")  # below vLLM's own, so that it goes where that goes


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the environment says; docs/guides/vllm.md has the variables.

    bucket, at    what to follow, and the version that the server's model is; both None: nothing is followed
    branch        of which the newest version is served
    interval      seconds between looks at it
    version_wait  seconds for which a request waits for the version it needs
    attach        what else `attach` is told (engine.InitInfo)
    """

    bucket: str | None = None
    at: str | None = None
    branch: str = "main"
    interval: float = 1.0
    pause_mode: str = "keep"
    keep_caches: bool = False
    version_wait: float = 30.0
    attach: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises InvalidArgument, which names the variable."""
        read = {"interval": _seconds, "version_wait": _seconds, "keep_caches": _flag, "attach": _options}
        told = {}
        for field in dataclasses.fields(cls):
            variable = f"SILTSTONE_{field.name.upper()}"
            if text := environment.get(variable):
                told[field.name] = read.get(field.name, lambda _, text: text)(variable, text)
        settings = cls(**told)
        checked_pause_mode(settings.pause_mode)
        if (settings.bucket is None) != (settings.at is None):
            raise InvalidArgument(
                "SILTSTONE_BUCKET and SILTSTONE_AT come together: what to follow, and which version the model is"
            )
        return settings


def _seconds(variable, text):
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise InvalidArgument(f"{variable} must be a number of seconds, found {text!r}")
    return value


def _options(variable, text):
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidArgument(f'{variable} must be a JSON object such as {{"refused": "reload"}}, found {text!r}')
    return value


def _flag(variable, text):
    if text not in ("0", "1"):
        raise InvalidArgument(f"{variable} must be 0 or 1, found {text!r}")
    return text == "1"


class _Engine:
    """An engine client's calls under the names of `update.steps`."""

    def __init__(self, client, held):
        self.client, self.held = client, held
        self.multimodal = getattr(client.model_config, "is_multimodal_model", True)

    async def attach(self, told):
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self.client.init_weight_transfer_engine(WeightTransferInitRequest(init_info=told))
        await self.client.update_weight_version(told["at"])
        self.held.move(told["at"])

    async def pause(self, mode, keep_caches):
        await self.client.pause_generation(mode=mode, clear_cache=not keep_caches)

    async def reset_caches(self):
        if not await self.client.reset_prefix_cache(reset_running_requests=True, reset_connector=True):
            raise Unavailable("vLLM could not reset its prefix cache")
        if self.multimodal:
            await self.client.reset_mm_cache()
            await self.client.reset_encoder_cache()

    async def start(self):
        await self.client.start_weight_update()

    async def update(self, version):
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self.client.update_weights(WeightTransferUpdateRequest(update_info={"version": version}))
        self.held.move(version)  # while nothing is generated

    async def finish(self, version):
        await self.client.finish_weight_update(version)

    async def resume(self):
        await self.client.resume_generation()


@dataclasses.dataclass
class _Failure:
    """doing: "attach", "stage", or the version that could not be taken."""

    doing: str
    error: str
    attempts: int
    again_at: float


class Follower:
    """Moves the server behind an engine client to every new version of a branch that its workers have staged.

    A version that fails leaves the server at what it has and is tried again, after twice the time each time. A server
    that somebody else paused is left alone until it is resumed. `lock` is held during an update.
    """

    def __init__(self, client: Any, held: Held, settings: Settings):
        self.settings, self.lock = settings, asyncio.Lock()
        self.stuck = None  # why the server has no weights to answer with, and stays paused
        self._engine, self._held = _Engine(client, held), held
        self._failure, self._attached, self._updates = None, False, 0
        self._pauses = collections.deque(maxlen=REMEMBERED)

    def status(self) -> dict:
        """For people and tests; plain data."""
        failure = self._failure
        return {
            "branch": self.settings.branch,
            "attached": self._attached,
            "updates": self._updates,
            "pauses": [{"version": version, "seconds": seconds} for version, seconds in self._pauses],
            "failure": failure and {"doing": failure.doing, "error": failure.error, "attempts": failure.attempts},
            "stuck": self.stuck,
        }

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            if self.stuck is None:
                try:
                    await (self._look() if self._attached else self._attach())
                except Exception as error:
                    self._failed("look", error)
            await asyncio.sleep(self.settings.interval / 4)

    def resumed(self) -> None:
        """Somebody resumed the server; if it was repaired before, it is followed again."""
        if self._held.version is not None:
            self.stuck = None

    async def _attach(self):
        if self._too_early("attach"):
            return
        settings = self.settings
        told = {"bucket": settings.bucket, "at": settings.at, "branch": settings.branch, "interval": settings.interval}
        try:
            await run_async(attach_steps({**settings.attach, **told}), self._engine)
        except Stuck as error:
            return self._stick(error)
        except Exception as error:
            return self._failed("attach", error)
        self._attached, self._failure = True, None
        log.info("the weights are %s and follow branch %s", settings.at, settings.branch)

    async def _look(self):
        workers = await self._engine.client.collective_rpc(PROGRESS)
        error = next((worker["error"] for worker in workers if worker["error"]), None)
        if error is not None:
            self._failed("stage", error)
        elif self._failure is not None and self._failure.doing in ("stage", "look"):
            self._failure = None
        staged = {worker["staged"] for worker in workers}
        if len(staged) != 1:  # ranks look at the branch at their own times
            return
        version = staged.pop()
        if version == self._held.name or self._too_early(version):
            return
        async with self.lock:
            if not await self._engine.client.is_paused():
                await self._move(version)

    async def _move(self, version):
        try:
            seconds = await run_async(steps(version, self.settings.pause_mode, self.settings.keep_caches), self._engine)
        except Stuck as error:
            self._stick(error)
        except Exception as error:
            self._failed(version, error)
        else:
            self._failure = None
            self._updates += 1
            self._pauses.append((version, seconds))
            log.info("the weights are %s; paused for %.1f ms", version, seconds * 1e3)

    def _stick(self, error):
        self._held.move(None)
        self.stuck = str(error)
        log.error("%s", error)

    def _too_early(self, doing):
        return self._failure is not None and self._failure.doing == doing and time.monotonic() < self._failure.again_at

    def _failed(self, doing, error):
        text = str(error) or repr(error)
        last = self._failure
        attempts = last.attempts + 1 if last is not None and last.doing == doing else 1
        wait = min(self.settings.interval * 2 ** min(attempts - 1, 10), MOST_WAIT)
        self._failure = _Failure(doing, text, attempts, time.monotonic() + wait)
        if last is None or (last.doing, last.error) != (doing, text):
            log.warning("%s failed: %s", doing, text)


def cannot_follow(client: Any) -> str | None:
    """Why a server cannot."""
    if client is None:
        return "there is no engine in this server"
    backend = getattr(getattr(client.vllm_config, "weight_transfer_config", None), "backend", None)
    if backend != BACKEND:
        return f"start it with --weight-transfer-config '{{\"backend\": \"{BACKEND}\"}}'"
    if not hasattr(client, "update_weight_version"):
        return "vLLM keeps the version of its weights since 0.27; a driver can move it: siltstone.integrations.vllm"
    return None
