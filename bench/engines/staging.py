#!/usr/bin/env python3
"""How much memory staging takes beside an engine, for models of several sizes and one budget.

usage: staging.py [--sizes 256 1024 3072] [--budget 128]        sizes and budget in MiB

An engine with fused projections, every third of them transposed, holds a version; a hundredth of its bf16 words
changes. Prints by how much the process's peak grows while the next version is staged, and how much of that is kept
until the commit. Each size runs in a process of its own.
"""

import argparse
import ctypes
import multiprocessing
import os
import tempfile
from pathlib import Path

MIB = 1 << 20
COLUMNS = 4096


def memory(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def engine_of(layers):
    import torch

    class Engine(torch.nn.Module):
        """Two tensors of 8 MiB in each parameter."""

        def __init__(self):
            super().__init__()
            shape = [(COLUMNS, 2048) if i % 3 == 2 else (2048, COLUMNS) for i in range(layers)]
            self.weights = torch.nn.ParameterList(
                torch.nn.Parameter(torch.zeros(s, dtype=torch.bfloat16), requires_grad=False) for s in shape
            )

        def load_weights(self, weights):
            for name, tensor in weights:
                layer, half = (int(part) for part in name.split("."))
                target = self.weights[layer].data
                target = target.t() if layer % 3 == 2 else target
                target[half * 1024 : (half + 1) * 1024].copy_(tensor)

    return Engine()


def run(size, budget, told):
    import torch

    import siltstone
    from siltstone import engine

    torch.manual_seed(0)
    layers = max(size // 16, 1)
    model = engine_of(layers)
    weights = {
        f"{i}.{half}": torch.randn(1024, COLUMNS).mul_(0.02).bfloat16() for i in range(layers) for half in (0, 1)
    }
    with tempfile.TemporaryDirectory() as folder:
        repository = siltstone.open(Path(folder) / "bucket", create=True)
        with repository.publisher() as publisher:
            publisher.publish(weights)
            model.load_weights(weights.items())
            for tensor in weights.values():
                words = tensor.view(torch.int16).reshape(-1)
                words[torch.randint(0, words.numel(), (words.numel() // 100,))] ^= 1
            publisher.publish(weights)
        weights.clear()
        replica = engine.attach(repository, model, model.load_weights, "main@0")
        ctypes.CDLL(None).malloc_trim(0)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        staged = replica.stage("main@1", memory_bytes=budget * MIB)
        peak, kept = memory("VmHWM") - before, memory("VmRSS") - before
        changed = staged.changed_elements
        staged.commit()
        told.put((changed, peak, kept))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 3072])
    parser.add_argument("--budget", type=int, default=128)
    options = parser.parse_args()
    # What publishing and attaching have freed goes back to the system: it must not hide what staging takes.
    os.environ |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    context = multiprocessing.get_context("spawn")
    for size in options.sizes:
        told = context.Queue()
        process = context.Process(target=run, args=(size, options.budget, told))
        process.start()
        changed, peak, kept = told.get()
        process.join()
        print(
            f"{size:6} MiB, {changed:10} words changed: staging took {peak / MIB:6.1f} MiB at its peak, "
            f"{kept / MIB:6.1f} MiB until the commit; budget {options.budget} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
