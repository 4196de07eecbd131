"""What callers hold - modules, state dicts, arrays - as tensors that the core reads or writes in place.

Arrays reach the core through DLPack, without a copy. torch is never imported here: a caller who passes
its tensors has it. dtypes are told as safetensors spells them: "BF16", "F32", "F8_E4M3", ...
"""

import sys
from collections.abc import Iterable, Mapping

from . import _core
from .errors import InvalidArgument, Mismatch, Unsupported

# By the name that torch and numpy (with ml_dtypes) give them, without "torch.".
DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
TORCH_NAMES = {code: name for name, code in DTYPES.items()}


def torch_module():
    """torch if the caller's program has imported it, else None."""
    return sys.modules.get("torch")


def is_torch(tensor):
    torch = torch_module()
    return torch is not None and isinstance(tensor, torch.Tensor)


def dtype_of(name, tensor):
    """The dtype as safetensors spells it."""
    dtype = getattr(tensor, "dtype", None)
    code = _codes.get(dtype)
    if code is None:
        text = str(dtype).removeprefix("torch.")
        if text not in DTYPES:
            raise Unsupported(f"tensor '{name}' has dtype {text}, which checkpoints cannot hold")
        code = _codes[dtype] = DTYPES[text]
    return code


_codes = {}  # by dtype object: models may have tens of thousands of tensors


def _is_dtensor(tensor):
    torch = torch_module()
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return False
    return hasattr(tensor, "to_local") and hasattr(tensor, "placements")


def _plain(name, tensor):
    """A torch tensor that is nothing but dense memory of one process."""
    torch = torch_module()
    if _is_dtensor(tensor):
        if all(placement.is_replicate() for placement in tensor.placements):
            tensor = tensor.to_local()
        else:
            raise Unsupported(
                f"tensor '{name}' is a shard of a DTensor ({tensor.placements}): pass "
                "tensor.full_tensor(), which all ranks have to call"
            )
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        raise Unsupported(f"tensor '{name}' has layout {tensor.layout}, only dense ones can be used")
    if tensor.is_meta:
        raise InvalidArgument(f"tensor '{name}' is on the meta device and has no bytes")
    return tensor


def _exported(name, tensor):
    """(dtype, array) of something that can be exported as it is."""
    if not hasattr(tensor, "__dlpack__"):
        raise InvalidArgument(f"tensor '{name}' is a {type(tensor).__name__}, which has no __dlpack__")
    code = dtype_of(name, tensor)
    # Words of eight bits, which DLPack does not name in every version of torch, go as bytes.
    if code.startswith("F8_"):
        return code, tensor.view(torch_module().uint8 if is_torch(tensor) else "uint8")
    if code == "BF16" and not is_torch(tensor) and hasattr(tensor, "view"):
        return code, tensor.view("uint16")  # ml_dtypes.bfloat16 in numpy
    return code, tensor


def readable(name, tensor):
    """(dtype, array) for the core to read; copies only what is strided or not in host memory."""
    if is_torch(tensor):
        tensor = _plain(name, tensor).resolve_conj().resolve_neg().cpu().contiguous()
    elif hasattr(tensor, "flags") and not tensor.flags.c_contiguous:  # numpy
        tensor = tensor.copy(order="C")
    return _exported(name, tensor)


def digest(tensor) -> str:
    """The digest of a tensor's bytes, 32 hexadecimal digits (docs/format/digest.md)."""
    return _core.tensor_digest(readable("tensor", tensor)[1])


def writable(name, tensor):
    """(dtype, array) for the core to write: the caller's own memory or an error."""
    if is_torch(tensor):
        plain = _plain(name, tensor)
        if plain.device.type != "cpu":
            raise Unsupported(f"tensor '{name}' is on {plain.device}: only host memory can be written to")
        if plain.is_conj() or plain.is_neg():
            raise Unsupported(f"tensor '{name}' is a conjugated or negated view: it cannot be written to in place")
        if not plain.is_contiguous():
            raise Unsupported(f"tensor '{name}' is not contiguous: it cannot be written to in place")
        tensor = plain
    return _exported(name, tensor)


class Views:
    """Names, dtypes and arrays, as the core takes them.

    Three lists, because a model may have tens of thousands of tensors, and every tuple of its own would
    make the garbage collector look through all of the trainer's objects more often.
    """

    def __init__(self, pairs, view):
        self.names, self.dtypes, self.arrays = [], [], []
        for name, tensor in pairs:
            dtype, array = view(name, tensor)
            self.names.append(name)
            self.dtypes.append(dtype)
            self.arrays.append(array)

    @property
    def lists(self):
        return self.names, self.dtypes, self.arrays


def _address(tensor):
    """Where the tensor's bytes begin, or its identity where that cannot be told."""
    if is_torch(tensor) and tensor.layout is torch_module().strided and not _is_dtensor(tensor):
        return tensor.data_ptr() or id(tensor)  # 0: it has no elements or no storage
    return id(tensor)


