"""The engine of vLLM's plug-in in stand-ins for the interfaces of 0.23 and of 0.25, and what older ones are told."""

import logging
import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import ModuleType, SimpleNamespace

import engine_test
import pytest
import torch
from engine_test import checkpoint, cold, equal
from engine_weights import step
from vllm_generations import LAYERWISE, PARALLEL, Base23, Base25, Factory, Info, UpdateInfo23, Worker23, Worker25

import siltstone
from siltstone import slots
from siltstone.integrations import vllm as plugin
from siltstone.integrations.vllm import cpu, follow, interface

GENERATIONS = ["0.23", "0.25"]
METHOD = "vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method"


@pytest.fixture
def stand_in(monkeypatch):
    """A function that puts modules there which have some things in them."""
    monkeypatch.delitem(sys.modules, "siltstone.integrations.vllm.engine", raising=False)

    def put(name, **things):
        parts = name.split(".")
        for i in range(1, len(parts)):
            parent = ".".join(parts[:i])
            if not isinstance(getattr(sys.modules.get(parent), "stands_in", None), bool):
                put(parent)
        module = ModuleType(name)
        module.stands_in, module.__path__ = True, []
        vars(module).update(things)
        monkeypatch.setitem(sys.modules, name, module)
        if len(parts) > 1:
            setattr(sys.modules[name.rpartition(".")[0]], parts[-1], module)
        return module

    put("vllm", __version__="0.0")
    yield put
    sys.modules.pop("siltstone.integrations.vllm.engine", None)


@pytest.fixture
def vllm(stand_in):
    """A function that puts a vLLM of a generation there; it gives what makes a worker for a model."""

    def put(generation):
        old = generation == "0.23"
        factory = Factory()
        worker = type("Worker", (Worker23 if old else Worker25,), {})  # its own, as the engine may change it
        stand_in("vllm.distributed.weight_transfer", WeightTransferEngineFactory=factory)
        stand_in(
            "vllm.distributed.weight_transfer.base",
            WeightTransferEngine=Base23 if old else Base25,
            WeightTransferInitInfo=Info,
            WeightTransferUpdateInfo=UpdateInfo23 if old else Info,
        )
        stand_in("vllm.v1.worker.gpu_worker", Worker=worker)
        stand_in("vllm.v1.worker.worker_base", WorkerBase=type("WorkerBase", (), {}))
        stand_in("vllm.model_executor.layers.utils")
        stand_in(METHOD, UnquantizedFusedMoEMethod=SimpleNamespace)
        plugin.register()
        plugin.register()  # vLLM may call it again
        LAYERWISE.clear()
        return lambda model: worker(factory, model)

    return put


@pytest.fixture
def run(tmp_path):
    repository = siltstone.open(tmp_path / "bucket", create=True)
    weights = [checkpoint(1)]
    repository.publish(weights[0])
    for seed in (2, 3):
        weights.append(step(weights[-1], seed))
        repository.publish(weights[-1])
    return SimpleNamespace(bucket=str(tmp_path / "bucket"), weights=weights)


def told(run, **others):
    return {"bucket": run.bucket, "at": "main@0", "branch": "", "skipped": engine_test.SKIPPED} | others


@contextmanager
def session(worker, **arguments):
    worker.start_weight_update(**arguments)
    yield
    worker.finish_weight_update()


