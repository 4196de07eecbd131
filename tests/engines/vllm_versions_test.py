"""A real vLLM server that follows its bucket by itself, requests that name versions, and what is cached across them."""

import itertools
import json
import threading
import time
import urllib.error
import urllib.request

import pytest
import torch
from training import Training
from vllm_server import BACKEND, MIDDLEWARE, Vllm
from vllm_test import Clients, cold

from siltstone.integrations.vllm import Server

UPDATES = 20
LENGTH = 2048
# Blocks as small as the CPU's attention takes, so that a prompt fills some; room for answers that take seconds.
SIZES = ("--max-model-len", str(LENGTH), "--block-size", "32")
PREFIX = [(7 * i) % 250 for i in range(100)]


@pytest.fixture(autouse=True)
def one_thread():
    """Beside a server that keeps the processors busy, threads that wait for each other take seconds for a step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def followed(run, **environment):
    told = {"BUCKET": str(run.bucket), "AT": "main@0", "INTERVAL": "0.05"} | environment
    return Vllm(run.model, *BACKEND, *MIDDLEWARE, *SIZES, **{f"SILTSTONE_{name}": text for name, text in told.items()})


def ask(server, body=None, stream=False, **needs):
    """(status, (first, last version) of the headers, text); needs: min or exact."""
    asked = {"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    data = json.dumps(asked | {"stream": stream} | (body or {})).encode()
    headers = {f"X-Siltstone-{name}-Version": text for name, text in needs.items()}
    headers["Content-Type"] = "application/json"
    request = urllib.request.Request(server.endpoint + "/v1/completions", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, answer, text = error.code, error, error.read().decode()
    return status, tuple(answer.headers[f"X-Siltstone-{name}Weight-Version"] for name in ("First-", "")), text


def number(name):
    return int(name.removeprefix("main@"))


def metric(server, name):
    """The sum of a counter of vLLM's."""
    with urllib.request.urlopen(server.endpoint + "/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Asking(Clients):
    """Clients whose every other request is for exactly the version that the last answer named."""

    def _ask(self, client):
        version = "main@0"
        for count in itertools.count():
            if self._stop.is_set():
                return
            exact = {"exact": version} if count % 2 else {}
            status, versions, text = ask(self._server, {"prompt": [client, 2, 3]}, **exact)
            (self.answers if status in (200, 412) else self.failures).append((status, versions, exact, text))
            version = versions[-1]


def in_thread(call, *arguments, **named):
    """A function that waits for what the call gives."""
    result = []
    thread = threading.Thread(target=lambda: result.append(call(*arguments, **named)))
    thread.start()

    def wait():
        thread.join()
        return result[0]

    wait.over = lambda: not thread.is_alive()
    return wait


def running_request(server, *asked):
    """As `in_thread`, of a completion that has begun and is seen before it ends: a short one may need several tries."""
    end = time.monotonic() + 300
    while True:
        running = in_thread(server.complete, *asked)
        while not running.over():
            if metric(server, "vllm:num_requests_running") == 1:
                return running
        assert time.monotonic() < end, "no request was ever seen running"


@pytest.mark.timeout(1200)
def test_a_server_follows_by_itself_and_requests_name_versions(tmp_path):
    run = Training(tmp_path, "llama", max_position_embeddings=LENGTH)
    with followed(run) as server:
        until(lambda: server.get("/siltstone/status")["following"]["attached"])
        assert ask(server, exact="main@0")[:2] == (200, ("main@0", "main@0"))
        with Asking(server) as clients:
            for _ in range(UPDATES):
                name = run.step().version.name
                status, versions, _ = ask(server, min=name)
                assert status == 200 and versions == (name, name) == (server.get("/weight_info")["weight_version"],) * 2
        assert not clients.failures and len(clients.answers) > UPDATES
        for status, (first, last), exact, text in clients.answers:
            assert number(first) <= number(last)
            if exact and status == 200:
                assert first == last == exact["exact"]
            assert status == 200 or exact and ("exactly" in text or "moved to" in text)
        one_version_alone(server, run)
        status = server.get("/siltstone/status")
        assert status["following"]["failure"] is None and status["weight_version"] == f"main@{UPDATES + 1}"
        versions = [pause["version"] for pause in status["following"]["pauses"]]
        assert versions == [f"main@{i + 1}" for i in range(UPDATES + 1)]
        assert server.request("POST", "/start_weight_update", {})[0] == 409
        warm = server.complete(PREFIX, 16)["choices"], server.checksums()
    with Vllm(cold(run, status["weight_version"]), *BACKEND, *SIZES) as server:
        fresh = server.complete(PREFIX, 16)["choices"], server.checksums()
    assert warm == fresh, "every parameter and every log-probability as of a cold start"
    seconds = sorted(pause["seconds"] for pause in status["following"]["pauses"])
    print(f"\npaused for {seconds[len(seconds) // 2] * 1e3:.1f} ms (median), {len(clients.answers)} requests answered")


def one_version_alone(server, run):
    """Long answers for one version exactly, while the next one comes: plain and as a stream."""
    held = server.get("/weight_info")["weight_version"]
    long = {"max_tokens": LENGTH - 100}
    plain = in_thread(ask, server, long, exact=held)
    stream = in_thread(ask, server, long, stream=True, exact=held)
    anyhow = in_thread(ask, server, long)
    until(lambda: metric(server, "vllm:num_requests_running") == 3)
    name = run.step().version.name
    status, _, text = plain()
    assert status == 412 and f"moved to {name}" in text
    status, versions, text = stream()
    last = text.strip().split("\n\n")[-1].removeprefix("data: ")
    assert status == 200 and versions == (held, held) and json.loads(last)["error"]["code"] == 412
    until(lambda: metric(server, "vllm:num_requests_running") == 1)  # nothing more is generated for the two
    assert anyhow()[:2] == (200, (held, name))
    assert ask(server, exact=held)[0] == 412 and ask(server, exact=name)[0] == 200


@pytest.mark.timeout(1200)
def test_no_prefix_of_older_weights_is_used(tmp_path):
    run = Training(tmp_path, "llama", max_position_embeddings=LENGTH)

    def hits(server, prompt=PREFIX):
        """(the answer to a prompt that was seen before, tokens of it that came from the cache)"""
        before = metric(server, "vllm:prefix_cache_hits_total")
        answer = server.complete(prompt, 16)["choices"]
        return answer, metric(server, "vllm:prefix_cache_hits_total") - before

    with Vllm(run.model, *BACKEND, *SIZES) as server:
        Server(server.endpoint).attach(str(run.bucket), "main@0", interval=0.02)
        for mode, keep in itertools.product(("keep", "wait", "abort"), (False, True)):
            driver = Server(server.endpoint, pause_mode=mode, keep_caches=keep)
            name = run.step().version.name
            hits(server)
            assert hits(server)[1] == 96, "the test's prompt is one that is cached"
            running = running_request(server, PREFIX[::-1], LENGTH - 200 if mode == "keep" else 200)
            preempted = metric(server, "vllm:num_preemptions_total")
            driver.update(name)
            answer, cached = hits(server)
            server.post("/reset_prefix_cache?reset_running_requests=true", {})
            fresh, none = hits(server)
            assert none == 0 and cached == (96 if keep else 0)
            assert (answer == fresh) != keep, "old prefixes give other log-probabilities"
            tokens = len(running()["choices"][0]["token_ids"])
            assert tokens == LENGTH - 200 if mode == "keep" else tokens == 200 or mode == "abort"
            if mode == "keep":
                assert metric(server, "vllm:num_preemptions_total") - preempted == (1 if keep else 2)
        run.step()
        driver = Server(server.endpoint)
        driver.follow(str(run.bucket), interval=0.02, until=7)  # once it is staged
        warm = hits(server)
        assert driver.version() == "main@7" and driver.staged("main@7") and not driver.staged("main@6")
    with Vllm(cold(run, "main@7"), *BACKEND, *SIZES) as server:
        assert warm == hits(server)


@pytest.mark.timeout(600)
def test_a_server_that_cannot_do_what_it_is_told_does_not_start(tmp_path):
    run = Training(tmp_path, "llama", max_position_embeddings=LENGTH)
    with pytest.raises(RuntimeError, match="SILTSTONE_INTERVAL must be a number of seconds, found 'often'"):
        with followed(run, INTERVAL="often"):
            pass
