"""Read the arrays of Keras' mnist.npz, without pickle."""

import io
import shutil
import zipfile

import numpy as np
import pytest

from mnist.errors import DataError
from mnist.input import dataset, idx
from tests import odd_files
from tests.datasets import ARRAYS, assert_is, data_dir, error_message

NAMES = {"x_train": "train images", "y_train": "train labels", "x_test": "test images", "y_test": "test labels"}


def npz(directory, name="mnist.npz", save=np.savez, **arrays):
    """Write the archive; `x_train=` and so on replace an array; return its path."""
    save(directory / name, **({name: ARRAYS[part] for name, part in NAMES.items()} | arrays))
    return directory / name


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["mnist.npz", "any.npz"])
def test_the_archive_is_read(tmp_path, name, save):
    """With any name as data_dir, and as mnist.npz in the data_dir."""
    path = npz(tmp_path, name, save)
    assert_is(dataset.load(path, validation_size=5))
    if name == "mnist.npz":
        assert_is(dataset.load(tmp_path, validation_size=5))
    else:
        assert "no data found" in error_message(tmp_path)


def test_the_fingerprint_is_that_of_the_idx_files(tmp_path):
    """So a run can be resumed with either."""
    one = dataset.load(data_dir(tmp_path / "idx"), validation_size=5)
    assert dataset.load(npz(tmp_path), validation_size=5).fingerprint == one.fingerprint


def test_idx_files_take_precedence(tmp_path):
    """An archive beside them does not change which data are read."""
    npz(data_dir(tmp_path), x_train=255 - ARRAYS["train images"])
    assert_is(dataset.load(tmp_path, validation_size=5))


def test_a_folder_of_its_name_is_not_the_archive(tmp_path):
    """Only a regular file is."""
    (tmp_path / "mnist.npz").mkdir()
    assert "no data found" in error_message(tmp_path)


def test_other_forms_of_the_same_arrays_are_read(tmp_path):
    """Images with a channel, in Fortran order; labels of 64-bit or big-endian integers."""
    forms = {
        "x_train": ARRAYS["train images"][..., None],
        "x_test": np.asfortranarray(ARRAYS["test images"]),
        "y_train": ARRAYS["train labels"].astype(np.int64),
        "y_test": ARRAYS["test labels"].astype(">i4"),
    }
    assert_is(dataset.load(npz(tmp_path, **forms), validation_size=5))


