"""The reference server: what it generates, what a pause does, which version answers, and vLLM's client driving it."""

import inspect
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

import siltstone

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from small_models import Run, cold, logits  # noqa: E402 - it imports what may be missing
from transformers import LlamaForCausalLM  # noqa: E402

from siltstone import serving  # noqa: E402
from siltstone._version_needs import parse_version  # noqa: E402
from siltstone.integrations import vllm  # noqa: E402

PROMPT = [3, 14, 15, 9, 26]


@pytest.fixture
def run(bucket, tmp_path):
    return Run(bucket, tmp_path / "saved")


@pytest.fixture
def engine(run):
    engine = serving.Engine(cold(run.folder), version_wait=0.2)
    yield engine
    engine.gate.resume()
    engine.close()


@pytest.fixture
def server(engine):
    with serving.Server(engine, port=0) as server:
        yield server


def ask(server, route="/v1/completions", body=None, headers=None, method="POST"):
    """(status, JSON, headers)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + route, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply), reply.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def complete(server, count=8, headers=None, **fields):
    body = {"prompt": PROMPT, "max_tokens": count, "temperature": 0, "return_token_ids": True} | fields
    return ask(server, body=body, headers=headers)


def greedy(model, prompt, count):
    """(tokens, their logprobs), computed anew for each position."""
    ids, logprobs = list(prompt), []
    for _ in range(count):
        with torch.inference_mode():
            scores = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].float(), -1)
        ids.append(int(scores.argmax()))
        logprobs.append(float(scores.max()))
    return ids[len(prompt):], logprobs


class Between:
    """Stops generation at a token: `reached` is set when the model has computed `tokens` of them."""

    def __init__(self, engine, tokens):
        self.reached, self.go_on = threading.Event(), threading.Event()
        seen = 0

        def hook(*_):
            nonlocal seen
            seen += 1
            if seen == tokens:
                self.reached.set()
                self.go_on.wait(60)

        self._hook = engine._plain.register_forward_hook(hook)

    def end(self):
        self.go_on.set()
        self._hook.remove()


def in_thread(call, *arguments, **named):
    """Runs it; returns what gives its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call(*arguments, **named)))
    thread.start()

    def result():
        thread.join(60)
        assert results, "it did not end"
        return results[0]

    return result


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_completions_are_the_models(run, server):
    status, answer, _ = complete(server, 12, logprobs=2, n=1, model="policy", top_p=1.0)
    tokens, logprobs = greedy(run.models["main@0"], PROMPT, 12)
    choice = answer["choices"][0]
    assert status == 200 and choice["token_ids"] == tokens and choice["finish_reason"] == "length"
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(logprobs, abs=0.05)  # bf16, other shapes
    assert [len(top) for top in choice["logprobs"]["top_logprobs"]] == [2] * 12
    assert [max(top, key=top.get) for top in choice["logprobs"]["top_logprobs"]] == [f"token_id:{t}" for t in tokens]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
    assert answer["weight_version"] is None, "nobody told it"
    drawn = [complete(server, 12, temperature=1.0, seed=seed)[1]["choices"][0]["token_ids"] for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(map(tuple, drawn))) == 3
    assert complete(server, temperature=None)[1]["choices"][0]["logprobs"] is None


def test_texts_go_through_the_tokenizer(run, engine):
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(96)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
    with serving.Server(engine, port=0, tokenizer=tokenizer) as server:
        _, answer, _ = complete(server, prompt=" ".join(f"w{token}" for token in PROMPT), logprobs=0)
    tokens, _ = greedy(run.models["main@0"], PROMPT, 8)
    choice = answer["choices"][0]
    assert choice["prompt_token_ids"] == PROMPT and choice["token_ids"] == tokens
    assert choice["text"].split() == choice["logprobs"]["tokens"] == [f"w{token}" for token in tokens]


def test_the_end_token_ends_a_completion(run, engine):
    tokens, _ = greedy(run.models["main@0"], PROMPT, 8)
    engine._ends = frozenset([tokens[3]])
    first = tokens.index(tokens[3])
    done = engine.generate(PROMPT, serving.Sampling(8, 0))
    assert (done.tokens, done.finish_reason) == (tokens[:first], "stop")
    assert engine.generate(PROMPT, serving.Sampling(8, 0, ignore_eos=True)).tokens == tokens


