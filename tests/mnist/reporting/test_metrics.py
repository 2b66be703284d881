import numpy as np
import pytest

from mnist.reporting import metrics


def test_the_standard_error_is_binomial():
    """Of 10,000 images with accuracy 0.99 it is 0.001; a perfect accuracy has none."""
    assert metrics.standard_error(0.99, 10_000) == pytest.approx(0.000995, rel=1e-3)
    assert metrics.standard_error(1.0, 10_000) == 0


def test_the_confusion_matrix_has_labels_in_rows():
    """Each image is counted once."""
    labels, classes = np.array([3, 3, 3, 5], np.uint8), np.array([3, 3, 5, 5])
    counts = metrics.confusion_matrix(labels, classes)
    assert (counts[3, 3], counts[3, 5], counts[5, 5], counts.sum()) == (2, 1, 1, 4)


def test_calibration_error():
    """Eight of ten correct at probability 0.8 has error 0; ten of ten has error 0.2."""
    probabilities = np.full((10, 10), 0.2 / 9)
    probabilities[:, 0] = 0.8
    classes = np.zeros(10, int)
    labels = np.array([0] * 8 + [1] * 2)
    assert metrics.calibration(labels, classes, probabilities).expected_error == pytest.approx(0.0)
    assert metrics.calibration(classes, classes, probabilities).expected_error == pytest.approx(0.2)
