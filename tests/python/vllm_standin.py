"""A stand-in for vLLM's server: the client of its engine, an app of plain ASGI, and what asks the middleware around it."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

from siltstone.integrations.vllm.versions import Versions


class Engine:
    """A client of an engine with one worker, which has staged `staged`. Notes its calls; `failing` has errors."""

    def __init__(self):
        self.vllm_config = SimpleNamespace(weight_transfer_config=SimpleNamespace(backend="siltstone"))
        self.model_config = SimpleNamespace(is_multimodal_model=False)
        self.calls, self.failing, self.told = [], {}, []
        self.version = self.staged = self.error = None
        self.paused = False

    def _called(self, name):
        self.calls.append(name)
        if name in self.failing:
            raise RuntimeError(self.failing[name])

    async def init_weight_transfer_engine(self, request):
        self._called("init_weight_transfer_engine")
        self.told.append(request.init_info)
        self.staged = self.staged or request.init_info["at"]

    async def update_weight_version(self, name):
        self.version = name

    async def collective_rpc(self, method):
        assert method == "siltstone_progress"
        return [{"held": self.version, "staged": self.staged, "staging": True, "error": self.error}]

    async def is_paused(self):
        self._called("is_paused")
        return self.paused

    async def pause_generation(self, *, mode, clear_cache):
        self._called("pause_generation")
        self.told.append((mode, clear_cache))
        self.paused = True

    async def resume_generation(self):
        self._called("resume_generation")
        self.paused = False

    async def reset_prefix_cache(self, reset_running_requests, reset_connector):
        self._called("reset_prefix_cache")
        return reset_running_requests and reset_connector

    async def reset_mm_cache(self):
        self._called("reset_mm_cache")

    async def reset_encoder_cache(self):
        self._called("reset_encoder_cache")

    async def start_weight_update(self):
        self._called("start_weight_update")

    async def update_weights(self, request):
        assert self.paused
        self._called("update_weights")
        self.told.append(request.update_info)

    async def finish_weight_update(self, name):
        self._called("finish_weight_update")
        self.version = name or self.version


class App:
    """Answers any route by what `answers` has for it, a list of body chunks or of futures for them."""

    def __init__(self, engine):
        self.state = SimpleNamespace(engine_client=engine, args=SimpleNamespace(api_server_count=1))
        self.answers, self.status, self.kind = {}, 200, b"application/json"
        self.bodies, self.gone = [], asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        self.bodies.append((await receive())["body"])
        listening = asyncio.ensure_future(self._listen(receive))
        chunks = list(self.answers.get(scope["path"], [b"{}"]))
        for i, chunk in enumerate(chunks):
            data = await chunk if asyncio.isfuture(chunk) else chunk
            if i == 0:
                kind = [(b"content-type", self.kind)]
                await send({"type": "http.response.start", "status": self.status, "headers": kind})
            await send({"type": "http.response.body", "body": data, "more_body": i + 1 < len(chunks)})
        listening.cancel()

    async def _listen(self, receive):
        if (await receive())["type"] == "http.disconnect":
            self.gone.set()


class Answer:
    """What a client has got so far."""

    def __init__(self):
        self.status, self.headers, self.chunks, self.over = None, {}, asyncio.Queue(), False

    async def take(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            assert not self.over
            self.over = not message.get("more_body", False)
            await self.chunks.put(message["body"])

    @property
    def versions(self):
        return tuple(self.headers.get(f"x-siltstone-{name}weight-version") for name in ("first-", ""))


def asked(middleware, path="/v1/completions", body=None, method="POST", **needs):
    """(answer that fills, task of the request); needs: min or exact."""
    answer, sent = Answer(), [{"type": "http.request", "body": json.dumps(body or {}).encode()}]
    headers = [(f"x-siltstone-{name}-version".encode(), value.encode()) for name, value in needs.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}

    async def receive():
        return sent.pop() if sent else await asyncio.Future()

    return answer, asyncio.ensure_future(middleware(scope, receive, answer.take))


async def ask(middleware, *arguments, **named):
    answer, task = asked(middleware, *arguments, **named)
    await asyncio.wait_for(task, 30)
    return answer


async def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(middleware):
    """Around the time between startup and shutdown; gives what the server was told."""
    told, stop = [], asyncio.Event()
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        if len(messages) == 1:
            await stop.wait()
        return messages.pop(0)

    async def send(message):
        told.append(message)

    task = asyncio.ensure_future(middleware({"type": "lifespan", "app": middleware.app}, receive, send))
    await until(lambda: told)
    yield told
    stop.set()
    await asyncio.wait_for(task, 30)


def case(test):
    """A test that is a coroutine, over a middleware that serves."""

    def wrapped():
        async def live():
            engine = Engine()
            middleware = Versions(App(engine))
            async with serving(middleware):
                await test(middleware, engine)

        asyncio.run(live())

    wrapped.__name__ = test.__name__
    return wrapped
