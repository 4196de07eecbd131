"""Engine: a causal language model that generates token by token while its weights move from version to version."""

from __future__ import annotations

import dataclasses
import inspect
import os
import threading
from contextlib import contextmanager
from typing import Any

import torch

import siltstone
from siltstone import engine
from siltstone._version_needs import VersionNeeds, version_name
from siltstone.errors import Conflict, InvalidArgument, Mismatch

from .gate import Aborted, Gate

GIB = engine.GIB


@dataclasses.dataclass(frozen=True)
class Sampling:
    """temperature 0 takes the likeliest token; above, `seed` makes the draw repeatable. top_logprobs: how many
    likelier tokens to tell of each position."""

    max_tokens: int = 16
    temperature: float = 1.0
    seed: int | None = None
    top_logprobs: int = 0
    ignore_eos: bool = False


@dataclasses.dataclass
class Completion:
    """What was generated.

    logprobs       of the tokens, under the model's own distribution (temperature 1)
    top            [(token, logprob), ...] of each position
    versions       name of the version that each token was made with, None if it is not known
    finish_reason  "length", "stop" (the model's end token, which is left out) or "abort" (by a pause)
    """

    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    top: list[list[tuple[int, float]]] = dataclasses.field(default_factory=list)
    versions: list[str | None] = dataclasses.field(default_factory=list)
    finish_reason: str = "length"


