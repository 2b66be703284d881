"""Find and read the four IDX files of a dataset: MNIST's, or those of QMNIST or EMNIST under their own names.

Each file may be plain or gzip, under its canonical or its dotted name (`train-images.idx3-ubyte`), and may lie in a
folder of its name, as some programs unpack archives.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mnist.errors import DataError
from mnist.input import idx
from mnist.input.idx import Bytes
from mnist.input.splits import IMAGE_SHAPE, Split, check_counts, checked, labels_to_bytes, upright

# The four canonical files, in the order of the fingerprint.
CANONICAL = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
_QMNIST = {
    "train images": "qmnist-train-images-idx3-ubyte",
    "train labels": "qmnist-train-labels-idx2-int",
    "test images": "qmnist-test-images-idx3-ubyte",
    "test labels": "qmnist-test-labels-idx2-int",
}
_EMNIST_DIGITS = {
    "train images": "emnist-digits-train-images-idx3-ubyte",
    "train labels": "emnist-digits-train-labels-idx1-ubyte",
    "test images": "emnist-digits-test-images-idx3-ubyte",
    "test labels": "emnist-digits-test-labels-idx1-ubyte",
}
_QMNIST_COLUMNS = 8  # the first is the label; source: "QMNIST" by Yadav and Bottou, facebookresearch/qmnist


class IdxFiles(NamedTuple):
    """The IDX files of one dataset in a directory.

    directory: where they are.
    names: each part of the data -> the canonical name of its file.
    paths: each part that was found -> its file.
    """

    directory: Path
    names: Mapping[str, str]
    paths: Mapping[str, Path]


def find(directory: Path) -> IdxFiles | None:
    """Return MNIST's files in a directory, or None if there is none of them.

    Regular files take precedence over files in folders; of these, canonical names and plain files come first.
    """
    return _find_named(directory, CANONICAL)


def find_others(data_dir: Path) -> IdxFiles | None:
    """Return the files of torchvision's root (`MNIST/raw`), or of QMNIST or EMNIST under their own names, or None.

    Raises:
      DataError: there are several datasets to choose from.
    """
    raw = (data_dir / "raw", data_dir / "MNIST" / "raw")  # torchvision's folders
    for directories in ([data_dir], *([each] for each in raw), sorted(data_dir.glob("*/raw"))):
        found = [files for directory in directories if (files := _find_any(directory))]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(str(files.directory) for files in found)
            raise DataError(f"{data_dir}: expected one dataset, got {names}", hint="give one of them as --data_dir")
    return None


def read(files: IdxFiles) -> tuple[Split, Split]:
    """Read the train and test splits.

    Raises:
      DataError: a file is missing, cannot be read, or is not in MNIST's form.
    """
    for part, name in files.names.items():
        if part not in files.paths:
            names = ", ".join(_spellings(name))
            raise DataError(f"{files.directory}: the file of {part} is missing; expected one of {names}")
    train, test = (
        _read_split(files.paths[f"{split} images"], files.paths[f"{split} labels"]) for split in ("train", "test")
    )
    return upright(train, test, files.directory) if files.names is _EMNIST_DIGITS else (train, test)


def _find_any(directory: Path) -> IdxFiles | None:
    found = (_find_named(directory, names) for names in (CANONICAL, _QMNIST, _EMNIST_DIGITS))
    return next(filter(None, found), None)


def _find_named(directory: Path, names: Mapping[str, str]) -> IdxFiles | None:
    paths = {part: path for part, name in names.items() if (path := _find_file(directory, name))}
    return IdxFiles(directory, names, paths) if paths else None


def _find_file(directory: Path, name: str) -> Path | None:
    """Return the path of a file, or of what else has its name, which is then an error to read."""
    spellings = _spellings(name)
    here = [directory / spelling for spelling in spellings]
    in_folders = [folder / spelling for folder in here if folder.is_dir() for spelling in spellings]
    files = (path for path in (*here, *in_folders) if path.is_file())
    return next(files, None) or _first_existing(here)


def _first_existing(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _spellings(name: str) -> list[str]:
    """The names under which a file is searched for, in order of precedence."""
    return [stem + suffix for stem in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]


def _read_split(images_path: Path, labels_path: Path) -> Split:
    source = f"{images_path} and {labels_path.name}"
    # Headers first, so that files that do not belong together are not unpacked.
    images_count, *_ = idx.read_shape(images_path, (None, *IMAGE_SHAPE))
    is_qmnist = idx.is_int32(labels_path, dimensions=2)
    labels_shape = (None, _QMNIST_COLUMNS) if is_qmnist else (None,)
    labels_count, *_ = idx.read_shape(labels_path, labels_shape, int32=is_qmnist)
    check_counts(images_count, labels_count, source)
    images = idx.read(images_path, (None, *IMAGE_SHAPE))
    labels = _read_qmnist_labels(labels_path) if is_qmnist else idx.read(labels_path, (None,))
    return checked(Split(images, labels), source)


def _read_qmnist_labels(path: Path) -> Bytes:
    return labels_to_bytes(idx.read_int32(path, (None, _QMNIST_COLUMNS))[:, 0], str(path))
