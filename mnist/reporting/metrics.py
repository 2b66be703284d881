"""Statistics of predictions: accuracy's standard error, confusion matrix, calibration."""

import math
from typing import Any, NamedTuple

import numpy as np

from mnist.input.dataset import CLASSES

Array = np.ndarray[Any, Any]


class Calibration(NamedTuple):
    """Predictions grouped into bins of equal width by their probability.

    counts: images in each bin, int64 [bins].
    confidence: mean probability of the predicted class in each bin that is not empty.
    accuracy: fraction of correct predictions in the same bins.
    expected_error: mean of |confidence - accuracy|, weighted by counts (ECE; Guo et al., 2017).
    """

    counts: Array
    confidence: Array
    accuracy: Array
    expected_error: float


def standard_error(accuracy: float, images: int) -> float:
    """Return the standard error of an accuracy measured on that many images (binomial)."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def confusion_matrix(labels: Array, classes: Array) -> Array:
    """Count how often each label (row) got each prediction (column).

    Args:
      labels: integers [N].
      classes: integers [N], the predictions.

    Returns:
      int64 [10, 10].
    """
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(counts, (labels.astype(int), classes.astype(int)), 1)
    return counts


def calibration(labels: Array, classes: Array, probabilities: Array, bins: int = 10) -> Calibration:
    """Compare the probabilities of predictions with how often these are correct.

    Args:
      labels: integers [N], N >= 1.
      classes: integers [N], the predictions.
      probabilities: floats [N, 10].
      bins: number of bins between 0 and 1.
    """
    confidence = probabilities.max(axis=1)  # [N]
    bin_of = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    filled = counts > 0
    mean_confidence = np.bincount(bin_of, confidence, bins)[filled] / counts[filled]
    accuracy = np.bincount(bin_of, classes == labels, bins)[filled] / counts[filled]
    error = float((counts[filled] * np.abs(mean_confidence - accuracy)).sum() / counts.sum())
    return Calibration(counts, mean_confidence, accuracy, error)
