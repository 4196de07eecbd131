"""A real vLLM server that keeps weights in other forms than the checkpoint: it reloads them with its own loader."""

import statistics
import time

import pytest
from training import Training
from vllm_server import BACKEND, Vllm
from vllm_test import Clients, cold

from siltstone.integrations.vllm import Refused, Server

UPDATES = 5


def told(server):
    """What the worker has logged of the two ways."""
    return [line for line in server.log.read_text(errors="replace").splitlines() if "reloaded by the engine" in line]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("flags", "ways"),
    [
        pytest.param(("--dtype", "float32"), ("0 tensors", "21 tensors"), id="float32"),
        pytest.param(("--quantization", "fp8_per_channel"), ("3 tensors", "18 tensors"), id="fp8"),
    ],
)
def test_a_server_reloads_what_it_computes(tmp_path, flags, ways):
    run = Training(tmp_path, "llama")
    seconds, names = [], []
    with Vllm(run.model, *BACKEND, *flags) as server:
        driver = Server(server.endpoint)
        with pytest.raises(Refused, match="cannot be written in place.*refused.*reload"):
            driver.attach(str(run.bucket), "main@0")
        before = server.complete([1, 2, 3], 16)["choices"], server.checksums()
        driver.attach(str(run.bucket), "main@0", refused="reload", interval=0.02)
        assert (server.complete([1, 2, 3], 16)["choices"], server.checksums()) == before
        assert f"main@0: {ways[0]}" in told(server)[-1] and ways[1] in told(server)[-1]
        with Clients(server) as clients:
            for _ in range(UPDATES):
                names.append(run.step().version.name)
                time.sleep(0.2)
                seconds.append(driver.update(names[-1]))
        assert not clients.failures and clients.answers
        warm = server.complete([1, 2, 3], 16)["choices"], server.checksums()
        assert warm != before
    with Vllm(cold(run, names[-1]), *BACKEND, *flags) as server:
        fresh = server.complete([1, 2, 3], 16)["choices"], server.checksums()
    assert warm == fresh, "every parameter and every log-probability as of a cold start"
    print(f"\n{' '.join(flags)}: paused for {statistics.median(seconds) * 1e3:.0f} ms (median of {UPDATES})")


@pytest.mark.timeout(600)
def test_experts_that_vllm_would_not_pack_again_are_refused(tmp_path):
    run = Training(tmp_path, "qwen3_moe")
    with Vllm(run.model, *BACKEND, "--dtype", "float32") as server:
        before = server.complete([1, 2, 3])["choices"], server.checksums()
        with pytest.raises(Refused, match="can neither be written in place nor be reloaded.*does not pack experts"):
            Server(server.endpoint).attach(str(run.bucket), "main@0", refused="reload")
        assert (server.complete([1, 2, 3])["choices"], server.checksums()) == before
