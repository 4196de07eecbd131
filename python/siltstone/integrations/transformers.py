"""PublishCallback: any transformers Trainer (TRL's SFT, DPO and GRPO trainers too) publishes as it trains.

    trainer = Trainer(model, args, ..., callbacks=[PublishCallback("/data/bucket")])
"""

import json
import tempfile
from pathlib import Path

from transformers import TrainerCallback

from .. import tensors
from ..background import BackgroundPublisher
from ..errors import Unsupported
from ..publisher import companion_files
from ..repository import opened

RECORD = "siltstone.json"


class PublishCallback(TrainerCallback):
    """Publishes the trainer's model to a branch: when training begins, every `every` optimizer steps,
    with each checkpoint that the trainer saves, and when training ends.

    repository: a Repository, or the path or URL of a bucket, made if there is none.
    every: optimizer steps between versions; `Version.step` is the trainer's `global_step`.
    dtype: "bf16" publishes fp32 weights rounded to bf16; None publishes them as they are.
    companions: files that make a checkout a model folder: a folder or a dict; by default what
        `save_pretrained` of the model's config and of the trainer's tokenizer writes.
    depth: copies of the weights that may wait to be published; a step waits when there are more.
    on_published: called with each PublishReport, in the publishing thread.
    options: as for `Repository.publisher` (effort, momentum, pack_anchors, ...).

    A step costs one copy of the weights in memory; all else happens behind it. A publish that fails is
    raised at the next step. Beside each saved checkpoint lies `siltstone.json` with the version that has
    its weights, which is durable by then. A run that resumes, from whatever checkpoint, publishes what it
    resumes from as the branch's next version: sequence numbers rise, `step` may fall, history is one line.

    Only the main process publishes. Under FSDP2 it gathers parameter by parameter, which all processes take
    part in, and holds the copy that is to be published. FSDP of the first version and DeepSpeed ZeRO 3 are
    refused.
    """

    def __init__(self, repository, branch="main", *, every=1, dtype="bf16", companions=None, depth=1,
                 on_published=None, **options):
        if every < 1:
            raise ValueError(f"every must be at least 1, found {every!r}")
        self.repository = opened(repository)
        self.branch = branch
        self.every = every
        self.version = None
        self._dtype = dtype
        self._companions = companions
        self._depth = depth
        self._on_published = on_published
        self._options = options
        self._background = None  # in the main process, while it trains
        self._sharded = False  # found when training begins
        self._submitted = None  # global_step of the last version asked for

    def _published(self, report):
        self.version = report.version
        if self._on_published is not None:
            self._on_published(report)

    def _submit(self, state, model):
        """Called by all processes."""
        if self._submitted == state.global_step:
            return
        self._submitted = state.global_step
        weights = tensors.gathered(model) if self._sharded else model
        try:
            if self._background is not None:
                self._background.submit(weights, step=state.global_step)
        finally:
            if self._sharded:
                tensors.drain(weights)

    def on_train_begin(self, args, state, control, model=None, processing_class=None, **kwargs):
        if cannot_gather(args):
            raise Unsupported("PublishCallback cannot gather the weights of FSDP 1 and of DeepSpeed ZeRO 3; use FSDP2")
        if state.is_world_process_zero:
            companions = self._companions
            if companions is None:
                companions = saved_files(model, processing_class)
            publisher = self.repository.publisher(
                self.branch, dtype=self._dtype, companions=companions, **self._options
            )
            self._background = BackgroundPublisher(publisher, depth=self._depth, on_published=self._published)
        self._sharded = tensors.is_sharded(model)
        self._submitted = None
        self._submit(state, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self._background is not None:
            self._background.check()
        if state.global_step % self.every == 0:
            self._submit(state, model)

    def on_save(self, args, state, control, model=None, **kwargs):
        self._submit(state, model)
        if self._background is None:
            return
        self._background.flush()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            record = {"repo_id": self.repository.repo_id, "url": self.repository.url, "version": self.version.name,
                      "root": self.version.root, "step": state.global_step}
            (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self._submit(state, model)
        if self._background is None:
            return
        background, self._background = self._background, None
        background.close()
        background.publisher.close()


def cannot_gather(args):
    """Whether the processes of a run hold parts of the weights in a way that hides the whole ones."""
    fsdp = getattr(args, "fsdp", None)
    if fsdp and str(fsdp) not in ("", "[]", "False"):
        plugin = getattr(args, "fsdp_plugin_args", None) or {}  # transformers 5, whose default is the second
        return int(plugin.get("fsdp_version") or (args.fsdp_config or {}).get("version", 1)) < 2
    deepspeed = getattr(args, "hf_deepspeed_config", None)
    return deepspeed is not None and deepspeed.is_zero3()


def saved_files(model, processing_class):
    """{path: bytes} of what a model folder has beside its weights."""
    with tempfile.TemporaryDirectory(prefix="siltstone-") as folder:
        for part in (getattr(model, "config", None), getattr(model, "generation_config", None), processing_class):
            if hasattr(part, "save_pretrained"):
                part.save_pretrained(folder)
        return companion_files(folder)
