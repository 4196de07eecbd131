"""WeightTransfer: TRL's AsyncGRPOTrainer publishes every policy that it syncs.

    transfer = WeightTransfer("/data/bucket")
    trainer = AsyncGRPOTrainer(model, ..., **transfer.arguments(AsyncGRPOTrainer))
    transfer.attach(trainer)
    trainer.train()

GRPOTrainer and every other trainer take `siltstone.integrations.transformers.PublishCallback` instead.
"""

import inspect
import re

from .. import tensors
from ..repository import opened
from .transformers import PublishCallback, saved_files

SEAM = "weight_transfer"


class WeightTransfer:
    """What AsyncGRPOTrainer moves its weights with: `weight_transfer=` in TRL 1.9 to 1.17.

    repository: a Repository, or the path or URL of a bucket, made if there is none.
    dtype: "bf16" publishes the trainer's fp32 masters rounded to bf16; None publishes them as they are.
    companions: files that make a checkout a model folder, as for `Repository.publisher`; by default, once
        `attach` was called, what `save_pretrained` of the model's config and of its tokenizer writes.
    on_published: called with each PublishReport before the trainer goes on. To hand a version to an engine,
        tell it here; what it raises fails the sync.
    options: as for `Repository.publisher` (effort, momentum, pack_anchors, ...).

    Each sync becomes one version, durable when the sync ends. Its message carries the trainer's
    `model_version` (`model_version()` reads it back), its `step` the trainer's `global_step` once `attach`
    was called. Generation goes on meanwhile: `pause` and `resume` do nothing, because an engine that
    follows the bucket pauses itself, around its own commit (`Replica.follow(pause=...)`).

    A sync that fails raises, after the trainer's iterator is drained (the other ranks of an FSDP2 run
    take part in it). The next one is compared with the last version that was committed: nothing drifts.

    Threads: the trainer's. Used on rank 0 only, which is where the trainer uses it.
    """

    def __init__(self, repository, branch="main", *, dtype="bf16", companions=None, on_published=None, **options):
        self.repository = opened(repository)
        self.branch = branch
        self.version = None
        self._dtype = dtype
        self._companions = companions
        self._on_published = on_published
        self._options = options
        self._publisher = None
        self._trainer = None
        self._syncs = 0

    def arguments(self, trainer_class):
        """The keyword arguments that hand this object to a trainer: {} where its class has no seam for it."""
        accepted = inspect.signature(trainer_class.__init__).parameters
        return {SEAM: self} if SEAM in accepted else {}

    def attach(self, trainer):
        """Tell this object whose weights it moves; between the trainer's construction and `train()`.

        Returns how versions will come: "weight_transfer" where the trainer syncs through this object, or
        "callback" where this TRL has no such seam: then a PublishCallback publishes after every
        `weight_sync_steps` optimizer steps, beside whatever the trainer does by itself.
        """
        self._trainer = trainer
        if self._companions is None:
            self._companions = saved_files(trainer.model, getattr(trainer, "processing_class", None))
        if hasattr(trainer, SEAM):
            if trainer.accelerator.is_main_process:
                setattr(trainer, SEAM, self)
            return SEAM
        trainer.add_callback(PublishCallback(
            self.repository, self.branch, every=getattr(trainer.args, "weight_sync_steps", 1), dtype=self._dtype,
            companions=self._companions, on_published=self._published, **self._options,
        ))
        return "callback"

    def _published(self, report):
        self.version = report.version
        if self._on_published is not None:
            self._on_published(report)

    # What the trainer calls.

    def init_weight_transfer(self):
        self._publisher = self.repository.publisher(
            self.branch, dtype=self._dtype, companions=self._companions, **self._options
        )

    def pause(self):
        pass

    def send_weights(self, iterator):
        if self._publisher is None:
            self.init_weight_transfer()
        try:
            weights = tensors.copied(iterator, self._publisher.rounds_to_bf16)
        finally:
            tensors.drain(iterator)  # what a failure left
        step, number = None, self._syncs + 1
        if self._trainer is not None:
            step, number = self._trainer.state.global_step, self._trainer.model_version + 1
        report = self._publisher.publish(weights, step=step, message=f"model_version {number}")
        self._published(report)
        self._syncs = number

    def resume(self):
        pass

    def destroy(self):
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None


def model_version(version):
    """The trainer's `model_version` of a Version that WeightTransfer published, else None."""
    found = re.fullmatch(r"model_version (\d+)", version.message)
    return int(found[1]) if found else None
