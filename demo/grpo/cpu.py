"""What AsyncGRPOTrainer needs to run without a GPU.

It folds its samples into trees that share prefixes, calls a FlashAttention 3 kernel for them, and asks CUDA
how fast the device is. Here the same attention is computed with masks in plain PyTorch.
"""

import torch
import torch.nn.functional as F
from trl.experimental.async_grpo import async_grpo_trainer, packing


def allow_cpu():
    packing.tree_attention = tree_attention
    async_grpo_trainer.get_peak_flops_per_device = lambda accelerator, dtype: None


def tree_attention(module, query, key, value, attention_mask, *, tree_kv_index, tree_cu_seqlens_q,
                   tree_cu_seqlens_k, scaling=None, **kwargs):
    """query (1, heads, tokens, size), key and value (1, kv heads, tokens, size) -> (1, tokens, heads, size).

    Segment s is the tokens [cu_seqlens_q[s], cu_seqlens_q[s + 1]). It sees the tokens that
    tree_kv_index[cu_seqlens_k[s] : cu_seqlens_k[s + 1]] lists - its path from the root, itself last - and
    of its own tokens the earlier ones.
    """
    out = torch.empty_like(query)
    starts, ends = tree_cu_seqlens_q[:-1].tolist(), tree_cu_seqlens_q[1:].tolist()
    paths = tree_kv_index.split((tree_cu_seqlens_k[1:] - tree_cu_seqlens_k[:-1]).tolist())
    for start, end, path in zip(starts, ends, paths, strict=True):
        before = len(path) - (end - start)
        seen = torch.ones(end - start, len(path), dtype=torch.bool).tril(before)
        out[:, :, start:end] = F.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, path], value[:, :, path], attn_mask=seen, scale=scaling, enable_gqa=True
        )
    return out.transpose(1, 2), None
