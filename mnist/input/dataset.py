"""Load MNIST, or data in its form, as uint8 arrays split into train, validation and test.

    data = dataset.load(None, validation_size=5000)
    data.train.images, data.train.labels

Sources: the bundled MNIST, IDX files, a directory of tensorflow-datasets, Keras' `mnist.npz`, or CSV. Any dataset in
MNIST's form can be used (Fashion-MNIST, KMNIST): images of 28 x 28 bytes, labels 0 to 9.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnist.errors import DataError
from mnist.input import csv_tables, file_kinds, idx, idx_files, npz, regular_file, tfds
from mnist.input.splits import CLASSES, IMAGE_SHAPE, Split

__all__ = ["BUNDLED", "CLASSES", "IMAGE_SHAPE", "Dataset", "Split", "load"]

BUNDLED = Path(__file__).parent.parent / "data"

_MAX_SUMS_BYTES = 10_000
_CHECK_OUT_AGAIN = "the bundled MNIST is damaged: check it out again"


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
      data_dir: a directory of the four IDX files (plain or gzip, canonical or dotted names, in any mix), a directory
        prepared by tensorflow-datasets, a directory of two CSV tables, or an .npz file or its directory; None for the
        bundled MNIST.
      validation_size: number of validation images; 0 to train on all.
      download: if data_dir holds no data, download MNIST to it with tensorflow-datasets.

    Raises:
      DataError: the data cannot be read, or are not in MNIST's form.
    """
    source = data_dir or BUNDLED
    try:
        train, test = _read(source, download=download)
    except MemoryError as error:
        raise DataError(
            f"{source}: not enough memory to read the data", hint="use a machine with more memory, or fewer images"
        ) from error
    digests = _digests(train, test)
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
        fingerprint=_fingerprint(digests),
    )


def fingerprint_in_memory(data: Dataset) -> str:
    """Return the fingerprint of a dataset's arrays as they are now; another than the recorded one if they changed."""
    train = Split(*map(np.concatenate, zip(data.train, data.validation, strict=True)))
    return _fingerprint(_digests(train, data.test))


def _digests(train: Split, test: Split) -> list[str]:
    """Return the digest of each array as an IDX file, in the order of idx_files.CANONICAL."""
    return [idx.sha256(array) for array in (*train, *test)]


def _fingerprint(digests: Sequence[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _read(source: Path, *, download: bool) -> tuple[Split, Split]:
    """Read the train and test splits in whichever format is there."""
    try:
        if source.exists() and not source.is_dir():
            return _read_file(source)
        return _read_directory(source, download=download)
    except OSError as error:
        raise regular_file.unreadable(
            DataError, error.filename or source, error, "give a readable directory as --data_dir"
        ) from error


def _read_file(path: Path) -> tuple[Split, Split]:
    """Read an .npz file; raise DataError for any other one."""
    if not path.is_file():
        kind = regular_file.kind(path.stat().st_mode)
    elif npz.is_archive(path):
        return npz.read(path)
    else:
        with regular_file.open_to_read(path) as file:
            kind = f"file: {file_kinds.name(file.read(file_kinds.START_BYTES)).name}"
    raise DataError(
        f"{path}: expected a directory or an .npz file, got a {kind}",
        hint="give the directory of the data as --data_dir",
    )


def _read_directory(data_dir: Path, *, download: bool) -> tuple[Split, Split]:
    if files := idx_files.find(data_dir):
        return idx_files.read(files)
    if prepared := tfds.find(data_dir):
        return tfds.read(prepared)
    if files := idx_files.find_others(data_dir):
        return idx_files.read(files)
    if archive := npz.find(data_dir):
        return npz.read(archive)
    if tables := csv_tables.find(data_dir):
        return csv_tables.read(*tables)
    if download:
        return tfds.read(tfds.download_mnist(data_dir))
    raise _no_data_error(data_dir)


def _no_data_error(data_dir: Path) -> DataError:
    if not data_dir.is_dir():
        return DataError(
            f"{data_dir}: directory not found", hint="give an existing directory, or --download to download MNIST to it"
        )
    return DataError(
        f"{data_dir}: no data found; expected IDX files ({', '.join(idx_files.CANONICAL.values())}, plain or .gz), a "
        f"TFDS directory (mnist/3.0.1/dataset_info.json), {npz.NAME}, or CSV ({' and '.join(csv_tables.PAIRS[0])})",
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
    for name, digest in zip(idx_files.CANONICAL.values(), digests, strict=True):
        if name not in pinned:
            raise DataError(f"{sums}: no sha256 of {name} found", hint=_CHECK_OUT_AGAIN)
        if digest != pinned[name]:
            raise DataError(
                f"{BUNDLED / name}.gz: expected sha256 {pinned[name]} of the uncompressed bytes ({sums.name}), "
                f"got {digest}",
                hint=_CHECK_OUT_AGAIN,
            )
