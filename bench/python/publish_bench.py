#!/usr/bin/env python3
"""What publishing from Python costs: beside the library's own time, and beside sparse patches made with torch.

usage: publish_bench.py [--mib 1024] [--rounds 5] [--parameters 150] [--steps 5] [--only overhead|patches]

overhead  A state dict of --mib MiB of bf16 in 300 and in 20,000 tensors, of which 1 % of the words change
          between publishes. The library's own time is what its report says; the rest is Python's: collecting
          tensors, DLPack, the call.
patches   A Llama of about --parameters million parameters, fp32 weights, AdamW. Each step is synchronised
          twice: by our publish and update of a replica over a bf16 copy, and the way TRL's unmerged prototype
          did it - a bf16 clone of every parameter before the step, `!=` and nonzero after it, int32 indices and
          bf16 values in a safetensors file, read and applied by index. Our own few lines of torch, after its
          published behaviour. Which goes first alternates.
Medians; times are wall time of both sides in one process, from the end of the step to the last word applied.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import siltstone


def median(values):
    return statistics.median(values)


def state_dict(mebibytes, tensors):
    generator = torch.Generator().manual_seed(1)
    words = torch.empty(mebibytes << 19, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
    each = words.numel() // tensors
    return words, {f"layer.{i}.weight": words[i * each : (i + 1) * each] for i in range(tensors)}


def change(words, share, generator):
    at = torch.randint(0, words.numel(), (int(words.numel() * share),), generator=generator)
    words.view(torch.int16)[at] ^= 1


def overhead(options):
    print(f"overhead: {options.mib} MiB of bf16, 1 % of the words changed, medians of {options.rounds}")
    for tensors in (300, 20_000):
        words, weights = state_dict(options.mib, tensors)
        generator = torch.Generator().manual_seed(2)
        repository = siltstone.init(tempfile.mkdtemp(dir=options.work) + "/bucket")
        publisher = repository.publisher()
        publisher.publish(weights)
        total, inside = [], []
        for step in range(options.rounds):
            change(words, 0.01, generator)
            start = time.perf_counter()
            report = publisher.publish(weights, step=step)
            total.append(time.perf_counter() - start)
            inside.append(report.seconds)
        ratios = [t / i - 1 for t, i in zip(total, inside)]
        print(f"  {tensors:6} tensors: library {median(inside):.3f} s, call {median(total):.3f} s, "
              f"overhead {median(ratios):.1%}")


class Patches:
    """Sparse patches with torch's own operations."""

    def __init__(self, model, folder):
        self.model, self.path = model, Path(folder, "patch.safetensors")
        self.engine = {name: p.detach().to(torch.bfloat16) for name, p in model.named_parameters()}

    def before_step(self):
        self.old = {name: p.detach().to(torch.bfloat16) for name, p in self.model.named_parameters()}

    def sync(self):
        patch = {}
        for name, parameter in self.model.named_parameters():
            new = parameter.detach().to(torch.bfloat16)
            index = (new != self.old[name]).flatten().nonzero().flatten()
            if index.numel():
                patch[f"{name}.indices"] = index.to(torch.int32)
                patch[f"{name}.values"] = new.flatten()[index]
        save_file(patch, self.path)
        loaded = load_file(self.path)
        for name, weight in self.engine.items():
            if f"{name}.indices" in loaded:
                weight.view(-1)[loaded[f"{name}.indices"].long()] = loaded[f"{name}.values"]
        return self.path.stat().st_size


class Ours:
    def __init__(self, model, folder):
        self.model = model
        repository = siltstone.init(Path(folder, "bucket"))
        self.publisher = repository.publisher(dtype="bf16")
        self.publisher.publish(dict(model.named_parameters()))
        self.engine = {name: torch.empty_like(p, dtype=torch.bfloat16) for name, p in model.named_parameters()}
        self.replica = repository.replica(self.engine)

    def before_step(self):
        pass

    def sync(self):
        report = self.publisher.publish(dict(self.model.named_parameters()))
        self.replica.update(report.version)
        # An anchor beside the delta is for readers that join later; its time is counted, its bytes are not.
        return next(a.size_bytes for a in report.version.artifacts if a.kind == "delta")


def make_model(millions):
    from transformers import AutoModelForCausalLM, LlamaConfig

    width = max(256, round((millions * 1e6 / (12 * 12 + 2 * 16)) ** 0.5 / 64) * 64)
    config = LlamaConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=9, vocab_size=16 * width,
                         num_attention_heads=width // 64, tie_word_embeddings=True)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def patches(options):
    torch.manual_seed(0)
    model = make_model(options.parameters)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    folder = tempfile.mkdtemp(dir=options.work)
    ways = [Patches(model, folder), Ours(model, folder)]
    seconds, sizes = [[], []], [[], []]
    for step in range(options.steps + 2):
        tokens = torch.randint(0, model.config.vocab_size, (2, 32))
        model(input_ids=tokens, labels=tokens).loss.backward()
        before = [0.0, 0.0]
        for i, way in enumerate(ways):
            start = time.perf_counter()
            way.before_step()
            before[i] = time.perf_counter() - start
        optimizer.step()
        optimizer.zero_grad()
        for i in (0, 1) if step % 2 else (1, 0):
            start = time.perf_counter()
            size = ways[i].sync()
            taken = before[i] + time.perf_counter() - start
            if step >= 2:  # caches and buffers are warm
                seconds[i].append(taken)
                sizes[i].append(size)
        for name, parameter in model.named_parameters():
            exact = parameter.detach().to(torch.bfloat16)
            if any(not torch.equal(exact, way.engine[name]) for way in ways):
                raise SystemExit(f"{name} differs after step {step}")
    count = sum(p.numel() for p in model.parameters())
    print(f"patches: {count / 1e6:.0f} M parameters, AdamW at 1e-6, medians of {options.steps} steps, "
          "every word compared")
    print(f"  sparse patches with torch: {median(seconds[0]):.3f} s, {median(sizes[0])} bytes")
    print(f"  siltstone:                 {median(seconds[1]):.3f} s, {median(sizes[1])} bytes")
    print(f"  times: {median([a / b for a, b in zip(*seconds)]):.1f}, "
          f"bytes: {median([a / b for a, b in zip(*sizes)]):.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parameters", type=float, default=150)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", choices=("overhead", "patches"))
    parser.add_argument("--work", help="where buckets are made (default: the folder for temporary files)")
    options = parser.parse_args()
    if options.only != "patches":
        overhead(options)
    if options.only != "overhead":
        patches(options)


if __name__ == "__main__":
    main()
