"""vLLM: a weight-transfer backend that follows a bucket.

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "siltstone"}'

Installing siltstone is enough for vLLM to find it (entry point group `vllm.general_plugins`). The server's
routes drive it: `/init_weight_transfer_engine` names the bucket and the version that MODEL is, and
`/update_weights` the version to move to. `Server` is a client for them, and follows a branch by itself:

    python -m siltstone.integrations.vllm http://localhost:8000 /data/bucket main@7

docs/guides/vllm.md says what runs when.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from typing import Any

import siltstone
from siltstone._program import failures_told
from siltstone.errors import InvalidArgument, Unavailable

BACKEND = "siltstone"


def register() -> None:
    """The entry point: called in every process of a vLLM server, perhaps several times."""
    from vllm.distributed import weight_transfer

    factory = getattr(weight_transfer, "WeightTransferEngineFactory", None)
    if factory is None:  # older than what can be served: others use this vLLM without us
        return
    if BACKEND not in factory._registry:
        factory.register_engine(BACKEND, "siltstone.integrations.vllm_engine", "SiltstoneEngine")
    from . import vllm_cpu

    vllm_cpu.keep_plain_weights(BACKEND)


class Refused(siltstone.Error):
    """The server answered with an error; the message has what it said."""


class Server:
    """The weight-update routes of one vLLM server, each answer checked.

    url          "http://host:8000"; the server needs VLLM_SERVER_DEV_MODE=1
    pause_mode   "keep": requests in flight go on under the new weights with the keys and values they have; "wait":
                 they end first; "abort": they end at once
    """

    def __init__(self, url: str, *, pause_mode: str = "keep", timeout: float = 600.0):
        if pause_mode not in ("keep", "wait", "abort"):
            raise InvalidArgument(f"pause_mode must be keep, wait or abort, found {pause_mode!r}")
        self.url, self.pause_mode, self.timeout = url.rstrip("/"), pause_mode, timeout

    def _call(self, route, body=None, method="POST"):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + route, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:2000]
            hint = "; start the server with VLLM_SERVER_DEV_MODE=1" if error.code == 404 else ""
            raise Refused(f"{method} {self.url}{route} answered {error.code}: {said}{hint}") from None
        except OSError as error:
            raise Unavailable(f"{method} {self.url}{route}: {error}") from None
        return json.loads(text) if text.strip() else None

    def attach(self, bucket: str, at: str, *, branch: str = "main", **options: Any) -> None:
        """Tell every worker which bucket to follow and which version it holds. Raises what they refuse."""
        self._call("/init_weight_transfer_engine", {"init_info": {"bucket": bucket, "at": at, "branch": branch, **options}})

    @contextmanager
    def paused(self):
        """Around a body during which the server generates nothing; it resumes also if the body fails."""
        self._call(f"/pause?mode={self.pause_mode}")
        try:
            yield
        finally:
            self._call("/resume")

    def update(self, version: str) -> float:
        """Move the server to a version ("main@8"); returns for how many seconds it was paused.

        If the workers refuse, they hold the version they held before and the server goes on with it.
        """
        begin = time.monotonic()
        with self.paused():
            try:
                self._call("/start_weight_update", {"is_checkpoint_format": False})
                self._call("/update_weights", {"update_info": {"version": version}})
            except siltstone.Error:
                with suppress(siltstone.Error):  # ends what is open, here or since a driver died; newer servers do it
                    self._call("/finish_weight_update", {})
                raise
            self._call("/finish_weight_update", {"weight_version": version})
        return time.monotonic() - begin

    def version(self) -> str:
        """What the server says its weights are: a version's name after the first update."""
        return self._call("/weight_info", method="GET")["weight_version"]

    def follow(self, bucket: str, *, branch: str = "main", interval: float = 1.0, until: int | None = None,
               on_version=None) -> None:
        """Move the server to every new head of a branch, for ever or up to a sequence number."""
        repository = siltstone.open(bucket)
        held = None
        while until is None or held is None or held.seq < until:
            head = repository.head(branch)
            if held is None or head != held:
                seconds = self.update(head.name)
                held = head
                if on_version is not None:
                    on_version(head, seconds)
            else:
                time.sleep(interval)


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m siltstone.integrations.vllm",
        description="Keep a running vLLM server at the newest version of a branch.",
    )
    parser.add_argument("server", help="http://host:8000 of a server with --weight-transfer-config '{\"backend\": \"siltstone\"}'")
    parser.add_argument("bucket", help="as for every command of siltstone; seen from the server")
    parser.add_argument("at", help="the version that the server's model is, such as main@7")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--pause-mode", default="keep", choices=("keep", "wait", "abort"))
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between looks at the branch")
    given = parser.parse_args(arguments)
    server = Server(given.server, pause_mode=given.pause_mode)

    def tell(version, seconds):
        print(f"{version.name}: paused for {seconds * 1e3:.0f} ms", flush=True)

    with failures_told():
        server.attach(given.bucket, given.at, branch=given.branch)
        server.follow(given.bucket, branch=given.branch, interval=given.interval, on_version=tell)


if __name__ == "__main__":
    main()
