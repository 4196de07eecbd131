#!/usr/bin/env python3
"""How long a vLLM server is paused for a version, beside vLLM's own reload of the same model.

usage: vllm.py [--layers 12] [--rounds 7]      with the python of .venv-engines (make engines)

A Llama with random bf16 weights, about 30 MB a layer and 65 MB of vocabulary, is served on the CPU. Each round a
hundredth of its words changes; then, taking turns who goes first,
  update    the server is paused, moved to the version, which was staged beside serving, and resumed
  reload    the server is paused, `reload_weights` (vLLM's) reads the model's files, and it is resumed
Prints medians, and the median of the paired ratios.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import safetensors.torch
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/engines")]

import tiny_models  # noqa: E402 - found through the path above
from vllm_server import BACKEND, Vllm  # noqa: E402

import siltstone  # noqa: E402
from siltstone.integrations.vllm import Server  # noqa: E402

SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


class Bench:
    def __init__(self, options, work):
        self.model, self.bucket = work / "model", str(work / "bucket")
        tiny_models.make("llama", self.model, num_hidden_layers=options.layers, **SIZES)
        repository = siltstone.open(self.bucket, create=True)
        repository.publish(self.model)
        self.publisher = repository.publisher()
        self.folder = repository.replica(work / "folder")  # what vLLM reloads: always the version of the round
        self.weights = safetensors.torch.load_file(self.model / "model.safetensors")
        self.random = torch.Generator().manual_seed(3)

    def step(self):
        for tensor in self.weights.values():
            words = tensor.view(torch.int16)
            words[torch.rand(words.shape, generator=self.random) < 0.01] ^= 1
        report = self.publisher.publish(self.weights)
        self.folder.update(report.version)
        time.sleep(3)  # for staging beside the server
        return report

    def round(self, number, server, driver):
        """(seconds of the update, seconds of the reload). After either the weights are the round's version."""
        version = self.step().version.name
        folder = str(Path(self.bucket).parent / "folder")

        def reload():
            begin = time.monotonic()
            with driver.paused():
                server.post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
            return time.monotonic() - begin

        if number % 2 == 0:
            return driver.update(version), reload()
        other = reload()
        return driver.update(version), other


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siltstone-bench-") as scratch:
        bench = Bench(options, Path(scratch))
        mebibytes = sum(tensor.nbytes for tensor in bench.weights.values()) / 2**20
        with Vllm(bench.model, *BACKEND) as server:
            driver = Server(server.endpoint)
            begin = time.monotonic()
            driver.attach(bench.bucket, "main@0", interval=0.1)
            print(f"{mebibytes:.0f} MiB in {len(bench.weights)} tensors; attached in {time.monotonic() - begin:.1f} s")
            pairs = [bench.round(number, server, driver) for number in range(options.rounds)]
    for update, reload in pairs:
        print(f"update {update * 1e3:.0f} ms, reload {reload * 1e3:.0f} ms")
    update, reload = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(first / second for first, second in pairs)
    print(f"median update {update * 1e3:.0f} ms, reload {reload * 1e3:.0f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
