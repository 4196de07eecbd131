#!/usr/bin/env python3
"""Whole-process publish, pull and checkout against cat and cp of the same files, in paired runs.

usage: flows.py [--mib 2048] [--density 0.01] [--rounds 5] [--work DIR] [--build build]

Every round runs the baseline and the command one after the other; the median of their ratios is what
counts, since machines are shared and noisy. Memory is the process's largest resident set.
Standard library only.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(command, env, capture=True):
    """Runs to success; returns (seconds, peak resident MiB, stdout)."""
    start = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE if capture else subprocess.DEVNULL)
    output = process.stdout.read() if capture else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit status {process.returncode}")
    return seconds, usage.ru_maxrss / 1024, output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--build", type=Path, default=Path("build"))
    arguments = parser.parse_args()

    program = str(arguments.build / "siltstone")
    work = Path(tempfile.mkdtemp(prefix="siltstone-flows-", dir=arguments.work))
    env = dict(os.environ, SILTSTONE_CACHE=str(work / "cache"))
    try:
        states = work / "states"
        made = subprocess.run(
            [arguments.build / "bench/flows/make_states", states, str(arguments.mib), str(arguments.density)],
            check=True, capture_output=True, text=True)
        print(made.stdout.strip())
        base, following = states / "base", states / "next"
        weights = [base / "model.safetensors", following / "model.safetensors"]
        bucket = work / "bucket"
        run([program, "init", bucket], env)
        _, anchor_memory, _ = run([program, "publish", bucket, base], env)
        print(f"first publish (anchor): peak {anchor_memory:.0f} MiB")
        # So that every round publishes and pulls the same step.
        kept = {name: work / f"{name}-kept" for name in ("bucket", "cache", "replica")}
        run([program, "pull", bucket, work / "replica"], env)
        os.sync()

        rows = {"publish": [], "pull": [], "checkout": []}
        memory = {name: 0.0 for name in rows}
        details = {}

        def measure(name, baseline, command):
            for path in (weights if name == "publish" else [work / "replica/model.safetensors"]):
                subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)  # warm cache
            base_seconds, _, _ = run(baseline, env, capture=False)
            seconds, peak, output = run(command, env)
            rows[name].append((base_seconds, seconds))
            memory[name] = max(memory[name], peak)
            details[name] = json.loads(output)

        for round_number in range(arguments.rounds):
            for name in ("bucket", "cache"):
                shutil.rmtree(kept[name], ignore_errors=True)
                subprocess.run(["cp", "-al", work / name, kept[name]], check=True)
            measure("publish", ["cat", *map(str, weights)],
                    [program, "publish", str(bucket), str(following), "--json"])
            copy = work / "copy.safetensors"
            measure("pull", ["cp", str(weights[1]), str(copy)],
                    [program, "pull", str(bucket), str(work / "replica"), "--json"])
            subprocess.run(["cmp", work / "replica/model.safetensors", weights[1]], check=True)
            copy.unlink()
            measure("checkout", ["cp", str(weights[1]), str(copy)],
                    [program, "checkout", str(bucket), "main@1", str(work / "out"), "--json"])
            subprocess.run(["cmp", work / "out/model.safetensors", weights[1]], check=True)
            copy.unlink()
            shutil.rmtree(work / "out")
            # Back to the first version for the next round.
            run([program, "pull", bucket, work / "replica", "--to", "main@0"], env)
            for name in ("bucket", "cache"):
                shutil.rmtree(work / name)
                (kept[name]).rename(work / name)
            os.sync()

        print(f"{'command':<10} {'baseline':<8} {'baseline s':>10} {'command s':>10} {'ratio':>6} {'peak MiB':>9}")
        for name, baseline in (("publish", "cat"), ("pull", "cp"), ("checkout", "cp")):
            pairs = rows[name]
            ratio = statistics.median(b / a for a, b in pairs)
            print(f"{name:<10} {baseline:<8} {statistics.median(a for a, _ in pairs):>10.3f}"
                  f" {statistics.median(b for _, b in pairs):>10.3f} {ratio:>6.2f} {memory[name]:>9.0f}")
        publish = details["publish"]
        print(f"delta: {publish['changed_elements']} changed, "
              f"{publish['bits_per_changed_element']:.3f} bits each, {publish['bytes_written']} bytes; "
              f"publish {publish['seconds']:.3f} s inside; pull stage "
              f"{details['pull']['stage_seconds']:.3f} s, commit {details['pull']['commit_seconds']:.4f} s")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
