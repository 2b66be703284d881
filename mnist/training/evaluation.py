"""Predictions and accuracy of a model: every image counts exactly once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mnist.input.dataset import Split
from mnist.input.idx import Bytes
from mnist.model.predictor import Predictor, from_inference
from mnist.model.training_graph import Inference

# Large enough to keep the cores busy, small enough for a quick response to a signal between batches.
_BATCH = 500

Classes = np.ndarray[Any, np.dtype[np.int64]]


class Predictions(NamedTuple):
    """Predictions for N images: classes int64 [N], probabilities float32 [N, 10]."""

    classes: Classes
    probabilities: np.ndarray[Any, np.dtype[np.float32]]


def evaluate(
    session: tf.compat.v1.Session,
    inference: Inference,
    split: Split,
    between_batches: Callable[[], None] = lambda: None,
) -> float | None:
    """Return the accuracy on a split, None if it is empty.

    Args:
      session: holds the weights.
      inference: the tensors to feed and to fetch.
      split: images and labels; the last batch may be smaller than the others.
      between_batches: called before each batch; it may raise an exception to stop.
    """
    classes = predict_classes(session, from_inference(inference), split.images, between_batches)
    return accuracy(classes, split.labels)


def predict(session: tf.compat.v1.Session, inference: Inference, images: Bytes) -> Predictions:
    """Return classes and probabilities for images (uint8 [N, 28, 28]); N is at least 1."""
    starts = range(0, len(images), _BATCH)
    fetches = Predictions(inference.classes, inference.probabilities)
    batches = [session.run(fetches, {inference.images: images[begin : begin + _BATCH]}) for begin in starts]
    return Predictions(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def accuracy(classes: Classes, labels: Bytes) -> float | None:
    """Return the fraction of classes [N] that equal the labels [N]; None if N is 0."""
    return int(np.count_nonzero(classes == labels)) / len(labels) if len(labels) else None


def count_correct(session: tf.compat.v1.Session, predictor: Predictor, split: Split) -> int:
    """Return the number of correctly classified images. Raises what `predict_classes` raises."""
    return int(np.count_nonzero(predict_classes(session, predictor, split.images) == split.labels))


def predict_classes(
    session: tf.compat.v1.Session,
    predictor: Predictor,
    images: Bytes,
    between_batches: Callable[[], None] = lambda: None,
) -> Classes:
    """Classify images.

    Args:
      session: holds the weights.
      predictor: how to feed images and fetch classes.
      images: uint8 [N, 28, 28].
      between_batches: called before each batch; it may raise an exception to stop.

    Returns:
      int64 [N].

    Raises:
      ValueError: the graph does not return one class per image.
    """
    classes = np.zeros(len(images), np.int64)
    for begin in range(0, len(images), _BATCH):
        between_batches()
        batch = images[begin : begin + _BATCH]
        found = session.run(predictor.classes, predictor.feed(batch))
        if found.shape != (len(batch),):  # NumPy would broadcast a single class to all images
            raise ValueError(f"expected predictions [{len(batch)}], one per image, got {list(found.shape)}")
        classes[begin : begin + len(batch)] = found
    return classes
