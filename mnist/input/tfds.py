"""Find, download and read datasets of tensorflow-datasets (TFDS) that have MNIST's form."""

import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from checkpointing.errors import LATER, listed
from checkpointing.tf_import import tensorflow_import
from mnist.errors import DataError
from mnist.input import regular_file
from mnist.input.splits import Split, check_images, check_labels, checked, labels_to_bytes, upright

_CONNECT_SECONDS = 15


def find(data_dir: Path) -> Path | None:
    """Return the directory of the dataset prepared in `data_dir`, or None. Of several datasets MNIST is preferred.

    Raises:
      DataError: there are several datasets to choose from.
    """
    for pattern in (".", "*", "mnist/*", "*/*", "*/*/*"):  # the last one: datasets with configurations, as EMNIST
        found = sorted(path.parent for path in data_dir.glob(f"{pattern}/dataset_info.json") if path.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            names = listed(found)
            raise DataError(f"{data_dir}: expected one dataset, got {names}", hint="give one of them as --data_dir")
    return None


def download_mnist(data_dir: Path) -> Path:
    """Download MNIST to `data_dir` and prepare it there; return the directory of the dataset.

    Raises:
      DataError: the download failed.
    """
    tfds = _tensorflow_datasets()
    try:
        builder = tfds.builder("mnist", data_dir=data_dir)
        _check_reachable(builder, data_dir / "downloads" / "manual")
        builder.download_and_prepare()
    except Exception as error:  # errors of the network, the disk and the library have no common class
        raise DataError(
            f"{data_dir}: tensorflow-datasets could not prepare MNIST there ({_first_line(error)})",
            hint="omit --data_dir to use the bundled MNIST",
        ) from error
    return Path(builder.data_path)


def read(directory: Path) -> tuple[Split, Split]:
    """Read the splits 'train' and 'test' of a prepared dataset. EMNIST's images, which are transposed, are put upright.

    Raises:
      DataError: the library cannot read them, or they are not in MNIST's form.
      OSError: a file cannot be opened.
    """
    name, features = _read_features(directory)
    train, test = (_to_split(features[each], f"{directory}, split '{each}'") for each in ("train", "test"))
    return upright(train, test, directory) if name == "emnist" else (train, test)


def _read_features(directory: Path) -> tuple[str, dict[str, Any]]:
    """Return the dataset's name, and the features of each split: for MNIST `image` and `label`."""
    for path in sorted(directory.iterdir()):
        if not path.is_dir():  # the library would block on a FIFO
            regular_file.open_to_read(path).close()
    tfds = _tensorflow_datasets()
    try:
        builder = tfds.builder_from_directory(directory)
        # One file after the other: the order decides which images are the last ones, those of the validation split.
        read_config = tfds.ReadConfig(interleave_cycle_length=1)
        return builder.name, {
            name: tfds.as_numpy(builder.as_dataset(split=name, batch_size=-1, read_config=read_config))
            for name in ("train", "test")
        }
    except Exception as error:  # a damaged record, a missing shard or split: the library raises many classes
        raise DataError(
            f"{directory}: tensorflow-datasets could not read splits 'train' and 'test' ({_first_line(error)})",
            hint=LATER if _is_temporary(error) else "put a good copy there, or prepare it again",
        ) from error


def _to_split(features: object, source: str) -> Split:
    """Convert image uint8 [N, 28, 28, 1] and label (integers [N]) to a split."""
    if not (isinstance(features, dict) and {"image", "label"} <= features.keys()):
        raise DataError(f"{source}: expected features 'image' and 'label'")
    images, labels = np.asarray(features["image"]), np.asarray(features["label"])
    check_images(images.dtype, images.shape, source, channel=True)
    check_labels(labels.dtype, labels.shape, source)
    return checked(Split(images[..., 0], labels_to_bytes(labels, source)), source)


def _tensorflow_datasets() -> ModuleType:
    """Import the library, which imports TensorFlow; only readers of TFDS directories wait for it."""
    with tensorflow_import():
        import tensorflow as tf  # noqa: F401, PLC0415
        import tensorflow_datasets as tfds  # noqa: PLC0415
    return tfds  # type: ignore[no-any-return]


def _check_reachable(
    builder: Any,  # noqa: ANN401 - a tfds.core.DatasetBuilder, known only once imported
    manual_dir: Path,
) -> None:
    """Raise ConnectionError if a URL is unreachable; the library itself would retry for minutes."""
    for url in builder.url_infos:
        if (manual_dir / url.rpartition("/")[2]).is_file():
            continue
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the library's own https address
            urllib.request.urlopen(request, timeout=_CONNECT_SECONDS).close()  # noqa: S310
        except OSError as error:
            raise ConnectionError(
                f"{url} cannot be reached: {error}; try again, or put the file into {manual_dir}"
            ) from error


def _is_temporary(error: Exception) -> bool:
    """Return whether an error is a lack of memory, descriptors or permissions, or one of the network."""
    if isinstance(error, OSError):
        return not regular_file.is_about_the_file(error)
    # TensorFlow is not imported in this module, so its errors are recognised by name.
    names = {"MemoryError", "ResourceExhaustedError", "PermissionDeniedError", "UnavailableError"}
    return not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _first_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
