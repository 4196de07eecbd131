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
transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")

from rollout_program import digest_of_logits  # noqa: E402 - it imports what may be missing

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
    end = json.loads((output / "end.json").read_text())
    rewards = end["rewards"]
    assert statistics.mean(rewards[-4:]) > 2 * statistics.mean(rewards[:4]), rewards
    seen = json.loads(followed.read_text())
    assert [entry["step"] for entry in seen] == sorted({entry["step"] for entry in seen})
    # The policy that was followed is the trainer's in bf16, to the last bit of its logits.
    assert seen[-1]["step"] == STEPS and seen[-1]["logits"] == end["logits"]
    repository = siltstone.open(bucket)
    assert [version.step for version in repository.log()] == list(range(STEPS, -1, -1))
    assert repository.verify(data=True).problems == []
    # And at every version on the way it was that version.
    repository.checkout("main", tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    policy = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    for entry in seen:
        repository.load(entry["version"], policy)
        assert digest_of_logits(policy) == entry["logits"], entry["version"]
