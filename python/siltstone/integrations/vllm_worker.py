"""What vLLM's workers are asked beside their weight-transfer engine's own calls."""

from __future__ import annotations

PROGRESS = "siltstone_progress"  # a method of every worker, for `collective_rpc`


def progress(worker) -> dict:
    """How far a worker is, between two steps of generation.

    held     name of the version that its weights are; None if they are none's, or it was not attached
    staged   name of the version that an update takes at once: one that is ready, or the one it holds
    staging  whether it stages versions ahead
    error    why it could not, last time; None if it could
    """
    engine = getattr(worker, "weight_transfer_engine", None)
    replica, prefetch = (getattr(engine, name, None) for name in ("_replica", "_prefetch"))
    version = None if replica is None else replica.version
    held = None if version is None else version.name
    ready = getattr(prefetch, "_staged", None)
    error = getattr(prefetch, "error", None)
    return {
        "held": held,
        "staged": held if ready is None else ready.target.name,
        "staging": prefetch is not None,
        "error": None if error is None else str(error),
    }


def register() -> None:
    """Gives workers the method. Idempotent."""
    from vllm.v1.worker.worker_base import WorkerBase

    setattr(WorkerBase, PROGRESS, progress)