class Engine:
    """A model in host memory, generated from by any number of threads, one token at a time.

    model         a causal language model of transformers, also wrapped by torch.compile. Its weights stay where they
                  are: an update writes the words that differ into the module's own tensors
    version_wait  seconds for which a request waits for the version it needs

    Updates: `attach` names the bucket and the version that the weights are, bit for bit; from then on newer versions
    are staged beside generation and `update` moves to one, or `follow` moves to all by itself.
    """

    def __init__(self, model: torch.nn.Module, *, version_wait: float = 30.0):
        self.model = model
        self.version_wait = version_wait
        self.gate = Gate()
        self._plain = getattr(model, "_orig_mod", model)
        takes = inspect.signature(self._plain.forward).parameters
        self._cache = "cache" if "cache" in takes else "past_key_values"  # its name in older transformers
        self._held = None  # (branch, seq); changed within gate.exclusive()
        self._replica = self._prefetch = self._follower = None
        self._failure = None  # of the follower
        self._attaching = threading.Lock()
        end = self._plain.generation_config.eos_token_id
        self._ends = frozenset(end if isinstance(end, (list, tuple)) else [] if end is None else [end])

    @property
    def config(self) -> Any:
        return self._plain.config

    @property
    def max_length(self) -> int:
        """Tokens of a prompt and its completion."""
        return self.config.max_position_embeddings

    @property
    def version(self) -> str | None:
        """Name of the version that the weights are; None before `attach`."""
        return None if self._held is None else version_name(self._held)

    def attach(self, bucket: str | os.PathLike | siltstone.Repository, at: str, *, branch: str = "main",
               **options: Any) -> None:
        """Tell which version of a bucket the weights are; newer ones of `branch` are then staged ("": none ahead).

        options: interval, threads and memory_bytes, as for `siltstone.engine.Prefetch`.
        Raises Mismatch if the weights are not that version, bit for bit.
        """
        with self._attaching:
            replica = self._adopt(bucket, at)
            if branch:
                self._prefetch = engine.Prefetch(replica, branch, **options)

    def follow(self, bucket: str | os.PathLike | siltstone.Repository, at: str, *, branch: str = "main",
               interval: float = 1.0, threads: int = 1, memory_bytes: int = GIB) -> siltstone.Follower:
        """As `attach`, and move to every new version by itself."""
        with self._attaching:
            replica = self._adopt(bucket, at)
            self._follower = replica.follow(
                branch, pause=self._moving, interval=interval, threads=threads, memory_bytes=memory_bytes
            )
            return self._follower

    def _adopt(self, bucket, at):
        repository = bucket if isinstance(bucket, siltstone.Repository) else siltstone.open(bucket)
        version = repository.version(at)
        self._detach()
        replica = repository.replica(self._plain, at=version, load=False)
        with self.gate.exclusive():
            self._replica, self._held = replica, (version.branch, version.seq)
        return replica

    def close(self) -> None:
        """Ends its threads; the weights stay as they are. Raises what a follower failed with."""
        with self._attaching:
            failure = self._detach()
        if failure is not None:
            raise failure

    def _detach(self):
        """What the follower failed with."""
        prefetch, follower, replica = self._prefetch, self._follower, self._replica
        if prefetch is not None:
            prefetch.close()
        if follower is not None:
            follower._at_exit()  # not `stop`, which raises
        failure = self._ended()
        if replica is not None:
            replica.close()
        with self.gate.exclusive():
            self._prefetch = self._follower = self._replica = self._held = self._failure = None
        return failure

    def _ended(self):
        if self._follower is not None and self._failure is None:
            try:
                self._follower.check()
            except Exception as failure:
                self._failure = failure
        return self._failure

    @contextmanager
    def _moving(self, version):
        with self.gate.exclusive():
            yield
            self._held = (version.branch, version.seq)

    def update(self, ref: str) -> None:
        """Move the weights to a version, between two tokens. Does nothing if they are that version."""
        with self._attaching:
            if self._replica is None:
                raise Mismatch("these weights follow no bucket yet: call /init_weight_transfer_engine first")
            if self._follower is not None:
                raise Conflict("these weights follow their branch by themselves: there is nothing to update")
            version = self._replica.repository.version(ref)
            with self._moving(version):
                if self._prefetch is not None:
                    self._prefetch.commit(version)
                elif (version.branch, version.seq) != self._held:
                    self._replica.update(version)

    def problem(self) -> str | None:
        """Why the weights no longer follow or are not staged ahead."""
        if self._follower is not None and not self._follower.running:
            return f"the weights stay at {self.version}: {self._ended() or 'their follower has ended'}"
        if self._prefetch is not None and self._prefetch.error is not None:
            return f"the next version is not staged: {self._prefetch.error}"
        return None

    def generate(self, prompt: list[int], sampling: Sampling | None = None,
                 needs: VersionNeeds | None = None) -> Completion:
        """Complete a prompt of token ids, under whatever version the weights are at each token.

        Waits up to `version_wait` for weights that are new enough. Raises NotReached if they are not by then, NotHeld
        if they are not the version that is needed exactly, or stop being it meanwhile; InvalidArgument for a prompt
        that cannot be.
        """
        sampling, needs = sampling or Sampling(), needs or VersionNeeds()
        self._check(prompt, sampling)
        if not self.gate.wait(lambda: needs.reached(self._held), self.version_wait):
            needs.check(self._held)
        out = Completion()
        draw = torch.Generator()
        if sampling.seed is None:
            draw.seed()
        else:
            draw.manual_seed(sampling.seed)
        try:
            with self.gate.request() as ticket:
                self._tokens(ticket, prompt, sampling, needs, draw, out)
        except Aborted:
            out.finish_reason = "abort"
        return out

    def _check(self, prompt, sampling):
        if not prompt:
            raise InvalidArgument("the prompt has no tokens")
        size = self.config.vocab_size
        wrong = next((token for token in prompt if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidArgument(f"token {wrong} of the prompt is outside the vocabulary of {size}")
        if sampling.max_tokens < 1:
            raise InvalidArgument(f"max_tokens must be at least 1, found {sampling.max_tokens}")
        if not 0 <= sampling.temperature < float("inf"):
            raise InvalidArgument(f"temperature must not be negative, found {sampling.temperature}")
        length = len(prompt) + sampling.max_tokens
        if length > self.max_length:
            raise InvalidArgument(f"prompt and completion have {length} tokens; the model takes {self.max_length}")

    def _tokens(self, ticket, prompt, sampling, needs, draw, out):
        ids, cache = torch.tensor([prompt]), None
        while len(out.tokens) < sampling.max_tokens:
            with self.gate.token(ticket):
                needs.check(self._held)
                version = self.version
                with torch.inference_mode():
                    answer = self.model(input_ids=ids, use_cache=True, **{self._cache: cache})
            scores, cache = answer.logits[0, -1].float(), getattr(answer, self._cache)
            token = _pick(scores, sampling.temperature, draw)
            if token in self._ends and not sampling.ignore_eos:
                out.finish_reason = "stop"
                return
            logprobs = torch.log_softmax(scores, -1)
            out.tokens.append(token)
            out.versions.append(version)
            out.logprobs.append(float(logprobs[token]))
            best = logprobs.topk(min(sampling.top_logprobs, len(logprobs)))
            out.top.append(list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
            ids = torch.tensor([[token]])


def _pick(scores, temperature, draw):
    if temperature == 0:
        return int(scores.argmax())
    return int(torch.multinomial(torch.softmax(scores / temperature, -1), 1, generator=draw))
