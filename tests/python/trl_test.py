"""Reinforcement learning for real: TRL's GRPO trains a policy, another process generates with every version."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import siltstone

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

HERE = Path(__file__).parent
STEPS = 20


def start(program, *arguments):
    return subprocess.Popen([sys.executable, HERE / program, *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def test_grpo_learns_and_a_process_that_follows_has_its_policy(tmp_path):
    bucket, output, followed = tmp_path / "bucket", tmp_path / "out", tmp_path / "followed.json"
    trainer = start("grpo_program.py", bucket, output, "--steps", STEPS)
    try:
        deadline = time.monotonic() + 300
        while not list(bucket.glob("**/log/main/*0.json")) and trainer.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        engine = start("rollout_program.py", bucket, followed, "--until", STEPS)
        try:
            told = trainer.communicate(timeout=900)[0]
            assert trainer.returncode == 0, told[-4000:]
            told = engine.communicate(timeout=300)[0]
            assert engine.returncode == 0, told[-4000:]
        finally:
            engine.kill()
    finally:
        trainer.kill()
    rewards = json.loads((output / "rewards.json").read_text())
    assert statistics.mean(rewards[-4:]) > 2 * statistics.mean(rewards[:4]), rewards
    seen = json.loads(followed.read_text())
    assert seen[-1]["step"] == STEPS
    assert [entry["step"] for entry in seen] == sorted({entry["step"] for entry in seen})
    assert len({json.dumps(entry["tokens"]) for entry in seen}) > 1  # it generated with weights that changed
    # The policy that was followed is the trainer's in bf16, to the last bit of its logits.
    assert torch.equal(torch.load(str(followed) + ".logits"), torch.load(output / "logits.pt"))
    repository = siltstone.open(bucket)
    assert [version.step for version in repository.log()] == list(range(STEPS, -1, -1))
    assert repository.verify(data=True).problems == []
