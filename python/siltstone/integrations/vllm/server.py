"""A client of the routes by which one vLLM server is moved to versions."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import Any

import siltstone
from siltstone.errors import Unavailable, Unsupported

from .update import attach_steps, checked_pause_mode, run, steps
from .worker import PROGRESS

STAGED_POLL = 0.05  # seconds between questions to workers that stage
MOST_CHARACTERS = 16000  # of an error's text; what a worker says stands at its end


class Refused(siltstone.Error):
    """The server answered with an error; the message has what it said, `status` its number."""

    def __init__(self, message: str, status: int = 500):
        super().__init__(message)
        self.status = status


class _Routes:
    """The routes of a server, each answer checked; what `update.steps` names are methods."""

    def __init__(self, url, timeout, multimodal):
        self.url, self.timeout, self.multimodal = url, timeout, multimodal

    def call(self, route, body=None, method="POST"):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + route, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:MOST_CHARACTERS]
            hint = "; start the server with VLLM_SERVER_DEV_MODE=1" if error.code == 404 else ""
            raise Refused(f"{method} {self.url}{route} answered {error.code}: {said}{hint}", error.code) from None
        except OSError as error:
            raise Unavailable(f"{method} {self.url}{route}: {error}") from None
        return json.loads(text) if text.strip() else None

    def call_if_there(self, route, body=None):
        """None of a server that has no such route."""
        try:
            return self.call(route, body)
        except Refused as refused:
            if refused.status != 404:
                raise
        return None

    def attach(self, told):
        self.call("/init_weight_transfer_engine", {"init_info": told})
        self.call_if_there("/update_weight_version", {"new_version": told["at"]})  # since 0.27

    def pause(self, mode, keep_caches=False):
        self.call(f"/pause?mode={mode}" + ("&clear_cache=false" if keep_caches else ""))

    def reset_caches(self):
        answer = self.call_if_there("/reset_prefix_cache?reset_running_requests=true&reset_external=true")
        if answer is not None and answer.get("success") is not True:
            raise Refused(f"{self.url} could not reset its prefix cache: {answer}")
        if self.multimodal:
            self.call("/reset_mm_cache")
            self.call("/reset_encoder_cache")

    def start(self):
        self.call("/start_weight_update", {"is_checkpoint_format": False})

    def update(self, version):
        self.call("/update_weights", {"update_info": {"version": version}})

    def finish(self, version):
        self.call("/finish_weight_update", {} if version is None else {"weight_version": version})

    def resume(self):
        self.call("/resume")


class Server:
    """The weight-update routes of one vLLM server, each answer checked.

    url          "http://host:8000"; the server needs VLLM_SERVER_DEV_MODE=1
    pause_mode   what becomes of requests in flight. "keep": they are frozen and go on under the new weights; "wait":
                 they end first; "abort": they end at once
    keep_caches  leave what older weights computed where it is: kept requests go on with the keys and values they
                 have, and new ones that begin alike take those too. Default: kept requests compute them anew
    multimodal   reset the caches of the encoders too, by requests of their own. vLLM 0.32 does so when it pauses
    """

    def __init__(self, url: str, *, pause_mode: str = "keep", keep_caches: bool = False, multimodal: bool = False,
                 timeout: float = 600.0):
        self.url, self.pause_mode, self.keep_caches = url.rstrip("/"), checked_pause_mode(pause_mode), keep_caches
        self._routes = _Routes(self.url, timeout, multimodal)

    def attach(self, bucket: str, at: str, *, branch: str = "main", **options: Any) -> None:
        """Tell every worker which bucket to follow and which version it holds. Raises what they refuse.

        options: other fields of engine.InitInfo. With refused="reload" tensors may be loaded: Stuck, and the
        server paused, if that fails.
        """
        run(attach_steps({"bucket": bucket, "at": at, "branch": branch, **options}), self._routes)

    @contextmanager
    def paused(self):
        """Around a body during which the server generates nothing; it resumes also if the body fails."""
        self._routes.pause(self.pause_mode, self.keep_caches)
        try:
            yield
        finally:
            self._routes.resume()

    def update(self, version: str) -> float:
        """Move the server to a version ("main@8"); returns for how many seconds it was paused.

        If the workers refuse, they hold the version they held before and the server goes on with it. Raises Stuck,
        and leaves the server paused, if they say that they hold none.
        """
        return run(steps(version, self.pause_mode, self.keep_caches), self._routes)

    def version(self) -> str:
        """What the server says its weights are: a version's name after `attach` and updates. Since vLLM 0.27."""
        try:
            return self._routes.call("/weight_info", method="GET")["weight_version"]
        except Refused as refused:
            if refused.status != 404:
                raise
            raise Unsupported(f"{refused}, if it is vLLM 0.27 or later: older ones do not tell their version") from None

    def staged(self, version: str) -> bool:
        """Whether an update to a version would find it staged, or cannot hope to."""
        told = self._routes.call_if_there("/collective_rpc", {"method": PROGRESS})
        workers = [] if told is None else told["results"]
        return all(worker["staged"] == version or worker["error"] or not worker["staging"] for worker in workers)

    def follow(self, bucket: str, *, branch: str = "main", interval: float = 1.0, until: int | None = None,
               on_version=None) -> None:
        """Move the server to every new head of a branch once its workers have it staged, for ever or up to a
        sequence number."""
        repository = siltstone.open(bucket)
        held = None
        while until is None or held is None or held.seq < until:
            head = repository.head(branch)
            if held is not None and head == held:
                time.sleep(interval)
            elif not self.staged(head.name):
                time.sleep(min(interval, STAGED_POLL))
            else:
                seconds = self.update(head.name)
                held = head
                if on_version is not None:
                    on_version(head, seconds)
