"""How good a model is: exact counts, every image judged once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mnist.input.dataset import Split
from mnist.input.idx import Bytes
from mnist.model.graph import Inference

# Large enough to keep the cores busy, small enough that whoever asks between batches is soon answered.
_BATCH = 500


Classes = np.ndarray[Any, np.dtype[np.int64]]


class Predictions(NamedTuple):
    """What a model says of images: classes int64 [N], probabilities float32 [N, 10]."""

    classes: Classes
    probabilities: np.ndarray[Any, np.dtype[np.float32]]


class Predictor(NamedTuple):
    """How a graph is asked what it sees.

    feed: from raw images (uint8 [B, 28, 28]) to what is fed, by tensor or its name.
    classes: the answers, integers [B].
    scaled: whether pixels are fed as 0 to 1, as most models of others want them, rather than as they are.
    """

    feed: Callable[[Bytes], dict[Any, Any]]
    classes: tf.Tensor
    scaled: bool = False


def evaluate(
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
    answers = predict_classes(session, predictor_of(inference), split.images, between_batches)
    return accuracy(answers, split.labels)


def predict(session: tf.compat.v1.Session, inference: Inference, images: Bytes) -> Predictions:
    """All that a graph of ours says of images (uint8 [N, 28, 28]); N is at least 1."""
    starts = range(0, len(images), _BATCH)
    fetches = Predictions(inference.classes, inference.probabilities)
    batches = [session.run(fetches, {inference.images: images[begin : begin + _BATCH]}) for begin in starts]
    return Predictions(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def accuracy(answers: Classes, labels: Bytes) -> float | None:
    """How many of the answers are the labels, divided once; None where there are none."""
    return int(np.count_nonzero(answers == labels)) / len(labels) if len(labels) else None


def predictor_of(inference: Inference) -> Predictor:
    """How a graph of ours is asked."""
    return Predictor(lambda images: {inference.images: images}, inference.classes)


def correct(session: tf.compat.v1.Session, question: Predictor, split: Split) -> int:
    """How many images are classified right; the errors are those of `classes`."""
    return int(np.count_nonzero(predict_classes(session, question, split.images) == split.labels))


def predict_classes(
    session: tf.compat.v1.Session,
    question: Predictor,
    images: Bytes,
    between_batches: Callable[[], None] = lambda: None,
) -> Classes:
    """What a graph takes images (uint8 [N, 28, 28]) for, int64 [N]; the other arguments are those of `accuracy`.

    Raises:
      ValueError: there is not one answer an image.
    """
    answers = np.zeros(len(images), np.int64)
    for begin in range(0, len(images), _BATCH):
        between_batches()
        batch = images[begin : begin + _BATCH]
        found = session.run(question.classes, question.feed(batch))
        if found.shape != (len(batch),):  # comparing would stretch a single answer over all images
            raise ValueError(f"answers {list(found.shape)} found, one for each of {len(batch)} images wanted")
        answers[begin : begin + len(batch)] = found
    return answers
