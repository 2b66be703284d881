"""Fixtures for all tests: a small data_dir cut from the bundled MNIST, and a finished ensemble."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from checkpointing.kernel_environment import choose_kernels
from mnist.input import idx
from mnist.input.dataset import BUNDLED
from tests import ensembles

# A shell starts its background jobs with SIGINT ignored, and the processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest's own process imports TensorFlow, too.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
choose_kernels()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is not text in captured output: file names in log lines need not be, and xdist sends only text."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests of whole programs first: started last, a long file would leave the other processes idle."""
    items.sort(key=lambda item: len(item.path.parts))


TRAIN_IMAGES, TEST_IMAGES = 1200, 300


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array as an uncompressed IDX file."""
    path.write_bytes(idx.header(array) + array.tobytes())


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with the first images of the bundled MNIST: 1,200 for training, 300 for the test."""
    directory = tmp_path_factory.mktemp("small_data")
    for name, count in (("train", TRAIN_IMAGES), ("t10k", TEST_IMAGES)):
        images = idx.read(BUNDLED / f"{name}-images-idx3-ubyte.gz", (None, 28, 28))
        labels = idx.read(BUNDLED / f"{name}-labels-idx1-ubyte.gz", (None,))
        write_idx(directory / f"{name}-images-idx3-ubyte", images[:count])
        write_idx(directory / f"{name}-labels-idx1-ubyte", labels[:count])
    return directory


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """The train_dir of an ensemble that was killed and run again; tests read or copy it."""
    train_dir = tmp_path_factory.mktemp("ensemble") / "run"
    status, stderr = ensembles.train_disturbed(train_dir, small_data, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert "seed-3" not in stderr  # the finished member is not run again
    return train_dir
