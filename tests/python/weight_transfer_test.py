"""TRL's seam for moving weights: what a trainer calls, one call after the other."""

import types

import pytest

import siltstone

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from siltstone.integrations.trl import WeightTransfer, model_version  # noqa: E402 - it imports what may be missing


class Stream:
    """The iterator that a trainer gives: counts what was taken from it."""

    def __init__(self, masters, fails_at=None):
        self.pairs = list(masters.items())
        self.fails_at = fails_at
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.taken == len(self.pairs):
            raise StopIteration
        self.taken += 1
        name, tensor = self.pairs[self.taken - 1]
        return (name, torch.empty(2, device="meta")) if name == self.fails_at else (name, tensor)


@pytest.fixture
def masters():
    torch.manual_seed(0)
    return {name: torch.randn(300, 7) for name in ("a", "b", "c")}


def in_bf16(masters):
    return {name: tensor.to(torch.bfloat16) for name, tensor in masters.items()}


def assert_holds(bucket, masters):
    loaded = bucket.load()
    assert loaded.keys() == masters.keys()
    for name, wanted in in_bf16(masters).items():
        assert torch.equal(loaded[name].view(torch.int16), wanted.view(torch.int16)), name


def sync(transfer, stream):
    """As the trainer does it."""
    transfer.pause()
    transfer.send_weights(stream)
    transfer.resume()


def test_each_sync_is_a_version_that_names_the_trainers(bucket, masters):
    transfer = WeightTransfer(bucket)
    transfer.init_weight_transfer()
    for number in range(1, 4):
        masters["b"][number] += 1
        stream = Stream(masters)
        sync(transfer, stream)
        assert stream.taken == 3
        assert_holds(bucket, masters)
        assert model_version(transfer.version) == number and transfer.version.seq == number - 1
    transfer.destroy()
    transfer.destroy()
    assert [version.step for version in bucket.log()] == [None] * 3  # nobody told it the trainer
    bucket.publish({"w": torch.zeros(1)}, "other", message="by hand")
    assert model_version(bucket.version("other")) is None


@pytest.mark.parametrize("fails_at", ["a", "b", "c"])
def test_a_failed_sync_drains_and_raises_and_the_next_one_is_exact(bucket, masters, fails_at):
    transfer = WeightTransfer(bucket)
    sync(transfer, Stream(masters))
    masters["a"] += 1
    stream = Stream(masters, fails_at)
    with pytest.raises(siltstone.InvalidArgument, match=f"'{fails_at}' is on the meta device"):
        sync(transfer, stream)
    assert stream.taken == 3  # the other ranks wait for it in their collectives
    assert len(bucket.log()) == 1
    masters["c"] *= 2
    sync(transfer, Stream(masters))
    assert_holds(bucket, masters)
    assert [model_version(version) for version in bucket.log()] == [2, 1]


def test_a_sync_goes_on_from_what_somebody_else_published(bucket, masters):
    transfer = WeightTransfer(bucket)
    sync(transfer, Stream(masters))
    bucket.publish({name: torch.zeros_like(tensor) for name, tensor in in_bf16(masters).items()})
    masters["a"] += 1
    sync(transfer, Stream(masters))
    assert_holds(bucket, masters)
    assert [model_version(version) for version in bucket.log()] == [2, None, 1]


def test_a_name_given_twice_is_refused(bucket, masters):
    stream = Stream(masters)
    stream.pairs.append(stream.pairs[0])
    with pytest.raises(siltstone.InvalidArgument, match="'a' is given twice"):
        WeightTransfer(bucket).send_weights(stream)
    assert stream.taken == 4 and bucket.branches() == {}


def test_an_engine_that_cannot_take_a_version_fails_the_sync(bucket, masters):
    def tell(report):
        raise ConnectionError("the engine is gone")

    transfer = WeightTransfer(bucket, on_published=tell)
    with pytest.raises(ConnectionError):
        sync(transfer, Stream(masters))
    assert len(bucket.log()) == 1  # it was durable before the engine was told




def trainer_like(**attributes):
    return types.SimpleNamespace(
        model=types.SimpleNamespace(), processing_class=None, accelerator=types.SimpleNamespace(is_main_process=True),
        args=types.SimpleNamespace(weight_sync_steps=5), state=types.SimpleNamespace(global_step=40), model_version=8,
        callbacks=[], **attributes,
    )


def test_the_seam_is_detected(bucket, masters):
    class Old:
        def __init__(self, model, weight_transfer=None):
            pass

    class New:
        def __init__(self, model):
            pass

    transfer = WeightTransfer(bucket)
    assert transfer.arguments(Old) == {"weight_transfer": transfer} and transfer.arguments(New) == {}

    has_one = trainer_like(weight_transfer=object())
    assert transfer.attach(has_one) == "weight_transfer" and has_one.weight_transfer is transfer
    sync(transfer, Stream(masters))
    assert (transfer.version.step, model_version(transfer.version)) == (40, 9)

    has_none = trainer_like()
    has_none.add_callback = has_none.callbacks.append
    assert transfer.attach(has_none) == "callback"
    assert [callback.every for callback in has_none.callbacks] == [5]
