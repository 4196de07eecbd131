"""A small Zstandard decompressor after RFC 8878, for frames as docs/format/delta_pack.md allows them.

Plain rather than fast. No dictionaries. Standard library only.
"""


class ZstdError(ValueError):
    """The bytes are not a frame that this reader accepts."""


def _fail(message):
    raise ZstdError(message)


def _need(condition, message):
    if not condition:
        raise ZstdError(message)


class _Forward:
    """Bits from the first byte on, lowest first."""

    def __init__(self, data):
        self.value = int.from_bytes(data, "little")
        self.bits = 8 * len(data)
        self.at = 0

    def read(self, count):
        _need(self.at + count <= self.bits, "table description is cut off")
        out = (self.value >> self.at) & ((1 << count) - 1)
        self.at += count
        return out


class _Backward:
    """Bits from the last byte back; below the first bit stand zeros."""

    def __init__(self, data):
        _need(data and data[-1], "bit stream without an end mark")
        self.data = data
        self.at = 8 * len(data) - 8 + data[-1].bit_length() - 1

    def peek(self, count):
        low = self.at - count
        first = max(0, low) // 8
        chunk = int.from_bytes(self.data[first:max(0, self.at + 7) // 8], "little")
        shift = low - 8 * first
        chunk = chunk >> shift if shift >= 0 else chunk << -shift
        return chunk & ((1 << count) - 1)

    def read(self, count):
        out = self.peek(count)
        self.at -= count
        return out


def _read_probabilities(data, max_log):
    """Normalised counts of an FSE table; returns (accuracy log, counts, bytes used)."""
    bits = _Forward(data[:512])
    log = bits.read(4) + 5
    _need(log <= max_log, "accuracy of a table is too high")
    remaining = 1 << log
    counts = []
    while remaining > 0:
        _need(len(counts) < 256, "too many symbols in a table")
        width = (remaining + 1).bit_length()
        low = bits.read(width - 1)
        threshold = (1 << width) - 1 - (remaining + 1)
        if low >= threshold:
            low |= bits.read(1) << (width - 1)
            if low >= 1 << (width - 1):
                low -= threshold
        count = low - 1
        counts.append(count)
        remaining -= abs(count)
        if count == 0:
            while True:
                more = bits.read(2)
                counts += [0] * more
                if more != 3:
                    break
    _need(remaining == 0 and len(counts) <= 256, "counts of a table do not add up")
    return log, counts, (bits.at + 7) // 8


class _Fse:
    """A table of (symbol, bits, base) by state."""

    def __init__(self, log, counts):
        self.log = log
        size = 1 << log
        symbols = [0] * size
        left = {}
        high = size
        for symbol, count in enumerate(counts):
            if count == -1:
                high -= 1
                symbols[high] = symbol
                left[symbol] = 1
        position, step = 0, (size >> 1) + (size >> 3) + 3
        for symbol, count in enumerate(counts):
            if count <= 0:
                continue
            left[symbol] = count
            for _ in range(count):
                symbols[position] = symbol
                position = (position + step) & (size - 1)
                while position >= high:
                    position = (position + step) & (size - 1)
        _need(position == 0, "a table is not filled")
        self.rows = []
        for symbol in symbols:
            state = left[symbol]
            left[symbol] += 1
            width = log - (state.bit_length() - 1)
            self.rows.append((symbol, width, (state << width) - size))

    @classmethod
    def of_one(cls, symbol):
        table = cls.__new__(cls)
        table.log, table.rows = 0, [(symbol, 0, 0)]
        return table


class _Huffman:
    def __init__(self, weights):
        total = sum((1 << weight) >> 1 for weight in weights)
        _need(total > 0, "no weights")
        self.max_bits = total.bit_length()
        rest = (1 << self.max_bits) - total
        _need(rest & (rest - 1) == 0 and self.max_bits <= 11, "weights do not add up")
        weights = weights + [rest.bit_length()]
        _need(len(weights) <= 256, "too many weights")
        self.rows = []
        for weight in range(1, self.max_bits + 1):
            for symbol, own in enumerate(weights):
                if own == weight:
                    self.rows += [(symbol, self.max_bits + 1 - weight)] * (1 << (weight - 1))
        _need(len(self.rows) == 1 << self.max_bits, "weights do not fill the table")

    @classmethod
    def read(cls, data):
        """Returns (table, bytes used)."""
        _need(data, "no weights")
        head = data[0]
        if head >= 128:
            count = head - 127
            used = 1 + (count + 1) // 2
            _need(len(data) >= used, "weights are cut off")
            nibbles = [half for byte in data[1:used] for half in (byte >> 4, byte & 15)]
            return cls(nibbles[:count]), used
        _need(len(data) > head, "weights are cut off")
        body = data[1:1 + head]
        log, counts, used = _read_probabilities(body, 6)
        table = _Fse(log, counts)
        bits = _Backward(body[used:])
        states = [bits.read(log), bits.read(log)]
        weights, turn = [], 0
        while True:
            symbol, width, base = table.rows[states[turn]]
            weights.append(symbol)
            _need(len(weights) < 256, "too many weights")
            states[turn] = base + bits.read(width)
            turn ^= 1
            if bits.at < 0:
                weights.append(table.rows[states[turn]][0])
                return cls(weights), 1 + head

    def decode(self, data, count):
        bits = _Backward(data)
        out = bytearray()
        for _ in range(count):
            symbol, width = self.rows[bits.peek(self.max_bits)]
            out.append(symbol)
            bits.at -= width
            _need(bits.at >= 0, "literals are cut off")
        _need(bits.at == 0, "literals are left over")
        return out


_LITERAL_LENGTHS = [(n, 0) for n in range(16)] + list(zip(
    [16, 18, 20, 22, 24, 28, 32, 40, 48, 64] + [1 << n for n in range(7, 17)],
    [1, 1, 1, 1, 2, 2, 3, 3, 4, 6] + list(range(7, 17))))
_MATCH_LENGTHS = [(n + 3, 0) for n in range(32)] + list(zip(
    [35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99] + [(1 << n) + 3 for n in range(7, 17)],
    [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5] + list(range(7, 17))))
_PREDEFINED = (
    _Fse(6, [4, 3] + [2] * 11 + [1] * 3 + [2] * 9 + [3, 2] + [1] * 5 + [-1] * 4),
    _Fse(5, [1] * 6 + [2] * 3 + [1] * 15 + [-1] * 5),
    _Fse(6, [1, 4, 3] + [2] * 6 + [1] * 37 + [-1] * 7),
)
_MAX_LOGS = (9, 8, 9)
_MAX_SYMBOLS = (35, 31, 52)


class _Frame:
    """What lives from block to block."""

    def __init__(self, limit):
        self.out = bytearray()
        self.limit = limit
        self.huffman = None
        self.tables = [None, None, None]
        self.repeats = [1, 4, 8]

    def literals(self, data):
        """Returns (literals, bytes used)."""
        _need(data, "block without literals")
        kind, form = data[0] & 3, data[0] >> 2 & 3
        if kind < 2:
            length = (1, 2, 1, 3)[form]
            _need(len(data) >= length, "literals are cut off")
            size = int.from_bytes(data[:length], "little") >> (3, 4, 3, 4)[form]
            _need(size <= 1 << 17, "literals are too long")
            stored = size if kind == 0 else 1
            _need(len(data) >= length + stored, "literals are cut off")
            body = bytes(data[length:length + stored])
            return (body if kind == 0 else body * size), length + stored
        length, width = ((3, 10), (3, 10), (4, 14), (5, 18))[form]
        _need(len(data) >= length, "literals are cut off")
        head = int.from_bytes(data[:length], "little") >> 4
        size, stored = head & ((1 << width) - 1), head >> width
        _need(size <= 1 << 17 and len(data) >= length + stored, "literals are cut off")
        body = data[length:length + stored]
        if kind == 2:
            self.huffman, used = _Huffman.read(body)
            body = body[used:]
        _need(self.huffman is not None, "literals without a table")
        if form == 0:
            return self.huffman.decode(body, size), length + stored
        _need(len(body) >= 6, "literals are cut off")
        ends, at = [], 6
        for stream in range(3):
            at += int.from_bytes(body[2 * stream:2 * stream + 2], "little")
            ends.append(at)
        _need(at <= len(body), "literals are cut off")
        part, out, begin = (size + 3) // 4, bytearray(), 6
        for end, count in zip(ends + [len(body)], [part] * 3 + [size - 3 * part]):
            _need(count >= 0, "too few literals for four streams")
            out += self.huffman.decode(body[begin:end], count)
            begin = end
        return out, length + stored

    def table(self, number, mode, data):
        """Sets one of the three tables; returns the bytes used."""
        if mode == 0:
            self.tables[number] = _PREDEFINED[number]
            return 0
        if mode == 1:
            _need(data, "table is cut off")
            _need(data[0] <= _MAX_SYMBOLS[number], "symbol out of range")
            self.tables[number] = _Fse.of_one(data[0])
            return 1
        if mode == 2:
            log, counts, used = _read_probabilities(data, _MAX_LOGS[number])
            _need(len(counts) <= _MAX_SYMBOLS[number] + 1, "symbol out of range")
            _need(used <= len(data), "table is cut off")
            self.tables[number] = _Fse(log, counts)
            return used
        _need(self.tables[number] is not None, "no table to repeat")
        return 0

    def offset(self, value, literal_length):
        repeats = self.repeats
        if value > 3:
            self.repeats = [value - 3, repeats[0], repeats[1]]
            return value - 3
        which = value - 1 + (literal_length == 0)
        if which == 0:
            return repeats[0]
        found = repeats[which] if which < 3 else repeats[0] - 1
        _need(found > 0, "offset of zero")
        self.repeats = [found, repeats[0], repeats[1] if which > 1 else repeats[2]]
        return found

    def put(self, data):
        _need(len(self.out) + len(data) <= self.limit, "more content than there should be")
        self.out += data

    def compressed_block(self, data):
        literals, at = self.literals(data)
        data = data[at:]
        _need(data, "block without sequences")
        count = data[0]
        if count == 0:
            _need(len(data) == 1, "bytes behind the sequences")
            return self.put(literals)
        used = 1 if count < 128 else 2 if count < 255 else 3
        _need(len(data) > used, "sequences are cut off")
        if used == 2:
            count = (count - 128 << 8) + data[1]
        elif used == 3:
            count = data[1] + (data[2] << 8) + 0x7F00
        modes = data[used]
        _need(modes & 3 == 0, "reserved bits of the modes")
        at = used + 1
        for number, shift in enumerate((6, 4, 2)):
            at += self.table(number, modes >> shift & 3, data[at:])
        bits = _Backward(data[at:])
        tables = self.tables
        states = [bits.read(table.log) for table in tables]
        taken = 0
        for left in range(count, 0, -1):
            length_code, offset_code, match_code = (
                table.rows[state][0] for table, state in zip(tables, states))
            offset_value = (1 << offset_code) + bits.read(offset_code)
            base, width = _MATCH_LENGTHS[match_code]
            match = base + bits.read(width)
            base, width = _LITERAL_LENGTHS[length_code]
            length = base + bits.read(width)
            _need(taken + length <= len(literals), "more literals wanted than there are")
            self.put(literals[taken:taken + length])
            taken += length
            offset = self.offset(offset_value, length)
            _need(offset <= len(self.out), "match before the beginning")
            _need(len(self.out) + match <= self.limit, "more content than there should be")
            start = len(self.out) - offset
            for index in range(match):
                self.out.append(self.out[start + index])
            if left > 1:
                for number in (0, 2, 1):
                    _, width, base = tables[number].rows[states[number]]
                    states[number] = base + bits.read(width)
            _need(bits.at >= 0, "sequences are cut off")
        _need(bits.at == 0, "bits behind the sequences")
        return self.put(literals[taken:])


def decompress(data, size):
    """The content of the one frame that `data` is; it must state `size` and give exactly that."""
    data = bytes(data)
    _need(data[:4] == b"\x28\xb5\x2f\xfd" and len(data) > 5, "not a frame")
    flags = data[4]
    _need(flags & 0x0F == 0, "dictionary, checksum or reserved bit")
    single = flags >> 5 & 1
    at = 5
    if not single:
        exponent, mantissa = data[at] >> 3, data[at] & 7
        window = (1 << 10 + exponent) * (8 + mantissa) // 8
        _need(window <= 1 << 24, "window is too large")
        at += 1
    width = (1 if single else 0, 2, 4, 8)[flags >> 6]
    _need(width > 0 and len(data) >= at + width, "content size is not stated")
    stated = int.from_bytes(data[at:at + width], "little") + (256 if width == 2 else 0)
    _need(stated == size, "content size is not what it should be")
    _need(not single or size <= 1 << 24, "window is too large")
    at += width
    frame = _Frame(size)
    while True:
        _need(len(data) >= at + 3, "block is cut off")
        head = int.from_bytes(data[at:at + 3], "little")
        at += 3
        last, kind, length = head & 1, head >> 1 & 3, head >> 3
        stored = 1 if kind == 1 else length
        _need(kind != 3 and length <= 1 << 17, "reserved or too large block")
        _need(len(data) >= at + stored, "block is cut off")
        body = data[at:at + stored]
        at += stored
        if kind == 0:
            frame.put(body)
        elif kind == 1:
            _need(len(frame.out) + length <= size, "more content than there should be")
            frame.put(body * length)
        else:
            frame.compressed_block(body)
        if last:
            break
    _need(at == len(data), "bytes behind the frame")
    _need(len(frame.out) == size, "less content than there should be")
    return bytes(frame.out)
