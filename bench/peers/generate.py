#!/usr/bin/env python3
"""Makes a bf16 model and what an optimizer step leaves of it, at chosen shares of changed words.

usage: generate.py OUT [--mib 4096] [--density 0.001 0.01 ...] [--seed 1]

Writes OUT/old/model.safetensors and, per density, OUT/<percent>/model.safetensors. Needs torch.

Weights are normal with deviation 0.02 (norms: around 1), held in fp32 and rounded to bf16. The step
moves every fp32 weight by an amount of about fixed size, up or down, as Adam does, so the chance that
the bf16 word changes halves with every binade of the weight; the size is scaled until the share is
met. Density 1 is no optimizer step: each weight moves by its own normal amount of a twentieth of the
deviation, as fine-tuning apart from one base leaves it, and words that still stay go one step.
"""

import argparse
import contextlib
import math
import sys
from pathlib import Path

import checkpoints

DEVIATION = 0.02
FINE_TUNE = DEVIATION / 20
SAMPLE = 1 << 22
PART = 1 << 20
VOCABULARY = 32000


def layout(mebibytes):
    """Names and shapes of a decoder of about this size, half a layer more or less."""
    hidden, inner = (2048, 5632) if mebibytes >= 1024 else (512, 1408)
    layer = {"input_layernorm": (hidden,), "mlp.down_proj": (hidden, inner), "mlp.gate_proj": (inner, hidden),
             "mlp.up_proj": (inner, hidden), "post_attention_layernorm": (hidden,),
             "self_attn.k_proj": (hidden // 4, hidden), "self_attn.o_proj": (hidden, hidden),
             "self_attn.q_proj": (hidden, hidden), "self_attn.v_proj": (hidden // 4, hidden)}
    per_layer = sum(map(math.prod, layer.values()))
    rest = mebibytes * 2**19 - 2 * VOCABULARY * hidden
    shapes = {"lm_head.weight": (VOCABULARY, hidden), "model.embed_tokens.weight": (VOCABULARY, hidden)}
    for number in range(max(1, round(rest / per_layer))):
        for name, shape in layer.items():
            shapes[f"model.layers.{number}.{name}.weight"] = shape
    shapes["model.norm.weight"] = (hidden,)
    return shapes


def folder_name(density):
    return f"{100 * density:g}"


def words(values):
    import torch

    return values.to(torch.bfloat16).view(torch.int16)


def optimizer_step(generator, size, count):
    """Either way, and from half to one and a half times the size."""
    import torch

    draws = torch.empty(count).uniform_(-1, 1, generator=generator)
    return draws.add_(torch.sign(draws), alpha=0.5).mul_(size)


def update_size(density):
    """The size of step that changes this share of the words."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weights = torch.empty(SAMPLE).normal_(0, DEVIATION, generator=generator)
    old = words(weights)
    unit = optimizer_step(generator, 1, SAMPLE)
    low, high = 1e-12, 1.0
    for _ in range(40):
        size = (low * high) ** 0.5
        found = float((words(weights + size * unit) != old).float().mean())
        low, high = (size, high) if found < density else (low, size)
    return size


def stepped(weights, old, density, size, generator):
    import torch

    if density < 1:
        return words(weights + optimizer_step(generator, size, weights.numel()))
    moved = torch.empty(weights.numel()).normal_(0, FINE_TUNE, generator=generator)
    new = words(weights + moved)
    return torch.where(new == old, old ^ 1, new)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mib", type=int, default=4096)
    parser.add_argument("--density", type=float, nargs="+", default=[0.001, 0.01, 0.05, 0.5, 1])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not all(0 < density <= 1 for density in arguments.density):
        sys.exit("generate: a density is above 0 and at most 1")

    import torch

    torch.set_num_threads(1)
    shapes = layout(arguments.mib)
    header = checkpoints.header_bytes({name: ("BF16", shape) for name, shape in shapes.items()})
    sizes = {density: update_size(density) for density in arguments.density if density < 1}
    changed, total = dict.fromkeys(arguments.density, 0), 0
    with contextlib.ExitStack() as stack:
        def create(name):
            folder = arguments.out / name
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / "model.safetensors").open("wb"))
            file.write(header)
            return file

        old_file = create("old")
        new_files = {density: create(folder_name(density)) for density in arguments.density}
        for number, (name, shape) in enumerate(shapes.items()):
            generator = torch.Generator().manual_seed(arguments.seed << 32 | number)
            mean = 1.0 if "norm" in name else 0.0
            count = math.prod(shape)
            total += count
            for begin in range(0, count, PART):
                weights = torch.empty(min(PART, count - begin)).normal_(mean, DEVIATION, generator=generator)
                old = words(weights)
                old_file.write(old.numpy())
                for density, file in new_files.items():
                    new = stepped(weights, old, density, sizes.get(density), generator)
                    changed[density] += int((new != old).sum())
                    file.write(new.numpy())
    print(f"{total * 2 / 2**20:,.1f} MiB in {len(shapes)} tensors")
    for density in arguments.density:
        how = f"steps of {sizes[density]:.3g}" if density in sizes else f"normal moves of {FINE_TUNE:g}"
        print(f"{folder_name(density):>6} %: {100 * changed[density] / total:.4f} % changed, {how}")


if __name__ == "__main__":
    main()