WRONG = {
    "x_train=float32": (
        {"x_train": ARRAYS["train images"] / np.float32(255)},
        "expected images of uint8 (28, 28), got",
    ),
    "x_test=32x32": ({"x_test": np.zeros((12, 32, 32), np.uint8)}, "expected images of uint8 (28, 28), got"),
    "x_test=rows": ({"x_test": np.zeros((12, 784), np.uint8)}, "expected images of uint8 (28, 28), got"),
    "x_test=scalar": ({"x_test": np.uint8(1)}, "expected images of uint8 (28, 28), got"),
    "y_train=one hot": ({"y_train": np.eye(10, dtype=np.uint8)[:3]}, "expected labels of integers [N], got"),
    "y_train=floats": ({"y_train": np.zeros(30)}, "expected labels of integers [N], got float64"),
    "y_train=29": ({"y_train": ARRAYS["train labels"][:29]}, "got 30 images and 29 labels"),
    "y_test=objects": ({"y_test": np.array([None] * 12)}, "expected labels of integers [N], got object"),
    "y_test=10": ({"y_test": np.full(12, 10)}, "expected labels 0 to 9, got 10 at position 0"),
    "y_test=256": ({"y_test": np.full(12, 256)}, "expected labels 0 to 9, got 255"),
    "y_test=-1": ({"y_test": np.full(12, -1)}, "expected labels 0 to 9, got -1 at position 0"),
    "empty": ({"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, int)}, "expected at least one image"),
}


@pytest.mark.parametrize(("arrays", "problem"), WRONG.values(), ids=WRONG)
def test_other_arrays_raise(tmp_path, arrays, problem):
    """The message has the file, the array, and what is wrong with it."""
    path = npz(tmp_path, **arrays)
    message = error_message(path)
    assert message.startswith(f"{path}, array")
    assert problem in message
    assert f"_{next(iter(arrays)).partition('_')[2]}" in message


def test_an_archive_of_other_arrays_raises(tmp_path):
    """The message lists some of them."""
    np.savez(path := tmp_path / "mnist.npz", **{f"arr_{each}": np.zeros(1) for each in range(30)})
    message = error_message(tmp_path)
    assert message.startswith(f"{path}: expected the arrays x_train, y_train, x_test, y_test, got arr_0, arr_1, ")
    assert "arr_9 and 20 more\n" in message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_archive_raises(tmp_path, save):
    """At any length, as an interrupted download may have."""
    content = npz(tmp_path, save=save).read_bytes()
    for length in [0, 1, 4, 100, *range(1000, len(content), len(content) // 10), len(content) - 1]:
        (tmp_path / "mnist.npz").write_bytes(content[:length])
        assert error_message(tmp_path).startswith(f"{tmp_path / 'mnist.npz'}: the .npz archive is truncated or damaged")


def fingerprint_or_none(path):
    """The fingerprint of an archive's data, or None if it raises a DataError."""
    try:
        return dataset.load(path, validation_size=5).fingerprint
    except DataError:
        return None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_archive_raises(tmp_path, save):
    """A flipped bit raises, or hits what is not read; the data are never others."""
    path = npz(tmp_path, save=save)
    content = path.read_bytes()
    expected = dataset.load(path, validation_size=5).fingerprint
    found = []
    for position in range(0, len(content), len(content) // 150):
        damaged = bytearray(content)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        found.append(fingerprint_or_none(path))
    assert set(found) <= {expected, None}
    assert found.count(None) > 100


def with_header(shape):
    """The bytes of an .npy file without data, whose header claims this shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def replace_member(path, name, content, compression=zipfile.ZIP_STORED):
    """Replace an array of an archive by other bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for each, value in members.items():
            archive.writestr(each, value)


@pytest.mark.parametrize("count", [30, 1 << 40, 1 << 63, 1 << 70])
def test_a_header_without_its_data_raises(tmp_path, count):
    """No memory is allocated for data that are not there."""
    path = npz(tmp_path)
    replace_member(path, "x_train.npy", with_header((count, 28, 28)))
    with odd_files.little_memory(256 << 20):
        message = error_message(path)
    assert message.startswith(f"{path}, array")
    assert "expected" in message or "too large" in message


def test_damaged_headers_raise(tmp_path):
    """The message has the array."""
    path = npz(tmp_path)
    for content in (b"", b"\x93NUMPY", b"\x93NUMPY\x01\0\xff\0{", b"no array"):
        replace_member(path, "y_test.npy", content)
        assert error_message(path).startswith(f"{path}, array y_test: not an array that can be read")


def test_a_decompression_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """Large data that are compressed more than 100 : 1."""
    monkeypatch.setattr(idx, "ANY_RATIO_BYTES", 1 << 20)
    path = npz(tmp_path)
    count = 4000
    replace_member(path, "x_test.npy", with_header((count, 28, 28)) + bytes(count * 784), zipfile.ZIP_DEFLATED)
    replace_member(path, "y_test.npy", with_header((count,)) + bytes(count), zipfile.ZIP_DEFLATED)
    with odd_files.little_memory(256 << 20):
        assert "expected at most 100 times the" in error_message(path)


def test_a_zip_of_files_is_not_an_npz_archive(tmp_path):
    """The message lists what it holds."""
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train-images-idx3-ubyte", "")
    assert error_message(path).startswith(f"{path}: expected the arrays x_train, y_train, x_test, y_test, got train-im")


def test_a_link_to_the_archive_is_followed(tmp_path):
    """The data may lie on another disk."""
    shutil.move(npz(tmp_path), tmp_path / "elsewhere")
    (tmp_path / "mnist.npz").symlink_to(tmp_path / "elsewhere")
    assert_is(dataset.load(tmp_path, validation_size=5))
