"""Find the four IDX files where archives and other programs put them; say what lies in their place."""

import gzip
import logging
import shutil
import struct

import numpy as np
import pytest

from mnist.input import dataset
from tests import odd_files
from tests.datasets import (
    ARRAYS,
    FILES,
    SPELLINGS,
    assert_is,
    compressed,
    data_dir,
    dotted,
    error_message,
    idx_file,
    plain,
    some_images,
)

DOTTED = (dotted,) * 4


def fingerprint(directory):
    """The fingerprint of the data in a data_dir."""
    return dataset.load(directory, validation_size=5).fingerprint


def test_a_folder_of_a_files_name_does_not_hide_the_file(tmp_path):
    """As in Kaggle's archive, which holds each file twice: beside a folder of its canonical name, and in it."""
    data_dir(tmp_path, DOTTED)
    for part, name in FILES.items():
        (tmp_path / name).mkdir()
        plain(tmp_path / name, name, idx_file(255 - ARRAYS[part]))
    assert_is(dataset.load(tmp_path, validation_size=5))


@pytest.mark.parametrize("put", SPELLINGS)
def test_files_in_folders_of_their_names_are_read(tmp_path, put):
    """As unpackers leave them that make a folder for each archive."""
    for part, name in FILES.items():
        (folder := tmp_path / name.replace("-idx", ".idx")).mkdir()
        put(folder, name, idx_file(ARRAYS[part]))
    assert_is(dataset.load(tmp_path, validation_size=5))


def test_a_folder_without_the_file_is_named(tmp_path):
    """Only one level is searched."""
    (data_dir(tmp_path) / FILES["test images"]).unlink()
    folder = tmp_path / FILES["test images"]
    (folder / "below").mkdir(parents=True)
    plain(folder / "below", FILES["test images"], idx_file(ARRAYS["test images"]))
    assert error_message(tmp_path).startswith(f"{folder}: cannot be read (Is a directory)")


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_what_is_no_file_does_not_hide_the_file(tmp_path, kind):
    """A FIFO or a link to nothing under the canonical name beside a file under the dotted one."""
    odd_files.make(kind, data_dir(tmp_path, DOTTED) / FILES["train labels"])
    with odd_files.no_hang():
        assert_is(dataset.load(tmp_path, validation_size=5))


@pytest.mark.parametrize("above", ["", "MNIST", "MNIST/raw"])
def test_the_root_of_torchvision_is_read(tmp_path, above):
    """Its `root`, the folder of the dataset, or the files' own."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    data_dir(raw)
    data_dir(raw, (compressed,) * 4)
    assert_is(dataset.load(tmp_path / above, validation_size=5))


def test_of_the_datasets_of_torchvision_mnist_is_preferred(tmp_path):
    """Another one is read if it is alone; several others have to be chosen from."""
    for name in ("FashionMNIST", "KMNIST", "MNIST"):
        (raw := tmp_path / name / "raw").mkdir(parents=True)
        data_dir(raw, train_images=some_images(30, seed=len(name)))
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "MNIST")
    shutil.rmtree(tmp_path / "MNIST")
    message = error_message(tmp_path)
    assert f"expected one dataset, got {tmp_path / 'FashionMNIST/raw'}, {tmp_path / 'KMNIST/raw'}" in message
    shutil.rmtree(tmp_path / "FashionMNIST")
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "KMNIST")


def test_a_missing_file_of_torchvision_is_named(tmp_path):
    """The message has the directory where it was expected."""
    (raw := tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (data_dir(raw) / FILES["test labels"]).unlink()
    assert error_message(tmp_path).startswith(f"{raw}: the file of test labels is missing")


def labels_of_qmnist(labels):
    """The bytes of QMNIST's file: 32-bit integers [N, 8]; the first column is the label."""
    table = np.arange(len(labels) * 8).reshape(-1, 8) * 1000
    table[:, 0] = labels
    return b"\0\0\x0c\x02" + struct.pack(">2I", *table.shape) + table.astype(">i4").tobytes()


@pytest.mark.parametrize("put", [plain, compressed])
@pytest.mark.parametrize("prefix", ["", "qmnist-"], ids=["MNIST's names", "QMNIST's names"])
def test_the_labels_of_qmnist_are_read(tmp_path, put, prefix):
    """The first of their eight columns."""
    for part, name in FILES.items():
        content = labels_of_qmnist(ARRAYS[part]) if "labels" in part else idx_file(ARRAYS[part])
        if prefix:
            name = prefix + name.replace("t10k", "test").replace("labels-idx1-ubyte", "labels-idx2-int")  # noqa: PLW2901
        put(tmp_path, name, content)
    assert_is(dataset.load(tmp_path, validation_size=5))


@pytest.mark.parametrize("label", [-1, 10, 256, 1 << 30])
def test_a_label_of_qmnist_outside_0_to_9_raises(tmp_path, label):
    """A label of 256 is not wrapped to 0."""
    labels = ARRAYS["test labels"].astype(int)
    labels[7] = label
    plain(data_dir(tmp_path), FILES["test labels"], labels_of_qmnist(labels))
    message = error_message(tmp_path)
    assert "expected labels 0 to 9, got " in message
    assert "at position 7" in message


def test_too_few_labels_of_qmnist_raise(tmp_path):
    """The message has both counts."""
    plain(data_dir(tmp_path), FILES["test labels"], labels_of_qmnist(ARRAYS["test labels"][:-1]))
    assert "expected as many labels as images, got 12 images and 11 labels" in error_message(tmp_path)


def test_the_images_of_emnist_are_put_upright(tmp_path, caplog):
    """Under the names of EMNIST's digits the images are transposed; a sentence in the log says so."""
    for part, name in FILES.items():
        array = ARRAYS[part].transpose(0, 2, 1) if "images" in part else ARRAYS[part]
        compressed(tmp_path, f"emnist-digits-{name.replace('t10k', 'test')}", idx_file(array))
    with caplog.at_level(logging.INFO):
        assert_is(dataset.load(tmp_path, validation_size=5))
    assert caplog.messages == [f"{tmp_path}: the images of EMNIST are transposed in its files, and were put upright"]


FOUND = {
    "a web page (HTML)": b"<!DOCTYPE html><html><title>404</title></html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
    "gzip data, packed with gzip": gzip.compress(gzip.compress(idx_file(ARRAYS["train images"]))),
    "a CSV table": b"label,pixel0,pixel1\n5,0,0\n",
    "an IDX file of 32-bit integers with 2 dimensions (12 x 8, the labels of QMNIST)": labels_of_qmnist(np.arange(12)),
    "an empty file": b"",
}


@pytest.mark.parametrize(("found", "content"), FOUND.items(), ids=FOUND)
def test_what_lies_under_the_name_is_named(tmp_path, found, content):
    """In place of the images, and what to do about it."""
    path = data_dir(tmp_path) / FILES["train images"]
    path.write_bytes(content)
    message = error_message(tmp_path)
    expected = "expected an IDX file of unsigned bytes with 3 dimensions"
    assert message.startswith(f"{path}: {expected}, got {found}\n")


def test_labels_of_32_bit_integers_are_named(tmp_path):
    """Integers in one column are not QMNIST's."""
    path = data_dir(tmp_path) / FILES["train labels"]
    path.write_bytes(b"\0\0\x0c\x01" + struct.pack(">I", 30) + bytes(120))
    assert "got an IDX file of 32-bit integers with 1 dimension (30)" in error_message(tmp_path)
