"""The middleware for vLLM's server, over a stand-in for the engine's client and an app of plain ASGI."""

import asyncio
import dataclasses
import json
import sys
from types import ModuleType

import pytest
from vllm_standin import App, Engine, ask, asked, case, serving, until

from siltstone.errors import InvalidArgument
from siltstone.integrations.vllm import follow
from siltstone.integrations.vllm.update import Stuck, attach_steps, run, steps
from siltstone.integrations.vllm.versions import Versions

PARTIAL = "Worker failed with error 'its weights hold no version: 3 tensors are neither main@0 nor main@1'"
UPDATE = ["is_paused", "pause_generation", "reset_prefix_cache", "start_weight_update", "update_weights",
          "finish_weight_update", "resume_generation"]  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a following server is started with; vLLM's two requests, without vLLM."""
    base = ModuleType("vllm.distributed.weight_transfer.base")
    for name, field in (("WeightTransferInitRequest", "init_info"), ("WeightTransferUpdateRequest", "update_info")):
        setattr(base, name, dataclasses.make_dataclass(name, [field]))
    for name in ("vllm", "vllm.distributed", "vllm.distributed.weight_transfer"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    for name, value in (("BUCKET", "/bucket"), ("AT", "main@0"), ("INTERVAL", "0.004"), ("VERSION_WAIT", "0.2")):
        monkeypatch.setenv(f"SILTSTONE_{name}", value)
    return monkeypatch


@pytest.fixture
def alone(environment):
    """A server that a driver moves."""
    environment.delenv("SILTSTONE_BUCKET")
    environment.delenv("SILTSTONE_AT")


async def attached(middleware):
    await until(lambda: middleware.held.name == "main@0")


def following(middleware):
    return middleware.status()["following"]


@case
async def test_it_attaches_and_takes_every_version(middleware, engine):
    await attached(middleware)
    assert engine.told == [{"bucket": "/bucket", "at": "main@0", "branch": "main", "interval": 0.004}]
    assert engine.version == "main@0"
    for number in (1, 2, 5):
        engine.calls.clear()
        engine.staged = f"main@{number}"
        await until(lambda: engine.version == engine.staged and not engine.paused)
        assert engine.calls == UPDATE and engine.told[-2:] == [("keep", True), {"version": engine.staged}]
    await until(lambda: following(middleware)["updates"] == 3)
    told = following(middleware)
    assert [pause["version"] for pause in told["pauses"]] == ["main@1", "main@2", "main@5"]
    assert all(pause["seconds"] > 0 for pause in told["pauses"]) and told["failure"] is told["stuck"] is None
    answer = await ask(middleware, "/siltstone/status", method="GET")
    assert json.loads(await answer.chunks.get()) == middleware.status()


@case
async def test_encoders_of_a_multimodal_model_are_reset(middleware, engine):
    await attached(middleware)
    middleware.follower._engine.multimodal = True
    engine.calls.clear()
    engine.staged = "main@1"
    await until(lambda: "resume_generation" in engine.calls)
    assert engine.calls[2:5] == ["reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache"]


def test_caches_of_older_weights_stay_if_that_was_chosen(environment):
    environment.setenv("SILTSTONE_KEEP_CACHES", "1")

    @case
    async def test(middleware, engine):
        await attached(middleware)
        engine.staged = "main@1"
        await until(lambda: "resume_generation" in engine.calls)
        assert "reset_prefix_cache" not in engine.calls and ("keep", False) in engine.told

    test()


@pytest.mark.parametrize("call", ["pause_generation", "reset_prefix_cache", "start_weight_update", "update_weights"])
def test_a_version_that_fails_is_told_and_tried_again(call):
    @case
    async def test(middleware, engine):
        await attached(middleware)
        engine.failing[call] = "no such luck"
        engine.staged = "main@1"
        await until(lambda: (following(middleware)["failure"] or {}).get("attempts", 0) >= 2)
        assert following(middleware)["failure"]["doing"] == "main@1"
        assert "no such luck" in following(middleware)["failure"]["error"]
        assert not engine.paused and middleware.held.name == engine.version == "main@0"
        assert (await ask(middleware, "/health", method="GET")).status == 200
        engine.failing.clear()
        await until(lambda: middleware.held.name == "main@1" and not engine.paused)
        await until(lambda: following(middleware)["failure"] is None)

    test()


def test_an_attach_that_fails_is_tried_again():
    engine = Engine()
    engine.failing["init_weight_transfer_engine"] = "the bucket is away"

    async def test():
        middleware = Versions(App(engine))
        async with serving(middleware):
            await until(lambda: following(middleware)["failure"])
            assert following(middleware)["failure"]["doing"] == "attach" and not following(middleware)["attached"]
            engine.failing.clear()
            await attached(middleware)

    asyncio.run(test())


@case
async def test_what_workers_cannot_stage_is_told_without_a_pause(middleware, engine):
    await attached(middleware)
    engine.error = "SHA-256 of a pack"
    await until(lambda: following(middleware)["failure"])
    assert following(middleware)["failure"]["doing"] == "stage" and "pause_generation" not in engine.calls
    engine.error, engine.staged = None, "main@1"
    await until(lambda: middleware.held.name == "main@1")


@case
async def test_partial_weights_are_not_served(middleware, engine):
    await attached(middleware)
    engine.failing["update_weights"] = PARTIAL
    engine.staged = "main@1"
    await until(lambda: following(middleware)["stuck"])
    assert engine.paused and "resume_generation" not in engine.calls and middleware.held.name is None
    health = await ask(middleware, "/health", method="GET")
    assert health.status == 503 and b"hold no version" in await health.chunks.get()
    assert (await ask(middleware, min="main@0")).status == 503
    repaired = await ask(middleware, "/update_weights", {"update_info": {"version": "main@1"}})
    assert repaired.status == 200 and middleware.held.name == "main@1"
    assert (await ask(middleware, "/health", method="GET")).status == 503  # it is paused still
    engine.failing.clear()
    engine.paused = False
    await ask(middleware, "/resume")
    assert (await ask(middleware, "/health", method="GET")).status == 200
    engine.staged = "main@2"
    await until(lambda: middleware.held.name == "main@2")


@case
async def test_a_request_waits_for_the_version_that_it_needs(middleware, engine):
    await attached(middleware)
    late = await ask(middleware, min="main@1")
    assert late.status == 503 and late.headers["retry-after"] == "1" and late.versions == ("main@0", "main@0")
    assert (await ask(middleware, min="main@0")).status == 200
    assert (await ask(middleware, min="other@0")).status == 503
    assert (await ask(middleware, min="main")).status == 400
    answer, task = asked(middleware, min="main@2")
    engine.staged = "main@2"
    await task
    assert answer.status == 200 and answer.versions == ("main@2", "main@2")


@case
async def test_a_request_for_one_version_gets_no_other(middleware, engine):
    await attached(middleware)
    assert (await ask(middleware, exact="main@0")).status == 200
    assert (await ask(middleware, exact="main@1")).status == 412
    body = asyncio.Future()
    middleware.app.answers["/v1/completions"] = [body]
    exact, exactly = asked(middleware, exact="main@0")
    other, otherwise = asked(middleware)
    await until(lambda: len(middleware.app.bodies) == 3)
    engine.staged = "main@1"
    await asyncio.wait_for(middleware.app.gone.wait(), 30)  # so that vLLM generates no more for it
    await until(lambda: engine.version == "main@1" and not engine.paused)
    body.set_result(b"{}")
    await asyncio.gather(exactly, otherwise)
    assert exact.status == 412 and b"moved to main@1" in await exact.chunks.get() and exact.over
    assert other.status == 200 and other.versions == ("main@0", "main@1")


@pytest.mark.parametrize("raises", [False, True])
def test_an_app_that_gives_a_request_up_leaves_the_answer_to_us(raises):
    @case
    async def test(middleware, engine):
        await attached(middleware)

        async def app(scope, receive, send):
            await receive()
            engine.staged = "main@1"
            assert (await receive())["type"] == "http.disconnect"
            if raises:
                raise ConnectionError("the client went away")

        middleware.app = app
        answer = await ask(middleware, exact="main@0")
        assert answer.status == 412 and answer.over

    test()


@case
async def test_streams_pass_as_they_come_and_end_when_they_must(middleware, engine):
    await attached(middleware)
    middleware.app.kind = b"text/event-stream; charset=utf-8"
    middleware.app.answers["/v1/completions"] = chunks = [asyncio.Future() for _ in range(3)]
    exact, exactly = asked(middleware, exact="main@0")
    other, otherwise = asked(middleware)
    chunks[0].set_result(b"data: one\n\n")
    for answer in (exact, other):
        assert await answer.chunks.get() == b"data: one\n\n" and not answer.over
        assert answer.status == 200 and answer.versions == ("main@0", "main@0")
    engine.staged = "main@1"
    await until(lambda: engine.version == "main@1" and not engine.paused)
    chunks[1].set_result(b"data: two\n\n")
    assert await other.chunks.get() == b"data: two\n\n"
    error = json.loads((await exact.chunks.get()).removeprefix(b"data: "))["error"]
    assert exact.over and error["code"] == 412 and "main@1" in error["message"]
    await asyncio.wait_for(middleware.app.gone.wait(), 30)  # so that vLLM generates no more for it
    chunks[2].set_result(b"data: [DONE]\n\n")
    await asyncio.gather(exactly, otherwise)
    assert await other.chunks.get() == b"data: [DONE]\n\n" and other.over and exact.chunks.empty()


@case
async def test_nobody_else_moves_a_server_that_follows(middleware, engine):
    await attached(middleware)
    for path in ("/start_weight_update", "/update_weights", "/finish_weight_update", "/init_weight_transfer_engine"):
        assert (await ask(middleware, path)).status == 409
    assert not middleware.app.bodies
    engine.paused = True  # by somebody, who does not want it to be resumed
    engine.calls.clear()
    engine.staged = "main@1"
    await until(lambda: engine.calls.count("is_paused") > 3)
    assert set(engine.calls) == {"is_paused"} and middleware.held.name == "main@0"
    async with middleware.follower.lock:
        answer, task = asked(middleware, "/resume")
        await asyncio.sleep(0.02)
        assert answer.status is None
    await task
    engine.paused = False
    await until(lambda: middleware.held.name == "main@1")


def test_a_drivers_traffic_tells_the_version(alone):
    @case
    async def test(middleware, engine):
        assert (await ask(middleware)).versions == (None, None)
        assert (await ask(middleware, exact="main@0")).status == 412

        async def held_after(path, body):
            await ask(middleware, path, body)
            return middleware.held.name

        assert await held_after("/init_weight_transfer_engine", {"init_info": {"at": "main@0"}}) == "main@0"
        assert await held_after("/start_weight_update", {"is_checkpoint_format": False}) == "main@0"
        middleware.app.status = 500
        assert await held_after("/update_weights", {"update_info": {"version": "main@1"}}) == "main@0"
        middleware.app.status = 200
        assert await held_after("/update_weights", {"update_info": {"version": "main@1"}}) == "main@1"
        assert await held_after("/finish_weight_update", {}) == "main@1"
        assert await held_after("/update_weights", {"update_info": {"names": ["a"], "shapes": []}}) is None
        assert await held_after("/finish_weight_update", {"weight_version": "main@2"}) == "main@2"
        assert await held_after("/update_weights", [1]) is None
        assert await held_after("/update_weight_version", {"new_version": "main@3"}) == "main@3"
        assert (await ask(middleware, exact="main@3")).versions == ("main@3", "main@3")
        assert following(middleware) is None

    test()


@pytest.mark.parametrize(
    "variable, value, told",
    [("INTERVAL", "soon", "SILTSTONE_INTERVAL"), ("PAUSE_MODE", "stop", "'stop'"), ("KEEP_CACHES", "yes", "0 or 1"),
     ("AT", "", "SILTSTONE_AT come together")],
)  # fmt: skip
def test_a_server_that_cannot_do_what_it_is_told_does_not_start(environment, variable, value, told):
    environment.setenv(f"SILTSTONE_{variable}", value)

    async def test():
        middleware = Versions(App(Engine()))
        async with serving(middleware) as answers:
            assert answers[0]["type"] == "lifespan.startup.failed" and told in answers[0]["message"]

    asyncio.run(test())


@pytest.mark.parametrize(
    "wrong, told", [("backend", "--weight-transfer-config"), ("processes", "--api-server-count 1")]
)
def test_a_server_that_was_started_otherwise_does_not_start(wrong, told):
    async def test():
        app = App(Engine())
        if wrong == "backend":
            app.state.engine_client.vllm_config.weight_transfer_config = None
        else:
            app.state.args.api_server_count = 2
        async with serving(Versions(app)) as answers:
            assert answers[0]["type"] == "lifespan.startup.failed" and told in answers[0]["message"]

    asyncio.run(test())


def test_settings_have_defaults():
    assert follow.Settings.of({}) == follow.Settings()
    told = {"BUCKET": "s3://b", "AT": "x@3", "BRANCH": "x", "PAUSE_MODE": "wait"}
    told = {f"SILTSTONE_{name}": value for name, value in told.items()}
    assert follow.Settings.of(told) == follow.Settings("s3://b", "x@3", "x", pause_mode="wait")


class Routes:
    """Calls of an update that are noted; `failing` names one's error."""

    def __init__(self, **failing):
        self.calls, self.failing = [], failing

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            if name in self.failing:
                raise self.failing[name]

        return call


def test_a_drivers_update_resumes_whatever_fails_unless_weights_are_partial():
    begun = [("pause", "wait", False), ("reset_caches",), ("start",), ("update", "main@1")]
    routes = Routes()
    assert run(steps("main@1", "wait", False), routes) >= 0
    assert routes.calls == [*begun, ("finish", "main@1"), ("resume",)]
    routes = Routes(update=RuntimeError("no"), finish=RuntimeError("none is open"))
    with pytest.raises(RuntimeError, match="^no$"):
        run(steps("main@1", "wait", False), routes)
    assert routes.calls == [*begun, ("finish", None), ("resume",)]
    routes = Routes(update=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(steps("main@1", "wait", False), routes)
    assert routes.calls == [*begun, ("resume",)]
    routes = Routes(update=RuntimeError(PARTIAL))
    with pytest.raises(Stuck, match="hold no version.*the server stays paused"):
        run(steps("main@1", "wait", False), routes)
    assert routes.calls == [*begun, ("finish", None)]
    routes = Routes(update=RuntimeError("no"), resume=RuntimeError("gone"))
    with pytest.raises(Exception, match="no; generation may still be paused: gone"):
        run(steps("main@1", "keep", True), routes)
    assert ("reset_caches",) not in routes.calls


def test_attaching_pauses_a_server_only_if_its_weights_are_partial():
    told = {"bucket": "b", "at": "main@0"}
    for failing, calls in ((None, []), ("no", []), (PARTIAL, [("pause", "abort", True)])):
        routes = Routes(**({} if failing is None else {"attach": RuntimeError(failing)}))
        if failing is None:
            run(attach_steps(told), routes)
        else:
            with pytest.raises(Stuck if calls else RuntimeError, match=failing):
                run(attach_steps(told), routes)
        assert routes.calls == [("attach", told), *calls]


def test_more_is_told_when_attaching():
    assert follow.Settings.of({"SILTSTONE_ATTACH": '{"refused": "reload"}'}).attach == {"refused": "reload"}
    for text in ("{", "[1]", "reload"):
        with pytest.raises(InvalidArgument, match="SILTSTONE_ATTACH must be a JSON object"):
            follow.Settings.of({"SILTSTONE_ATTACH": text})
