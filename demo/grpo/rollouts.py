"""The process that generates: it follows the bucket, writes with the newest policy, and sends samples back.

From the trainer it gets nothing but the bucket's path. What it writes goes back over a pipe: no lock is shared,
so either process may be killed at any moment, and the other one reads the end of the pipe.
"""

import contextlib
import itertools
import multiprocessing
import queue
import tempfile
import threading
import time

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

    @contextlib.contextmanager
    def taken(self):
        with self._next:
            self._busy.acquire()
        try:
            yield
        finally:
            self._busy.release()


class Trainer:
    """The generating process's end of the pipe. Threads: any."""

    def __init__(self, connection):
        self._connection = connection
        self._sending = threading.Lock()

    def tell(self, kind, what):
        with self._sending:
            self._connection.send((kind, what))

    def wants_more(self):
        """Waits while the trainer has enough: what it would take later would be stale by then."""
        return self._connection.recv()


class Engine:
    """A policy in memory that follows a bucket while it generates."""

    def __init__(self, bucket, trainer):
        self.repository = siltstone.open(bucket)
        with tempfile.TemporaryDirectory() as folder:
            self.repository.checkout("main", f"{folder}/model")
            config = AutoConfig.from_pretrained(f"{folder}/model")
        self.policy = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        self.replica = self.repository.replica(self.policy)
        self.turns = Turns()
        self._trainer = trainer
        self._tell(self.replica.version)

    @contextlib.contextmanager
    def _pause(self, version):
        with self.turns.taken():
            began = time.perf_counter()
            yield
            # Before anything is generated with it: the policy that is compared is the policy that writes.
            self._tell(version, commit_seconds=time.perf_counter() - began)

    def _tell(self, version, **times):
        digest = policy.digest_of(self.policy.named_parameters())
        self._trainer.tell("version", {"seq": version.seq, "digest": digest, **times})

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


def work(bucket, connection):
    """The process. Ends when it is told to and has the branch's last version, or when the trainer is gone."""
    with contextlib.suppress(EOFError, ConnectionError):  # the trainer is gone
        generate(bucket, Trainer(connection))


def generate(bucket, trainer):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    letters = policy.tokenizer()
    asked = [letters(text, return_tensors="pt").input_ids for text in policy.prompts()]
    engine = Engine(bucket, trainer)
    with engine.follow() as follower:
        for group in itertools.count():
            began = time.perf_counter()
            prompt = asked[group % len(asked)]
            tokens, chances, version = engine.write(prompt)
            speed = GENERATIONS * NEW_TOKENS, time.perf_counter() - began
            trainer.tell("metrics", {"rollout/tokens_per_second": speed})
            trainer.tell("samples", list(scored(letters, prompt, tokens, chances, model_version(version), group)))
            if not trainer.wants_more() or not follower.running:
                break
        while follower.running and follower.version != engine.repository.head():
            time.sleep(0.05)
        follower.check()


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


class Rollouts:
    """What AsyncGRPOTrainer takes as `rollout_worker`: the process, and queues of what it sent.

    ahead: how many samples wait for the trainer at most; a group more lies in the pipe.

    What the process reports: a dict for each version that it went to, with its seq, the SHA-256 of the
    policy's tensors once it was applied, and the seconds that the commit took.
    """

    def __init__(self, bucket, ahead):
        self.rollout_buffer = queue.Queue(ahead)
        self.metrics_queue = queue.Queue()
        self._reports = []
        self._stopped = threading.Event()
        context = multiprocessing.get_context("spawn")  # a fork would inherit the trainer's threads
        self._connection, self._other_end = context.Pipe()
        self._process = context.Process(target=work, args=(bucket, self._other_end), daemon=True)
        self._receiving = threading.Thread(target=self._receive, daemon=True)

    def start(self):
        self._process.start()
        self._other_end.close()  # only the process has it now: when that ends, so does the pipe
        self._receiving.start()

    def stop(self):
        self._stopped.set()

    def update_model_version(self, model_version):
        pass  # versions reach the process through the bucket, and samples carry theirs

    def check_health(self, stale_after_s):
        if not self._process.is_alive():
            raise ChildProcessError(f"the process that generates ended with exit code {self._process.exitcode}")

    def received(self):
        """The reports, once the process has gone to the last version and ended."""
        self._receiving.join()
        self._process.join()
        if self._process.exitcode != 0:
            self.check_health(None)
        return self._reports

    def _receive(self):
        with contextlib.suppress(EOFError, OSError):  # the process ended, or was killed within a message
            while True:
                kind, what = self._connection.recv()
                if kind == "version":
                    self._reports.append(what)
                elif kind == "metrics":
                    self.metrics_queue.put(what)
                else:
                    self._offer(what)
                    self._connection.send(not self._stopped.is_set())

    def _offer(self, samples):
        """Waits for the trainer to take them, unless it has stopped."""
        for sample in samples:
            while not self._stopped.is_set():
                with contextlib.suppress(queue.Full):
                    self.rollout_buffer.put(sample, timeout=0.2)
                    break
