import errno
import gzip
import itertools
import os
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from mnist.input import dataset, idx
from tests import odd_files
from tests.checkpoints import flip_a_bit
from tests.datasets import (
    ARRAYS,
    FILES,
    SPELLINGS,
    assert_is,
    compressed,
    data_dir,
    dotted_compressed,
    error_message,
    idx_file,
    plain,
    some_images,
    some_labels,
)

# As the MNIST database's page gave the files out; the digests are of the uncompressed bytes.
BUNDLED_SHA256 = {
    "train images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@pytest.fixture(scope="module")
def bundled():
    """The bundled MNIST, without a validation split."""
    return dataset.load(None, validation_size=0)


def test_without_a_data_dir_the_bundled_mnist_is_loaded(bundled):
    """The bundled files have the digests of the files that the MNIST database published."""
    arrays = zip(FILES, (*bundled.train, *bundled.test), strict=True)
    assert {part: idx.sha256(array) for part, array in arrays} == BUNDLED_SHA256


def test_validation_size_0_trains_on_all_images(bundled):
    """The train split has all 60,000 images, the validation split none."""
    assert bundled.train.images.shape == (60_000, 28, 28)
    assert bundled.train.labels.shape == (60_000,)
    assert bundled.validation.images.shape == (0, 28, 28)
    assert bundled.validation.labels.shape == (0,)
    assert bundled.test.images.shape == (10_000, 28, 28)
    assert bundled.test.labels.shape == (10_000,)


def test_the_last_training_images_are_the_validation_split(bundled):
    """55,000 of the 60,000 images train, the last 5,000 validate; the test set is unchanged."""
    data = dataset.load(None, validation_size=5000)
    assert (len(data.train.images), len(data.validation.images), len(data.test.images)) == (55_000, 5_000, 10_000)
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (55_000, 5_000, 10_000)
    for split in ("images", "labels"):
        parts = [getattr(data.train, split), getattr(data.validation, split)]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(bundled.train, split), strict=True)
        np.testing.assert_array_equal(getattr(data.test, split), getattr(bundled.test, split), strict=True)


def test_a_data_dir_of_mnist_has_the_fingerprint_of_the_bundled_mnist(bundled, tmp_path):
    """So a run can be resumed with either."""
    shutil.copytree(dataset.BUNDLED, tmp_path, dirs_exist_ok=True)
    assert dataset.load(tmp_path, validation_size=0).fingerprint == bundled.fingerprint


def cut_short(path):
    """Remove the last 100 bytes of a file."""
    path.write_bytes(path.read_bytes()[:-100])