@pytest.mark.parametrize("branch", ["", "main"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_worker_is_attached_and_moved(vllm, run, generation, branch):
    model = cold(run.weights[0])
    worker = vllm(generation)(model)
    worker.init_weight_transfer_engine(told(run, branch=branch, interval=0.01))
    places = [p.data_ptr() for p in model.parameters()]
    for number in (1, 2):
        with session(worker):
            worker.update_weights({"version": f"main@{number}"})
        assert equal(model.bits(), cold(run.weights[number]).bits())
    assert [p.data_ptr() for p in model.parameters()] == places
    worker.weight_transfer_engine.shutdown()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_is_refused_leaves_the_weights(vllm, run, generation):
    model = cold(run.weights[0])
    before = model.bits()
    worker = vllm(generation)(model)
    worker.start_weight_update()
    with pytest.raises(siltstone.Mismatch, match="init_weight_transfer_engine first"):
        worker.update_weights({"version": "main@1"})
    with pytest.raises(siltstone.Unsupported, match="cannot be written in place"):
        worker.init_weight_transfer_engine(told(run, at="main@1"))
    worker.init_weight_transfer_engine(told(run))
    with pytest.raises(siltstone.NotFound, match="main@9"):
        worker.update_weights({"version": "main@9"})
    assert equal(model.bits(), before)
    with pytest.raises(siltstone.InvalidArgument, match="refused must be"):
        worker.init_weight_transfer_engine(told(run, refused="whatever"))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_last_rank_tells_what_all_could_not_parse(vllm, run, generation):
    worker = vllm(generation)(cold(run.weights[0]))
    for rank, raises in ((0, False), (1, True)):
        worker.weight_transfer_engine._ranks = SimpleNamespace(rank=rank, size=2)
        worker.start_weight_update()
        with pytest.raises(TypeError, match="colour") if raises else nullcontext():
            worker.update_weights({"version": "main@1", "colour": "red"})


@pytest.mark.parametrize("arguments", [{}, {"is_checkpoint_format": True}, {"is_checkpoint_format": False}])
def test_no_layerwise_reload_begins_for_this_engine(vllm, run, arguments):
    """Whatever the driver of a vLLM 0.23 says; other engines begin as they did."""
    make = vllm("0.23")
    model = cold(run.weights[0])
    first, second = make(model), make(model)  # the second finds the worker's class as the first has left it
    for worker in (first, second):
        with session(worker, **arguments):
            pass
    assert not LAYERWISE
    first.weight_transfer_engine = SimpleNamespace()
    with session(first, **arguments):
        pass
    assert bool(LAYERWISE) == arguments.get("is_checkpoint_format", True)


def test_a_reload_needs_the_configuration(vllm, run):
    worker = vllm("0.23")(cold(run.weights[0]))
    with pytest.raises(siltstone.Unsupported, match="since 0.25|no layerwise reload"):
        worker.init_weight_transfer_engine(told(run, refused="reload"))


def test_a_vllm_before_0_23_says_so(stand_in, caplog):
    """0.22 looks for the engine when it has loaded its model."""
    factory = Factory()
    stand_in("vllm", __version__="0.22.1")
    stand_in("vllm.distributed.weight_transfer", WeightTransferEngineFactory=factory)
    stand_in("vllm.distributed.weight_transfer.base", WeightTransferEngine=Base23, WeightTransferUpdateInfo=Info)
    with caplog.at_level(logging.WARNING):
        plugin.register()
        plugin.register()
    assert "vLLM 0.23 and later; this is 0.22.1" in caplog.text
    with pytest.raises(siltstone.Unsupported, match="vLLM 0.23 and later; this is 0.22.1"):
        factory.create_engine("siltstone", None, PARALLEL, torch.nn.Linear(2, 2))


def test_a_vllm_without_weight_transfer_goes_on(stand_in, caplog):
    """It is somebody else's vLLM, beside which siltstone happens to be installed."""
    stand_in("vllm", __version__="0.11.0")
    with caplog.at_level(logging.WARNING):
        plugin.register()
    assert "this is 0.11.0" in caplog.text and not interface.served()


class Experts(torch.nn.Module):
    """Two experts of 16 rows, which kernels want column by column, sixteen rows at a time."""

    def __init__(self, kernels, how):
        super().__init__()
        for name, shape in (("w13_weight", (2, 32, 8)), ("w2_weight", (2, 16, 16))):
            weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16), requires_grad=False)
            self.register_parameter(name, weight)
            if how is since_28:
                weight.weight_loader = self.weight_loader
        self.quant_method = SimpleNamespace(**how(kernels))

    def weight_loader(self, weight, loaded, expert, row):
        weight.data[expert, row : row + 16].copy_(loaded)

    def pack(self):
        for weight in (self.w13_weight, self.w2_weight):
            weight.data.copy_(pack(weight.data, "vec"))


