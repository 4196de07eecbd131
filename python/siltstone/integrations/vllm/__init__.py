"""vLLM: a weight-transfer backend that follows a bucket.

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "siltstone"}'

Installing siltstone is enough for vLLM to find it (entry point group `vllm.general_plugins`). The server's
routes drive it: `/init_weight_transfer_engine` names the bucket and the version that MODEL is, and
`/update_weights` the version to move to. `Server` is a client for them, and follows a branch by itself:

    python -m siltstone.integrations.vllm http://localhost:8000 /data/bucket main@7

A server needs no driver if it is started with `--middleware siltstone.integrations.vllm.Versions`.
docs/guides/vllm.md says what runs when.

vLLM itself is imported by what runs in its processes alone: `engine`, `cpu`, `worker` and `interface`.
"""

from .interface import BACKEND
from .server import Refused, Server
from .update import Stuck
from .versions import Versions

__all__ = ["BACKEND", "Refused", "Server", "Stuck", "Versions", "register"]


def register() -> None:
    """The entry point: called in every process of a vLLM server, perhaps several times."""
    from . import cpu, interface, worker

    if not interface.served():
        return interface.refuse(BACKEND)
    factory = interface.factory()
    if BACKEND not in factory._registry:
        factory.register_engine(BACKEND, "siltstone.integrations.vllm.engine", "SiltstoneEngine")
    worker.register()
    cpu.keep_plain_weights(BACKEND)
