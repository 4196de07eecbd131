#!/usr/bin/env python3
"""Reinforcement learning through a bucket: train, publish, follow, generate, prove, rebuild.

This process trains a policy with TRL's AsyncGRPOTrainer and publishes it after every step. Another one
(rollouts.py) generates what it trains on; each policy reaches it through the bucket, a plain directory,
and nothing else. At the end every version is rebuilt from the bucket and compared with what the trainer
had, by SHA-256 of all its bits. Exits 0 only if each of them is identical and the reward has risen.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import cpu
import policy
import torch
from datasets import Dataset
from rollouts import GENERATIONS, Rollouts
from run_folder import Failure, make_empty, megabytes
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer

import siltstone
from siltstone.integrations.trl import WeightTransfer, model_version

COLUMNS = {"step": 4, "reward": 6, "staleness": 9, "changed": 8, "delta": 9, "of full": 8, "bits/chg": 8,
           "anchor": 6, "publish": 8}


class Published:
    """Keeps what each publish did, and the SHA-256 of the policy that was published."""

    def __init__(self):
        self.trainer = None
        self.reports = []
        self.digests = []

    def __call__(self, report):
        self.reports.append(report)
        weights = [(name, tensor.detach().to(torch.bfloat16))
                   for name, tensor in self.trainer.model.named_parameters()]
        self.digests.append(policy.digest_of(weights))


class Table(TrainerCallback):
    """A row for each step."""

    def __init__(self, published):
        self.published = published
        self.rows = []

    def on_train_begin(self, args, state, control, **kwargs):
        print("  ".join(name.rjust(width) for name, width in COLUMNS.items()), flush=True)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" not in logs:
            return
        report = self.published.reports[-1]
        row = {
            "step": state.global_step, "reward": logs["reward"], "staleness": logs["sample/staleness_mean"],
            "changed": report.changed_elements / report.total_elements, "changed_elements": report.changed_elements,
            "delta_bytes": sum(part.size_bytes for part in report.version.artifacts if part.kind == "delta"),
            "written_bytes": report.bytes_written, "full_bytes": report.total_bytes,
            "publish_seconds": report.seconds, "sync_seconds": logs["perf/weight_sync_s"],
            "sync_pause_seconds": logs["perf/weight_sync_pause_s"],
        }
        self.rows.append(row)
        cells = (
            row["step"], f"{row['reward']:.3f}", f"{row['staleness']:.2f}", f"{row['changed']:.2%}",
            megabytes(row["delta_bytes"]), f"{row['delta_bytes'] / row['full_bytes']:.2%}",
            f"{8 * row['delta_bytes'] / max(1, row['changed_elements']):.2f}",
            "yes" if row["written_bytes"] > row["full_bytes"] else "", f"{row['publish_seconds']:.2f} s",
        )
        print("  ".join(str(cell).rjust(width) for cell, width in zip(cells, COLUMNS.values())), flush=True)


def prepare(run, size):
    """Empties the run's folder and writes the model folder that training starts from."""
    make_empty(run)
    start = policy.new_policy(size)
    start.save_pretrained(run / "start")
    policy.tokenizer().save_pretrained(run / "start")
    return sum(tensor.numel() for tensor in start.parameters())


def train(options, run, bucket):
    """Returns the table's rows, what was published, and what the generating process received."""
    cpu.allow_cpu()
    batch = GENERATIONS * options.prompts
    args = AsyncGRPOConfig(
        str(run / "trainer"), max_steps=options.steps, per_device_train_batch_size=batch,
        num_generations=GENERATIONS, max_completion_length=16, learning_rate=options.learning_rate, token_budget=0,
        lr_scheduler_type="constant", max_staleness=4, weight_sync_steps=1, gradient_checkpointing=False,
        use_cpu=True, bf16=False, dtype="float32", report_to="none", disable_tqdm=True, logging_steps=1,
        save_strategy="no",
    )
    published = Published()
    table = Table(published)
    rollouts = Rollouts(str(bucket), ahead=2 * batch)
    transfer = WeightTransfer(bucket, momentum=True, on_published=published)
    trainer = AsyncGRPOTrainer(
        model=str(run / "start"), args=args, processing_class=policy.tokenizer(), callbacks=[table],
        train_dataset=Dataset.from_list([{"prompt": text} for text in policy.prompts()]),
        rollout_worker=rollouts, **transfer.arguments(AsyncGRPOTrainer),
    )
    trainer.remove_callback(PrinterCallback)
    published.trainer = trainer
    if transfer.attach(trainer) != "weight_transfer":
        raise Failure("this TRL has no weight_transfer argument any more")
    trainer.train()
    return table.rows, published, rollouts.received()


