"""Engines of several ranks: all of them move to a version, or none does."""

import multiprocessing
import threading
import time
from pathlib import Path

import pytest
import torch
from rank_engine import HIDDEN, Layout, MixedEngine, RankEngine, equal, loaded, publish

import siltstone
from siltstone import engine

TP, EP, PP = Layout(tp=2), Layout(ep=2), Layout(pp=2)


class Meeting:
    """Where threads that are ranks exchange objects."""

    def __init__(self, size):
        self.given, self.barrier = [None] * size, threading.Barrier(size, timeout=60)


class ThreadRanks(engine.Ranks):
    """A rank that is a thread."""

    def __init__(self, meeting, rank):
        super().__init__()
        self._meeting, self.rank, self.size = meeting, rank, len(meeting.given)

    def gather(self, value):
        self._meeting.given[self.rank] = value
        self._meeting.barrier.wait()
        out = list(self._meeting.given)
        self._meeting.barrier.wait()
        return out


class Together:
    """Runs a function in every rank at once."""

    def __init__(self, size=2):
        self.ranks = [ThreadRanks(meeting, rank) for meeting in [Meeting(size)] for rank in range(size)]

    def __call__(self, function):
        """[what it returned or raised], by rank."""
        out = [None] * len(self.ranks)

        def run(rank):
            try:
                out[rank] = function(self.ranks[rank])
            except Exception as error:
                out[rank] = error

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(out))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return out

    def all(self, function):
        out = self(function)
        for each in out:
            if isinstance(each, Exception):
                raise each
        return out


class Run:
    """A bucket, and an engine of two ranks at its first version."""

    def __init__(self, tmp_path, layout, folders=None, kind=RankEngine):
        self.layout, self.bucket, self.kind = layout, str(tmp_path / "bucket"), kind
        self.versions = publish(self.bucket, 6)
        self.models = [loaded(layout, rank, self.versions[0], kind=kind) for rank in range(2)]
        self.host = tmp_path / "host"
        self.host.mkdir()
        self.folders = folders or [str(self.host)] * 2
        self.together = Together()

    def attach(self, at="main@0", **options):
        self.replicas = self.together.all(lambda ranks: self.attach_rank(ranks, at, **options))
        return self.replicas

    def attach_rank(self, ranks, at="main@0", reload=False, **options):
        model = self.models[ranks.rank]
        options = {"host_folder": self.folders[ranks.rank], "reload": model.load_weights if reload else None, **options}
        return engine.attach(siltstone.open(self.bucket), model, model.load_weights, at, ranks=ranks, **options)

    def update(self, ref, **options):
        return self.together(lambda ranks: self.replicas[ranks.rank].update(ref, **options))

    def holds(self, seq):
        return all(equal(model.bits(), loaded(self.layout, rank, self.versions[seq], kind=self.kind).bits())
                   for rank, model in enumerate(self.models))

    def left(self):
        return [path for folder in self.folders for path in Path(folder).iterdir()]

    def close(self):
        for replica in self.replicas:
            replica.close()


@pytest.fixture(params=["one host", "two hosts"])
def tp(request, tmp_path):
    folders = None
    if request.param == "two hosts":  # folders that are not the same one are what hosts differ in
        folders = [str(tmp_path / f"host-{rank}") for rank in range(2)]
        for rank in range(2):
            (tmp_path / f"host-{rank}").mkdir()
    return Run(tmp_path, TP, folders)


def test_parts_of_tensors_arrive_on_every_rank(tp):
    before = [model.bits() for model in tp.models]
    replicas = tp.attach()
    assert [equal(model.bits(), was) for model, was in zip(tp.models, before)] == [True, True]
    assert [replica.host.leader for replica in replicas] == [True, len(set(tp.folders)) == 2]
    assert "share a copy of the weights" in replicas[1].summary()
    for seq in (1, 2, 5):
        reports = tp.update(f"main@{seq}")
        assert [report.version.seq for report in reports] == [seq, seq]
        assert tp.holds(seq)
    assert tp.update("main@5") == [None, None], "they hold it already"
    assert all(reports.version.seq == 3 for reports in tp.update("main@3")) and tp.holds(3), "and back"
    tp.close()
    assert tp.left() == []


