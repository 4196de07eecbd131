"""SGLang, and other servers that load a model folder again: the folder follows a bucket, the server is told.

    python -m siltstone.integrations.sglang http://localhost:30000 /data/bucket /models/live

This is a reload: the folder gets what changed while the server generates, but then the server reads all of it.
Its pause grows with the model, not with the change. docs/guides/sglang.md says what runs when.

`Server` drives SGLang's routes; `follow` takes any object with its two methods, `version` and `update`.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import siltstone
from siltstone._program import failures_told
from siltstone.errors import InvalidArgument, Mismatch, Unavailable, Unsupported

PAUSE_MODES = ("abort", "retract", "in_place", "none")
KEY_VARIABLE = "SGLANG_API_KEY"
FLUSH_SECONDS = 5  # for which the server may wait for its last aborted requests to go
SHOWN_BYTES = 2000  # of an answer, in a message


class Server:
    """The weight-update routes of one SGLang server, each answer checked.

    url          "http://host:30000"
    pause_mode   "abort": requests in flight end at once, with what they have. "retract": they are queued again.
                 "in_place": they keep their keys and values and go on under the new weights. "none": the server
                 is not paused; it lets them end before it loads, and holds new ones back meanwhile
    flush        drop the cached prefixes, which older weights made; default: True unless "in_place", which cannot
    timeout      seconds for one request; loading is one
    api_key      sent as a bearer token
    """

    def __init__(self, url: str, *, pause_mode: str = "abort", flush: bool | None = None, timeout: float = 600.0,
                 api_key: str | None = None):
        if pause_mode not in PAUSE_MODES:
            raise InvalidArgument(f"pause_mode must be one of {', '.join(PAUSE_MODES)}, found {pause_mode!r}")
        if pause_mode == "in_place" and flush:
            raise InvalidArgument("SGLang cannot flush while requests are held in place: use flush=False or pause_mode='abort'")
        self.url, self.pause_mode, self.timeout = url.rstrip("/"), pause_mode, timeout
        self.flush = pause_mode != "in_place" if flush is None else flush
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def version(self) -> str | None:
        """What the server says its weights are: a version's name after an update, or what it was started with."""
        try:
            return self._call("/model_info", method="GET").get("weight_version")
        except NoRoute:  # its name before 0.5.4
            return self._call("/get_model_info", method="GET").get("weight_version")

    def update(self, folder: str | os.PathLike, version: str) -> float:
        """Let the server load a folder, under a version's name; returns for how many seconds it did not generate.

        With pause_mode "none" that is the time of the whole call. Generation is continued after a failure too.
        Raises Unsupported for what the server refuses, Unavailable if it does not answer, Mismatch if it does not
        say afterwards that it holds `version`; the message tells what it holds.
        """
        holds = f"the server still holds {self.version()}"
        failure = stuck = None
        begin = time.monotonic()
        try:
            if self.pause_mode != "none":
                self._call("/pause_generation", {"mode": self.pause_mode})
            # After a failed load SGLang reads the path it had before, which is this same folder.
            holds = "the server may hold older weights, these or a mixture: let it load again, or restart it"
            self._load(os.fspath(folder), version)
            holds = f"the server holds {version}"
            self._flush()
        except siltstone.Error as error:
            failure = error
        finally:
            stuck = self._continue()
        seconds = time.monotonic() - begin
        if failure is not None or stuck:
            told = "; ".join(filter(None, (failure and str(failure), holds, stuck)))
            raise (type(failure) if failure is not None else Unavailable)(told)
        return seconds

    def _load(self, folder, version):
        answer = self._call(
            "/update_weights_from_disk",
            {
                "model_path": folder,
                "weight_version": version,
                "abort_all_requests": False,
                # While paused it is asked for by itself: within the load, a refusal ends SGLang's scheduler.
                "flush_cache": self.flush and self.pause_mode == "none",
            },
        )
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise Unsupported(f"{self.url} did not load {folder}: {_shown(answer)}")
        says = self.version()
        if says != version:
            raise Mismatch(f"{self.url} loaded {folder} and says that its weights are {says!r}, not {version!r}")

    def _flush(self):
        if not self.flush or self.pause_mode == "none":
            return
        try:
            self._call(f"/flush_cache?timeout={FLUSH_SECONDS}", {})
        except Unsupported as error:
            raise Unsupported(
                f"{error}; prefixes cached under older weights remain: use pause mode 'abort', or --no-flush to accept them"
            ) from None

    def _continue(self):
        """What went wrong, as text for a message."""
        if self.pause_mode == "none":
            return None
        try:
            self._call("/continue_generation", {})
        except siltstone.Error as error:
            return f"generation may still be paused: {error}"
        return None

    def _call(self, route, body=None, method="POST") -> Any:
        """The answer: what its JSON says, or its text. Raises for every other status than 200."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + route, data=data, method=method, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                text = reply.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            kind = NoRoute if error.code == 404 else Unavailable if error.code >= 500 else Unsupported
            said = error.read(SHOWN_BYTES).decode(errors="replace")
            raise kind(f"{method} {self.url}{route} answered {error.code}: {said}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{method} {self.url}{route}: {error or repr(error)}") from None
        try:
            answer = json.loads(text) if text.strip() else {}
        except ValueError:
            return text
        if isinstance(answer, dict) and answer.get("success") is False:
            raise Unsupported(f"{method} {self.url}{route} answered success=false: {_shown(answer)}")
        return answer


class NoRoute(Unsupported):
    """The server has no such route."""


def _shown(answer):
    return str(answer.get("message", answer) if isinstance(answer, dict) else answer)[:SHOWN_BYTES]


@dataclasses.dataclass
class Update:
    """One version that a server loaded.

    previous        what the server said that it held
    bytes_fetched   from the bucket, for the folder
    folder_seconds  how long the folder took, while the server generated
    pause_seconds   how long the server then did not generate
    """

    previous: str | None
    version: siltstone.Version
    bytes_fetched: int
    folder_seconds: float
    pause_seconds: float


def follow(server: Any, bucket: str | os.PathLike | siltstone.Repository, folder: str | os.PathLike, *,
           branch: str = "main", interval: float = 1.0, until: int | None = None,
           on_version: Callable[[Update], Any] | None = None, stop: threading.Event | None = None) -> None:
    """Keep a folder and the server that loads it at a branch's newest version, until sequence number `until`.

    server  a Server, or anything that has its `version()` and `update(folder, version)`
    folder  a replica of the bucket, or absent or empty; seen by the server under the same path
    stop    ends it, between two versions

    A server that says it holds another version than the folder - it was restarted, say - loads it again. Any
    failure ends this with an error that tells what folder and server hold; called again, it goes on from there.
    """
    repository = bucket if isinstance(bucket, siltstone.Repository) else siltstone.open(bucket)
    stop = threading.Event() if stop is None else stop
    folder = os.path.abspath(folder)
    with repository.replica(folder) as replica:
        while not stop.is_set():
            head = repository.head(branch)
            fetched, seconds = _move(replica, head)
            with _told(folder, head):
                previous = server.version()
                paused = server.update(folder, head.name) if previous != head.name else None
            if paused is not None and on_version is not None:
                on_version(Update(previous, head, fetched, seconds, paused))
            if until is not None and head.seq >= until:
                return
            stop.wait(interval)


def _move(replica, head):
    """(bytes fetched, seconds); the server does not notice: new files take the place of old ones."""
    if replica.version is not None and replica.version == head:
        return 0, 0.0
    begin = time.monotonic()
    with replica.stage(head) as staged:
        fetched = staged.bytes_fetched
        staged.commit()
    return fetched, time.monotonic() - begin


@contextmanager
def _told(folder, head):
    """Adds to an error what the folder holds."""
    try:
        yield
    except siltstone.Error as error:
        raise type(error)(f"{error}; the folder {folder} holds {head.name}, whole: follow again to go on") from error


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m siltstone.integrations.sglang",
        description="Keep a model folder and the SGLang server that loads it at the newest version of a branch. "
        f"The server loads all of the folder each time. An API key is taken from ${KEY_VARIABLE}.",
        epilog="example: python -m siltstone.integrations.sglang http://localhost:30000 s3://models/policy /models/live",
    )
    parser.add_argument("server", help="http://host:30000")
    parser.add_argument("bucket", help="as for every command of siltstone")
    parser.add_argument("dir", help="the model folder; the server sees it under the same path")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between looks at the branch")
    parser.add_argument("--until", type=int, help="end after the version of this sequence number")
    parser.add_argument("--pause-mode", default="abort", choices=PAUSE_MODES,
                        help="what becomes of requests in flight (default: abort)")
    parser.add_argument("--flush", action=argparse.BooleanOptionalAction, default=None,
                        help="drop cached prefixes of older weights (default: unless in_place)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one request, loading among them")
    given = parser.parse_args(arguments)

    def tell(update):
        print(
            f"{update.version.name}: folder in {update.folder_seconds:.2f} s beside generation, "
            f"then {update.pause_seconds:.2f} s without",
            flush=True,
        )

    with failures_told():
        server = Server(given.server, pause_mode=given.pause_mode, flush=given.flush, timeout=given.timeout,
                        api_key=os.environ.get(KEY_VARIABLE))
        follow(server, given.bucket, given.dir, branch=given.branch, interval=given.interval, until=given.until,
               on_version=tell)


if __name__ == "__main__":
    main()
