"""XXH64 with seed 0, after its published description. Standard library only."""

_MASK = (1 << 64) - 1
_P1, _P2, _P3, _P4, _P5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                           0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def _rotate(value, count):
    return (value << count | value >> (64 - count)) & _MASK


def _round(lane, word):
    return _rotate((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def xxh64(data):
    word = lambda at, size: int.from_bytes(data[at:at + size], "little")
    at = 0
    if len(data) >= 32:
        lanes = [(_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK]
        while at + 32 <= len(data):
            lanes = [_round(lane, word(at + 8 * i, 8)) for i, lane in enumerate(lanes)]
            at += 32
        out = sum(_rotate(lane, turn) for lane, turn in zip(lanes, (1, 7, 12, 18))) & _MASK
        for lane in lanes:
            out = ((out ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        out = _P5
    out = (out + len(data)) & _MASK
    while at + 8 <= len(data):
        out = (_rotate(out ^ _round(0, word(at, 8)), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= len(data):
        out = (_rotate(out ^ word(at, 4) * _P1 & _MASK, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        out = _rotate(out ^ byte * _P5 & _MASK, 11) * _P1 & _MASK
    out = (out ^ out >> 33) * _P2 & _MASK
    out = (out ^ out >> 29) * _P3 & _MASK
    return out ^ out >> 32