@pytest.mark.parametrize("layout, copies", [(EP, "auto"), (PP, "auto"), (EP, "never"), (EP, "always")])
def test_whole_tensors_are_decoded_by_whom_they_are_held(tmp_path, layout, copies):
    run = Run(tmp_path, layout)
    replicas = run.attach(host_copy=copies)
    assert all((replica.host is not None) == (copies == "always") for replica in replicas)
    for seq in (2, 3, 5, 1):
        assert [report.version.seq for report in run.update(f"main@{seq}")] == [seq, seq]
        assert run.holds(seq)
    if copies != "always":
        run.models[1].norm.data.view(torch.int16)[0] ^= 1
        raised = run.update("main@2")
        assert isinstance(raised[1], siltstone.Mismatch) and "norm" in str(raised[1])
        assert isinstance(raised[0], siltstone.Mismatch) and "rank 1:" in str(raised[0])
        assert [report.version.seq for report in run.update("main@2", repair=True)] == [2, 2]
        assert run.holds(2)
    run.close()


class Experts(torch.nn.Module):
    """One of two ranks that have half of the experts each, stacked in one parameter."""

    def __init__(self, rank):
        super().__init__()
        self.rank, self.stack = rank, torch.nn.Parameter(torch.zeros(16, 256, 1024, dtype=torch.bfloat16), False)

    def load_weights(self, weights):
        for name, tensor in weights:
            owner, place = divmod(int(name.split(".")[1]), 16)
            if owner == self.rank:
                self.stack.data[place].copy_(tensor)


def test_a_rank_fetches_what_it_holds(tmp_path):
    torch.manual_seed(0)
    experts = {f"experts.{i}": torch.randn(256, 1024).bfloat16() for i in range(32)}
    models = [Experts(rank) for rank in range(2)]
    for model in models:
        model.load_weights(experts.items())
    repository = siltstone.init(tmp_path / "bucket")
    with repository.publisher() as publisher:
        publisher.publish(experts)
        for tensor in experts.values():
            tensor.view(torch.int16)[torch.rand(tensor.shape) < 0.3] ^= 1
        delta = publisher.publish(experts).version.artifacts[0]
    assert delta.kind == "delta"
    together = Together()
    replicas = together.all(lambda ranks: engine.attach(
        repository, models[ranks.rank], models[ranks.rank].load_weights, "main@0", ranks=ranks))
    staged = together.all(lambda ranks: replicas[ranks.rank].stage("main@1"))
    fetched = [each.bytes_fetched / delta.size_bytes for each in staged]
    together.all(lambda ranks: replicas[ranks.rank].update("main@1"))
    assert all(0.5 < share < 0.6 for share in fetched), fetched
    assert torch.equal(torch.cat([model.stack for model in models]), torch.stack(list(experts.values())))


def test_parts_need_a_copy(tmp_path):
    run = Run(tmp_path, TP)
    raised = run.together(lambda ranks: run.attach_rank(ranks, host_copy="never"))
    assert all(isinstance(error, siltstone.Unsupported) for error in raised)
    assert "hold parts of" in str(raised[0]) and run.holds(0)


def test_what_no_rank_has_is_named(tmp_path):
    run = Run(tmp_path, EP)
    run.models[1] = loaded(EP, 1, run.versions[0], drop="layers.1.experts.3.up.weight")
    raised = run.together(run.attach_rank)
    assert all(isinstance(error, siltstone.Unsupported) for error in raised)
    assert "leaves out 1 tensors" in str(raised[0]) and "'layers.1.experts.3.up.weight'" in str(raised[0])


def test_what_is_tied_is_so_in_every_version(tp):
    tp.attach()
    untied = {name: tensor.clone() for name, tensor in tp.versions[5].items()}
    untied["lm_head.weight"].view(torch.int16)[0, 0] ^= 1
    siltstone.open(tp.bucket).publish(untied)
    raised = tp.update("main@6")
    assert all(isinstance(error, siltstone.Mismatch) and "are one in the engine" in str(error) for error in raised)
    assert tp.holds(0)
    tp.close()


def test_a_rank_that_holds_another_version_is_refused_by_all(tp):
    tp.models[1].load_weights(tp.versions[1].items())
    raised = tp.together(tp.attach_rank)
    assert all(isinstance(error, siltstone.Mismatch) for error in raised)
    assert "rank 1: tensor" in str(raised[0]) and "does not hold main@0" in str(raised[1])
    assert tp.left() == []