def alter_a_label(path):
    """Change the last label; the file stays valid, only its digest differs."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] = 9 - content[-1]
    path.write_bytes(gzip.compress(content))


@pytest.mark.parametrize("name", [f"{name}.gz" for name in FILES.values()])
@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_a_damaged_bundled_file_raises(tmp_path, monkeypatch, name, damage):
    """The message names the file, whichever of the four it is."""
    monkeypatch.setattr(dataset, "BUNDLED", shutil.copytree(dataset.BUNDLED, tmp_path / "data"))
    damage(tmp_path / "data" / name)
    assert str(tmp_path / "data" / name) in error_message(None)


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_an_altered_bundled_file_raises(tmp_path, monkeypatch, name):
    """One changed label in a valid file is detected by its digest."""
    monkeypatch.setattr(dataset, "BUNDLED", shutil.copytree(dataset.BUNDLED, tmp_path / "data"))
    alter_a_label(tmp_path / "data" / name)
    message = error_message(None)
    assert str(tmp_path / "data" / name) in message
    assert "the bundled MNIST is damaged" in message


@pytest.mark.parametrize("name", FILES.values())
def test_a_missing_bundled_file_raises(tmp_path, monkeypatch, name):
    """The message names the file."""
    monkeypatch.setattr(dataset, "BUNDLED", shutil.copytree(dataset.BUNDLED, tmp_path / "data"))
    (tmp_path / "data" / f"{name}.gz").unlink()
    assert f"{name}.gz" in error_message(None)


@pytest.mark.parametrize(
    "content", [None, b"", b"half a line", b"\xff\xfe\n"], ids=["absent", "empty", "cut", "binary"]
)
def test_a_damaged_list_of_digests_raises(tmp_path, monkeypatch, content):
    """Without a complete list of digests the bundled files cannot be verified; the message names the list."""
    monkeypatch.setattr(dataset, "BUNDLED", shutil.copytree(dataset.BUNDLED, tmp_path / "data"))
    sums = tmp_path / "data" / "SHA256SUMS.uncompressed"
    sums.unlink()
    if content is not None:
        sums.write_bytes(content)
    assert "SHA256SUMS.uncompressed" in error_message(None)


def test_files_are_found_in_any_mix_of_spellings(tmp_path):
    """Each of the four files may be plain or gzip, under its canonical or its dotted name."""
    for number, spellings in enumerate(itertools.product(SPELLINGS, repeat=4)):
        assert_is(dataset.load(data_dir(tmp_path / str(number), spellings), validation_size=5))


def test_a_plain_file_takes_precedence_over_gzip(tmp_path):
    """Of a file that is there both plain and as gzip, the plain one is read."""
    directory = data_dir(tmp_path, (compressed,) * 4, train_images=some_images(30, seed=2))
    plain(directory, FILES["train images"], idx_file(ARRAYS["train images"]))
    assert_is(dataset.load(directory, validation_size=5))


@pytest.mark.parametrize("name", ["run[1]", "with spaces", "größe-数字", "star*?"])
def test_a_data_dir_may_have_any_name(tmp_path, name):
    """Brackets, spaces and non-ASCII letters in a path have no special meaning."""
    assert_is(dataset.load(data_dir(tmp_path / name), validation_size=5))


def test_other_data_in_the_form_of_mnist_are_read(tmp_path):
    """Any number of images, and any subset of the ten classes."""
    labels = np.full(7, 3, np.uint8)
    data = dataset.load(data_dir(tmp_path, test_images=some_images(7), test_labels=labels), validation_size=29)
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (1, 29, 7)


def test_the_fingerprint_does_not_depend_on_the_file_format(tmp_path):
    """Compression, names and validation_size do not change the fingerprint."""
    one = dataset.load(data_dir(tmp_path / "one"), validation_size=5)
    other = dataset.load(data_dir(tmp_path / "other", (dotted_compressed,) * 4), validation_size=0)
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_fingerprint_in_memory_changes_with_the_arrays(bundled, name):
    """It equals that of the files until a bit of any split changes."""
    data = dataset.load(None, validation_size=100)
    assert dataset.fingerprint_in_memory(data) == bundled.fingerprint
    images, labels = getattr(data, name)
    changed = images.copy()
    changed[17, 3, 5] ^= 1
    other = data._replace(**{name: dataset.Split(changed, labels)})
    assert dataset.fingerprint_in_memory(other) != bundled.fingerprint


@pytest.mark.parametrize("part", FILES)
def test_the_fingerprint_changes_with_the_data(tmp_path, part):
    """One changed byte in any of the four files changes it."""
    changed = ARRAYS[part].copy()
    changed.flat[-1] = 9 - changed.flat[-1] % 10
    one = dataset.load(data_dir(tmp_path / "one"), validation_size=5)
    other = dataset.load(data_dir(tmp_path / "other", **{part.replace(" ", "_"): changed}), validation_size=5)
    assert one.fingerprint != other.fingerprint


def test_exchanged_splits_have_another_fingerprint(tmp_path):
    """Train and test sets are not interchangeable."""
    exchanged = {
        "train_images": ARRAYS["test images"],
        "train_labels": ARRAYS["test labels"],
        "test_images": ARRAYS["train images"],
        "test_labels": ARRAYS["train labels"],
    }
    one = dataset.load(data_dir(tmp_path / "one"), validation_size=5)
    other = dataset.load(data_dir(tmp_path / "other", **exchanged), validation_size=5)
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("part", FILES)
def test_a_missing_file_is_named(tmp_path, part):
    """The message says which of the four files is missing, and lists all names that it may have."""
    (data_dir(tmp_path) / FILES[part]).unlink()
    message = error_message(tmp_path)
    assert message.startswith(f"{tmp_path}: ")
    assert f"the file of {part} is missing" in message
    for put in SPELLINGS:
        (shown := tmp_path / put.__name__).mkdir()
        put(shown, FILES[part], b"")
        assert next(shown.iterdir()).name in message


def test_download_does_not_complete_a_directory(tmp_path):
    """If some of the four files are there, download=True does not add others."""
    (data_dir(tmp_path) / FILES["test labels"]).unlink()
    assert "the file of test labels is missing" in error_message(tmp_path, download=True)


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "link to a FIFO", "directory"])
def test_special_files_raise_at_once(tmp_path, part, kind):
    """A FIFO, a device and so on in place of one of the four files raises without blocking."""
    path = odd_files.make(kind, data_dir(tmp_path) / FILES[part])
    with odd_files.no_hang():
        assert error_message(tmp_path).startswith(f"{path}: cannot be read (")


def test_a_fifo_in_a_tfds_directory_raises_at_once(tmp_path):
    """It is detected before the library opens it and blocks."""
    (tmp_path / "dataset_info.json").write_text("{}")
    path = odd_files.make("FIFO", tmp_path / "mnist-train.tfrecord-00000-of-00001")
    with odd_files.no_hang():
        assert error_message(tmp_path).startswith(f"{path}: cannot be read (expected a regular file, got a FIFO)")


def test_a_lack_of_descriptors_is_not_damage():
    """The message names the file that could not be opened, and EMFILE; the hint is to retry."""
    with odd_files.no_descriptors():
        message = error_message(None)
    assert message.startswith(f"{dataset.BUNDLED / FILES['train images']}.gz: cannot be read (Too many open files)")
    assert "run the same command again" in message


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.EACCES])
def test_a_temporary_error_at_the_list_of_digests_is_not_damage(monkeypatch, number):
    """The message names the list and the error, and does not mention damage."""
    sums = dataset.BUNDLED / "SHA256SUMS.uncompressed"
    open_file = os.open

    def refuse(path, *arguments, **options):
        if os.fspath(path) == str(sums):
            raise OSError(number, os.strerror(number), str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    message = error_message(None)
    assert message.startswith(f"{sums}: cannot be read ({os.strerror(number)})")
    assert "damaged" not in message


def test_files_that_do_not_belong_together_are_not_unpacked(tmp_path, monkeypatch):
    """If the headers of images and labels differ in their counts, no data are read."""
    monkeypatch.setattr(idx, "read", None)
    assert "got 30 images and 29 labels" in error_message(data_dir(tmp_path, train_labels=some_labels(29)))


MEASURED = """
import resource, sys, pathlib
from mnist.input import dataset; from mnist import errors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    dataset.load(pathlib.Path(sys.argv[1]), 5)
except errors.DataError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.parametrize("labels", ["as many", "fewer"])
def test_a_gzip_bomb_is_not_unpacked(tmp_path, labels):
    """A gigabyte of zeros in a megabyte of gzip raises, within 64 MiB of memory."""
    directory = data_dir(tmp_path)
    count = 1_370_000
    block = gzip.compress(bytes(784 * 10_000))
    header = gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28))
    (directory / FILES["train images"]).write_bytes(header + count // 10_000 * block)
    if labels == "as many":
        (directory / FILES["train labels"]).write_bytes(idx_file(np.zeros(count, np.uint8)))
    command = [sys.executable, "-c", MEASURED, str(directory)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, message = ended.stdout.split(maxsplit=1)
    assert int(kilobytes) < 64 << 10
    assert message.startswith(f"{directory / FILES['train images']}")


def test_too_little_memory_raises_a_data_error(tmp_path):
    """The message contains the number of bytes that the data need."""
    directory = data_dir(tmp_path)
    images, labels = (directory / FILES[f"train {what}"] for what in ("images", "labels"))
    count = 1 << 20
    images.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28))
    labels.write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", count))
    os.truncate(images, 16 + count * 784)
    os.truncate(labels, 8 + count)
    with odd_files.little_memory(256 << 20):
        assert f"not enough memory for {count * 784:,} bytes" in error_message(directory)


