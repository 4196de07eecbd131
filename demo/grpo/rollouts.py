"""The process that generates: it follows the bucket, writes with the newest policy, and sends samples back.

From the trainer it gets nothing but the bucket's path. Samples go the other way, through a queue.
"""

import itertools
import multiprocessing
import queue
import tempfile
import threading
import time
from contextlib import contextmanager

import numpy as np
import policy
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

import siltstone
from siltstone.integrations.trl import model_version

GENERATIONS = 8  # of each prompt
NEW_TOKENS = 16


class Turns:
    """The engine generates batch by batch; a follower's commit goes between two of them."""

    def __init__(self):
        self._next = threading.Lock()  # who waits here goes before who comes later
        self._busy = threading.Lock()

    @contextmanager
    def taken(self):
        with self._next:
            self._busy.acquire()
        try:
            yield
        finally:
            self._busy.release()


class Engine:
    """A policy in memory that follows a bucket while it generates."""

    def __init__(self, bucket, report):
        self.repository = siltstone.open(bucket)
        with tempfile.TemporaryDirectory() as folder:
            self.repository.checkout("main", f"{folder}/model")
            config = AutoConfig.from_pretrained(f"{folder}/model")
        self.policy = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        self.replica = self.repository.replica(self.policy)
        self.turns = Turns()
        self._report = report
        self._tell(self.replica.version)

    @contextmanager
    def _pause(self, version):
        with self.turns.taken():
            began = time.perf_counter()
            yield
            # Before anything is generated with it: the policy that is compared is the policy that writes.
            self._tell(version, commit_seconds=time.perf_counter() - began)

    def _tell(self, version, **times):
        digest = policy.digest_of(self.policy.named_parameters())
        self._report.put({"seq": version.seq, "digest": digest, **times})

    def follow(self):
        return self.replica.follow(pause=self._pause, interval=0.05)

    @torch.no_grad()
    def write(self, prompt):
        """(tokens, logarithms of their probabilities, the policy's version); one row per completion."""
        with self.turns.taken():
            version = self.replica.version
            tokens = self.policy.generate(prompt.repeat(GENERATIONS, 1), max_new_tokens=NEW_TOKENS,
                                          min_new_tokens=NEW_TOKENS, do_sample=True, top_k=0, pad_token_id=0)
            logits = self.policy(tokens).logits[:, :-1].float()
        chances = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        return tokens, torch.nn.functional.pad(chances, (1, 0)), version


def work(bucket, samples, metrics, report, stop):
    """The process. Ends when it is told to and has the branch's last version, or when the trainer is gone."""
    trainer = multiprocessing.parent_process()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    letters = policy.tokenizer()
    asked = [letters(text, return_tensors="pt").input_ids for text in policy.prompts()]
    engine = Engine(bucket, report)
    with engine.follow() as follower:
        for group in itertools.count():
            if stop.is_set() or not follower.running or not trainer.is_alive():
                break
            began = time.perf_counter()
            prompt = asked[group % len(asked)]
            tokens, chances, version = engine.write(prompt)
            metrics.put({"rollout/tokens_per_second": (GENERATIONS * NEW_TOKENS, time.perf_counter() - began)})
            for sample in scored(letters, prompt, tokens, chances, model_version(version), group):
                give(samples, sample, stop, trainer)
        while follower.running and follower.version != engine.repository.head():
            time.sleep(0.05)
        follower.check()
    report.put(None)
    samples.cancel_join_thread()  # nobody reads what is left
    metrics.cancel_join_thread()


def scored(letters, prompt, tokens, chances, number, group):
    """The samples of one prompt, with what GRPO calls advantages: rewards relative to the group's."""
    texts = letters.batch_decode(tokens[:, prompt.shape[1]:])
    rewards = torch.tensor([policy.reward(text) for text in texts])
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    written = np.arange(tokens.shape[1]) >= prompt.shape[1]
    for row, text in enumerate(texts):
        yield RolloutSample(
            prompt=[{"role": "user", "content": letters.decode(prompt[0])}],
            completion=[{"role": "assistant", "content": text}],
            input_ids=tokens[row].numpy(), completion_mask=written.astype(np.int64),
            old_log_probs=chances[row].numpy(), advantage=float(advantages[row]), model_version=number,
            group_id=group, metrics={"reward": float(rewards[row])}, enqueued_at=time.time(),
        )


def give(samples, sample, stop, trainer):
    """Waits while the trainer has enough: what it would take later would be stale by then."""
    while not stop.is_set() and trainer.is_alive():
        try:
            return samples.put(sample, timeout=0.2)
        except queue.Full:
            continue


class Rollouts:
    """What AsyncGRPOTrainer takes as `rollout_worker`: the process and its queues.

    What the process reports: a dict for each version that it went to, with its seq, the SHA-256 of the
    policy's tensors once it was applied, and the seconds that the commit took.
    """

    def __init__(self, bucket, ahead):
        context = multiprocessing.get_context("spawn")  # a fork would inherit the trainer's threads
        self.rollout_buffer = context.Queue(ahead)
        self.metrics_queue = context.Queue()
        self._reports = context.Queue()
        self._stop = context.Event()
        self._process = context.Process(
            target=work, args=(bucket, self.rollout_buffer, self.metrics_queue, self._reports, self._stop),
            daemon=True
        )

    def start(self):
        self._process.start()

    def stop(self):
        self._stop.set()

    def update_model_version(self, model_version):
        pass  # versions reach the process through the bucket, and samples carry theirs

    def check_health(self, stale_after_s):
        if not self._process.is_alive():
            raise ChildProcessError(f"the process that generates ended with exit code {self._process.exitcode}")

    def received(self):
        """The reports, once the process has gone to the last version."""
        found = []
        while True:
            try:
                report = self._reports.get(timeout=5)
            except queue.Empty:
                self.check_health(5)
                continue
            if report is None:
                return found
            found.append(report)
