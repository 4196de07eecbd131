"""Toy weight loaders in the manner of real engines: every way to bring a checkpoint tensor into a parameter.

A pattern is a loader with its sources and parameters under one Layout. `recorded` and `traced` say what has to
come out: "slot" (all of its sources are placed, or rightly ignored), "refused" (none is), "any" where that
depends on how torch implements an operation.
"""

import concurrent.futures

import torch
from slots_pattern import (
    BF16,
    EXPERTS,
    F32,
    FP8,
    HEAD,
    HEADS,
    HIDDEN,
    INNER,
    KV_HEADS,
    LAYOUTS,
    PADDED,
    PATTERNS,
    VOCABULARY,
    Layout,
    each,
    one,
    pattern,
)

__all__ = ["BF16", "F32", "HEAD", "HEADS", "HIDDEN", "INNER", "LAYOUTS", "PADDED", "PATTERNS", "VOCABULARY", "Layout"]


# ---- what becomes slots ----------------------------------------------------------------------------------------


PLAIN = {
    "norm": (BF16, HIDDEN),
    "packed": (torch.int32, 6, 4),
    "q": (torch.int8, 7),
    "f8": (FP8, 6, 5),
    "u8": (torch.uint8, 9),
}


@pattern(PLAIN, PLAIN)
@each
def plain(m, p, name, w):
    assert getattr(m, name).shape == w.shape
    getattr(m, name).data.copy_(w)


def _fused_rows(p):
    return (p.heads + 2 * p.kv_heads) * HEAD


@pattern(
    lambda p: {"weight": (BF16, _fused_rows(p), HIDDEN), "bias": (BF16, _fused_rows(p))},
    {
        f"{i}.{part}": (BF16, (HEADS if i == "q" else KV_HEADS) * HEAD, *tail)
        for i in "qkv"
        for part, tail in (("weight", [HIDDEN]), ("bias", []))
    },
)
@each
def fused_qkv(m, p, name, w):
    i, part = name.split(".")
    count = (p.heads if i == "q" else p.kv_heads) * HEAD
    begin = {"q": 0, "k": p.heads, "v": p.heads + p.kv_heads}[i] * HEAD
    rank = p.rank if i == "q" else p.rank // max(1, p.tp // KV_HEADS)  # replicated key and value heads
    getattr(m, part).data.narrow(0, begin, count).copy_(w.narrow(0, rank * count, count))


@pattern(lambda p: {"gate_up": (BF16, 2 * p.inner, HIDDEN)}, dict.fromkeys(("gate", "up"), (BF16, INNER, HIDDEN)))
@each
def gate_up(m, p, name, w):
    m.gate_up.data.narrow(0, ("gate", "up").index(name) * p.inner, p.inner).copy_(p.shard(w, 0))


@pattern(lambda p: {"gate_up": (FP8, 2 * p.inner, HIDDEN)}, {"gate_up": (FP8, 2 * INNER, HIDDEN)})
@each
def fused_on_disk(m, p, name, w):
    for i, part in enumerate(w.split(INNER)):
        m.gate_up.data.narrow(0, i * p.inner, p.inner).copy_(p.shard(part, 0))


@pattern(lambda p: {"down": (BF16, HIDDEN, p.inner)}, {"down": (BF16, HIDDEN, INNER)})
@each
def column_shard(m, p, name, w):
    m.down.data.copy_(w.chunk(p.tp, dim=1)[p.rank].contiguous())


