"""Every byte of a tensor against the old one, and whole tensors on their own for anchors."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy  # noqa: E402
import torch  # noqa: E402
import zstandard  # noqa: E402


def to_planes(words):
    """All low bytes, then all next ones. A strided copy by numpy is several times as fast as torch's."""
    pairs = words.view(numpy.uint8).reshape(len(words), -1)
    planes = numpy.empty(pairs.shape[::-1], dtype=numpy.uint8)
    for byte in range(len(planes)):
        planes[byte] = pairs[:, byte]
    return planes


def from_planes(data, word_bytes):
    planes = data.reshape(word_bytes, -1)
    pairs = numpy.empty(planes.shape[::-1], dtype=numpy.uint8)
    for byte in range(word_bytes):
        pairs[:, byte] = planes[byte]
    return pairs.reshape(-1)


class XorZstd:
    """One zstd frame of old XOR new; with planes, all low bytes of the words come before the high ones."""

    def __init__(self, level, planes, stands_for):
        self.level, self.planes = level, planes
        self.name = f"xor-planes-zstd{level}" if planes else f"xor-zstd{level}"
        self.title = f"whole-tensor XOR, {'byte planes, ' if planes else ''}zstd-{level}"
        self.stands_for = stands_for
        self.compressor = zstandard.ZstdCompressor(level=level)
        self.decompressor = zstandard.ZstdDecompressor()

    def encode(self, old, new):
        difference = (old ^ new).reshape(-1)
        if not bool(difference.any()):
            return b""
        words = difference.numpy()
        return self.compressor.compress(to_planes(words) if self.planes else words)

    def decode(self, target, payload):
        if not payload:
            return target
        data = numpy.frombuffer(self.decompressor.decompress(payload), dtype=numpy.uint8)
        if self.planes:
            data = from_planes(data, target.element_size())
        words = target.view(-1).numpy()
        numpy.bitwise_xor(words, data.view(words.dtype), out=words)
        return target


class ZipNN:
    """The library's own compressor for bf16; on whole new tensors, or on old XOR new as its delta mode."""

    DTYPES = {1: None, 2: "bfloat16", 4: "float32"}

    def __init__(self, delta):
        self.delta = delta
        self.name = "zipnn-xor" if delta else "zipnn-anchor"
        self.title = "ZipNN of whole-tensor XOR" if delta else "ZipNN of the new tensors (an anchor)"
        self.stands_for = "ZipNN, delta" if delta else "ZipNN"

    def coder(self, tensor):
        import zipnn

        dtype = self.DTYPES[tensor.element_size()]
        if dtype is None:
            raise ValueError("no dtype of the library's for words of this size")
        return zipnn.ZipNN(input_format="byte", bytearray_dtype=dtype, threads=1)

    def encode(self, old, new):
        source = (old ^ new) if self.delta else new
        if self.delta and not bool(source.any()):
            return b""
        return bytes(self.coder(new).compress(bytearray(source.reshape(-1).numpy().tobytes())))

    def decode(self, target, payload):
        if not payload:
            return target
        plain = torch.frombuffer(bytearray(self.coder(target).decompress(payload)), dtype=target.dtype)
        if self.delta:
            target.view(-1).bitwise_xor_(plain)
        else:
            target.view(-1).copy_(plain)
        return target


METHODS = [
    XorZstd(1, False, "slime, miles, Stitch"),
    XorZstd(3, False, "SkyRL"),
    XorZstd(9, False, "no project; more effort"),
    XorZstd(1, True, "ZipLLM BitX in spirit"),
    XorZstd(3, True, "the same"),
    XorZstd(9, True, "the same, more effort"),
    ZipNN(True),
    ZipNN(False),
]
