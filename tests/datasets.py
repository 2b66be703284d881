"""Write a small dataset as IDX files; read a data_dir, or the error about it."""

import gzip
import struct

import numpy as np
import pytest

from mnist.errors import DataError
from mnist.input import dataset

FILES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}


def some_images(count, seed=0):
    """Random images, uint8 [count, 28, 28]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def some_labels(count):
    """Labels 0 to 9 in turn, uint8 [count]."""
    return (np.arange(count) % 10).astype(np.uint8)


ARRAYS = {
    "train images": some_images(30),
    "train labels": some_labels(30),
    "test images": some_images(12, seed=1),
    "test labels": some_labels(12),
}


def idx_file(array):
    """The bytes of the IDX file of an array."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def plain(directory, name, content):
    """Write a plain file under its canonical name."""
    (directory / name).write_bytes(content)


def compressed(directory, name, content):
    """Write a gzip file."""
    (directory / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))


def dotted(directory, name, content):
    """Write a plain file under its dotted name."""
    plain(directory, name.replace("-idx", ".idx"), content)


def dotted_compressed(directory, name, content):
    """Write a gzip file under its dotted name."""
    compressed(directory, name.replace("-idx", ".idx"), content)


SPELLINGS = (plain, compressed, dotted, dotted_compressed)


def data_dir(directory, spellings=(plain,) * 4, **arrays):
    """Write the four files, each in its own spelling; `train_labels=` and so on replace an array."""
    directory.mkdir(exist_ok=True)
    for (part, name), put in zip(FILES.items(), spellings, strict=True):
        put(directory, name, idx_file(arrays.get(part.replace(" ", "_"), ARRAYS[part])))
    return directory


def error_message(directory, validation_size=5, **options):
    """The message and the hint of the error for a data_dir, as two lines."""
    with pytest.raises(DataError) as raised:
        dataset.load(directory, validation_size, **options)
    message, hint = str(raised.value), raised.value.hint or ""
    for line in (message, hint):
        assert not line.endswith(".")
        assert "\n" not in line
    return f"{message}\nhint: {hint}"


def assert_is(data, validation_size=5):
    """Assert that the data are ARRAYS, split."""
    size = 30 - validation_size
    np.testing.assert_array_equal(data.train.images, ARRAYS["train images"][:size], strict=True)
    np.testing.assert_array_equal(data.train.labels, ARRAYS["train labels"][:size], strict=True)
    np.testing.assert_array_equal(data.validation.images, ARRAYS["train images"][size:], strict=True)
    np.testing.assert_array_equal(data.validation.labels, ARRAYS["train labels"][size:], strict=True)
    np.testing.assert_array_equal(data.test.images, ARRAYS["test images"], strict=True)
    np.testing.assert_array_equal(data.test.labels, ARRAYS["test labels"], strict=True)
