"""Weights of decoders that engines are tested with, and steps between their versions."""

import torch

TIED = {"lm_head.weight": "embed.weight"}


def bits(draw, *shape):
    """bf16 words of any bits, NaNs with payloads too."""
    return torch.randint(-(1 << 15), 1 << 15, shape, generator=draw, dtype=torch.int16).view(torch.bfloat16)


def step(weights, seed):
    """One word in twenty takes other bits; what is tied stays so."""
    draw = torch.Generator().manual_seed(seed)
    out = {}
    for name, tensor in weights.items():
        words = tensor.view(torch.int16).clone()
        hit = torch.rand(words.shape, generator=draw) < 0.05
        words[hit] ^= torch.randint(1, 1 << 15, words.shape, generator=draw, dtype=torch.int16)[hit]
        out[name] = words.view(torch.bfloat16)
    return out | {name: out[twin].clone() for name, twin in TIED.items() if name in out}
