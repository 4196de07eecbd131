"""Which of vLLM's weight-transfer interfaces is there, and what the older ones need.

    0.25 and later   the engine begins and ends an update
    0.23 and 0.24    the worker does, and begins with a layerwise reload unless it is told not to
    before           none that could be served: whoever names the backend is told so
"""

from __future__ import annotations

import functools
import logging

from siltstone.errors import Unsupported

BACKEND = "siltstone"  # what --weight-transfer-config names
NEEDED = "siltstone updates the weights of vLLM 0.23 and later"
log = logging.getLogger("vllm.siltstone")  # below vLLM's own, whose settings it has


def factory():
    """What engines are registered with; None in a vLLM without weight transfer."""
    try:
        from vllm.distributed.weight_transfer import WeightTransferEngineFactory
    except ImportError:
        return None
    return WeightTransferEngineFactory


def _engine_begins(base):
    return hasattr(base.WeightTransferEngine, "start_weight_update")


def served() -> bool:
    """Whether the engine fits the interface."""
    try:
        from vllm.distributed.weight_transfer import base
    except ImportError:
        return False
    return _engine_begins(base) or hasattr(base.WeightTransferUpdateInfo, "update_kind")


def refuse(backend: str) -> None:
    """Makes a vLLM that is too old say so when it is asked for the backend, as far as it asks anybody.

    0.22 looks for it when it has loaded the model. Before, the command line takes only vLLM's own backends; then the
    log tells what its error means.
    """
    engines = factory()
    if engines is not None and backend not in engines._registry:
        engines.register_engine(backend, TooOld)
    log.warning("%s; this is %s, where the weight-transfer backend %r is refused", NEEDED, _version(), backend)


def _version():
    import vllm

    return getattr(vllm, "__version__", "an unknown version")


class TooOld:
    """Stands in for the engine where there is none."""

    def __init__(self, *_, **__):
        raise Unsupported(f"{NEEDED}; this is {_version()}")


def begin_in_place(engine: type) -> None:
    """Keeps workers from beginning an update of an engine of this class with a layerwise reload, which takes the
    parameters away, and is what they do unless the driver says otherwise. Idempotent; nothing since 0.25."""
    from vllm.distributed.weight_transfer import base

    if _engine_begins(base):
        return
    from vllm.v1.worker.gpu_worker import Worker  # of which those of other platforms are made

    begin = Worker.start_weight_update
    if hasattr(begin, "_siltstone"):
        return

    @functools.wraps(begin)
    def start_weight_update(worker, is_checkpoint_format=True):
        begin(worker, is_checkpoint_format and not isinstance(worker.weight_transfer_engine, engine))

    start_weight_update._siltstone = True
    Worker.start_weight_update = start_weight_update
