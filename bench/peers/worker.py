"""One method over pairs of checkpoints in a process of its own; prints one JSON object.

usage: worker.py --list
       worker.py count OLD NEW [OLD NEW]...             what there is to code
       worker.py memory METHOD OLD NEW [OLD NEW]...     peak beyond old, new and target, at the largest tensor
       worker.py measure METHOD REPEAT OLD NEW [OLD NEW]...

Memory is told apart best where freed buffers go back to the system: MALLOC_MMAP_THRESHOLD_=65536.
"""

import json
import os
import re
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import checkpoints  # noqa: E402
import torch  # noqa: E402
from methods import METHODS  # noqa: E402

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def load(checkpoint, entry):
    tensor = torch.empty(entry.shape, dtype=WORDS[entry.word_bytes])
    checkpoint.read_into(entry, tensor.reshape(-1).numpy())
    return tensor


def tensor_pairs(paths, largest_only=False):
    """Old and new tensors, one pair at a time."""
    for old_path, new_path in zip(paths[0::2], paths[1::2]):
        old_file, new_file = checkpoints.Checkpoint(old_path), checkpoints.Checkpoint(new_path)
        entries = checkpoints.shared_entries(old_file, new_file)
        if largest_only:
            entries = [max(entries, key=lambda pair: pair[1].size)]
        for old_entry, new_entry in entries:
            yield load(old_file, old_entry), load(new_file, new_entry)
        old_file.close()
        new_file.close()


def count(paths):
    facts = dict.fromkeys(("dense", "words", "tensors", "changed"), 0)
    for old, new in tensor_pairs(paths):
        facts["dense"] += new.numel() * new.element_size()
        facts["words"] += new.numel()
        facts["tensors"] += 1
        facts["changed"] += int((old != new).sum())
    return facts


def status_mebibytes(field):
    with open("/proc/self/status", encoding="ascii") as file:
        return int(re.search(rf"{field}:\s+(\d+) kB", file.read())[1]) / 1024


def memory(method, paths):
    peak = 0.0
    for old, new in tensor_pairs(paths, largest_only=True):
        target = old.clone()
        first = slice(0, min(old.numel(), 4096))  # so that what a first call sets up does not count
        method.decode(old.view(-1)[first].clone(), method.encode(old.view(-1)[first], new.view(-1)[first]))
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        before = status_mebibytes("VmRSS")
        method.decode(target, method.encode(old, new))
        peak = max(peak, status_mebibytes("VmHWM") - before)
        del old, new, target
    return {"mebibytes": peak}


def measure(method, repeat, paths):
    encode_seconds, decode_seconds = [0.0] * repeat, [0.0] * repeat
    payload_bytes, exact = 0, True
    for old, new in tensor_pairs(paths):
        target = old.clone()
        for number in range(repeat):
            target.copy_(old)
            start = time.process_time()
            payload = method.encode(old, new)
            middle = time.process_time()
            result = method.decode(target, payload)
            decode_seconds[number] += time.process_time() - middle
            encode_seconds[number] += middle - start
            exact = exact and torch.equal(result, new)
            if number == 0:
                payload_bytes += len(payload)
            del payload, result
        del old, new, target
    return {"bytes": payload_bytes, "exact": exact, "encode_seconds": encode_seconds,
            "decode_seconds": decode_seconds}


def main():
    torch.set_num_threads(1)
    what, rest = sys.argv[1], sys.argv[2:]
    if what == "--list":
        answer = [[method.name, method.title, method.stands_for] for method in METHODS.values()]
    elif what == "count":
        answer = count(rest)
    elif what == "memory":
        answer = memory(METHODS[rest[0]], rest[1:])
    else:
        if rest[0].startswith("zipnn"):
            import zipnn  # noqa: F401
        answer = measure(METHODS[rest[0]], int(rest[1]), rest[2:])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
