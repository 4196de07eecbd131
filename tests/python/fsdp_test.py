"""WeightTransfer under FSDP2: rank 0 publishes what all ranks gather, and a failed sync leaves no rank behind."""

import multiprocessing

import pytest

import siltstone

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def gathered(model, meta=None):
    """What AsyncGRPOTrainer streams: each parameter whole, which is a collective of all ranks."""
    for name, parameter in model.named_parameters():
        whole = parameter.full_tensor()
        yield name, whole.to("meta") if name == meta else whole


def train(rank, meeting, bucket, wanted):
    from torch.distributed.fsdp import fully_shard

    from siltstone.integrations.trl import WeightTransfer

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(33, 17), torch.nn.Linear(17, 5))
    fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    transfer = WeightTransfer(bucket) if rank == 0 else None
    for step in range(5):
        model(torch.randn(8, 33)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        stream = gathered(model, meta="0.weight" if step == 2 else None)
        if rank != 0:
            for _ in stream:
                pass
        elif step == 2:
            with pytest.raises(siltstone.InvalidArgument, match="meta"):
                transfer.send_weights(stream)
        else:
            transfer.send_weights(stream)
        torch.distributed.barrier()
    state = {name: parameter.full_tensor().to(torch.bfloat16) for name, parameter in model.named_parameters()}
    if rank == 0:
        torch.save(state, wanted)
    torch.distributed.destroy_process_group()


def test_all_ranks_go_on_after_a_failed_sync_and_nothing_drifts(tmp_path):
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "meeting"), str(tmp_path / "bucket"), str(tmp_path / "wanted"))
    ranks = [context.Process(target=train, args=(rank, *arguments), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(180)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    repository = siltstone.open(tmp_path / "bucket")
    assert len(repository.log()) == 4
    loaded, wanted = repository.load(), torch.load(tmp_path / "wanted")
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name].view(torch.int16), wanted[name].view(torch.int16)) for name in wanted)