def prove(run, repository, published, received):
    """Every version against what the trainer had; the versions that were followed as well."""
    versions = {version.seq: version for version in repository.log()}
    if sorted(versions) != list(range(len(published.digests))):
        raise Failure(f"published {len(published.digests)} versions, the bucket has {sorted(versions)}")
    for seq, wanted in enumerate(published.digests):
        if model_version(versions[seq]) != seq + 1:
            raise Failure(f"main@{seq} is the trainer's model_version {model_version(versions[seq])}")
        if policy.digest_of(repository.load(versions[seq]).items()) != wanted:
            raise Failure(f"main@{seq}, rebuilt from the bucket, is not what the trainer had")
    for report in received:
        if report["digest"] != published.digests[report["seq"]]:
            raise Failure(f"main@{report['seq']} of the generating process is not what the trainer had")
    if received[-1]["seq"] != len(published.digests) - 1:
        raise Failure(f"the generating process ended at main@{received[-1]['seq']}")
    flipped = repository.load("main")
    next(iter(flipped.values())).view(-1).view(torch.uint8)[0] ^= 1
    if policy.digest_of(flipped.items()) == published.digests[-1]:
        raise Failure("the comparison does not notice a flipped bit")
    problems = repository.verify(data=True).problems
    if problems:
        raise Failure(f"verify: {problems}")


def summarize(rows, received):
    quarter = max(1, len(rows) // 4)
    first, last = (statistics.mean(row["reward"] for row in part) for part in (rows[:quarter], rows[-quarter:]))
    delta = statistics.mean(row["delta_bytes"] for row in rows)
    full = rows[0]["full_bytes"]
    commit = statistics.median(report["commit_seconds"] for report in received[1:])
    print(f"the generating process went to {len(received)} versions, each as the trainer had it; a commit, during "
          f"which it stands still, took {1e3 * commit:.1f} ms (median)")
    print(f"all {len(rows) + 1} versions rebuilt from the bucket, each as the trainer had it; verify: ok")
    print(f"a step ships {megabytes(delta)} on average, {full / delta:.1f} times less than the model "
          f"({megabytes(full)}); {statistics.mean(row['changed'] for row in rows):.2%} of the words change")
    print(f"reward: {first:.3f} in the first quarter, {last:.3f} in the last")
    if len(rows) >= 8 and last <= first:
        raise Failure("the reward has not risen")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, default=pathlib.Path("demo-run"),
                        help="folder for everything the demo writes; an earlier run is removed")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--size", choices=policy.SIZES, default="small")
    parser.add_argument("--prompts", type=int, default=4, help="of each step; 8 completions each")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    options = parser.parse_args()
    if options.steps < 1 or options.prompts < 1:
        parser.error("--steps and --prompts must be at least 1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # the generating process has the other core
    began = time.monotonic()
    run = options.run.resolve()
    try:
        size = prepare(run, options.size)
        bucket = run / "bucket"
        print(f"GRPO on a policy of {size / 1e6:.1f} million parameters, {options.steps} steps; the process that "
              f"generates gets its policies\nfrom {bucket} alone. staleness: versions between the policy that wrote "
              "a sample and the one trained;\ndelta: what a follower fetches for the step; anchor: the whole policy "
              "was written too, for those who come later", flush=True)
        rows, published, received = train(options, run, bucket)
        prove(run, siltstone.open(bucket), published, received)
        (run / "summary.json").write_text(json.dumps({"rows": rows, "received": received}, indent=1))
        summarize(rows, received)
    except (Failure, ChildProcessError) as failure:
        print(f"\ndemo: FAILED: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    print(f"demo: passed in {time.monotonic() - began:.0f} s; everything is in {run}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
