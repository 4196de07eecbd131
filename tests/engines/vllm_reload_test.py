"""A real vLLM server that keeps weights in other forms than the checkpoint: it reloads them with its own loader."""

import statistics
import time

import pytest
import torch
from training import Training
from vllm_server import BACKEND, SETTINGS, VERSION, Vllm
from vllm_test import Clients, cold

import siltstone
from siltstone import engine
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
        pytest.param(
            ("--quantization", "fp8_per_channel", "--tensor-parallel-size", "2"),
            ("3 tensors", "18 tensors"),
            id="fp8, 2 ranks",
        ),
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
        assert f": {ways[0]}" in told(server)[-1] and ways[1] in told(server)[-1]
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


def parameters(model):
    return {
        name: (p.data_ptr(), p.data.contiguous().view(-1).view(torch.uint8).tolist())
        for name, p in model.named_parameters()
    }


@pytest.mark.timeout(600)
def test_a_reload_that_fails_goes_back(tmp_path, monkeypatch):
    """In one process, where a loader can be made to fail."""
    for name, value in {**SETTINGS, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}.items():
        monkeypatch.setenv(name, value)
    import vllm
    from vllm.config import WeightTransferConfig

    run = Training(tmp_path, "llama")
    versions = ["main@0", *(run.step().version.name for _ in range(2))]
    llm = vllm.LLM(
        str(run.model), dtype="bfloat16", quantization="fp8_per_channel", enforce_eager=True, max_model_len=128,
        kv_cache_memory_bytes=16 << 20, weight_transfer_config=WeightTransferConfig(backend="siltstone"),
    )  # fmt: skip
    worker = llm.llm_engine.model_executor.driver_worker.worker
    model = worker.model_runner.get_model()
    before = parameters(model)
    worker.init_weight_transfer_engine({"bucket": str(run.bucket), "at": "main@0", "branch": "", "refused": "reload"})
    assert parameters(model) == before, "the same words at the same addresses"

    def update(version, fails=(), **options):
        """`fails` has for each load after how many tensors it fails."""
        fails, load = list(fails), type(model).load_weights

        def failing(weights):
            def given():
                after = fails.pop(0) if fails else -1
                for i, pair in enumerate(weights):
                    if i == after:
                        raise RuntimeError("the loader has a bad day")
                    yield pair

            return load(model, given())

        monkeypatch.setattr(model, "load_weights", failing, raising=False)
        worker.start_weight_update()
        worker.update_weights({"version": version, **options})
        worker.finish_weight_update()

    for after in (0, 4, 17):
        with pytest.raises(engine.ReloadFailed, match="bad day; the engine holds main@0 again"):
            update(versions[1], [after])
        assert parameters(model) == before
    update(versions[1])
    held = parameters(model)
    assert held != before
    with pytest.raises(engine.ReloadFailed, match="hold no version"):
        update(versions[2], [4, 9])
    with pytest.raises(siltstone.Mismatch, match="hold no version"):
        update(versions[2])
    update(versions[1], repair=True)
    assert parameters(model) == held
    update(versions[0])
    assert parameters(model) == before


@pytest.mark.skipif(VERSION < (0, 28), reason="packs them again")
@pytest.mark.timeout(600)
def test_experts_that_vllm_would_not_pack_again_are_refused(tmp_path):
    run = Training(tmp_path, "qwen3_moe")
    with Vllm(run.model, *BACKEND, "--dtype", "float32") as server:
        before = server.complete([1, 2, 3])["choices"], server.checksums()
        with pytest.raises(Refused, match="can neither be written in place nor be reloaded.*does not pack experts"):
            Server(server.endpoint).attach(str(run.bucket), "main@0", refused="reload")
        assert (server.complete([1, 2, 3])["choices"], server.checksums()) == before
