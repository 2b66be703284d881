"""How good a model is: exact counts, every image judged once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mnist.dataset import Split
from mnist.graph import Inference
from mnist.idx import Bytes

# Large enough to keep the cores busy, small enough that whoever asks between batches is soon answered.
_BATCH = 500


class Question(NamedTuple):
    """How a graph is asked what it sees.

    feed: from raw images (uint8 [B, 28, 28]) to what is fed, by tensor or its name.
    classes: the answers, integers [B].
    scaled: whether pixels are fed as 0 to 1, as most models of others want them, rather than as they are.
    """

    feed: Callable[[Bytes], dict[Any, Any]]
    classes: tf.Tensor
    scaled: bool = False


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
    question = Question(lambda images: {inference.images: images}, inference.classes)
    return correct(session, question, split, between_batches) / len(split.labels) if len(split.labels) else None


def correct(
    session: tf.compat.v1.Session,
    question: Question,
    split: Split,
    between_batches: Callable[[], None] = lambda: None,
) -> int:
    """How many images are classified right; the arguments are those of `accuracy`.

    Raises:
      ValueError: there is not one answer an image.
    """
    count = 0
    for begin in range(0, len(split.labels), _BATCH):
        between_batches()
        batch = slice(begin, begin + _BATCH)
        labels = split.labels[batch]
        classes = session.run(question.classes, question.feed(split.images[batch]))
        if classes.shape != labels.shape:  # comparing would stretch a single answer over all images
            raise ValueError(f"answers {list(classes.shape)} found, one for each of {len(labels)} images wanted")
        count += int(np.count_nonzero(classes == labels))
    return count