@pytest.mark.parametrize("fields,says", [
    ({"prompt": []}, "no tokens"),
    ({"prompt": [96]}, "outside the vocabulary"),
    ({"prompt": "text"}, "without a tokenizer"),
    ({"prompt": [[1], [2]]}, "one text or one list"),
    ({"prompt": None}, "one text or one list"),
    ({"max_tokens": 0}, "at least 1"),
    ({"max_tokens": 1.5}, "without a fraction"),
    ({"max_tokens": 1000}, "the model takes 512"),
    ({"temperature": -1}, "must not be negative"),
    ({"n": 2}, "'n' can only be 1"),
    ({"stream": True}, "'stream' can only be False"),
    ({"logprobs": 21}, "0 to 20"),
    ({"seed": 1 << 64}, "64 bits"),
    ({"return_token_ids": "yes"}, "true or false"),
    ({"beams": 4}, "'beams' is not known here"),
])
def test_what_the_server_does_not_do_is_refused(server, fields, says):
    status, answer, _ = complete(server, **fields)
    assert status == 400 and says in answer["error"]["message"]


def test_routes_that_are_asked_wrongly(server):
    assert ask(server, "/nothing")[0] == 404
    assert ask(server, "/pause?mode=later")[0] == 400 and ask(server, "/pause?clear_cache=true")[0] == 400
    assert ask(server, "/update_weights", {"update_info": {"version": "main@1"}})[0] == 409
    ask(server, "/start_weight_update", {})
    status, answer, _ = ask(server, "/update_weights", {"update_info": {"version": "main@1"}})
    assert status == 409 and "follow no bucket" in answer["error"]["message"]
    assert ask(server, "/init_weight_transfer_engine", {"init_info": {"bucket": "/nowhere", "at": "main@0"}})[0] == 404
    assert ask(server, "/init_weight_transfer_engine", {"init_info": {"bucket": "/nowhere"}})[0] == 400
    assert ask(server, "/init_weight_transfer_engine", {"init_info": {"bucket": "/nowhere", "at": 3}})[0] == 400
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(server.url + "/v1/completions", b"{", timeout=60)


def test_plain_questions(run, engine, server):
    assert ask(server, "/health", method="GET")[1] == {"status": "ok", "weight_version": None}
    assert ask(server, "/v1/models", method="GET")[1]["data"][0]["max_model_len"] == 512
    assert ask(server, "/get_world_size", method="GET")[1] == {"world_size": 1}
    engine.attach(run.repository, "main@0")
    status, answer, headers = ask(server, "/weight_info", method="GET")
    assert answer == {"weight_version": "main@0"} and headers["X-Siltstone-Weight-Version"] == "main@0"


def test_vllms_client_drives_it(run, engine, server):
    pointers = [parameter.data_ptr() for parameter in engine.model.parameters()]
    client = vllm.Server(server.url)
    client.attach(run.repository.url, "main@0", interval=0.01)
    for _ in range(3):
        name = run.publish()
        client.update(name)
        assert client.version() == name
        assert torch.equal(logits(engine.model), logits(run.models[name]))
        status, answer, _ = complete(server)
        assert answer["choices"][0]["token_ids"] == greedy(run.models[name], PROMPT, 8)[0]
        assert answer["weight_version"] == answer["first_weight_version"] == name
    assert not engine.gate.paused and [p.data_ptr() for p in engine.model.parameters()] == pointers
    client.update("main@1")  # back to an older one, when it is asked for
    assert torch.equal(logits(engine.model), logits(run.models["main@1"]))
    with pytest.raises(vllm.Refused, match="main@9"):
        client.update("main@9")
    assert client.version() == "main@1" and not engine.gate.paused
    run.publish()
    seen = []
    client.follow(run.repository.url, until=4, on_version=lambda version, seconds: seen.append(version.name))
    assert seen == ["main@4"] and torch.equal(logits(engine.model), logits(run.models["main@4"]))


def test_weights_that_are_another_version_are_refused(run, engine, server):
    run.publish()
    with pytest.raises(vllm.Refused, match="answered 409"):
        vllm.Server(server.url).attach(run.repository.url, "main@1")
    assert engine.version is None and complete(server)[0] == 200
    with pytest.raises(vllm.Refused, match="is not known here"):
        vllm.Server(server.url).attach(run.repository.url, "main@0", speed=3)


def test_a_kept_request_goes_on_under_the_new_weights(run, engine, server):
    client = vllm.Server(server.url, pause_mode="keep")
    client.attach(run.repository.url, "main@0")
    name = run.publish()
    stop = Between(engine, 4)
    answer = in_thread(engine.generate, PROMPT, serving.Sampling(10, 0))
    assert stop.reached.wait(60)
    moved = in_thread(client.update, name)
    wait_until(lambda: engine.gate.paused)
    stop.end()
    moved()
    done = answer()
    cut = done.versions.index("main@1")
    assert done.versions == ["main@0"] * cut + ["main@1"] * (10 - cut) and cut == 4
    assert done.tokens == under_two(run, 4, 10)


CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"


def under_two(run, cut, count):
    """What comes out if the keys and values of the first `cut` steps are the first version's."""
    ids, cache, tokens = torch.tensor([PROMPT]), None, []
    for at in range(count):
        model = run.models["main@0" if at < cut else "main@1"]
        with torch.inference_mode():
            answer = model(input_ids=ids, use_cache=True, **{CACHE: cache})
        cache = getattr(answer, CACHE)
        tokens.append(int(answer.logits[0, -1].argmax()))
        ids = torch.tensor([tokens[-1:]])
    return tokens


def test_an_answer_across_an_update_names_the_first_and_the_last_version(run, engine, server):
    engine.attach(run.repository, "main@0")
    name = run.publish()
    stop = Between(engine, 3)
    answer = in_thread(complete, server, 6)
    assert stop.reached.wait(60)
    moved = in_thread(engine.update, name)  # without a pause: between two tokens
    wait_until(lambda: engine.gate._changes == 1)
    stop.end()
    moved()
    _, done, headers = answer()
    assert (done["first_weight_version"], done["weight_version"]) == ("main@0", "main@1")
    assert headers["X-Siltstone-First-Weight-Version"] == "main@0"
    assert headers["X-Siltstone-Weight-Version"] == "main@1"
    assert done["choices"][0]["token_ids"] == under_two(run, 3, 6)


def test_requests_in_flight_end_before_a_pause_that_waits(run, engine, server):
    client = vllm.Server(server.url, pause_mode="wait")
    client.attach(run.repository.url, "main@0")
    name = run.publish()
    stop = Between(engine, 2)
    early = in_thread(complete, server, 6)
    assert stop.reached.wait(60)
    moved = in_thread(client.update, name)
    wait_until(lambda: engine.gate.paused)
    late = in_thread(complete, server, 6)
    stop.end()
    moved()
    assert early()[1]["weight_version"] == "main@0"
    assert early()[1]["choices"][0]["token_ids"] == greedy(run.models["main@0"], PROMPT, 6)[0]
    assert late()[1]["first_weight_version"] == name
    assert late()[1]["choices"][0]["token_ids"] == greedy(run.models[name], PROMPT, 6)[0]


def test_a_pause_that_aborts_answers_with_what_there_is(run, engine, server):
    stop = Between(engine, 2)
    early = in_thread(complete, server, 6)
    assert stop.reached.wait(60)
    paused = in_thread(ask, server, "/pause?mode=abort")
    wait_until(lambda: engine.gate.paused)
    stop.end()
    assert paused()[0] == 200 and ask(server, "/is_paused", method="GET")[1] == {"is_paused": True}
    choice = early()[1]["choices"][0]
    assert choice["finish_reason"] == "abort" and choice["token_ids"] == greedy(run.models["main@0"], PROMPT, 2)[0]
    late = in_thread(complete, server, 3)
    assert ask(server, "/resume")[0] == 200
    assert late()[1]["choices"][0]["finish_reason"] == "length"
    assert ask(server, "/is_paused", method="GET")[1] == {"is_paused": False}


def test_a_change_comes_before_tokens_that_waited_longer():
    gate, order = serving.Gate(), []

    def token():
        with gate.request() as ticket, gate.token(ticket):
            order.append("token")

    def change():
        with gate.exclusive():
            order.append("change")

    with gate.request() as ticket, gate.token(ticket):
        ends = [in_thread(token), in_thread(token)]
        wait_until(lambda: len(gate._changed._waiters) == 2)
        ends.append(in_thread(change))
        wait_until(lambda: gate._changes == 1)
    for end in ends:
        end()
    assert order == ["change", "token", "token"]


def test_a_resume_ends_a_pause_that_still_waits(engine, server):
    stop = Between(engine, 2)
    early = in_thread(complete, server, 4)
    assert stop.reached.wait(60)
    paused = in_thread(ask, server, "/pause?mode=wait")
    wait_until(lambda: engine.gate.paused)
    ask(server, "/resume")
    assert paused()[0] == 409
    stop.end()
    assert early()[0] == 200


