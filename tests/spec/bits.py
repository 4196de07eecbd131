"""What all parts of the second reader need: refusal and bit strings."""


class FormatError(ValueError):
    """Bytes that break a rule of the documents. `code` is "corrupt" or "unsupported"."""

    def __init__(self, message, code="corrupt"):
        super().__init__(message)
        self.code = code


def need(condition, message, code="corrupt"):
    if not condition:
        raise FormatError(message, code)


class Bits:
    """Numbers out of a bit string, lowest bit first."""

    def __init__(self, data):
        self.value, self.size, self.at = int.from_bytes(data, "little"), 8 * len(data), 0

    def read(self, count):
        need(self.at + count <= self.size, "bits are cut off")
        out = self.value >> self.at & ((1 << count) - 1)
        self.at += count
        return out

    def rest_is_padding(self, limit):
        """Whether fewer than `limit` bits are left, all zero."""
        return self.size - self.at < limit and self.value >> self.at == 0