def _tied(a, b):
    """Whether two tensors of one address are the same bytes seen the same way."""
    if a is b:
        return True
    return is_torch(a) and is_torch(b) and a.dtype is b.dtype and a.shape == b.shape and a.stride() == b.stride()


def is_module(source):
    torch = torch_module()
    return torch is not None and isinstance(source, torch.nn.Module)


COMPILED = "_orig_mod."  # what torch.compile puts before the names of a module that it wraps


def named(source):
    """All (name, tensor) of a module or mapping, tied ones under each of their names.

    A module that is compiled, or has compiled parts, has the names that it had before.
    """
    if is_module(source):
        source = {name.replace(COMPILED, ""): t for name, t in source.state_dict(keep_vars=True).items()}
    if isinstance(source, Mapping):
        for name in source:
            if not isinstance(name, str):
                raise InvalidArgument(f"a tensor's name must be a str, found {name!r}")
        return source.items()
    raise InvalidArgument(f"expected a module or a dict of tensors, found {type(source).__name__}")


def without_ties(pairs):
    """Gives the pairs with tied tensors once, under the first of their names."""
    first = {}  # by address
    others = {}  # different views of one address
    for name, tensor in pairs:
        address = _address(tensor)
        if address not in first:
            first[address] = tensor
        elif any(_tied(known, tensor) for known in (first[address], *others.get(address, ()))):
            continue
        else:
            others.setdefault(address, []).append(tensor)
        yield name, tensor


def copied(pairs, f32_as_bf16):
    """{name: own copy} of what an iterator gives, which may reuse its memory; fp32 as bf16 if asked for."""
    out = {}
    for item in pairs:
        try:
            name, tensor = item
        except (TypeError, ValueError):
            raise InvalidArgument(f"expected pairs of name and tensor, found {item!r:.80}") from None
        if name in out:
            raise InvalidArgument(f"tensor '{name}' is given twice")
        if is_torch(tensor):
            torch = torch_module()
            plain = _plain(name, tensor).resolve_conj().resolve_neg()
            dtype = torch.bfloat16 if f32_as_bf16 and plain.dtype is torch.float32 else plain.dtype
            out[name] = plain.to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
        else:
            out[name] = tensor.copy()
    return out


def is_sharded(module):
    """Whether this process holds parts of the module's parameters (FSDP2, tensor parallelism)."""
    return any(
        _is_dtensor(tensor) and not all(placement.is_replicate() for placement in tensor.placements)
        for tensor in module.parameters()
    )


def gathered(module):
    """Gives all (name, whole tensor) of a sharded module, tied ones once.

    A collective: all ranks have to take all of them, whether they use them or not.
    """
    for name, tensor in without_ties(named(module)):
        yield name, tensor.full_tensor() if _is_dtensor(tensor) else tensor


def drain(iterator):
    """Takes what is left of it."""
    for _ in iterator:
        pass


def _is_held(source):
    """Whether the caller holds all tensors of it at once; else it gives them one by one."""
    if is_module(source) or isinstance(source, Mapping):
        return True
    if isinstance(source, Iterable):
        return False
    raise InvalidArgument(
        f"expected a module, a dict of tensors, or pairs of name and tensor, found a {type(source).__name__}"
    )


def to_publish(source, f32_as_bf16):
    """The Views of anything that can be published."""
    pairs = without_ties(named(source)) if _is_held(source) else copied(source, f32_as_bf16).items()
    return Views(pairs, readable)


def snapshot(source, f32_as_bf16):
    """{name: own copy} of all tensors, tied ones once."""
    return copied(without_ties(named(source)) if _is_held(source) else source, f32_as_bf16)


def to_write(target, infos):
    """The Views in a module or dict of each tensor of a version.

    A tied tensor that a version has once is found under any of its names.
    """
    pairs = dict(named(target))
    wanted = [info[0] for info in infos]
    missing = [name for name in wanted if name not in pairs]
    used = {_address(pairs[name]) for name in wanted if name in pairs}
    extra = [name for name, tensor in pairs.items() if _address(tensor) not in used]
    if missing or extra:
        names = missing or extra
        what = "has no tensor" if missing else "has tensors that the version lacks:"
        shown = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
        raise Mismatch(f"the target {what} {shown}")
    return Views(((name, pairs[name]) for name in wanted), writable)


def empty_tensors(infos):
    """New torch tensors for the (name, dtype, shape, size) of a version."""
    torch = torch_module()
    if torch is None:
        import torch
    out = {}
    for name, code, shape, _ in infos:
        dtype = getattr(torch, TORCH_NAMES.get(code, ""), None)
        if dtype is None:
            raise Unsupported(f"tensor '{name}' has dtype {code}, which this torch does not have")
        out[name] = torch.empty(shape, dtype=dtype)
    return out