def _expert_sizes(p):
    return (EXPERTS // p.tp, INNER) if p.expert_parallel else (EXPERTS, p.inner)


def _expert_parameters(p):
    count, inner = _expert_sizes(p)
    return {"w13": (BF16, count, 2 * inner, HIDDEN), "w2": (BF16, count, HIDDEN, inner)}


@pattern(
    _expert_parameters,
    {
        f"experts.{e}.{k}": (BF16, *((HIDDEN, INNER) if k == "w2" else (INNER, HIDDEN)))
        for e in range(EXPERTS)
        for k in ("w1", "w2", "w3")
    },
)
@each
def experts(m, p, name, w):
    _, e, k = name.split(".")
    count, inner = _expert_sizes(p)
    e = int(e) - p.rank * count if p.expert_parallel else int(e)
    if not 0 <= e < count:
        return  # another rank's
    if not p.expert_parallel:
        w = p.shard(w, 1 if k == "w2" else 0)
    if k == "w2":
        m.w2.data[e].copy_(w)
    else:
        m.w13.data[e].narrow(0, 0 if k == "w1" else inner, inner).copy_(w)


@pattern(lambda p: {"w13": (BF16, EXPERTS, 2 * p.inner, HIDDEN)}, {"gate_up": (BF16, EXPERTS, HIDDEN, 2 * INNER)})
@each
def stacked_experts_transposed(m, p, name, w):
    for i, half in enumerate(w.transpose(-1, -2).chunk(2, dim=1)):
        for e, expert in enumerate(half.unbind()):
            m.w13.data[e].narrow(0, i * p.inner, p.inner).copy_(p.shard(expert, 0))


@pattern(lambda p: {"w2": (BF16, EXPERTS, HIDDEN, p.inner)}, {"down": (BF16, EXPERTS, INNER, HIDDEN)})
@each
def stacked_experts_at_once(m, p, name, w):
    m.w2.data.copy_(w.transpose(1, 2).contiguous()[:, :, p.rank * p.inner : (p.rank + 1) * p.inner])


@pattern(
    lambda p: {"embed": (BF16, PADDED // p.tp, HIDDEN)},
    dict.fromkeys(("embed", "head"), (BF16, VOCABULARY, HIDDEN)),
)
@each
def vocabulary(m, p, name, w):
    if name == "head":
        return  # tied
    size = PADDED // p.tp
    begin = p.rank * size
    count = max(0, min(size, VOCABULARY - begin))
    m.embed[:count].data.copy_(w.narrow(0, begin, count))
    m.embed[count:].data.fill_(0)


@pattern({"w": (BF16, 9, 4)}, {"embed": (BF16, 9, 4), "head": (BF16, 9, 4)}, traced="any")
@each
def tied_and_loaded_twice(m, p, name, w):
    m.w.data.copy_(w)


@pattern(lambda p: {"conv": (BF16, 8 // p.tp, 1, 4)}, {"conv": (BF16, 8, 4)})
@each
def conv_view(m, p, name, w):
    m.conv.data.copy_(p.shard(w.view(8, 1, 4), 0))


@pattern(
    {"a": (F32, 1), "b": (F32,), "c": (F32, EXPERTS, 2)},
    {"a": (F32, 1), "b": (F32,), "c.1": (F32,), "c.2": (F32, 1)},
)
@each
def scalars(m, p, name, w):
    if name in "ab":
        getattr(m, name).data.fill_(w.item())
    elif m.c.data[0, 0] != 1:  # live values may be read
        e = int(name[2:])
        m.c.data[e][0] = w.reshape(())
        m.c.data[e][1] = w.reshape(())


@one(EXPERTS, HIDDEN, dtype=F32, stored=(BF16, EXPERTS, HIDDEN))
@each
def widened(m, p, name, w):
    m.w.data.copy_(w.to(torch.float32))


@one(EXPERTS, HIDDEN, stored=(F32, EXPERTS, HIDDEN))
@each
def narrowed(m, p, name, w):
    m.w.data.copy_(w)


@pattern(
    {"w": (BF16, 12, HIDDEN), "s": (BF16, 2, 5)},
    {"qa": (BF16, 8, HIDDEN), "kva": (BF16, 4, HIDDEN), "s0": (BF16, 5), "s1": (BF16, 5)},
)
def concatenated(m, p, weights):
    kept = {}
    for name, w in weights:
        kept[name] = w
        if {"qa", "kva"} <= kept.keys():
            m.w.data.copy_(torch.cat([kept.pop("qa"), kept.pop("kva")], dim=0))
        if {"s0", "s1"} <= kept.keys():
            m.s.data.copy_(torch.stack([kept.pop("s0"), kept.pop("s1")]))


@one(HIDDEN, 10, stored=(BF16, 10, HIDDEN))
@each
def transposed(m, p, name, w):
    m.w.data.copy_(w.t())


@one(2 * INNER, HIDDEN)
@each
def interleaved(m, p, name, w):
    m.w.data.copy_(w.view(INNER, 2, HIDDEN).transpose(0, 1).reshape(2 * INNER, HIDDEN))


@pattern({"square": (BF16, 16, 16), "heads": (BF16, 24, 8)}, {"square": (BF16, 16, 16), "heads": (BF16, 24, 8)})
@each
def regrouped(m, p, name, w):
    """Square too: there a reshape that trusts strides goes wrong without an error."""
    if name == "square":
        m.square.data.copy_(w.view(4, 4, 16).permute(2, 0, 1).reshape(16, 16))
    else:
        m.heads.data.copy_(w.view(2, 4, 3, 8).permute(2, 1, 0, 3).contiguous().view(24, 8))


@one(HIDDEN, HIDDEN)
@each
def passed_around(m, p, name, w):
    m.w.data.copy_(w.detach().clone().to("cpu").contiguous().view(-1).view(HIDDEN, HIDDEN)[:, :])


@one(20, 24, stored=(BF16, 17, 19))
@each
def padded(m, p, name, w):
    m.w.data.zero_()
    m.w.data.narrow(0, 0, 17).narrow(1, 0, 19).copy_(w)


@one(3, 2, 5, stored=(BF16, 5))
@each
def broadcast(m, p, name, w):
    m.w.data.copy_(w)


@one(6, 4, dtype=FP8)
@each
def bits_under_another_name(m, p, name, w):
    m.w.data.view(torch.uint8).copy_(w.view(torch.uint8))


@one(6, 4, dtype=torch.uint8, stored=(FP8, 6, 4), traced="refused")
@each
def float8_kept_as_bytes(m, p, name, w):
    m.w.data.copy_(w.view(torch.uint8))


@pattern({"w": (BF16, 16, 4)}, {f"w{i}": (BF16, 4, 4) for i in range(4)})
def worker_threads(m, p, weights):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(lambda w=w, i=int(name[1:]): m.w.data[4 * i : 4 * i + 4].copy_(w)) for name, w in weights]
        [job.result() for job in jobs]


@one(6, HIDDEN, stored=(BF16, 2, HIDDEN), recorded="any")
@each
def repeated(m, p, name, w):
    m.w.data.copy_(w.repeat_interleave(3, dim=0))


# ---- what only tracing understands -----------------------------------------------------------------------------


@one(HIDDEN, HIDDEN, recorded="refused")
@each
def staged(m, p, name, w):
    staging = torch.empty_like(m.w.data)
    staging.copy_(w)
    m.w.data.copy_(staging)


@one(HIDDEN, 3, recorded="refused")
@each
def flipped(m, p, name, w):
    m.w.data.copy_(w.flip(0))


@one(HIDDEN, 3, recorded="refused")
@each
def rows_shuffled(m, p, name, w):
    m.w.data.copy_(w[torch.tensor([5, 3, 11, 0, 8, 15, 1, 9, 2, 14, 4, 7, 13, 6, 12, 10])])


@one(HIDDEN, recorded="refused")
@each
def branching(m, p, name, w):
    if not (w == 0).all():
        m.w.data.copy_(w)


@one(1, dtype=F32, recorded="refused")
@each
def branching_on_item(m, p, name, w):
    if w.item() != 0:
        m.w.data.copy_(w)


@one(HIDDEN, dtype=F32, recorded="refused")
@each
def through_numpy(m, p, name, w):
    m.w.data.copy_(torch.from_numpy(w.numpy()))


@one(HIDDEN, 4, recorded="refused")
@each
def many_at_once(m, p, name, w):
    torch._foreach_copy_([m.w.data], [w])


@one(HIDDEN, 4, recorded="refused", traced="any")
@each
def rebound(m, p, name, w):
    m.w.data = w.clone()


@one(HIDDEN, 4, recorded="refused", traced="any")
@each
def replaced(m, p, name, w):
    m.w = torch.nn.Parameter(w.clone(), requires_grad=False)


# ---- what is no copy -------------------------------------------------------------------------------------------


@one(8, dtype=F32, recorded="refused", traced="refused")
@each
def composed(m, p, name, w):
    m.w.data.copy_(w)
    m.w.data.copy_(-torch.exp(m.w.float()))


@one(8, dtype=F32, recorded="refused", traced="refused")
def composed_in_a_worker(m, p, weights):
    def load(w):
        m.w.data.copy_(w)
        m.w.data.copy_(-torch.exp(m.w))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        [pool.submit(load, w).result() for _, w in weights]


def _arithmetic(name, operation, dtype=BF16):
    def load(m, p, weights):
        for _, w in weights:
            m.w.data.copy_(operation(w))

    load.__name__ = name
    one(HIDDEN, 3, dtype=dtype, recorded="refused", traced="refused")(load)


_arithmetic("plus_one", lambda w: w + 1)
_arithmetic("halved", lambda w: w * 0.5)
_arithmetic("negated", lambda w: -w)
_arithmetic("absolute", lambda w: w.abs())
_arithmetic("clamped", lambda w: w.clamp(-448, 448))
_arithmetic("rounded", lambda w: w.to(FP8).to(BF16))
_arithmetic("rounded_and_widened", lambda w: w.half().float(), F32)


@one(HIDDEN, 3, recorded="refused", traced="refused")
@each
def scaled_in_place(m, p, name, w):
    m.w.data.copy_(w)
    m.w.data.mul_(0.5)


@one(HIDDEN, 3, recorded="refused", traced="refused")
@each
def source_changed_in_place(m, p, name, w):
    m.w.data.copy_(w.mul_(2))


@one(HIDDEN, 2, stored=(torch.int32, HIDDEN, 1), recorded="refused", traced="refused")
@each
def elements_of_another_size(m, p, name, w):
    m.w.data.copy_(w.view(BF16))


@one(HIDDEN, 3, recorded="refused", traced="any")
@each
def kept(m, p, name, w):
    m.pending[name] = [w]


@one(HIDDEN, 3, recorded="refused", traced="any")
@each
def wiped(m, p, name, w):
    m.w.data.copy_(w)
    m.w.data[3:].zero_()
