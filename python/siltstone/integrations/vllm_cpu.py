"""vLLM on CPUs: what keeps its weights where an update can reach them.

On a CPU vLLM packs the weight of each linear layer into a oneDNN handler and drops the parameter, and permutes the
weights of bf16 experts. With this backend configured the linear layers keep plain weights and use
torch.nn.functional.linear, which computes the same bits; what experts do is corrected in the map.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import torch

from siltstone import slots


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


def _packed_experts(model):
    """(path, module, experts) of the layers whose expert weights were permuted after loading."""
    try:
        from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    except ImportError:  # not a vLLM that packs them
        return
    for path, module in model.named_modules():
        kernel = getattr(getattr(module, "quant_method", None), "moe_kernel", None)
        experts = getattr(kernel, "fused_experts", None)
        if isinstance(experts, CPUUnquantizedExperts) and not experts._use_zentorch:
            yield path, module, experts


def _pack(module, experts):
    from vllm._custom_ops import cpu_prepack_moe_weight

    for weight in (module.w13_weight, module.w2_weight):
        weight.data.copy_(cpu_prepack_moe_weight(weight.data, experts.isa))


def adjust(slot_map: slots.SlotMap, model: torch.nn.Module) -> slots.SlotMap:
    """The map with what this platform does to parameters after loading: packed experts are traced, layer by layer."""
    for path, module, experts in _packed_experts(model):
        parameters = [f"{path}.{name}" for name in ("w13_weight", "w2_weight")]
        numbers = {i for i, d in enumerate(slot_map.destinations) if set(parameters) & set(d.parameters)}
        names = {slot.tensor for slot in slot_map.slots if slot.destination in numbers}
        catalogue = {name: (source.dtype, source.shape) for name, source in slot_map.sources.items() if name in names}
        traced = slots.trace(
            model, catalogue, model.load_weights, parameters=parameters, finish=partial(_pack, module, experts)
        )
        slot_map = dataclasses.replace(
            slot_map,
            slots=[slot for slot in slot_map.slots if slot.tensor not in names],
            refused=slot_map.refused | dict.fromkeys(names, "vLLM packs the weights of experts on this platform"),
            reached=slot_map.reached | dict.fromkeys(names, tuple(sorted(numbers))),
        ).merged(traced)
    return slot_map


def unloadable(slot_map: slots.SlotMap, model: torch.nn.Module) -> dict[str, str]:
    """{tensor: why} of what vLLM's own reload gets wrong here: experts, which are packed by the first load only."""
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    packed = set()
    for path, module in model.named_modules():
        weight = getattr(module, "w13_weight", None)
        plain = isinstance(getattr(module, "quant_method", None), UnquantizedFusedMoEMethod)
        if plain and isinstance(weight, torch.Tensor) and weight.device.type == "cpu":
            packed |= {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
    numbers = {i for i, d in enumerate(slot_map.destinations) if packed & set(d.parameters)}
    names = {slot.tensor for slot in [*slot_map.slots, *slot_map.shadows] if slot.destination in numbers}
    names |= {name for name, reached in slot_map.reached.items() if numbers & set(reached)}
    return dict.fromkeys(sorted(names), "vLLM does not pack experts again when it reloads them on a CPU")
