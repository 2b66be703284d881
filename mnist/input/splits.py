"""A split of a dataset in MNIST's form: images of 28 x 28 bytes, labels 0 to 9."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist.errors import DataError
from mnist.input.idx import Bytes

IMAGE_SHAPE = (28, 28)
CLASSES = 10

_log = logging.getLogger(__name__)


class Split(NamedTuple):
    """Images and their labels, in the same order.

    images: uint8 [N, 28, 28], raw pixels, 0 is the background.
    labels: uint8 [N], 0 to 9.
    """

    images: Bytes
    labels: Bytes


def check_counts(images: int, labels: int, source: str) -> None:
    """Raise DataError if the numbers of images and labels differ."""
    if images != labels:
        raise DataError(f"{source}: expected as many labels as images, got {images} images and {labels} labels")


def checked(split: Split, source: str) -> Split:
    """Return the split, after checking that it is in MNIST's form and not empty.

    Raises:
      DataError: the counts differ, there is no image, or a label is above 9.
    """
    check_counts(len(split.images), len(split.labels), source)
    if not len(split.labels):
        raise DataError(f"{source}: expected at least one image, got none")
    if split.labels.max() >= CLASSES:
        position = int(np.argmax(split.labels >= CLASSES))
        raise DataError(
            f"{source}: expected labels 0 to {CLASSES - 1}, got {split.labels[position]} at position {position}"
        )
    return split


def check_images(dtype: np.dtype[Any], shape: tuple[int, ...], source: str, *, channel: bool) -> None:
    """Raise DataError if images are not uint8 [N, 28, 28], with `channel` [N, 28, 28, 1]."""
    expected = (*IMAGE_SHAPE, 1) if channel else IMAGE_SHAPE
    if dtype != np.uint8 or shape[1:] != expected:
        raise DataError(f"{source}: expected images of uint8 {expected}, got {dtype} {shape[1:]}")


def check_labels(dtype: np.dtype[Any], shape: tuple[int, ...], source: str) -> None:
    """Raise DataError if labels are not integers [N]."""
    if not np.issubdtype(dtype, np.integer) or len(shape) != 1:
        raise DataError(f"{source}: expected labels of integers [N], got {dtype} {list(shape)}")


def labels_to_bytes(labels: np.ndarray[Any, np.dtype[Any]], source: str) -> Bytes:
    """Convert labels, integers [N], to uint8; a label above 255 becomes 255, which `checked` refuses.

    Raises:
      DataError: a label is negative.
    """
    if labels.size and labels.min() < 0:
        position = int(np.argmax(labels < 0))
        raise DataError(f"{source}: expected labels 0 to {CLASSES - 1}, got {labels[position]} at position {position}")
    # Clipped, because a cast would wrap label 256 to 0.
    return labels.clip(max=255).astype(np.uint8)


def upright(train: Split, test: Split, source: Path) -> tuple[Split, Split]:
    """Return the splits of EMNIST with upright images: those of its files are transposed."""
    _log.info("%s: the images of EMNIST are transposed in its files, and were put upright", source)
    return _transposed(train), _transposed(test)


def _transposed(split: Split) -> Split:
    images = np.ascontiguousarray(split.images.transpose(0, 2, 1))
    images.flags.writeable = False
    return Split(images, split.labels)
