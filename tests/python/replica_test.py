"""Replicas and followers."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import same

import siltstone


@pytest.fixture
def publisher(bucket, weights):
    publisher = bucket.publisher(momentum=True)
    publisher.publish(weights)
    return publisher


def blank(weights):
    return {name: np.zeros_like(tensor) for name, tensor in weights.items()}


def test_staging_leaves_the_weights_and_commit_moves_them(bucket, weights, publisher):
    live = blank(weights)
    replica = bucket.replica(live)
    assert same(live, weights) and replica.version == bucket.head()
    before = weights.copy()
    weights.step()
    publisher.publish(weights, step=1)
    with replica.stage() as staged:
        assert same(live, before)
        assert staged.target == bucket.head() and staged.changed_elements > 0
        report = staged.commit()
    assert report.outcome == "APPLIED" and same(live, weights)
    with pytest.raises(siltstone.InvalidArgument, match="already"):
        staged.commit()
    with replica.stage("main@0"):
        pass  # discarded
    assert same(live, weights) and replica.version.seq == 1
    replica.update("main@0")
    assert same(live, before)


def test_memory_that_somebody_else_wrote_to_is_refused_and_repaired(bucket, weights, publisher):
    live = weights.copy()
    replica = bucket.replica(live, load=False)
    live["weight"][3, 4] += 1
    weights.step()
    publisher.publish(weights)
    with pytest.raises(siltstone.Mismatch, match="weight"):
        replica.update()
    replica.update(repair=True)
    assert same(live, weights)
    live["bias"][0] += 1
    with pytest.raises(siltstone.Mismatch):
        bucket.replica(live, load=False)


def test_a_folder_is_a_replica_too(bucket, weights, publisher, tmp_path):
    with bucket.replica(tmp_path / "live") as replica:
        assert replica.version is None
        replica.update()
        assert replica.version == bucket.head()
        with pytest.raises(siltstone.Conflict):
            bucket.replica(tmp_path / "live")
    with pytest.raises(siltstone.InvalidArgument, match="closed"):
        replica.update()
    with bucket.replica(tmp_path / "live") as again:
        assert again.version == bucket.head()
    with pytest.raises(siltstone.InvalidArgument):
        bucket.replica(tmp_path / "other", at="main@0")


def test_a_follower_takes_every_version_and_pauses_around_commits_only(bucket, weights, publisher):
    live = blank(weights)
    replica = bucket.replica(live)
    events, arrived = [], threading.Event()

    @contextmanager
    def pause(version):
        before = {name: tensor.tobytes() for name, tensor in live.items()}
        events.append(("pause", version.seq))
        yield
        assert before != {name: tensor.tobytes() for name, tensor in live.items()}
        events.append(("resume", version.seq))

    def on_version(step):
        events.append(("told", step.version.seq))
        arrived.set()

    with replica.follow(on_version=on_version, pause=pause, interval=0.01) as follower:
        with pytest.raises(siltstone.InvalidArgument, match="in use"):
            replica.update()
        for _ in range(5):
            weights.step()
            publisher.publish(weights)
            assert arrived.wait(20)
            arrived.clear()
        assert follower.running
    assert not follower.running
    assert same(live, weights)
    assert events == [(what, seq) for seq in range(1, 6) for what in ("pause", "resume", "told")]


def test_a_follower_ends_at_the_last_version_wanted(bucket, weights, publisher):
    replica = bucket.replica(blank(weights))
    follower = replica.follow(until=2, interval=0.01)
    assert not follower.join(0.1)
    for _ in range(4):
        weights.step()
        publisher.publish(weights)
    assert follower.join(20)
    assert replica.version.seq == 2


def test_what_ends_a_follower_is_raised(bucket, weights, publisher):
    replica = bucket.replica(blank(weights))
    weights.step()
    publisher.publish(weights)

    def fail(step):
        raise RuntimeError("the engine is gone")

    follower = replica.follow(on_version=fail, interval=0.01)
    with pytest.raises(RuntimeError, match="the engine is gone"):
        follower.join(20)
    follower.stop()  # told once
    assert replica.version.seq == 1  # it was applied before

    weights.step()
    publisher.publish(weights)

    @contextmanager
    def refuses(version):
        raise TimeoutError("the engine does not pause")
        yield

    with pytest.raises(TimeoutError):
        with replica.follow(pause=refuses, interval=0.01) as follower:
            follower.join(20)
    assert replica.version.seq == 1  # and this one was not
    replica.update()

    weights.step()
    publisher.publish(weights)
    with pytest.raises(siltstone.InvalidArgument, match="did not commit"):
        replica._core.follow(bucket._core, "main", 0.01, None, siltstone._core.StopFlag(), False, 0, 1 << 30, None,
                             lambda version, commit: None)


EXITS = """
import sys
import numpy
import siltstone

repository = siltstone.open(sys.argv[1], create=True)
weights = {"w": numpy.zeros(1 << 20, numpy.float32)}
publisher = repository.publisher()
publisher.publish(weights)
replica = repository.replica({"w": numpy.zeros(1 << 20, numpy.float32)})
follower = replica.follow(interval=0.001, on_version=lambda step: None)

background = siltstone.BackgroundPublisher(publisher, depth=8)
for step in range(1, 8):
    weights["w"][step] = step
    background.submit(iter(weights.items()), step=step)
assert follower.running
"""


def test_a_program_may_end_while_threads_follow_and_publish(tmp_path):
    for number in range(4):
        bucket = str(tmp_path / str(number))
        done = subprocess.run([sys.executable, "-c", EXITS, bucket], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert siltstone.open(bucket).head().step == 7  # what was submitted was published


def test_a_follower_waits_for_a_branch_that_comes_later(bucket, weights, publisher):
    replica = bucket.replica(blank(weights))
    with replica.follow("later", interval=0.01) as follower:
        time.sleep(0.05)
        bucket.branch("later", "main@0")
        weights.step()
        bucket.publish(weights, "later")
        deadline = time.monotonic() + 20
        while follower.version.branch != "later" and time.monotonic() < deadline:
            time.sleep(0.01)
    assert replica.version == bucket.head("later") and same(replica.target, weights)


def test_one_replica_follows_while_another_process_publishes(bucket, weights, publisher):
    """Many small publishes: versions are exact however the two run into each other."""
    live = blank(weights)
    replica = bucket.replica(live)
    seen = []
    with replica.follow(on_version=lambda step: seen.append(step.version.seq), interval=0.001):
        for _ in range(50):
            weights.step()
            last = publisher.publish(weights).version
        deadline = time.monotonic() + 30
        while replica.version != last and time.monotonic() < deadline:
            time.sleep(0.01)
    assert same(live, weights) and seen == sorted(seen) and seen[-1] == last.seq
