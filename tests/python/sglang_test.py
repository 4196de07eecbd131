"""The follower for SGLang: what it asks of the server, and what a stand-in that really loads folders then serves."""

import json
import subprocess
import sys
import threading
import urllib.request

import pytest

import siltstone

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from reload_standin import StandIn  # noqa: E402 - they import what may be missing
from small_models import Run, cold, logits  # noqa: E402

from siltstone.integrations import sglang  # noqa: E402


@pytest.fixture
def run(bucket, tmp_path):
    return Run(bucket, tmp_path / "saved")


@pytest.fixture
def live(tmp_path):
    return tmp_path / "live"


@pytest.fixture
def standin(run, live):
    """A stand-in that was started with the first version."""
    with run.repository.replica(live) as replica:
        replica.update("main@0")
    with StandIn(live, "main@0") as server:
        yield server


def follow_to(standin, run, live, until, **options):
    updates = []
    sglang.follow(sglang.Server(standin.url, **options), run.repository, live, until=until, interval=0.01,
                  on_version=updates.append)
    return updates


def expected(live, mode, flush, version):
    """Every control request of one update, in order, with all its fields."""
    load = {"model_path": str(live), "weight_version": version, "abort_all_requests": False,
            "flush_cache": flush and mode == "none"}
    out = [("POST", "/update_weights_from_disk", load)]
    if mode != "none":
        out.insert(0, ("POST", "/pause_generation", {"mode": mode}))
        if flush:
            out.append(("POST", "/flush_cache?timeout=5", {}))
        out.append(("POST", "/continue_generation", {}))
    return out


@pytest.mark.parametrize("mode,flush", [("abort", None), ("abort", False), ("retract", True), ("retract", False),
                                        ("in_place", None), ("none", None), ("none", False)])
def test_the_requests_of_an_update(run, live, standin, mode, flush):
    names = [run.publish()]
    follow_to(standin, run, live, 1, pause_mode=mode, flush=flush)
    names.append(run.publish())
    follow_to(standin, run, live, 2, pause_mode=mode, flush=flush)
    flushes = mode != "in_place" if flush is None else flush
    assert standin.requests == [request for name in names for request in expected(live, mode, flushes, name)]
    assert not standin.paused and standin.version == "main@2"


def test_a_server_that_holds_the_version_is_left_alone(run, live, standin):
    assert follow_to(standin, run, live, 0) == []
    assert standin.requests == []
    standin.version = "default"  # restarted by somebody who did not name its version
    (update,) = follow_to(standin, run, live, 0)
    assert update.previous == "default" and update.version.name == "main@0" and update.bytes_fetched == 0
    assert standin.version == "main@0"


def test_a_key_is_sent(run, live, standin):
    asked = []
    original = urllib.request.urlopen
    server = sglang.Server(standin.url, api_key="secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", lambda request, **options: asked.append(request) or original(request, **options))
        server.update(live, "main@0")
    assert {request.get_header("Authorization") for request in asked} == {"Bearer secret"}


def test_what_cannot_work_is_refused_before_anything_is_asked():
    with pytest.raises(siltstone.InvalidArgument, match="cannot flush"):
        sglang.Server("http://nowhere", pause_mode="in_place", flush=True)
    with pytest.raises(siltstone.InvalidArgument, match="keep"):
        sglang.Server("http://nowhere", pause_mode="keep")


class Clients:
    """Threads that generate, one request after the other."""

    def __init__(self, standin, threads=3, tokens=6):
        self.answers, self.errors = [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(standin.url, i, tokens)) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self, url, number, tokens):
        body = json.dumps({"input_ids": [1, 5 + number, 9], "sampling_params": {"max_new_tokens": tokens}}).encode()
        try:
            last = False
            while not last:
                last = self._stop.is_set()  # one more begins after the last version: it has that one alone
                with urllib.request.urlopen(url + "/generate", body, timeout=60) as reply:
                    self.answers.append((number, json.load(reply)))
        except Exception as error:
            self.errors.append(error)

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors and self.answers


def greedy(model, prompt, count):
    tokens = []
    for _ in range(count):
        with torch.inference_mode():
            tokens.append(int(model(torch.tensor([prompt + tokens])).logits[0, -1].argmax()))
    return tokens


