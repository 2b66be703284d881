"""From a directory to train / validation / test: the bundled MNIST, a folder of IDX files, or a TFDS directory.

    data = dataset.load(None, validation_size=5000)
    data.train.images, data.train.labels

Any data in MNIST's form will do (Fashion-MNIST, KMNIST): images of 28 x 28 bytes, labels 0 to 9.
"""

import hashlib
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from checkpointing.tf_import import tensorflow_import
from mnist.errors import DataError
from mnist.input import idx, regular_file

IMAGE_SHAPE = (28, 28)
CLASSES = 10
BUNDLED = Path(__file__).parent.parent / "data"

_SECONDS_TO_CONNECT = 15
_MOST_SUMS_BYTES = 10_000

# The four canonical files, in the order in which the fingerprint takes them.
_FILES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}


class Split(NamedTuple):
    """Images and their labels, in step.

    images: uint8 [N, 28, 28], 0 is the background.
    labels: uint8 [N], 0 to 9.
    """

    images: idx.Bytes
    labels: idx.Bytes


class Dataset(NamedTuple):
    """The three splits, and what tells these data from any others.

    validation may be empty; train and test never are.
    fingerprint: hex sha256 over the contents, wherever they were read from; the split's sizes are not in it.
    """

    train: Split
    validation: Split
    test: Split
    fingerprint: str


