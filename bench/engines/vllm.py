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

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/engines")]

from training import Training  # noqa: E402 - found through the path above
from vllm_server import BACKEND, Vllm  # noqa: E402

from siltstone.integrations.vllm import Server  # noqa: E402

SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


def one_round(number, training, folder, server, driver):
    """(seconds of the update, seconds of the reload). After either the weights are the round's version."""
    version = training.step().version
    folder.update(version)
    time.sleep(3)  # for staging beside the server

    def reload():
        begin = time.monotonic()
        with driver.paused():
            path = str(training.model.with_name("folder"))
            server.post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
        return time.monotonic() - begin

    if number % 2 == 0:
        return driver.update(version.name), reload()
    other = reload()
    return driver.update(version.name), other


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siltstone-bench-") as scratch:
        training = Training(Path(scratch), "llama", num_hidden_layers=options.layers, **SIZES)
        folder = training.repository.replica(training.model.with_name("folder"))  # what vLLM reloads
        mebibytes = sum(tensor.nbytes for tensor in training.weights.values()) / 2**20
        with Vllm(training.model, *BACKEND) as server:
            driver = Server(server.endpoint)
            begin = time.monotonic()
            driver.attach(str(training.bucket), "main@0", interval=0.1)
            print(f"{mebibytes:.0f} MiB in {len(training.weights)} tensors; attached in {time.monotonic() - begin:.1f} s")
            pairs = [one_round(number, training, folder, server, driver) for number in range(options.rounds)]
    for update, reload in pairs:
        print(f"update {update * 1e3:.0f} ms, reload {reload * 1e3:.0f} ms")
    update, reload = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(first / second for first, second in pairs)
    print(f"median update {update * 1e3:.0f} ms, reload {reload * 1e3:.0f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