@pytest.mark.parametrize("mode", sglang.PAUSE_MODES)
def test_generation_goes_on_through_updates_and_each_version_is_what_a_cold_load_gives(run, live, standin, mode):
    clients = Clients(standin)
    arrived = threading.Event()
    stop, updates, held = threading.Event(), [], {}

    def tell(update):
        updates.append(update)
        held[update.version.name] = logits(standin.model)
        arrived.set()

    server = sglang.Server(standin.url, pause_mode=mode, flush=False if mode == "retract" else None)
    follower = threading.Thread(target=sglang.follow, args=(server, run.repository, live),
                                kwargs={"interval": 0.01, "on_version": tell, "stop": stop})
    follower.start()
    try:
        for _ in range(3):
            run.publish()
            assert arrived.wait(60)
            arrived.clear()
    finally:
        stop.set()
        follower.join()
        clients.end()
    assert [update.version.name for update in updates] == ["main@1", "main@2", "main@3"]
    assert [update.previous for update in updates] == ["main@0", "main@1", "main@2"]
    assert all(update.bytes_fetched > 0 and update.pause_seconds > 0 for update in updates)
    for name, found in held.items():
        assert torch.equal(found, logits(run.models[name])), name
    assert torch.equal(logits(cold(live)), held["main@3"])
    seqs = [int(name.split("@")[1]) for name in standin.served]
    assert seqs == sorted(seqs), "versions never go back"
    known = {}
    for number, answer in clients.answers:
        versions = set(answer["meta_info"]["versions"])
        if len(versions) == 1:
            (name,) = versions
            if (name, number) not in known:
                known[name, number] = greedy(run.models[name], [1, 5 + number, 9], 6)
            tokens = answer["output_ids"]
            assert tokens == known[name, number][: len(tokens)]
    assert {("main@3", number) for number in range(3)} <= known.keys()


@pytest.mark.parametrize("route,fault,kind,says", [
    ("/pause_generation", "refuse", siltstone.Unsupported, "still holds main@0"),
    ("/pause_generation", "die", siltstone.Unavailable, "still holds main@0"),
    ("/update_weights_from_disk", "refuse", siltstone.Unsupported, "older weights, these or a mixture"),
    ("/update_weights_from_disk", "unsuccessful", siltstone.Unsupported, "unsuccessful on purpose.*older weights, these or a mixture"),
    ("/update_weights_from_disk", "die", siltstone.Unavailable, "older weights, these or a mixture"),
    ("/update_weights_from_disk", "hang", siltstone.Unavailable, "timed out.*older weights, these or a mixture"),
    ("/flush_cache", "refuse", siltstone.Unsupported, "prefixes cached under older weights remain.*the server holds main@1"),
    ("/flush_cache", "unsuccessful", siltstone.Unsupported, "prefixes cached under older weights remain.*the server holds main@1"),
])
def test_a_failure_tells_what_everybody_holds_and_the_next_run_goes_on(run, live, standin, route, fault, kind, says):
    name = run.publish()
    standin.faults[route] = fault
    with pytest.raises(kind, match=f"(?s){says}.*the folder {live} holds main@1, whole") as raised:
        follow_to(standin, run, live, 1, timeout=1.0 if fault == "hang" else 60.0)
    assert route in str(raised.value)
    assert standin.requests[-1] == ("POST", "/continue_generation", {}) and not standin.paused
    assert torch.equal(logits(cold(live)), logits(run.models[name])), "the folder is whole"

    standin.faults.clear()
    standin.released.set()
    name = run.publish()
    (update,) = follow_to(standin, run, live, 2)
    assert update.version.name == name == standin.version
    assert torch.equal(logits(standin.model), logits(run.models[name]))


def test_a_server_that_stays_paused_is_told(run, live, standin):
    run.publish()
    standin.faults["/continue_generation"] = "refuse"
    with pytest.raises(siltstone.Unavailable, match="the server holds main@1; generation may still be paused"):
        follow_to(standin, run, live, 1)
    standin.faults["/update_weights_from_disk"] = "refuse"
    run.publish()
    with pytest.raises(siltstone.Unsupported, match="(?s)update_weights_from_disk.*may hold.*may still be paused"):
        follow_to(standin, run, live, 2)


def test_a_server_that_says_another_version_afterwards_is_told(run, live, standin):
    run.publish()
    update = standin.update
    standin.update = lambda body: update(body | {"weight_version": None})
    with pytest.raises(siltstone.Mismatch, match="its weights are 'main@0', not 'main@1'"):
        follow_to(standin, run, live, 1)


def test_a_server_that_is_not_there(run, live):
    with StandIn() as gone:
        url = gone.url
    with pytest.raises(siltstone.Unavailable, match="/model_info.*the folder .* holds main@0, whole"):
        sglang.follow(sglang.Server(url), run.repository, live, until=0)
    with run.repository.replica(live) as replica:
        assert replica.version.name == "main@0", "the folder was brought there first"


def test_any_engine_with_two_methods_is_followed(run, live):
    class Engine:
        held = None

        def version(self):
            return self.held

        def update(self, folder, version):
            self.model, self.held = cold(folder), version
            return 0.0

    engine = Engine()
    name = run.publish()
    sglang.follow(engine, run.repository, live, until=1)
    assert engine.held == name and torch.equal(logits(engine.model), logits(run.models[name]))


def test_the_program(run, live, standin):
    run.publish()
    command = [sys.executable, "-m", "siltstone.integrations.sglang", standin.url, run.repository.url, str(live),
               "--until", "1", "--pause-mode", "retract", "--no-flush"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("main@1: folder in ") and standin.version == "main@1"
    standin.faults["/pause_generation"] = "refuse"
    run.publish()
    done = subprocess.run(command[:-4] + ["2"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "error: " in done.stderr and "still holds main@1" in done.stderr
