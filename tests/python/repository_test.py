"""Repositories: publishing arrays, reading any version back, and every error."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import Weights, same

import siltstone


def test_every_version_comes_back_exactly(bucket, weights, tmp_path):
    states = []
    with bucket.publisher(companions={"config.json": "{}"}) as publisher:
        for step in range(6):
            report = publisher.publish(weights, step=step, message=f"step {step}")
            assert report.kind == ("anchor" if step == 0 else "delta")
            assert report.version.name == publisher.version == f"main@{step}"
            states.append(weights.copy())
            weights.step()
    for step, state in enumerate(states):
        into = {name: np.zeros_like(tensor) for name, tensor in state.items()}
        assert bucket.load(f"main@{step}", into) is into
        assert same(into, state)
        bucket.checkout(f"main@{step}", tmp_path / str(step))
        assert (tmp_path / str(step) / "config.json").read_text() == "{}"
    log = bucket.log()
    assert [version.step for version in log] == [5, 4, 3, 2, 1, 0]
    assert log[0] == bucket.head() == bucket["main"] and log[0] != log[1]
    assert log[0].parent == "main@4" and log[-1].parent is None
    assert log[2].message == "step 3" and len(bucket.log(limit=2)) == 2
    assert bucket.tensors()["weight"] == ("F16", (64, 48))
    assert bucket.verify(data=True).problems == []
    report = bucket.diff("main@0", "main@1")
    assert {tensor.name for tensor in report.tensors} == {"bias", "count", "weight"}


def test_many_may_create_the_same_bucket_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            bucket = tmp_path / str(number)
            opened = list(pool.map(lambda _: siltstone.open(bucket, create=True), range(8)))  # noqa: B023
            assert len({repository.repo_id for repository in opened}) == 1
            with pytest.raises(siltstone.Conflict):
                siltstone.init(bucket)


def test_a_failed_publish_leaves_the_publisher_where_it_was(bucket, weights):
    first, second = bucket.publisher(), siltstone.open(bucket.url).publisher()
    first.publish(weights)
    second.publish(weights)
    weights.step()
    with pytest.raises(siltstone.Conflict):
        first.publish(weights)
    assert bucket.head().seq == 1
    for step in range(3):  # a publisher that is up to date goes on
        second.publish(weights, step=step)
        weights.step()
    assert bucket.verify(data=True).problems == []


def test_names_tags_and_branches(bucket, weights):
    bucket.publish(weights, step=1)
    bucket.tag("first")
    bucket.branch("try", "tag:first")
    assert bucket.tags() == {"first": "main@0"}
    weights.step()
    bucket.publish(weights, "try")
    assert set(bucket.branches()) == {"main", "try"}
    assert bucket["tag:first"] == bucket["main"]
    assert bucket[f"root:{bucket.head('try').root[:16]}"] == bucket.head("try")
    with pytest.raises(siltstone.Conflict):
        bucket.tag("first", "try")
    version = bucket.fence()
    assert version.fence and version.root == bucket["main@0"].root


def test_files_are_published_too(bucket, weights, tmp_path):
    bucket.publish(weights)
    bucket.checkout("main", tmp_path / "model")
    other = siltstone.init(tmp_path / "other")
    report = other.publish(tmp_path / "model", step=3, cache=tmp_path / "cache")
    assert report.version.root == bucket.head().root
    assert (tmp_path / "cache").is_dir()
    with pytest.raises(siltstone.InvalidArgument, match="companions"):
        other.publish(tmp_path / "model", companions={"a": "b"})


def test_errors_have_classes_and_say_what_is_wrong(bucket, weights, tmp_path):
    with pytest.raises(siltstone.NotFound, match="nothing"):
        siltstone.open(tmp_path / "nothing")
    with pytest.raises(siltstone.Conflict):
        siltstone.init(tmp_path / "bucket")
    with pytest.raises(siltstone.NotFound):
        bucket.version("main@7")
    with pytest.raises(siltstone.InvalidArgument):
        bucket.version("no such name!")
    with pytest.raises(ValueError):  # what code that does not know us catches
        bucket.publisher(effort="heroic").publish(weights)
    with pytest.raises(TypeError, match="efort"):
        bucket.publisher(efort="max")
    with pytest.raises(siltstone.InvalidArgument, match="dtype"):
        bucket.publisher(dtype="fp8")
    with pytest.raises(siltstone.InvalidArgument, match="list.*__dlpack__"):
        bucket.publish({"w": [1.0, 2.0]})
    with pytest.raises(siltstone.InvalidArgument, match="name"):
        bucket.publish({3: weights["weight"]})
    with pytest.raises(siltstone.InvalidArgument, match="found a int"):
        bucket.publish(3)
    with pytest.raises(siltstone.Unsupported, match="'d' has dtype"):
        bucket.publish({"d": np.zeros(3, dtype="datetime64[s]")})
    bucket.publish(weights)
    wrong = weights.copy()
    wrong["weight"] = wrong["weight"].astype(np.float32)
    with pytest.raises(siltstone.Mismatch, match="weight"):
        bucket.load("main", wrong)
    del wrong["weight"]
    with pytest.raises(siltstone.Mismatch, match="weight"):
        bucket.load("main", wrong)
    fixed = weights.copy()
    fixed["weight"].flags.writeable = False
    with pytest.raises(siltstone.InvalidArgument, match="read-only"):
        bucket.load("main", fixed)
    bucket.checkout("main", tmp_path / "out")
    with pytest.raises(siltstone.Conflict):
        bucket.checkout("main", tmp_path / "out")
    bucket.checkout("main", tmp_path / "out", replace=True)


def test_damage_is_found_and_named(bucket, weights, tmp_path):
    bucket.publish(weights)
    anchor = next((tmp_path / "bucket").rglob("a0.safetensors"))
    anchor.chmod(0o644)
    data = bytearray(anchor.read_bytes())
    data[-5] ^= 1
    anchor.write_bytes(data)
    with pytest.raises(siltstone.Corrupt, match="a0.safetensors"):
        bucket.load("main", weights.copy())
    assert any("a0.safetensors" in problem for problem in bucket.verify(data=True).problems)


def test_strided_and_read_only_arrays_are_published_as_they_look(bucket):
    base = np.arange(24, dtype=np.int32).reshape(4, 6)
    turned, every, fixed = base.T, base[:, ::2], base.copy()
    fixed.flags.writeable = False
    bucket.publish({"turned": turned, "every": every, "fixed": fixed})
    into = {"turned": np.zeros((6, 4), np.int32), "every": np.zeros((4, 3), np.int32), "fixed": np.zeros_like(base)}
    bucket.load("main", into)
    assert (into["turned"] == turned).all() and (into["every"] == every).all() and (into["fixed"] == fixed).all()


def test_an_iterator_may_reuse_its_memory(bucket):
    def reused():
        buffer = np.zeros(10, np.float32)
        for i in range(3):
            buffer[:] = i
            yield f"t{i}", buffer

    bucket.publish(reused())
    into = {f"t{i}": np.full(10, 9, np.float32) for i in range(3)}
    bucket.load("main", into)
    assert [tensor[0] for tensor in into.values()] == [0, 1, 2]


def big_weights():
    return {f"w{i}": np.zeros(4 << 20, dtype=np.float32) for i in range(24)}  # 384 MiB


def test_progress_is_told_on_the_calling_thread_and_may_end_the_call(bucket):
    told = []

    def progress(done, total):
        told.append((done, total, threading.get_ident()))

    bucket.publish(big_weights(), progress=progress)
    assert told and told[-1][0] <= told[-1][1] and {thread for *_, thread in told} == {threading.get_ident()}

    class Enough(Exception):
        pass

    def stop(done, total):
        raise Enough

    with pytest.raises(Enough):
        bucket.publish(big_weights(), "other", progress=stop)
    assert "other" not in bucket.branches()
    bucket.publish(Weights(), "other")


@pytest.fixture
def default_interrupt():
    """Tests that were started in the background may have inherited an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_call(bucket, default_interrupt):
    weights = big_weights()
    bucket.publish(weights)
    interrupt = threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            bucket.load("main", weights)
    interrupt.join()
    assert bucket.load("main", weights)["w0"].sum() == 0


def test_other_threads_run_while_a_call_does(bucket):
    """The GIL is released: a thread that counts gets on during a publish, and hardly would otherwise."""
    counted = [0]
    running = threading.Event()
    running.set()

    def count():
        while running.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    weights = big_weights()
    thread.start()
    before, start = counted[0], time.monotonic()
    bucket.publish(weights)
    during = counted[0] - before
    running.clear()
    thread.join()
    assert during > 1000, f"{during} in {time.monotonic() - start:.2f} s"