def test_one_rank_that_cannot_stops_all(tp):
    tp.attach()
    assert all(isinstance(error, siltstone.NotFound) for error in tp.update("main@9"))
    moved = tp.models[1].norm
    kept, moved.data = moved.data, moved.data.clone()
    raised = tp.update("main@1")
    assert isinstance(raised[1], siltstone.Mismatch) and "norm" in str(raised[1])
    assert isinstance(raised[0], siltstone.Mismatch) and str(raised[0]).startswith("rank 1: ")
    assert tp.holds(0), "nothing was written"
    moved.data = kept
    tp.models[0].norm.data.view(torch.int16)[3] ^= 1
    raised = tp.update("main@1")
    assert all(isinstance(error, siltstone.Mismatch) for error in raised) and "'norm.weight'" in str(raised[1])
    tp.models[0].norm.data.view(torch.int16)[3] ^= 1
    assert [report.version.seq for report in tp.update("main@1")] == [1, 1], "and it goes on"
    assert tp.holds(1)
    tp.close()


def test_versions_are_staged_ahead_on_every_rank(tp):
    replicas = tp.attach()
    ahead = [engine.Prefetch(replica, interval=0.01) for replica in replicas]
    try:
        until = time.monotonic() + 60
        while not all(each._staged is not None for each in ahead) and time.monotonic() < until:
            time.sleep(0.01)
        assert [each._staged.target.seq for each in ahead] == [5, 5] and tp.holds(0)
        reports = tp.together(lambda ranks: ahead[ranks.rank].commit("main@5"))
        assert [report.version.seq for report in reports] == [5, 5] and tp.holds(5)
        assert tp.together(lambda ranks: ahead[ranks.rank].commit("main@5")) == [None, None]
        reports = tp.together(lambda ranks: ahead[ranks.rank].commit("main@2"))
        assert [report.version.seq for report in reports] == [2, 2] and tp.holds(2), "another than the newest"
    finally:
        for each in ahead:
            each.close()
        tp.close()


def test_what_rank_0_names_is_where_all_go(tp):
    tp.attach()
    reports = tp.together(lambda ranks: tp.replicas[ranks.rank].update(f"main@{2 + ranks.rank}"))
    assert [report.version.seq for report in reports] == [2, 2] and tp.holds(2)
    tp.close()


def test_ranks_do_not_move_alone(tmp_path):
    run = Run(tmp_path, TP)
    replicas = run.attach()
    with pytest.raises(siltstone.NotFound, match="leader of this host has not staged main@1"):
        replicas[1].stage("main@1")
    staged = replicas[0].stage("main@1")
    with pytest.raises(siltstone.InvalidArgument, match="move together"):
        staged.commit()
    with pytest.raises(siltstone.InvalidArgument, match="move together"):
        replicas[0].follow()
    raised = run.update("main@1", repair=True)
    assert all(isinstance(error, siltstone.Unsupported) for error in raised)
    assert run.holds(0)
    run.close()


def test_staging_keeps_within_its_memory(tp):
    tp.attach()
    raised = tp.update("main@5", memory_bytes=1 << 12)
    assert all(isinstance(error, siltstone.Unsupported) and "allow more" in str(error) for error in raised)
    assert tp.holds(0)
    tp.close()


@pytest.fixture
def mixed(tmp_path):
    return Run(tmp_path, TP, kind=MixedEngine)


def test_every_rank_reloads_what_has_no_place(mixed):
    raised = mixed.together(mixed.attach_rank)
    assert all(isinstance(error, siltstone.Unsupported) and "'layers.0.o.weight'" in str(error) for error in raised)
    replicas = mixed.attach(reload=True)
    assert mixed.holds(0)
    for replica in replicas:
        assert {"norm.weight", "layers.0.o.weight", "layers.0.q.weight"} <= replica.reloaded.keys()
        assert "embed.weight" not in replica.reloaded and "layers.1.q.weight" not in replica.reloaded
    for seq in (1, 3, 5, 2):
        reports = mixed.update(f"main@{seq}")
        assert [report.version.seq for report in reports] == [seq, seq]
        assert all(7 <= report.reloaded <= 8 for report in reports), "the first layer, and the norm if it changed"
        assert mixed.holds(seq)
    mixed.close()
    assert mixed.left() == []


