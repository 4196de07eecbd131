#!/usr/bin/env python3
"""Makes the standard step tables of the class codec (docs/format/delta_pack.md, "Step tables").

A master weight is uniform inside the rounding cell of its bf16 word; an optimizer moves it by a
normal update of standard deviation sigma, in units of the word's last place; the result is rounded
again. Table i holds the probabilities of the step symbols for sigma = 2^((i - 16) / 4), in units of
1/1024, followed by that of the escape. What comes out is frozen in docs/format/step_tables.txt and
src/delta/codecs/step_tables.inc: the format is those numbers, not this program.

usage: make_step_tables.py           write both files
       make_step_tables.py --check   fail if they differ from what would be written
"""

import math
import sys
from pathlib import Path
from statistics import NormalDist

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "docs/format/step_tables.txt"
CODE = ROOT / "src/delta/codecs/step_tables.inc"

TABLES = 64
SYMBOLS = 23
TOTAL = 1024
MANTISSA = 128  # words in a binade of bf16
BINADES_TO_ZERO = 110  # of a typical small weight: how far the other sign is away
LEAST = 1 / 8192  # symbols rarer than this are left to the escape

NORMAL = [NormalDist().inv_cdf((i + 0.5) / 400) for i in range(400)]
OLD_WORDS = [math.floor(MANTISSA * (1 + (i + 0.5) / 16)) for i in range(16)]
OFFSETS = [(i + 0.5) / 9 - 0.5 for i in range(9)]


def rank(value):
    """Words from the start of the old word's binade to a positive value in units of its last place."""
    binade = math.floor(math.log2(max(value, 2.0 ** -40)))
    return binade * MANTISSA + (value / 2.0 ** binade - 1) * MANTISSA


def symbol(step):
    size = abs(step)
    if size == 0:
        return 0
    if size <= 4:
        return 2 * size - (step > 0)
    return 7 + (size - 1).bit_length() - 1


def step_of(old, new):
    if abs(new - old) < MANTISSA / 2:
        return math.floor(new + 0.5) - old
    if new > 0:
        return math.floor(rank(new) + 0.5) - math.floor(rank(old))
    return -math.floor(rank(max(-new, 1e-9)) + rank(old) + 2 * BINADES_TO_ZERO * MANTISSA)


def table(sigma):
    counts = [0] * SYMBOLS
    for old in OLD_WORDS:
        for offset in OFFSETS:
            for deviate in NORMAL:
                counts[min(symbol(step_of(old, old + offset + sigma * deviate)), SYMBOLS - 1)] += 1
    total = sum(counts)
    # Up and down are equally likely; sampling need not say so exactly.
    for up in (1, 3, 5, 7):
        counts[up] = counts[up + 1] = (counts[up] + counts[up + 1]) / 2
    out = []
    for i, count in enumerate(counts):
        share = math.floor(count * TOTAL / total + 0.5)
        kept = i == 0 or count >= LEAST * total  # words that no gradient reaches stay in any case
        out.append(1 if share == 0 and kept else share)
    out.append(1)  # the escape
    out[out.index(max(out))] += TOTAL - sum(out)
    return out


def main():
    tables = [table(2.0 ** ((i - 16) / 4)) for i in range(TABLES)]
    assert all(sum(row) == TOTAL and min(row) >= 0 for row in tables)
    text = "".join(" ".join(f"{n:4d}" for n in row) + "\n" for row in tables)
    code = ("// Made by scripts/make_step_tables.py; the same numbers as docs/format/step_tables.txt.\n"
            + "".join("{{" + ", ".join(map(str, row)) + "}},\n" for row in tables))
    files = {TEXT: text, CODE: code}
    if sys.argv[1:] == ["--check"]:
        wrong = [path.name for path, content in files.items() if path.read_text() != content]
        sys.exit(f"differs: {', '.join(wrong)}" if wrong else 0)
    for path, content in files.items():
        path.write_text(content)


if __name__ == "__main__":
    main()
