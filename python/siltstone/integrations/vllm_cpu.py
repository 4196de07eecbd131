"""vLLM on CPUs: what keeps its weights where an update can reach them.

On a CPU vLLM packs the weight of each linear layer into a oneDNN handler and drops the parameter, and permutes the
weights of bf16 experts. With this backend configured the linear layers keep plain weights and use
torch.nn.functional.linear, which computes the same bits; what experts do is corrected in the map.
"""

from __future__ import annotations

import torch


def _backend_of_this_server():
    from vllm.config import get_current_vllm_config

    try:
        config = get_current_vllm_config().weight_transfer_config
    except AssertionError:  # no configuration is current
        return None
    return getattr(config, "backend", None)


def keep_plain_weights(backend: str) -> None:
    """Makes linear layers keep their weights, in servers with this weight-transfer backend. Idempotent."""
    from vllm.model_executor.layers import utils

    dispatch = getattr(utils, "dispatch_cpu_unquantized_gemm", None)
    if dispatch is None or hasattr(dispatch, "_siltstone"):
        return

    def plain_if_followed(layer, remove_weight):
        if _backend_of_this_server() != backend:
            return dispatch(layer, remove_weight)
        layer.cpu_linear = torch.nn.functional.linear
        return None

    plain_if_followed._siltstone = True
    utils.dispatch_cpu_unquantized_gemm = plain_if_followed


def adjust(slot_map, model):
    """The map with what this platform does to parameters after loading."""
    return slot_map
