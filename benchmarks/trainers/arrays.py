"""Training data as NumPy arrays, for the peers."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mnist.input.dataset import Split

Array = np.ndarray[Any, Any]


def scaled(split: Split) -> tuple[Array, Array]:
    """Return images, float32 [N, 28, 28] in 0..1, and labels, int64 [N]."""
    return split.images.astype(np.float32) / 255, split.labels.astype(np.int64)


def orders(size: int, batch_size: int) -> Iterator[Array]:
    """Yield the indices of a batch, int64 [B], without end; each epoch is shuffled again."""
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(size)
        for begin in range(0, size - batch_size + 1, batch_size):
            yield order[begin : begin + batch_size]
