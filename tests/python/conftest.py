import numpy as np
import pytest

import siltstone


@pytest.fixture
def bucket(tmp_path):
    return siltstone.init(tmp_path / "bucket")


class Weights(dict):
    """Random numpy tensors that take optimizer-like steps."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        super().__init__(
            bias=self.random.standard_normal(33, dtype=np.float32),
            count=np.array(7, dtype=np.int64),
            empty=np.zeros((0, 5), dtype=np.float16),
            weight=self.random.standard_normal((64, 48)).astype(np.float16),
        )

    def step(self):
        for tensor in self.values():
            words = tensor.reshape(-1).view(np.uint8)
            for at in self.random.integers(0, max(words.size, 1), words.size // 50):
                words[at] ^= 1
        self["count"][...] += 1

    def copy(self):
        return {name: tensor.copy() for name, tensor in self.items()}


def same(a, b):
    """Whether two dicts of arrays have the same bytes."""
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.fixture
def weights():
    return Weights()