def pack(weight, kernels):
    assert kernels in cpu.PACKED
    experts, rows, columns = weight.shape
    return weight.view(experts, rows // 16, 16, columns).transpose(2, 3).contiguous().view(experts, rows, columns)


class Mixture(torch.nn.Module):
    def __init__(self, kernels, how):
        super().__init__()
        self.experts = Experts(kernels, how)

    def load_weights(self, weights):
        for name, tensor in weights:
            part, expert = name.split(".")
            row = {"gate": 0, "up": 16, "down": 0}[part]
            to = self.experts.w2_weight if part == "down" else self.experts.w13_weight
            to.weight_loader(to, tensor, int(expert), row)

    def bits(self):
        return {name: p.data.view(torch.int16).clone() for name, p in self.named_parameters()}


class Unquantized:
    """What experts are computed with since 0.28."""

    _use_zentorch = False

    def __init__(self, isa):
        self.isa = isa


class SGLFusedMOE:
    """Until 0.27, with VLLM_CPU_SGL_KERNEL: a packing of another kind."""


def until_27(kernels):
    return {"moe_kernel": None, "cpu_fused_moe": SGLFusedMOE() if kernels is None else SimpleNamespace(isa=kernels)}


def since_28(kernels):
    return {"moe_kernel": SimpleNamespace(fused_experts=Unquantized(kernels))}


def mixture(seed):
    draw = torch.Generator().manual_seed(seed)
    shapes = {"gate": (16, 8), "up": (16, 8), "down": (16, 16)}
    return {
        f"{part}.{expert}": torch.randn(shape, generator=draw).to(torch.bfloat16)
        for part, shape in shapes.items()
        for expert in (0, 1)
    }


@pytest.fixture
def experts(stand_in, vllm, tmp_path):
    """A function that attaches a model of experts; it gives its worker and the model, and what a cold start holds."""
    repository = siltstone.open(tmp_path / "bucket", create=True)
    versions = [mixture(1), mixture(2)]
    for weights in versions:
        repository.publish(weights)

    def cold_start(weights, kernels, how, packed=True):
        model = Mixture(kernels, how)
        cpu.load(model, weights.items())
        if packed:
            model.experts.pack()
        return model

    def attach(generation, kernels, how, packed=True):
        make = vllm(generation)
        stand_in("vllm._custom_ops", cpu_prepack_moe_weight=pack)
        if how is since_28:
            stand_in("vllm.model_executor.layers.fused_moe.experts.cpu_moe", CPUUnquantizedExperts=Unquantized)
        model = cold_start(versions[0], kernels, how, packed)
        worker = make(model)
        worker.init_weight_transfer_engine({"bucket": str(tmp_path / "bucket"), "at": "main@0", "branch": ""})
        return worker, model, cold_start(versions[1], kernels, how, packed)

    return attach


@pytest.mark.parametrize(("generation", "how"), [("0.23", until_27), ("0.25", until_27), ("0.25", since_28)])
def test_packed_experts_are_followed_through_the_packing(experts, generation, how):
    worker, model, fresh = experts(generation, "vec", how)
    with session(worker):
        worker.update_weights({"version": "main@1"})
    assert equal(model.bits(), fresh.bits())
    assert all(hasattr(weight, "weight_loader") == (how is since_28) for weight in model.parameters())


@pytest.mark.parametrize("kernels", [None, "none"])
def test_experts_that_are_packed_in_another_way_are_refused(experts, kernels):
    """Also those whose words happen to lie where the loader put them."""
    with pytest.raises(siltstone.Unsupported, match="packs the weights of experts for (SGLFusedMOE|none) kernels"):
        experts("0.23", kernels, until_27, packed=False)


def test_a_reload_of_experts_is_right_until_0_27(stand_in):
    method = type("Method", (SimpleNamespace,), {})
    stand_in(METHOD, UnquantizedFusedMoEMethod=method)
    for how, refused in ((until_27, 0), (since_28, 6)):
        model = Mixture("vec", how)
        model.experts.quant_method = method(**how("vec"))
        catalogue = {name: ("BF16", tuple(tensor.shape)) for name, tensor in mixture(1).items()}
        recorded = slots.record(model, catalogue, partial(cpu.load, model))
        assert len(recorded.slots) >= 6 and len(cpu.unloadable(recorded, model)) == refused


def test_a_server_before_0_27_does_not_follow_by_itself():
    config = SimpleNamespace(weight_transfer_config=SimpleNamespace(backend="siltstone"))
    old = SimpleNamespace(vllm_config=config)
    assert "since 0.27" in follow.cannot_follow(old)
    assert follow.cannot_follow(SimpleNamespace(update_weight_version=None, **vars(old))) is None


class Routes(BaseHTTPRequestHandler):
    """A server before 0.27, which tells no version of its weights. Notes what it is asked."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer({"/update_weight_version": 404}.get(self.path, 200))

    def do_GET(self):
        self._answer(404)

    def _answer(self, status):
        self.server.asked.append(self.path.partition("?")[0].strip("/"))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_the_driver_does_without_the_routes_of_0_27():
    with ThreadingHTTPServer(("127.0.0.1", 0), Routes) as http:
        http.asked = []
        Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server = plugin.Server(f"http://127.0.0.1:{http.server_port}")
        server.attach("/bucket", "main@0")
        server.update("main@1")
        with pytest.raises(siltstone.Unsupported, match="DEV_MODE=1, if it is vLLM 0.27 or later"):
            server.version()
        http.shutdown()
    assert http.asked == [
        "init_weight_transfer_engine", "update_weight_version", "pause", "reset_prefix_cache", "start_weight_update",
        "update_weights", "finish_weight_update", "resume", "weight_info",
    ]  # fmt: skip


def test_linear_layers_keep_their_weights_and_others_do_not(stand_in, vllm):
    packed = []
    vllm("0.25")
    utils = stand_in(
        "vllm.model_executor.layers.utils", dispatch_cpu_unquantized_gemm=lambda layer, remove: packed.append(layer)
    )
    configured = SimpleNamespace(weight_transfer_config=SimpleNamespace(backend="siltstone"))
    stand_in("vllm.config", get_current_vllm_config=lambda: configured)
    plugin.register()
    linear, convolution = torch.nn.Linear(3, 2), torch.nn.Conv1d(2, 2, 3)
    for layer in (linear, convolution):
        utils.dispatch_cpu_unquantized_gemm(layer, True)
    assert packed == [convolution] and linear.cpu_linear is torch.nn.functional.linear
    configured.weight_transfer_config = None
    other = torch.nn.Linear(3, 2)
    for layer in (other, linear):  # the second is reloaded
        utils.dispatch_cpu_unquantized_gemm(layer, True)
    assert packed == [convolution, other]
