"""What vLLM's workers are asked beside their weight-transfer engine's own calls."""

from __future__ import annotations

PROGRESS = "siltstone_progress"  # a method of every worker, for `collective_rpc`


def progress(worker) -> dict:
    """SiltstoneEngine.progress of a worker, between two steps of generation."""
    return worker.weight_transfer_engine.progress()


def register() -> None:
    """Gives workers the method. Idempotent."""
    from vllm.v1.worker.worker_base import WorkerBase

    setattr(WorkerBase, PROGRESS, progress)
