#!/usr/bin/env python3
"""Makes the standard tables of the codecs class and momentum (docs/format/delta_pack.md).

A master weight is uniform inside the rounding cell of its bf16 word; an optimizer moves it by a
normal update of standard deviation sigma, in units of the word's last place; the result is rounded
again. Table i holds the probabilities of the step symbols for sigma = 2^((i - 16) / 4), in units of
1/1024, followed by that of the escape.

Momentum makes an update and the one before it alike: their correlation is taken as 0.95. Tables
3 i, 3 i + 1 and 3 i + 2 of momentum hold the probabilities of what the word's last step leaves open,
for words that did not move last time, moved by one, and moved further.

What comes out is frozen in docs/format/*_tables.txt and src/delta/codecs/*_tables.inc: the format is
those numbers, not this program.

usage: make_step_tables.py           write the files
       make_step_tables.py --check   fail if they differ from what would be written
"""

import math
import sys
from pathlib import Path
from statistics import NormalDist

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "docs/format"
CODE = ROOT / "src/delta/codecs"

TABLES = 64
SYMBOLS = 23
TOTAL = 1024
MANTISSA = 128  # words in a binade of bf16
BINADES_TO_ZERO = 110  # of a typical small weight: how far the other sign is away
LEAST = 1 / 8192  # symbols rarer than this are left to the escape

NORMAL = [NormalDist().inv_cdf((i + 0.5) / 400) for i in range(400)]
OLD_WORDS = [math.floor(MANTISSA * (1 + (i + 0.5) / 16)) for i in range(16)]
OFFSETS = [(i + 0.5) / 9 - 0.5 for i in range(9)]

CORRELATION = 0.95
POINTS = 20_000
FEWEST = 50
# A low-discrepancy sequence in four dimensions: powers of the root of x^5 = x + 1 (M. Roberts, The
# Unreasonable Effectiveness of Quasirandom Sequences, 2018).
ROOT_OF_4 = 1.1673039782614187


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
    return scaled(counts)


def scaled(counts, symmetric=True, least=1):
    """The first `least` symbols get room in any case: words that no gradient reaches stay."""
    total = sum(counts)
    # Up and down are equally likely; sampling need not say so exactly.
    for up in (1, 3, 5, 7) if symmetric else ():
        counts[up] = counts[up + 1] = (counts[up] + counts[up + 1]) / 2
    out = []
    for i, count in enumerate(counts):
        share = math.floor(count * TOTAL / total + 0.5)
        kept = i < least or count >= LEAST * total
        out.append(1 if share == 0 and kept else share)
    out.append(1)  # the escape
    out[out.index(max(out))] += TOTAL - sum(out)
    return out


def sample():
    """Of old words: their place in the binade, that of the master weight in the cell, and two updates."""
    normal = NormalDist().inv_cdf
    rest = math.sqrt(1 - CORRELATION ** 2)
    for i in range(1, POINTS + 1):
        a, b, c, d = ((0.5 + i * ROOT_OF_4 ** -k) % 1 for k in (1, 2, 3, 4))
        last = normal(c)
        yield math.floor(MANTISSA * (1 + a)), b - 0.5, last, CORRELATION * last + rest * normal(d)


SAMPLE = list(sample())


def momentum_counts(sigma):
    counts = [[0] * SYMBOLS for _ in range(3)]
    for old, offset, last, update in SAMPLE:
        last_step = -step_of(old, old + offset - sigma * last)
        step = step_of(old, old + offset + sigma * update)
        size = abs(last_step)
        expected = size - size // 8 if size >= 2 else 0
        left = (-step if last_step < 0 else step) - expected
        counts[min(size, 2)][min(symbol(left), SYMBOLS - 1)] += 1
    return counts


def momentum_tables(sigmas):
    """Where too few of the sampled words moved so far, the table of the next larger sigma stands."""
    rows = []
    above = None
    for sigma in reversed(sigmas):
        counts = momentum_counts(sigma)
        enough = [row if sum(row) >= FEWEST or above is None else above[i] for i, row in enumerate(counts)]
        above = enough
        rows = [scaled(list(row), symmetric=i == 0, least=5) for i, row in enumerate(enough)] + rows
    return rows


def main():
    sigmas = [2.0 ** ((i - 16) / 4) for i in range(TABLES)]
    tables = {
        "step_tables": [table(sigma) for sigma in sigmas],
        "momentum_tables": momentum_tables(sigmas),
    }
    files = {}
    for name, rows in tables.items():
        assert all(sum(row) == TOTAL and min(row) >= 0 for row in rows)
        files[TEXT / f"{name}.txt"] = "".join(" ".join(f"{n:4d}" for n in row) + "\n" for row in rows)
        files[CODE / f"{name}.inc"] = (
            f"// Made by scripts/make_step_tables.py; the same numbers as docs/format/{name}.txt.\n"
            + "".join("{{" + ", ".join(map(str, row)) + "}},\n" for row in rows))
    if sys.argv[1:] == ["--check"]:
        wrong = [path.name for path, content in files.items()
                 if not path.exists() or path.read_text() != content]
        sys.exit(f"differs: {', '.join(wrong)}" if wrong else 0)
    for path, content in files.items():
        path.write_text(content)


if __name__ == "__main__":
    main()
