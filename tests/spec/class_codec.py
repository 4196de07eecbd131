"""The codecs class and momentum, read from docs/format/delta_pack.md and the tables beside it."""

from pathlib import Path

from bits import Bits, need

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS, ESCAPE, TOTAL, LOW = 71, 70, 1024, 1 << 16


def _standard_tables(name):
    tables = []
    for line in (ROOT / "docs/format" / name).read_text().splitlines():
        *listed, escape = map(int, line.split())
        tables.append(listed + [0] * (ESCAPE - len(listed)) + [escape])
    return tables


STANDARD = {1: _standard_tables("step_tables.txt"), 3: _standard_tables("momentum_tables.txt")}


def _frequency(bits):
    low, zeros = bits.read(3), 0
    while bits.read(1) == 0:
        zeros += 1
        need(zeros <= 10, "a frequency above 1024")
    return ((1 << zeros) + bits.read(zeros) - 1) << 3 | low


def _sent_table(bits):
    used = bits.read(7)
    need(1 <= used <= SYMBOLS, "symbols of a table")
    table = [_frequency(bits) for _ in range(used - 1)]
    need(sum(table) < TOTAL, "frequencies of a table")
    return table + [TOTAL - sum(table)] + [0] * (SYMBOLS - used)


class Params:
    def __init__(self, data, width, mantissa_bits, contexts):
        self.mantissa_bits, self.contexts = mantissa_bits, contexts
        exponents = 1 if mantissa_bits is None else 1 << (8 * width - 1 - mantissa_bits)
        self.magnitude = 0 if mantissa_bits is None else (1 << (8 * width - 1)) - 1
        bits = Bits(data)
        self.lanes = 4 << bits.read(2)
        sparse, self.threshold, tables, base = bits.read(4), bits.read(12), bits.read(5), bits.read(6)
        need(1 <= sparse <= 8, "sparse classes")
        need(1 <= tables <= 16, "tables")
        need(self.threshold <= exponents, "threshold")
        self.binades = tables
        sent = [bits.read(1) for _ in range(contexts * tables)]
        self.rice = [bits.read(5) for _ in range(sparse)]
        self.tables = [_sent_table(bits) if sent[contexts * d + c]
                       else STANDARD[contexts][contexts * min(base + 4 * d, 63) + c]
                       for d in range(tables) for c in range(contexts)]
        need(bits.rest_is_padding(8), "parameters are left over")

    def exponent(self, word):
        return 0 if self.mantissa_bits is None else (word & self.magnitude) >> self.mantissa_bits

    def sparse_class(self, exponent):
        """None for dense exponents."""
        return min(exponent - self.threshold, len(self.rice) - 1) if exponent >= self.threshold else None

    def table(self, exponent, context):
        return self.tables[self.contexts * min(self.threshold - 1 - exponent, self.binades - 1) + context]


def _number(bits):
    return bits.read(bits.read(5))


def _step(symbol, raw, word_bits):
    """The step of a symbol; raw(n) gives the next n raw bits."""
    if symbol == ESCAPE:
        return raw(word_bits)
    if symbol <= 8:
        return (symbol + 1) // 2 if symbol % 2 else -(symbol // 2)
    q = symbol - 7
    need(q + 1 <= word_bits, "a step wider than the word")
    bits = raw(q + 1)
    size = (1 << q) + (bits & ((1 << q) - 1)) + 1
    return -size if bits >> q else size


def apply(params, payload, words, order, earlier):
    """Changes the block's words in place and returns how many changes it states. `earlier` has the block's
    words in the version before, which codec momentum looks at; None for codec class."""
    width = order.width
    n = len(words) // width
    head = Bits(payload)
    counts = [_number(head) for _ in params.rice]
    dense = head.read(1)
    coded_words = _number(head) if dense else 0
    changes = sum(counts)
    high_bits = _number(head) if changes else 0
    exceptions = _number(head) if changes else 0
    need(changes <= n and coded_words <= n and exceptions <= changes, "a head states too much")
    need(changes <= high_bits <= changes + n, "high bits")
    need(head.read(-head.at % 32) == 0, "padding behind the head")
    at = head.at // 8
    states = [int.from_bytes(payload[at + 4 * i:at + 4 * i + 4], "little") for i in range(params.lanes if dense else 0)]
    at += 4 * len(states)
    end = at + 2 * coded_words
    need(end + end % 4 <= len(payload), "payload is cut off")
    coded = iter([int.from_bytes(payload[i:i + 2], "little") for i in range(at, end, 2)])
    need(not any(payload[end:end + end % 4]), "padding behind the coded words")
    bits = Bits(payload[end + end % 4:])

    quotients, zeros = [], 0
    for _ in range(high_bits):
        if bits.read(1):
            quotients.append(zeros)
            zeros = 0
        else:
            zeros += 1
    need(len(quotients) == changes and zeros == 0, "gaps do not fill the high bits")
    ranks, i = [], 0
    for count, rice in zip(counts, params.rice):
        rank, members = -1, []
        for _ in range(count):
            rank += 1 + (quotients[i] << rice | bits.read(rice))
            need(rank < n, "a gap leads out of the block")
            members.append(rank)
            i += 1
        ranks.append(members)
    signs = [bits.read(1) for _ in range(changes)]
    new_words, last = {}, -1
    for _ in range(exceptions):
        ordinal = bits.read(32)
        need(last < ordinal < changes, "ordinal of an exception")
        new_words[ordinal], last = bits.read(8 * width), ordinal

    old = [int.from_bytes(words[i * width:(i + 1) * width], "little") for i in range(n)]
    places = [[] for _ in params.rice]
    lane = changed = 0
    for position, word in enumerate(old):
        if position % 8192 == 0:
            lane = 0
        exponent = params.exponent(word)
        of = params.sparse_class(exponent)
        if of is not None:
            places[of].append(position)
            continue
        need(dense, "dense words that the head does not know of")
        last = 0
        if earlier is not None:
            last = order.distance(int.from_bytes(earlier[position * width:(position + 1) * width], "little"), word)
        size = abs(last)
        table = params.table(exponent, min(size, 2) if earlier is not None else 0)
        slot, symbol = states[lane] % TOTAL, 0
        while slot >= table[symbol]:
            slot -= table[symbol]
            symbol += 1
        state = table[symbol] * (states[lane] // TOTAL) + slot
        if state < LOW:
            word = next(coded, None)
            need(word is not None, "coded words are cut off")
            state = state << 16 | word
        states[lane] = state
        lane = (lane + 1) % params.lanes
        step = _step(symbol, bits.read, 8 * width) if symbol else 0
        if earlier is None:
            changed += symbol != 0
        else:
            step += size - size // 8 if size >= 2 else 0
            step = -step if last < 0 else step
            changed += step & order.mask != 0
        order.move(words, position, step)
    need(next(coded, None) is None and all(state == LOW for state in states), "coder does not end as it began")
    ordinal = 0
    for members, where in zip(ranks, places):
        for rank in members:
            need(rank < len(where), "a class has fewer words than its gaps say")
            position = where[rank]
            if ordinal in new_words:
                words[position * width:(position + 1) * width] = new_words[ordinal].to_bytes(width, "little")
            else:
                order.move(words, position, -1 if signs[ordinal] else 1)
            ordinal += 1
    need(bits.rest_is_padding(32), "bits are left over")
    need(changed + changes > 0, "a payload without changes")
    return changed + changes