def test_ranks_that_hold_another_version_are_brought_to_it(mixed):
    mixed.models[1].load_weights(mixed.versions[4].items())
    mixed.attach(reload=True)
    assert mixed.holds(0)
    mixed.close()


def test_a_loader_that_fails_on_one_rank_takes_all_back(mixed):
    replicas = mixed.attach(reload=True)
    mixed.models[1].fails = [True]
    raised = mixed.update("main@2")
    assert [error.outcome for error in raised] == ["UNCHANGED"] * 2
    assert all("out of scales" in str(error) and "holds main@0 again" in str(error) for error in raised)
    assert mixed.holds(0)
    assert [report.version.seq for report in mixed.update("main@2")] == [2, 2]
    assert mixed.holds(2)

    mixed.models[0].fails = [True, True]  # also on the way back
    raised = mixed.update("main@3")
    assert [error.outcome for error in raised] == ["POISONED"] * 2 and all("hold no version" in str(e) for e in raised)
    assert [replica.version for replica in replicas] == [None, None]
    raised = mixed.update("main@3")
    assert all(isinstance(error, siltstone.Mismatch) and "hold no version" in str(error) for error in raised)
    mixed.close()
    mixed.attach("main@4", reload=True)
    assert mixed.holds(4), "attaching again heals"
    mixed.close()


def test_what_killed_leaders_left_is_swept(tmp_path):
    run = Run(tmp_path, TP)
    left = run.host / "siltstone-ranks-killed"
    left.mkdir()
    (left / "lock").touch()
    (left / "main%407.changes").write_bytes(b"x" * 1000)
    (run.host / "siltstone-ranks-no-lock").mkdir()  # just being made, perhaps
    run.attach()
    assert not left.exists() and (run.host / "siltstone-ranks-no-lock").exists()
    run.close()


def test_an_absent_folder_is_told(tmp_path):
    run = Run(tmp_path, TP)
    raised = run.together(lambda ranks: run.attach_rank(ranks, host_folder=str(tmp_path / "none")))
    assert all(isinstance(error, Exception) and "none" in str(error) for error in raised)


def process(rank, meeting, bucket, folder, told):
    """One of two processes that are ranks; tells what it found."""
    import resource

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    ranks = engine.Ranks(torch.distributed.group.WORLD)
    versions = [siltstone.open(bucket).load(f"main@{seq}") for seq in range(6)]
    model = loaded(TP, rank, versions[0])
    attach = lambda: engine.attach(  # noqa: E731
        siltstone.open(bucket), model, model.load_weights, "main@0", ranks=ranks, host_folder=folder
    )
    out = []

    def with_full_disk(call):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            call()
        except siltstone.Error as error:
            out.append((type(error).__name__, str(error)))
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with_full_disk(attach)
    replica = attach()
    with_full_disk(lambda: replica.update("main@1"))
    out.append(equal(model.bits(), loaded(TP, rank, versions[0]).bits()))
    for seq in (1, 4, 5):
        replica.update(f"main@{seq}")
        out.append(equal(model.bits(), loaded(TP, rank, versions[seq]).bits()))
    replica.close()
    told.put((rank, out))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_ranks_are_processes(tmp_path):
    publish(tmp_path / "bucket", 6)
    context = multiprocessing.get_context("spawn")
    told, folder = context.Queue(), tmp_path / "host"
    folder.mkdir()
    arguments = (str(tmp_path / "meeting"), str(tmp_path / "bucket"), str(folder), told)
    ranks = [context.Process(target=process, args=(rank, *arguments), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    found = dict(told.get(timeout=180) for _ in ranks)
    for rank in ranks:
        rank.join(60)
    for rank in range(2):
        *failures, unchanged, first, second, third = found[rank]
        assert [kind for kind, _ in failures] == ["IOFailure"] * 2
        assert "no room for a copy of the weights" in failures[0][1]
        assert "what main@1 changes cannot be written to" in failures[1][1]
        assert unchanged and first and second and third
    assert not list(folder.iterdir())


def test_the_engine_of_these_tests_is_sharded():
    assert RankEngine(TP, 0).embed.shape == (24, HIDDEN) and getattr(RankEngine(EP, 0), "1_down").shape[0] == 2