def test_a_missing_data_dir_raises(tmp_path):
    """The message names the directory, the hint says what to do."""
    message = error_message(tmp_path / "absent")
    assert message.startswith(f"{tmp_path / 'absent'}: ")
    assert "directory" in message
    assert "--download" in message


def test_a_file_as_data_dir_raises(tmp_path):
    """The message says that the path is a file, also with download=True."""
    path = tmp_path / "mnist"
    path.write_bytes(b"mine")
    for download in (False, True):
        assert error_message(path, download=download).startswith(
            f"{path}: expected a directory or an .npz file, got a file: the first bytes [6d 69 6e 65]"
        )


@pytest.mark.parametrize("kind", ["FIFO", "device", "link to itself"])
def test_a_special_file_as_data_dir_raises(tmp_path, kind):
    """A FIFO, a device or a circular link raises without blocking."""
    path = odd_files.make(kind, tmp_path / "data")
    with odd_files.no_hang():
        assert error_message(path).startswith(f"{path}: ")


def test_one_of_the_four_files_as_data_dir_raises(tmp_path):
    """The file's directory is not used in its place."""
    path = data_dir(tmp_path) / FILES["train images"]
    message = error_message(path)
    assert message.startswith(
        f"{path}: expected a directory or an .npz file, got a file: an IDX file of unsigned bytes"
    )
    assert "hint: give the directory of the data as --data_dir" in message


