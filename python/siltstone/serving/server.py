"""Server: an Engine's routes over HTTP."""

from __future__ import annotations

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import siltstone
from siltstone._version_needs import FIRST, HELD, RETRY_SECONDS, VersionNeeds, error_answer, status_of
from siltstone.errors import Conflict, InvalidArgument, Unavailable

from . import completions
from .engine import Engine

MOST_BYTES = 16 << 20  # of a request's body


class Server:
    """An Engine behind HTTP, on a thread for each connection. A context manager: leaving it closes the socket.

    engine        serves until `close`, which does not close the engine
    host, port    where to listen; port 0 takes a free one, `url` tells it
    name          of the model, in answers
    tokenizer     of transformers; without one prompts are token ids and answers have no text
    """

    def __init__(self, engine: Engine, *, host: str = "127.0.0.1", port: int = 8000, name: str = "model",
                 tokenizer: Any = None):
        self.engine, self.name, self.tokenizer = engine, name, tokenizer
        self.updating = False  # between /start_weight_update and /finish_weight_update
        server = self

        class Handler(_Handler):
            served = server

        self._http = ThreadingHTTPServer((host, port), Handler)
        self._http.daemon_threads = True
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._http.server_port}"

    def __enter__(self):
        poll = {"poll_interval": 0.02}  # which `shutdown` waits for
        threading.Thread(target=self._http.serve_forever, kwargs=poll, name="siltstone-serving", daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self.close()

    def serve_forever(self) -> None:
        """Serve on this thread, until it is interrupted."""
        self._http.serve_forever()

    def close(self) -> None:
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection. Each route is a method that gives the answer's JSON or raises."""

    served = None
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds, for a client that sends nothing

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._dispatch(GET)

    def do_POST(self):
        self._dispatch(POST)

    def _dispatch(self, routes):
        self.engine = self.served.engine
        headers = {}
        try:
            parts = urlsplit(self.path)
            self.query = parse_qs(parts.query, keep_blank_values=True)
            self.body = self._read()
            route = routes.get(parts.path)
            if route is None:
                raise _Refusal(404, f"there is no {self.command} {parts.path}")
            status, answer = 200, route(self)
        except _Refusal as refusal:
            status, answer = refusal.status, error_answer(refusal.status, refusal)
        except siltstone.Error as error:
            status = status_of(error)
            answer = error_answer(status, error)
            if status == 503:
                headers["Retry-After"] = str(RETRY_SECONDS)
        except Exception as error:
            status, answer = 500, error_answer(500, f"{type(error).__name__}: {error}")
        self._answer(status, answer, headers)

    def _read(self):
        """The body's JSON object; {} if there is no body."""
        text = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not (text.isascii() and text.isdigit()) or int(text) > MOST_BYTES:
            self.close_connection = True
            raise _Refusal(413, f"a body needs a Content-Length of at most {MOST_BYTES} bytes")
        data = self.rfile.read(int(text))
        if not data.strip():
            return {}
        try:
            body = json.loads(data)
        except ValueError as error:
            raise InvalidArgument(f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise InvalidArgument("the body must be a JSON object")
        return body

    def _answer(self, status, answer, headers):
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.engine.version is not None:
            headers[HELD] = answer.get("weight_version") or self.engine.version
            headers[FIRST] = answer.get("first_weight_version") or headers[HELD]
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(data)
        except OSError:  # the client went away
            self.close_connection = True

    def health(self):
        problem = self.engine.problem()
        if problem is not None:
            raise Unavailable(problem)
        return {"status": "ok", "weight_version": self.engine.version}

    def models(self):
        model = {"id": self.served.name, "object": "model", "owned_by": "siltstone", "max_model_len": self.engine.max_length}
        return {"object": "list", "data": [model]}

    def weight_info(self):
        return {"weight_version": self.engine.version}

    def world_size(self):
        return {"world_size": 1}

    def is_paused(self):
        return {"is_paused": self.engine.gate.paused}

    def pause(self):
        unknown = set(self.query) - {"mode"}
        if unknown:
            raise InvalidArgument(f"/pause takes mode alone, found {sorted(unknown)[0]!r}")
        mode = self.query.get("mode", ["abort"])[-1]
        if not self.engine.gate.pause(mode):
            raise Conflict(f"the pause of mode {mode} was ended by another call before it took hold")
        return {"status": "paused", "mode": mode}

    def resume(self):
        self.engine.gate.resume()
        return {"status": "resumed"}

    def init_transfer(self):
        told = _object(self.body, "init_info")
        types = {"bucket": str, "at": str, "branch": str, "interval": (int, float), "threads": int, "memory_bytes": int}
        _known(told, types, ("bucket", "at"))
        self.engine.attach(told.pop("bucket"), told.pop("at"), **told)
        return {"status": "ok", "weight_version": self.engine.version}

    def start_update(self):
        self.served.updating = True
        return {"status": "ok"}

    def update(self):
        told = _object(self.body, "update_info")
        _known(told, {"version": str}, ("version",))
        if not self.served.updating:
            raise Conflict("no update was started: call /start_weight_update first")
        self.engine.update(told["version"])
        return {"status": "ok", "weight_version": self.engine.version}

    def finish_update(self):
        _known(self.body, {"weight_version": str}, ())
        named = self.body.get("weight_version")
        if not self.served.updating:
            raise Conflict("no update was started: call /start_weight_update first")
        self.served.updating = False
        if named not in (None, self.engine.version):
            raise Conflict(f"the weights are {self.engine.version}, not {named}")
        return {"status": "ok", "weight_version": self.engine.version}

    def completions(self):
        needs = VersionNeeds.of(self.headers.get)
        prompt, sampling = completions.read(self.body, self.served.tokenizer)
        done = self.engine.generate(prompt, sampling, needs)
        answer = completions.written(self.body, prompt, done, self.served.tokenizer)
        answer |= {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.served.name}
        return answer


GET = {
    "/health": _Handler.health,
    "/v1/models": _Handler.models,
    "/weight_info": _Handler.weight_info,
    "/get_world_size": _Handler.world_size,
    "/is_paused": _Handler.is_paused,
}
POST = {
    "/v1/completions": _Handler.completions,
    "/pause": _Handler.pause,
    "/resume": _Handler.resume,
    "/init_weight_transfer_engine": _Handler.init_transfer,
    "/start_weight_update": _Handler.start_update,
    "/update_weights": _Handler.update,
    "/finish_weight_update": _Handler.finish_update,
}


class _Refusal(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def _object(body, name):
    _known(body, {name: dict}, (name,))
    return dict(body[name])


def _known(told, types, needed):
    for name in needed:
        if name not in told:
            raise InvalidArgument(f"'{name}' is missing")
    for name, value in told.items():
        if name not in types:
            raise InvalidArgument(f"'{name}' is not known here; there are {', '.join(types)}")
        if not isinstance(value, types[name]) or isinstance(value, bool):
            raise InvalidArgument(f"'{name}' cannot be {value!r:.80}")
