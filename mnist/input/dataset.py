"""Load MNIST, or data in its form, as uint8 arrays split into train, validation and test.

    data = dataset.load(None, validation_size=5000)
    data.train.images, data.train.labels

Sources: the bundled MNIST, a directory of IDX files, or a directory of tensorflow-datasets. Any dataset in MNIST's form
can be used (Fashion-MNIST, KMNIST): images of 28 x 28 bytes, labels 0 to 9.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnist.errors import DataError
from mnist.input import idx, regular_file, tfds

IMAGE_SHAPE = (28, 28)
CLASSES = 10
BUNDLED = Path(__file__).parent.parent / "data"

_MAX_SUMS_BYTES = 10_000
_CHECK_OUT_AGAIN = "the bundled MNIST is damaged: check it out again"

# The four canonical files, in the order of the fingerprint.
_FILES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}


class Split(NamedTuple):
    """Images and their labels, in the same order.

    images: uint8 [N, 28, 28], raw pixels, 0 is the background.
    labels: uint8 [N], 0 to 9.
    """

    images: idx.Bytes
    labels: idx.Bytes


class Dataset(NamedTuple):
    """The three splits of a dataset. `validation` may be empty; `train` and `test` never are.

    fingerprint: hex sha256 of the data, independent of file format and of the size of the validation split.
    """

    train: Split
    validation: Split
    test: Split
    fingerprint: str


def load(data_dir: Path | None, validation_size: int, *, download: bool = False) -> Dataset:
    """Read and check a dataset; split off the last `validation_size` training images for validation.

    Args:
      data_dir: a directory of the four IDX files (plain or gzip, canonical or dotted names, in any mix), or a
        directory prepared by tensorflow-datasets; None for the bundled MNIST.
      validation_size: number of validation images; 0 to train on all.
      download: if data_dir holds no data, download MNIST to it with tensorflow-datasets.

    Raises:
      DataError: the data cannot be read, or are not in MNIST's form.
    """
    source = data_dir or BUNDLED
    try:
        train, test = _read_directory(source, download=download)
    except MemoryError as error:
        raise DataError(
            f"{source}: not enough memory to read the data", hint="use a machine with more memory, or fewer images"
        ) from error
    # The digest of each array as an IDX file, in the order of _FILES.
    digests = [idx.sha256(array) for array in (*train, *test)]
    if data_dir is None:
        _check_bundled(digests)
    train_size = len(train.labels) - validation_size
    if train_size <= 0:
        raise DataError(
            f"{source}: expected more than --validation_size={validation_size} training images, "
            f"got {len(train.labels)}: none would be left to train on"
        )
    return Dataset(
        train=Split(train.images[:train_size], train.labels[:train_size]),
        validation=Split(train.images[train_size:], train.labels[train_size:]),
        test=test,
        fingerprint=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


def _read_directory(data_dir: Path, *, download: bool) -> tuple[Split, Split]:
    """Read the train and test splits in whichever format is there."""
    try:
        _check_is_not_a_file(data_dir)
        if idx_files := _find_idx_files(data_dir):
            return _read_idx_files(data_dir, idx_files)
        prepared = tfds.find(data_dir)
        if prepared is None and download:
            prepared = tfds.download_mnist(data_dir)
        if prepared is None:
            raise _no_data_error(data_dir)
        return _read_tfds(prepared)
    except OSError as error:
        raise regular_file.unreadable(
            DataError, error.filename or data_dir, error, "give a readable directory as --data_dir"
        ) from error


def _check_is_not_a_file(data_dir: Path) -> None:
    if data_dir.exists() and not data_dir.is_dir():
        kind = regular_file.kind(data_dir.stat().st_mode)
        raise DataError(
            f"{data_dir}: expected a directory, got a {kind}", hint="give the directory of the data as --data_dir"
        )


def _no_data_error(data_dir: Path) -> DataError:
    if not data_dir.is_dir():
        return DataError(
            f"{data_dir}: directory not found", hint="give an existing directory, or --download to download MNIST to it"
        )
    return DataError(
        f"{data_dir}: no data found; expected IDX files ({', '.join(_FILES.values())}, plain or .gz) or a TFDS "
        "directory (mnist/3.0.1/dataset_info.json)",
        hint="put data there, or give --download to download MNIST to it",
    )


def _check_bundled(digests: list[str]) -> None:
    """Compare the digests of the bundled data with those in SHA256SUMS.uncompressed."""
    sums = BUNDLED / "SHA256SUMS.uncompressed"
    try:
        with regular_file.open_to_read(sums) as file:
            words = file.read(_MAX_SUMS_BYTES).decode("ascii").split()
    except OSError as error:
        raise regular_file.unreadable(DataError, sums, error, _CHECK_OUT_AGAIN) from error
    except ValueError as error:
        raise DataError(f"{sums}: expected sha256 digests, got other bytes ({error})", hint=_CHECK_OUT_AGAIN) from error
    pinned = dict(zip(words[1::2], words[::2], strict=False))
    for name, digest in zip(_FILES.values(), digests, strict=True):
        if name not in pinned:
            raise DataError(f"{sums}: no sha256 of {name} found", hint=_CHECK_OUT_AGAIN)
        if digest != pinned[name]:
            raise DataError(
                f"{BUNDLED / name}.gz: expected sha256 {pinned[name]} of the uncompressed bytes ({sums.name}), "
                f"got {digest}",
                hint=_CHECK_OUT_AGAIN,
            )


def _find_idx_files(directory: Path) -> dict[str, Path]:
    """Map each part of the data to its file, if there is one; canonical names and plain files take precedence."""
    return {part: path for part, name in _FILES.items() for path in reversed(_paths(directory, name)) if path.exists()}


def _paths(directory: Path, name: str) -> list[Path]:
    """The paths at which a file is searched for, in order of precedence."""
    dotted = name.replace("-idx", ".idx")
    return [directory / (stem + suffix) for stem in (name, dotted) for suffix in ("", ".gz")]


def _read_idx_files(directory: Path, files: dict[str, Path]) -> tuple[Split, Split]:
    for part, name in _FILES.items():
        if part not in files:
            names = ", ".join(path.name for path in _paths(directory, name))
            raise DataError(f"{directory}: the file of {part} is missing; expected one of {names}")
    return tuple(_read_split(files[f"{split} images"], files[f"{split} labels"]) for split in ("train", "test"))  # type: ignore[return-value]


def _read_split(images_path: Path, labels_path: Path) -> Split:
    source = f"{images_path} and {labels_path.name}"
    # Headers first, so that files that do not belong together are not unpacked.
    (images_count, *_), (labels_count,) = (
        idx.read_shape(images_path, (None, *IMAGE_SHAPE)),
        idx.read_shape(labels_path, (None,)),
    )
    _check_counts(images_count, labels_count, source)
    images = idx.read(images_path, (None, *IMAGE_SHAPE))
    labels = idx.read(labels_path, (None,))
    return _checked(Split(images, labels), source)


def _check_counts(images: int, labels: int, source: str) -> None:
    if images != labels:
        raise DataError(f"{source}: expected as many labels as images, got {images} images and {labels} labels")


def _checked(split: Split, source: str) -> Split:
    """Return the split, after checking that it is in MNIST's form and not empty."""
    _check_counts(len(split.images), len(split.labels), source)
    if not len(split.labels):
        raise DataError(f"{source}: expected at least one image, got none")
    if split.labels.max() >= CLASSES:
        position = int(np.argmax(split.labels >= CLASSES))
        raise DataError(
            f"{source}: expected labels 0 to {CLASSES - 1}, got {split.labels[position]} at position {position}"
        )
    return split


