"""How good a model is: exact counts, every image judged once."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mnist.dataset import Split
from mnist.graph import Inference

# Large enough to keep the cores busy, small enough that whoever asks between batches is soon answered.
_BATCH = 500


def accuracy(
    session: tf.compat.v1.Session,
    inference: Inference,
    split: Split,
    between_batches: Callable[[], None] = lambda: None,
) -> float | None:
    """The share of images classified right: correct counted over all batches, then divided once.

    Args:
      session: holds the weights.
      inference: the tensors to feed and to fetch.
      split: what to judge; the last batch is as short as it comes out.
      between_batches: called before each batch; it may raise to stop.

    Returns:
      correct / seen, or None where the split is empty.
    """
    correct = 0
    for begin in range(0, len(split.labels), _BATCH):
        between_batches()
        batch = slice(begin, begin + _BATCH)
        classes = session.run(inference.classes, {inference.images: split.images[batch]})
        correct += int(np.count_nonzero(classes == split.labels[batch]))
    return correct / len(split.labels) if len(split.labels) else None
