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

# Kernels for which vLLM's packing of experts is a permutation, and a function that can be called again.
PACKED = ("amx", "neon", "vec", "vsx")


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

    plain = torch.nn.functional.linear

    def plain_if_followed(layer, remove_weight):
        kept = getattr(layer, "cpu_linear", None) is plain  # a reload: until 0.24 without a configuration
        if layer.weight.dim() != 2 or not (kept or _backend_of_this_server() == backend):
            return dispatch(layer, remove_weight)  # also convolutions, which have kernels of their own
        layer.cpu_linear = plain
        return None

    plain_if_followed._siltstone = True
    utils.dispatch_cpu_unquantized_gemm = plain_if_followed


def _packing(module):
    """What vLLM did with a module's expert weights after loading: None if nothing, else the name of the kernels that
    it packed them for. Its packing knows those of PACKED."""
    method = getattr(module, "quant_method", None)
    experts = getattr(method, "cpu_fused_moe", None)  # until 0.27
    if experts is not None:
        return getattr(experts, "isa", type(experts).__name__)
    try:
        from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    except ImportError:  # not a vLLM that packs them
        return None
    experts = getattr(getattr(method, "moe_kernel", None), "fused_experts", None)
    if not isinstance(experts, CPUUnquantizedExperts) or experts._use_zentorch:
        return None
    return experts.isa


def _packed_experts(model):
    """(path, module, kernels) of the layers whose expert weights were permuted after loading."""
    for path, module in model.named_modules():
        if isinstance(getattr(module, "w13_weight", None), torch.Tensor):
            kernels = _packing(module)
            if kernels is not None:
                yield path, module, kernels


def _pack(module, kernels):
    from vllm._custom_ops import cpu_prepack_moe_weight

    for weight in (module.w13_weight, module.w2_weight):
        weight.data.copy_(cpu_prepack_moe_weight(weight.data, kernels))


def load(model: torch.nn.Module, weights) -> None:
    """The model's loader, also where vLLM has taken the loaders of expert weights away: it packs them into new
    parameters, which get none until 0.27."""
    missing = [
        (module.weight_loader, parameter)
        for _, module, _ in _packed_experts(model)
        for parameter in module.parameters(recurse=False)
        if not hasattr(parameter, "weight_loader")
    ]
    for loader, parameter in missing:
        parameter.weight_loader = loader
    try:
        model.load_weights(weights)
    finally:
        for _, parameter in missing:
            del parameter.weight_loader


def adjust(slot_map: slots.SlotMap, model: torch.nn.Module) -> slots.SlotMap:
    """The map with what this platform does to parameters after loading: packed experts are traced, layer by layer."""
    for path, module, kernels in _packed_experts(model):
        parameters = [f"{path}.{name}" for name in ("w13_weight", "w2_weight")]
        numbers = {i for i, d in enumerate(slot_map.destinations) if set(parameters) & set(d.parameters)}
        names = {slot.tensor for slot in slot_map.slots if slot.destination in numbers}
        slot_map = dataclasses.replace(
            slot_map,
            slots=[slot for slot in slot_map.slots if slot.tensor not in names],
            refused=slot_map.refused | dict.fromkeys(names, f"vLLM packs the weights of experts for {kernels} kernels"),
            reached=slot_map.reached | dict.fromkeys(names, tuple(sorted(numbers))),
        )
        if kernels in PACKED:
            slot_map = slot_map.merged(_traced(slot_map, names, parameters, model, partial(_pack, module, kernels)))
    return slot_map


def _traced(slot_map, names, parameters, model, finish):
    catalogue = {name: (source.dtype, source.shape) for name, source in slot_map.sources.items() if name in names}
    return slots.trace(model, catalogue, partial(load, model), parameters=parameters, finish=finish)


def unloadable(slot_map: slots.SlotMap, model: torch.nn.Module) -> dict[str, str]:
    """{tensor: why} of what vLLM's own reload gets wrong here: experts, which 0.28 and later pack at the first load
    only."""
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    packed = set()
    for path, module in model.named_modules():
        weight, method = getattr(module, "w13_weight", None), getattr(module, "quant_method", None)
        once = isinstance(method, UnquantizedFusedMoEMethod) and not hasattr(method, "cpu_fused_moe")
        if once and isinstance(weight, torch.Tensor) and weight.device.type == "cpu":
            packed |= {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
    numbers = {i for i, d in enumerate(slot_map.destinations) if packed & set(d.parameters)}
    names = {slot.tensor for slot in [*slot_map.slots, *slot_map.shadows] if slot.destination in numbers}
    names |= {name for name, reached in slot_map.reached.items() if numbers & set(reached)}
    return dict.fromkeys(sorted(names), "vLLM does not pack experts again when it reloads them on a CPU")