def load(data_dir: Path | None, validation_size: int, *, download: bool = False) -> Dataset:
    """Reads the data, checks it, and splits the last `validation_size` training images off for validation.

    Args:
      data_dir: a folder of the four IDX files (plain or gzip, canonical or dotted names, in any mix), or a
        directory that tensorflow-datasets prepared; None is the MNIST that comes with this package.
      validation_size: how many images validate; 0 trains on all.
      download: where data_dir holds no data, have tensorflow-datasets prepare MNIST in it first.

    Raises:
      DataError: in one sentence, what was found, what was wanted, and where.
    """
    try:
        train, test = _read_directory(data_dir or BUNDLED, download=download)
    except MemoryError as error:
        message = (
            f"{data_dir or BUNDLED}: not enough memory to read the data; use a machine with more, or fewer images."
        )
        raise DataError(message) from error
    # Each array as the plain IDX file that would hold it, in the order of _FILES.
    digests = [idx.sha256(array) for array in (*train, *test)]
    if data_dir is None:
        _check_bundled(digests)
    train_size = len(train.labels) - validation_size
    if train_size <= 0:
        message = (
            f"{data_dir or BUNDLED}: {len(train.labels)} training images found, "
            f"more than --validation_size={validation_size} wanted: none would be left to train on."
        )
        raise DataError(message)
    return Dataset(
        train=Split(train.images[:train_size], train.labels[:train_size]),
        validation=Split(train.images[train_size:], train.labels[train_size:]),
        test=test,
        fingerprint=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


def _read_directory(data_dir: Path, *, download: bool) -> tuple[Split, Split]:
    try:
        _check_is_no_file(data_dir)
        if idx_files := _find_idx_files(data_dir):
            return _read_idx_files(data_dir, idx_files)
        return _read_tfds(_find_tfds(data_dir, download=download))
    except OSError as error:
        problem = regular_file.problem(error, "give a directory that can be read")
        raise DataError(f"{error.filename or data_dir}: {problem}.") from error


def _check_is_no_file(data_dir: Path) -> None:
    if data_dir.exists() and not data_dir.is_dir():
        kind = regular_file.kind(data_dir.stat().st_mode)
        raise DataError(f"{data_dir}: expected a directory, got a {kind}; give the directory that the data lie in.")


def _check_bundled(digests: list[str]) -> None:
    sums = BUNDLED / "SHA256SUMS.uncompressed"
    try:
        with regular_file.open_to_read(sums) as file:
            words = file.read(_MOST_SUMS_BYTES).decode("ascii").split()
    except OSError as error:
        problem = regular_file.problem(error, "the bundled MNIST is damaged, check it out again")
        raise DataError(f"{sums}: {problem}.") from error
    except ValueError as error:
        message = (
            f"{sums}: expected hashes, got other bytes ({error}): the bundled MNIST is damaged; check it out again."
        )
        raise DataError(message) from error
    pinned = dict(zip(words[1::2], words[::2], strict=False))
    for name, digest in zip(_FILES.values(), digests, strict=True):
        if digest != pinned.get(name):
            message = (
                f"{BUNDLED / name}.gz: sha256 {digest} of the uncompressed bytes found, {pinned.get(name)} wanted "
                f"by {sums.name}: "
                f"the bundled MNIST is damaged; check it out again."
            )
            raise DataError(message)


def _find_idx_files(directory: Path) -> dict[str, Path]:
    """Which of the four files are there, by their part; of several, the canonical name, and the plain file."""
    return {part: path for part, name in _FILES.items() for path in reversed(_paths(directory, name)) if path.exists()}


def _paths(directory: Path, name: str) -> list[Path]:
    dotted = name.replace("-idx", ".idx")
    return [directory / (stem + suffix) for stem in (name, dotted) for suffix in ("", ".gz")]


def _read_idx_files(directory: Path, files: dict[str, Path]) -> tuple[Split, Split]:
    for part, name in _FILES.items():
        if part not in files:
            names = ", ".join(path.name for path in _paths(directory, name))
            message = f"{directory}: the file of {part} is missing; one of {names} wanted."
            raise DataError(message)
    return tuple(_read_split(files[f"{split} images"], files[f"{split} labels"]) for split in ("train", "test"))  # type: ignore[return-value]


def _read_split(images_path: Path, labels_path: Path) -> Split:
    source = f"{images_path} and {labels_path.name}"
    # Both headers before any data: files that do not belong together are not unpacked.
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
        raise DataError(f"{source}: {images} images and {labels} labels found, equal numbers wanted.")


def _checked(split: Split, source: str) -> Split:
    """The split itself, once it is known to be of MNIST's form."""
    _check_counts(len(split.images), len(split.labels), source)
    if not len(split.labels):
        message = f"{source}: no images found, at least one wanted."
        raise DataError(message)
    if split.labels.max() >= CLASSES:
        position = int(np.argmax(split.labels >= CLASSES))
        message = f"{source}: label {split.labels[position]} found at position {position}, 0 to {CLASSES - 1} wanted."
        raise DataError(message)
    return split


def _find_tfds(data_dir: Path, *, download: bool) -> Path:
    """The folder of the one dataset that tensorflow-datasets prepared in data_dir."""
    for pattern in (".", "*", "mnist/*", "*/*"):
        found = sorted(path.parent for path in data_dir.glob(f"{pattern}/dataset_info.json"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(str(path) for path in found)
            message = f"{data_dir}: several datasets found ({names}), one wanted: give one of them as --data_dir."
            raise DataError(message)
    if download:
        return _download(data_dir)
    if not data_dir.is_dir():
        message = f"{data_dir}: no directory found there; give one that exists, or --download to prepare MNIST there."
        raise DataError(message)
    message = (
        f"{data_dir}: no data found; looked for IDX files ({', '.join(_FILES.values())}, plain or .gz) and for a TFDS "
        f"directory (mnist/3.0.1/dataset_info.json): put one there, or give --download to prepare MNIST there."
    )
    raise DataError(message)


def _tensorflow_datasets() -> ModuleType:
    """The library, which needs TensorFlow: only who has a TFDS directory waits for it."""
    with tensorflow_import():
        import tensorflow as tf  # noqa: F401, PLC0415
        import tensorflow_datasets as tfds  # noqa: PLC0415
    return tfds  # type: ignore[no-any-return]


def _download(data_dir: Path) -> Path:
    tfds = _tensorflow_datasets()
    try:
        builder = tfds.builder("mnist", data_dir=data_dir)
        _check_downloadable(builder, data_dir / "downloads" / "manual")
        builder.download_and_prepare()
    except Exception as error:  # whatever the network, the disk or the library raise becomes the one sentence
        message = (
            f"{data_dir}: tensorflow-datasets could not prepare MNIST there ({_first_line(error)}); "
            "leave --data_dir out for the bundled MNIST."
        )
        raise DataError(message) from error
    return Path(builder.data_path)


def _check_downloadable(
    builder: Any,  # noqa: ANN401 - a tfds.core.DatasetBuilder, known only once imported
    by_hand: Path,
) -> None:
    """Tries once to reach what is missing by hand; tensorflow-datasets itself would try for minutes."""
    for url in builder.url_infos:
        if (by_hand / url.rpartition("/")[2]).exists():
            continue
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the library's own https address
            urllib.request.urlopen(request, timeout=_SECONDS_TO_CONNECT).close()  # noqa: S310
        except OSError as error:
            message = f"{url} cannot be reached: {error}; try again, or put the file into {by_hand} yourself"
            raise ConnectionError(message) from error


def _read_tfds(directory: Path) -> tuple[Split, Split]:
    for path in sorted(directory.iterdir()):
        if not path.is_dir():  # the library would wait for a FIFO
            regular_file.open_to_read(path).close()
    tfds = _tensorflow_datasets()
    try:
        builder = tfds.builder_from_directory(directory)
        # One file after the other: which images come last, and validate, must not depend on how they are interleaved.
        read_config = tfds.ReadConfig(interleave_cycle_length=1)
        columns = {
            name: tfds.as_numpy(builder.as_dataset(split=name, batch_size=-1, read_config=read_config))
            for name in ("train", "test")
        }
    except Exception as error:  # a damaged record, a missing shard, a missing split: the library has many words for it
        what_to_do = "put a good copy there, or prepare it again"
        if _is_of_the_moment(error):
            what_to_do = "run the same command again when that is over"
        message = f"{directory}: tensorflow-datasets could not read splits 'train' and 'test' ({_first_line(error)})"
        raise DataError(f"{message}; {what_to_do}.") from error
    return tuple(_from_tfds(columns[name], f"{directory}, split '{name}'") for name in ("train", "test"))  # type: ignore[return-value]


def _from_tfds(columns: object, source: str) -> Split:
    """Checks the form of what tensorflow-datasets read: image uint8 [N, 28, 28, 1], label integers [N]."""
    if not (isinstance(columns, dict) and {"image", "label"} <= columns.keys()):
        message = f"{source}: features 'image' and 'label' wanted, and not both found."
        raise DataError(message)
    images, labels = np.asarray(columns["image"]), np.asarray(columns["label"])
    if images.dtype != np.uint8 or images.shape[1:] != (*IMAGE_SHAPE, 1):
        message = f"{source}: images of {images.dtype} {images.shape[1:]} found, uint8 {(*IMAGE_SHAPE, 1)} wanted."
        raise DataError(message)
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or (labels.size and labels.min() < 0):
        message = f"{source}: labels of {labels.dtype} found, integers from 0 to {CLASSES - 1} wanted."
        raise DataError(message)
    # Clipped, not wrapped: label 256 must be found as a wrong label, not taken for a 0.
    return _checked(Split(images[..., 0], labels.clip(max=255).astype(np.uint8)), source)


def _is_of_the_moment(error: Exception) -> bool:
    """Whether an error of tensorflow-datasets is one of memory, descriptors, permissions or the network."""
    if isinstance(error, OSError):
        return not regular_file.is_about_the_file(error)
    # TensorFlow is not imported here, so its errors are recognised by their names.
    shortages = {"MemoryError", "ResourceExhaustedError", "PermissionDeniedError", "UnavailableError"}
    return not shortages.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _first_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
