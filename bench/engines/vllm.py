#!/usr/bin/env python3
"""How long a vLLM server is paused for a version, beside vLLM's own reload of the same model.

usage: vllm.py [--layers 32] [--rounds 9]      with the python of .venv-engines (make engines)

A Llama with random bf16 weights, about 30 MB a layer and 65 MB of vocabulary, is served on the CPU by two servers: one
that follows its bucket by itself, and one with a driver. Each round a hundredth of its words changes and is staged
beside serving; then, taking turns who goes first,
  follow    the first server, held back until now, moves to the version: the pause that it tells of
  update    the second is paused, moved to the version and resumed by the driver's requests
  reload    the second is paused, `reload_weights` (vLLM's) reads the model's files, and it is resumed
Prints medians, and the medians of the ratios to the same round's reload.
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
from vllm_server import BACKEND, MIDDLEWARE, Vllm  # noqa: E402

from siltstone.integrations.vllm import Server  # noqa: E402

SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


def followed_pause(server):
    """Lets the server that follows move, and gives the seconds of its pause."""
    updates = server.get("/siltstone/status")["following"]["updates"]
    server.post("/resume")
    while (told := server.get("/siltstone/status")["following"])["updates"] == updates:
        if told["failure"] or told["stuck"]:
            sys.exit(f"the server does not follow: {told}")
        time.sleep(0.1)
    return told["pauses"][-1]["seconds"]


def one_round(number, training, folder, follows, server, driver):
    """{what: seconds}. After each the weights are the round's version."""
    follows.post("/pause?mode=keep")
    version = training.step().version
    folder.update(version)
    time.sleep(4)  # for staging beside the servers

    def reload():
        begin = time.monotonic()
        with driver.paused():
            path = str(training.model.with_name("folder"))
            server.post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
        return time.monotonic() - begin

    ways = {"follow": lambda: followed_pause(follows), "update": lambda: driver.update(version.name), "reload": reload}
    order = list(ways)[number % len(ways):] + list(ways)[:number % len(ways)]
    seconds = {}
    for way in order:
        seconds[way] = ways[way]()
        time.sleep(1)  # for what it leaves behind
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siltstone-bench-") as scratch:
        training = Training(Path(scratch), "llama", num_hidden_layers=options.layers, **SIZES)
        folder = training.repository.replica(training.model.with_name("folder"))  # what vLLM reloads
        mebibytes = sum(tensor.nbytes for tensor in training.weights.values()) / 2**20
        told = {"SILTSTONE_BUCKET": str(training.bucket), "SILTSTONE_AT": "main@0", "SILTSTONE_INTERVAL": "0.2"}
        with Vllm(training.model, *BACKEND, *MIDDLEWARE, **told) as follows, Vllm(training.model, *BACKEND) as server:
            driver = Server(server.endpoint)
            begin = time.monotonic()
            driver.attach(str(training.bucket), "main@0", interval=0.2)
            seconds = time.monotonic() - begin
            print(f"{mebibytes:.0f} MiB in {len(training.weights)} tensors; attached in {seconds:.1f} s")
            rounds = [one_round(n, training, folder, follows, server, driver) for n in range(options.rounds)]
    for seconds in rounds:
        print(", ".join(f"{way} {seconds[way] * 1e3:.0f} ms" for way in ("follow", "update", "reload")))
    for way in ("follow", "update", "reload"):
        median = statistics.median(seconds[way] for seconds in rounds)
        ratio = statistics.median(seconds[way] / seconds["reload"] for seconds in rounds)
        print(f"{way}: median {median * 1e3:.0f} ms, {ratio:.3f} of a reload")


if __name__ == "__main__":
    main()
