"""FSDP2: rank 0 publishes what all ranks gather, and a failure leaves no rank behind."""

import multiprocessing
import types

import pytest

import siltstone

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def gathered(model, meta=None):
    """What AsyncGRPOTrainer streams: each parameter whole, which is a collective of all ranks."""
    for name, parameter in model.named_parameters():
        whole = parameter.full_tensor()
        yield name, whole.to("meta") if name == meta else whole


class Rank:
    """One of two processes with a sharded model and its optimizer."""

    def __init__(self, rank, meeting):
        from torch.distributed.fsdp import fully_shard

        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(33, 17), torch.nn.Linear(17, 17), torch.nn.Linear(17, 5))
        self.model[2].bias.requires_grad_(False)
        fully_shard(self.model, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def step(self):
        self.model(torch.randn(8, 33)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def end(self, rank, wanted):
        state = {name: whole.to(torch.bfloat16) for name, whole in gathered(self.model)}
        if rank == 0:
            torch.save(state, wanted)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def sync(rank, meeting, bucket, wanted):
    from siltstone.integrations.trl import WeightTransfer

    own = Rank(rank, meeting)
    transfer = WeightTransfer(bucket) if rank == 0 else None
    for step in range(5):
        own.step()
        stream = gathered(own.model, meta="0.weight" if step == 2 else None)
        if rank != 0:
            for _ in stream:
                pass
        elif step == 2:
            with pytest.raises(siltstone.InvalidArgument, match="meta"):
                transfer.send_weights(stream)
        else:
            transfer.send_weights(stream)
    own.end(rank, wanted)


def call_back(rank, meeting, bucket, wanted):
    from siltstone.integrations.transformers import PublishCallback

    own = Rank(rank, meeting)
    callback = PublishCallback(bucket, every=2, companions={})
    args = types.SimpleNamespace(fsdp=True, fsdp_plugin_args={"fsdp_version": 2}, output_dir=bucket)
    state = types.SimpleNamespace(is_world_process_zero=rank == 0, global_step=0)
    callback.on_train_begin(args, state, None, model=own.model)
    for state.global_step in range(1, 6):
        own.step()
        callback.on_step_end(args, state, None, model=own.model)
        if state.global_step == 3:
            callback.on_save(args, state, None, model=own.model)
    callback.on_train_end(args, state, None, model=own.model)
    own.end(rank, wanted)


@pytest.mark.parametrize("program, steps", [(sync, [None] * 4), (call_back, [5, 4, 3, 2, 0])])
def test_all_ranks_take_part_and_nothing_drifts(tmp_path, program, steps):
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "meeting"), str(tmp_path / "bucket"), str(tmp_path / "wanted"))
    ranks = [context.Process(target=program, args=(rank, *arguments), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(180)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    repository = siltstone.open(tmp_path / "bucket")
    assert [version.step for version in repository.log()] == steps
    loaded, wanted = repository.load(), torch.load(tmp_path / "wanted")
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name].view(torch.int16), wanted[name].view(torch.int16)) for name in wanted)


def test_what_cannot_be_gathered_is_refused(tmp_path):
    from siltstone.integrations.transformers import PublishCallback

    callback = PublishCallback(tmp_path / "bucket")
    state = types.SimpleNamespace(is_world_process_zero=True, global_step=0)
    zero3 = types.SimpleNamespace(is_zero3=lambda: True)
    for args in (types.SimpleNamespace(fsdp="full_shard", fsdp_config={}),
                 types.SimpleNamespace(fsdp=True, fsdp_plugin_args={"fsdp_version": 1}),
                 types.SimpleNamespace(fsdp=None, hf_deepspeed_config=zero3)):
        with pytest.raises(siltstone.Unsupported, match="FSDP2"):
            callback.on_train_begin(args, state, None, model=torch.nn.Linear(2, 2))
