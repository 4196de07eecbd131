"""TRL's AsyncGRPOTrainer with the process that generates following the bucket: the demo, on a tiny policy."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import siltstone

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from siltstone.integrations.trl import model_version  # noqa: E402 - it imports what may be missing

DEMO = Path(__file__).parents[2] / "demo" / "grpo"


def start(run, steps):
    command = [sys.executable, DEMO / "demo.py", "--run", run, "--size", "tiny", "--steps", str(steps),
               "--learning-rate", "3e-3"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_policy_learns_from_what_a_process_that_follows_writes(tmp_path):
    steps = 16
    demo = start(tmp_path / "run", steps)
    told = demo.communicate(timeout=500)[0]
    assert demo.returncode == 0, told[-4000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    rows, received = summary["rows"], summary["received"]
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    # Samples are marked with the policies that wrote them, which are at most as old as is allowed.
    assert rows[0]["staleness"] == 0 and all(0 <= row["staleness"] <= 4 for row in rows)
    assert any(row["staleness"] > 0 for row in rows)
    assert all(row["sync_pause_seconds"] < row["sync_seconds"] for row in rows)
    seqs = [report["seq"] for report in received]
    assert seqs == sorted(set(seqs)) and seqs[-1] == steps
    assert all(report["commit_seconds"] > 0 for report in received[1:])
    log = siltstone.open(tmp_path / "run" / "bucket").log()
    assert [(version.step, model_version(version)) for version in log] == [(n, n + 1) for n in range(steps, -1, -1)]


def test_the_trainer_ends_when_the_process_that_generates_is_killed(tmp_path):
    demo = start(tmp_path / "run", 10_000)
    try:
        log = tmp_path / "run" / "bucket" / "log" / "main"
        deadline = time.monotonic() + 200
        while len(list(log.glob("*"))) < 4 and demo.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
        generating = [int(pid) for pid in children
                      if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(generating) == 1
        os.kill(generating[0], signal.SIGKILL)
        told = demo.communicate(timeout=200)[0]
    finally:
        demo.kill()
    assert demo.returncode == 1 and "the process that generates ended with exit code -9" in told, told[-4000:]
    assert siltstone.open(tmp_path / "run" / "bucket").verify(data=True).problems == []


def test_attention_over_a_tree_is_attention_over_each_sample(monkeypatch):
    monkeypatch.syspath_prepend(DEMO)
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    import cpu

    torch.manual_seed(0)
    # Tokens 0-2 are shared by samples that go on with 3-5 and with 6-7.
    segments, paths = [0, 3, 6, 8], [[0, 1, 2], [0, 1, 2, 3, 4, 5], [0, 1, 2, 6, 7]]
    query, key, value = torch.randn(1, 4, 8, 16), torch.randn(1, 2, 8, 16), torch.randn(1, 2, 8, 16)
    ends = torch.tensor([len(path) for path in paths]).cumsum(0)
    out, _ = cpu.tree_attention(
        None, query, key, value, None, tree_kv_index=torch.tensor(sum(paths, [])), scaling=0.25,
        tree_cu_seqlens_q=torch.tensor(segments), tree_cu_seqlens_k=torch.cat([torch.tensor([0]), ends]),
    )
    assert out.shape == (1, 8, 4, 16)
    for path in paths:
        alone = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, path], key[:, :, path], value[:, :, path], is_causal=True, scale=0.25, enable_gqa=True)
        torch.testing.assert_close(out[:, path], alone.transpose(1, 2))
