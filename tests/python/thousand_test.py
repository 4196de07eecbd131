"""A thousand publishes with a follower beside them: every version exact, memory flat."""

import hashlib
import os
import threading

import numpy as np

PUBLISHES = 1000


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def digest(weights):
    return hashlib.sha256(b"".join(tensor.tobytes() for tensor in weights.values())).hexdigest()


def test_a_thousand_publishes_are_exact_and_memory_stays_flat(bucket):
    random = np.random.default_rng(0)
    weights = {f"layer.{i}": random.standard_normal(20_000).astype(np.float16) for i in range(10)}
    live = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    published, followed = {}, {}
    publisher = bucket.publisher(momentum=True)
    published[publisher.publish(weights, step=0).version.name] = digest(weights)
    replica = bucket.replica(live)
    caught_up = threading.Event()

    def on_version(step):
        followed[step.version.name] = digest(live)
        if step.version.step == PUBLISHES:
            caught_up.set()

    at_200 = None
    with replica.follow(on_version=on_version, interval=0.001):
        for step in range(1, PUBLISHES + 1):
            for tensor in weights.values():
                tensor.view(np.uint16)[random.integers(0, tensor.size, 200)] ^= 1
            published[publisher.publish(weights, step=step).version.name] = digest(weights)
            if step == 200:
                at_200 = resident_bytes()
        assert caught_up.wait(60)
    grown = resident_bytes() - at_200
    assert grown < 32 << 20, f"{grown >> 20} MiB more than after 200 publishes"
    assert len(followed) > PUBLISHES / 20
    assert followed == {name: published[name] for name in followed}
    report = bucket.verify(data=True)  # rebuilds every version and compares its root
    assert report.versions == PUBLISHES + 1 and report.problems == []
    for step in random.integers(0, PUBLISHES, 20):
        bucket.load(f"main@{step}", live)
        assert digest(live) == published[f"main@{step}"]
