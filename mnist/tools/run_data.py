"""Load the images to evaluate on, and compare them with those that a run was trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpointing.cli import print_warning
from checkpointing.storage.json_kinds import is_count
from mnist.errors import DataError
from mnist.input import dataset
from mnist.input.dataset import Dataset, Split

_VALIDATION_SIZE = 5000  # the recipes' value


def load(data_dir: Path | None, validation_size: int, settings: Mapping[str, Any]) -> Dataset:
    """Load the data that a run was trained with.

    Args:
      data_dir: as in `dataset.load`; None for the bundled MNIST.
      validation_size: number of validation images.
      settings: of the run, from its manifest.

    Raises:
      DataError: they cannot be read, or are not the run's.
    """
    data = dataset.load(data_dir, validation_size)
    problem = _mismatch(data, data_dir, settings)
    if problem:
        raise DataError(problem, hint="give the run's --data_dir")
    return data


def load_split(
    data_dir: Path | None, name: str, validation_size: int | None, settings: Mapping[str, Any] | None
) -> Split:
    """Load one split, of the size that it has in a run. Prints a warning if the data are not the run's.

    Args:
      data_dir: as in `dataset.load`; None for the bundled MNIST.
      name: "test" or "validation".
      validation_size: number of validation images; None: as in the run.
      settings: of the run, from its manifest; None if there is no manifest.

    Raises:
      DataError: the data cannot be read, or the split is empty.
    """
    settings = settings or {}
    size_in_run = settings.get("validation_size")
    if size_in_run is not None and not is_count(size_in_run):
        raise DataError(f"the run's manifest: expected a number of images as validation_size, got {size_in_run!r:.50}")
    size = validation_size or (_VALIDATION_SIZE if size_in_run is None else size_in_run)
    data = dataset.load(data_dir, 0 if name == "test" else size)
    problem = _mismatch(data, data_dir, settings)
    if problem:
        print_warning(problem)
    if name == "validation" and size_in_run is not None and size > size_in_run:
        message = f"--validation_size={size}: expected at most the run's {size_in_run}"
        print_warning(f"{message}; the model was trained on some of these images")
    split: Split = getattr(data, name)
    if not len(split.labels):
        raise DataError("the run has no validation images", hint="give --split=test or --validation_size")
    return split


def _mismatch(data: Dataset, data_dir: Path | None, settings: Mapping[str, Any]) -> str | None:
    expected = settings.get("data", data.fingerprint)
    if expected == data.fingerprint:
        return None
    return f"{data_dir or 'the bundled MNIST'}: expected the run's data {expected}, got {data.fingerprint}"
