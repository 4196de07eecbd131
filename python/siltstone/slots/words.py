"""Tensors as the words they are made of: bits are compared and moved as integers."""

import torch

from ..tensors import TORCH_NAMES

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def torch_dtype(code):
    """The dtype of torch that safetensors spells so. Raises AttributeError where torch has none."""
    return getattr(torch, TORCH_NAMES[code])


def words(tensor):
    """The bits of a tensor as integers, on the same memory."""
    return tensor.view(_WORDS[tensor.dtype.itemsize])
