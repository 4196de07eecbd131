"""A stand-in for an SGLang server: the routes of its weight updates over a model that transformers loads and runs.

It really loads the folder and generates from it, a token at a time; it is not SGLang. It records every request, and
fails where `faults` says: {route: "refuse" (400), "unsuccessful" (200 with success=false), "die" (no answer), "hang"}.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import torch
from transformers import AutoModelForCausalLM


class StandIn:
    def __init__(self, folder=None, version="default"):
        self.model = None
        self.version = version
        self.requests = []  # (method, path, body) of control routes, in order
        self.served = []  # weight versions of finished generations, in order of their end
        self.faults = {}
        self.paused = False
        self.released = threading.Event()  # lets "hang" end
        self._changed = threading.Condition()
        self._running = 0
        self._aborts = 0
        self._loading = False  # without a pause: new requests are held back, as SGLang does
        if folder is not None:
            self.load(folder)
        standin = self

        class Handler(_Handler):
            server_of = standin

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.released.set()
        self.paused = False
        self._http.shutdown()
        self._http.server_close()

    def load(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    @contextmanager
    def _token(self):
        with self._changed:
            self._changed.wait_for(lambda: not self.paused)
            yield

    def generate(self, prompt, count):
        with self._changed:
            self._changed.wait_for(lambda: not self.paused and not self._loading)
            self._running += 1
            aborts = self._aborts
        tokens, versions, reason = [], [], "length"
        try:
            while len(tokens) < count:
                with self._token():
                    if self._aborts != aborts:
                        reason = "abort"
                        break
                    with torch.inference_mode():
                        ids = torch.tensor([prompt + tokens])
                        tokens.append(int(self.model(ids).logits[0, -1].argmax()))
                    versions.append(self.version)
        finally:
            with self._changed:
                self._running -= 1
                self.served.append(self.version)
                self._changed.notify_all()
        return {"output_ids": tokens, "meta_info": {"finish_reason": {"type": reason}, "weight_version": self.version,
                                                    "versions": versions}}

    def pause(self, mode):
        with self._changed:
            self.paused = True
            if mode == "abort":
                self._aborts += 1
                self.paused = False  # they see it at their next token
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._running == 0)
                self.paused = True

    def resume(self):
        with self._changed:
            self.paused = False
            self._changed.notify_all()

    def update(self, body):
        with self._changed:
            self._loading = True
            try:
                if not self.paused:
                    self._changed.wait_for(lambda: self._running == 0)
                self.load(body["model_path"])
            except Exception as error:
                return 400, {"success": False, "message": f"Failed to update weights: {error}"}
            finally:
                self._loading = False
                self._changed.notify_all()
            self.version = body.get("weight_version") or self.version
            return 200, {"success": True, "message": "done", "num_paused_requests": 0}

    def flush(self):
        idle = self._running == 0
        return (200, "Cache flushed.") if idle else (400, "Flush cache failed: requests are running.")


class _Handler(BaseHTTPRequestHandler):
    server_of = None

    def log_message(self, *_):
        pass

    def _answer(self, status, content):
        text = content if isinstance(content, str) else json.dumps(content)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _fault(self, route):
        fault = self.server_of.faults.get(route)
        if fault == "refuse":
            self._answer(400, {"error": {"message": "refused on purpose"}})
        elif fault == "unsuccessful":
            self._answer(200, {"success": False, "message": "unsuccessful on purpose"})
        elif fault == "die":
            self.close_connection = True
        elif fault == "hang":
            self.server_of.released.wait(30)
            self.close_connection = True
        return fault

    def do_GET(self):
        standin = self.server_of
        if self._fault(self.path):
            return
        if self.path == "/model_info":
            self._answer(200, {"model_path": "tiny", "weight_version": standin.version})
        else:
            self._answer(404, {"detail": "Not Found"})

    def do_POST(self):
        standin = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        route = urlsplit(self.path).path
        if route != "/generate":
            standin.requests.append(("POST", self.path, body))
        if self._fault(route):
            return
        if route == "/generate":
            count = body["sampling_params"]["max_new_tokens"]
            self._answer(200, standin.generate(body["input_ids"], count))
        elif route == "/pause_generation":
            standin.pause(body["mode"])
            self._answer(200, {"message": "Generation paused successfully.", "status": "ok"})
        elif route == "/continue_generation":
            standin.resume()
            self._answer(200, {"message": "Generation continued successfully.", "status": "ok"})
        elif route == "/update_weights_from_disk":
            self._answer(*standin.update(body))
        elif route == "/flush_cache":
            self._answer(*standin.flush())
        else:
            self._answer(404, {"detail": "Not Found"})