def test_an_empty_data_dir_raises(tmp_path):
    """The message lists the names searched for, the hint says what to do."""
    message = error_message(tmp_path)
    assert message.startswith(f"{tmp_path}: no data found")
    for name in (*FILES.values(), "TFDS", "mnist.npz", "mnist_train.csv and mnist_test.csv", "--download"):
        assert name in message


@contextmanager
def forbidden(directory):
    """Make a directory unreadable; also for root, which ignores permissions."""
    user = os.geteuid()
    directory.chmod(0)
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)
        directory.chmod(0o700)


def test_an_unreadable_data_dir_raises(tmp_path):
    """The message says "Permission denied", not that the directory is empty."""
    directory = data_dir(tmp_path / "data")
    with forbidden(directory):
        message = error_message(directory)
    assert "Permission denied" in message
    assert "permission to read it" in message


def test_unequal_counts_raise(tmp_path):
    """The message has both counts and both files."""
    message = error_message(data_dir(tmp_path, train_labels=some_labels(29)))
    assert "expected as many labels as images, got 30 images and 29 labels" in message
    assert FILES["train images"] in message
    assert FILES["train labels"] in message


def test_exchanged_files_raise(tmp_path):
    """Labels under the name of the images are detected by their number of dimensions."""
    directory = data_dir(tmp_path)
    shutil.copy(directory / FILES["train labels"], directory / FILES["train images"])
    message = error_message(directory)
    assert message.startswith(f"{directory / FILES['train images']}: ")
    assert "expected an IDX file of unsigned bytes with 3 dimensions, got" in message
    assert "an IDX file of unsigned bytes with 1 dimension (30)" in message


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_above_nine_raises(tmp_path, label):
    """The message has the first such label and its position."""
    labels = some_labels(12)
    labels[[4, 7]] = label
    message = error_message(data_dir(tmp_path, test_labels=labels))
    assert f"expected labels 0 to 9, got {label} at position 4" in message
    assert FILES["test labels"] in message


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_raises(tmp_path, split):
    """Train and test sets need at least one image."""
    empty = {f"{split}_images": some_images(0), f"{split}_labels": some_labels(0)}
    message = error_message(data_dir(tmp_path, **empty), validation_size=0)
    assert "expected at least one image, got none" in message
    assert FILES[f"{split} images"] in message


def test_images_of_another_size_raise(tmp_path):
    """The message has the expected dimensions and those of the file."""
    message = error_message(data_dir(tmp_path, test_images=np.zeros((12, 32, 32), np.uint8)))
    assert "expected dimensions any x 28 x 28, got 12 x 32 x 32" in message
    assert FILES["test images"] in message


@pytest.mark.parametrize("validation_size", [30, 31, 60_000])
def test_a_validation_size_of_all_images_raises(tmp_path, validation_size):
    """At least one image must be left to train on; the message has both numbers."""
    message = error_message(data_dir(tmp_path), validation_size)
    assert message.startswith(f"{tmp_path}: expected more than --validation_size={validation_size} training images")
    assert "got 30" in message
