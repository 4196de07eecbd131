"""A repository in a real S3 server, from Python: the same calls, the same digests."""

import sys
from pathlib import Path

import pytest
import torch

import siltstone

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers.ceph import Ceph  # noqa: E402 - found through the path above


@pytest.fixture(scope="module")
def ceph():
    with Ceph() as server:
        server.create_bucket("models")
        yield server


@pytest.fixture
def url(ceph, monkeypatch, request):
    for name, value in ceph.settings().items():
        monkeypatch.setenv(name, value)
    return f"s3://models/{request.node.name}"


def weights(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.{i}": torch.empty(256, 128, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
            for i in range(4)}


def change(state, step):
    for tensor in state.values():
        tensor.view(torch.int16)[step::97] ^= 1


def test_lives_as_in_a_directory(url, tmp_path):
    roots = []
    for place in (url, tmp_path / "bucket"):
        state = weights()
        repository = siltstone.open(place, create=True, transfers=4, timeout=30)
        assert not repository.single_writer
        with repository.publisher() as publisher:
            for step in range(5):
                change(state, step)
                publisher.publish(state, step=step)
        loaded = siltstone.open(place).load("main@4")
        assert all(torch.equal(loaded[name].view(torch.int16), state[name].view(torch.int16)) for name in state)
        replica = siltstone.open(place).replica({name: torch.zeros_like(tensor) for name, tensor in state.items()})
        replica.update("main@2")
        replica.update()
        assert replica.version.name == "main@4"
        roots.append([version.root for version in repository.log()])
    assert roots[0] == roots[1]


def test_two_publishers_make_one_history(url):
    state = weights()
    siltstone.init(url)
    first, second = (siltstone.open(url).publisher() for _ in range(2))
    first.publish(state)
    second.publish(state)  # takes the branch over
    change(state, 1)
    with pytest.raises(siltstone.Conflict):
        first.publish(state)
    second.publish(state)
    assert [version.name for version in siltstone.open(url).log()] == ["main@2", "main@1", "main@0"]


def test_errors_have_their_classes(url, monkeypatch):
    with pytest.raises(siltstone.NotFound):
        siltstone.open(url)
    with pytest.raises(siltstone.InvalidArgument, match="NoSuchBucket"):
        siltstone.open("s3://nowhere/x")
    with pytest.raises(siltstone.Unavailable):
        siltstone.open("s3://models/x?endpoint=http://127.0.0.1:1", timeout=0.2)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(siltstone.PermissionDenied, match="SignatureDoesNotMatch"):
        siltstone.open(url)