def test_a_request_waits_for_the_version_that_it_needs(run, engine, server):
    engine.attach(run.repository, "main@0", interval=0.01)
    status, answer, headers = complete(server, headers={"X-Siltstone-Min-Version": "main@1"})
    assert status == 503 and int(headers["Retry-After"]) >= 1
    assert answer["error"]["message"] == "the weights are main@0; at least main@1 is needed"
    assert headers["X-Siltstone-Weight-Version"] == "main@0"
    assert complete(server, headers={"X-Siltstone-Min-Version": "main@0"})[0] == 200
    assert complete(server, headers={"X-Siltstone-Min-Version": "other@0"})[0] == 503
    engine.version_wait = 60
    waiting = in_thread(complete, server, headers={"X-Siltstone-Min-Version": "main@2"})
    for name in (run.publish(), run.publish()):
        vllm.Server(server.url, pause_mode="wait").update(name)  # who waits for a version does not hold this up
    status, answer, _ = waiting()
    assert status == 200 and answer["first_weight_version"] == "main@2"
    assert answer["choices"][0]["token_ids"] == greedy(run.models["main@2"], PROMPT, 8)[0]


def test_a_request_for_one_version_gets_no_other(run, engine, server):
    exactly = {"X-Siltstone-Exact-Version": "main@0"}
    status, answer, _ = complete(server, headers=exactly)
    assert status == 412 and "of no known version; exactly main@0" in answer["error"]["message"]
    engine.attach(run.repository, "main@0")
    assert complete(server, headers=exactly)[0] == 200
    stop = Between(engine, 3)
    crossed = in_thread(complete, server, 6, headers=exactly)
    assert stop.reached.wait(60)
    moved = in_thread(engine.update, run.publish())
    wait_until(lambda: engine.gate._changes == 1)
    stop.end()
    moved()
    status, answer, _ = crossed()
    assert status == 412 and answer["error"]["message"] == "the weights are main@1; exactly main@0 is needed"
    assert complete(server, headers=exactly)[0] == 412
    assert complete(server, headers={"X-Siltstone-Exact-Version": "main@1"})[0] == 200
    for text in ("main", "@3", "main@x", "main@-1", ""):
        assert complete(server, headers={"X-Siltstone-Exact-Version": text})[0] == 400


@pytest.mark.parametrize("backend", [None, "eager"])
def test_it_follows_by_itself_while_many_generate(run, backend):
    model = cold(run.folder)
    engine = serving.Engine(model if backend is None else torch.compile(model, backend=backend, dynamic=True))
    engine.follow(run.repository, "main@0", interval=0.01)
    answers, stop = [], threading.Event()

    def generate(number):
        last = False
        while not last:
            last = stop.is_set()  # one more begins after the last version: it has that one alone
            answers.append((number, engine.generate([1, 5 + number, 9], serving.Sampling(4, 0))))

    threads = [threading.Thread(target=generate, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3 if backend is None else 2):
        name = run.publish()
        seen = engine.generate(PROMPT, serving.Sampling(1, 0), serving.VersionNeeds(parse_version(name)))
        assert seen.versions == [name]
    stop.set()
    for thread in threads:
        thread.join()
    with pytest.raises(siltstone.Conflict, match="by themselves"):
        engine.update("main@0")
    assert engine.problem() is None
    engine.close()
    assert torch.equal(logits(model), logits(run.models[name]))
    expected, checked = {}, 0
    for number, done in answers:
        order = [int(version.split("@")[1]) for version in done.versions]
        assert order == sorted(order)
        if len(set(order)) == 1:
            key = (number, done.versions[0])
            if key not in expected:
                expected[key] = greedy(run.models[key[1]], [1, 5 + number, 9], 4)[0]
            assert done.tokens == expected[key]
            checked += 1
    assert checked >= len(threads)


def test_a_follower_that_ends_is_seen_in_the_health(run, engine, server):
    engine.follow(run.repository, "main@0", interval=0.01)
    with torch.no_grad():
        engine.model.lm_head.weight[3, 3] += 1  # somebody else writes into the weights
    run.publish()
    wait_until(lambda: ask(server, "/health", method="GET")[0] == 503)
    answer = ask(server, "/health", method="GET")[1]
    assert "the weights stay at main@0: " in answer["error"]["message"] and "lm_head" in answer["error"]["message"]
    assert complete(server)[0] == 200
    with pytest.raises(siltstone.Mismatch):
        engine.close()


def test_the_program_follows(run):
    command = [sys.executable, "-m", "siltstone.serving", str(run.folder), "--bucket", run.repository.url, "--at", "main@0",
               "--follow", "--interval", "0.01", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("serving main@0 at http://127.0.0.1:"), line + process.stderr.read()
        name = run.publish()

        class Program:
            url = line.split()[-1]

        status, answer, _ = complete(Program, headers={"X-Siltstone-Min-Version": name})
        assert status == 200 and answer["choices"][0]["token_ids"] == greedy(run.models[name], PROMPT, 8)[0]
    finally:
        process.kill()
        process.communicate()