def _read_tfds(directory: Path) -> tuple[Split, Split]:
    features = tfds.read(directory)
    return tuple(_from_tfds(features[name], f"{directory}, split '{name}'") for name in ("train", "test"))  # type: ignore[return-value]


def _from_tfds(features: object, source: str) -> Split:
    """Convert image uint8 [N, 28, 28, 1] and label (integers [N]) of a TFDS dataset to a split."""
    if not (isinstance(features, dict) and {"image", "label"} <= features.keys()):
        raise DataError(f"{source}: expected features 'image' and 'label'")
    images, labels = np.asarray(features["image"]), np.asarray(features["label"])
    if images.dtype != np.uint8 or images.shape[1:] != (*IMAGE_SHAPE, 1):
        raise DataError(
            f"{source}: expected images of uint8 {(*IMAGE_SHAPE, 1)}, got {images.dtype} {images.shape[1:]}"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(f"{source}: expected labels of integers [N], got {labels.dtype} {list(labels.shape)}")
    if labels.size and labels.min() < 0:
        raise DataError(f"{source}: expected labels 0 to {CLASSES - 1}, got {labels.min()}")
    # Clipped, because a cast would wrap label 256 to 0.
    return _checked(Split(images[..., 0], labels.clip(max=255).astype(np.uint8)), source)
