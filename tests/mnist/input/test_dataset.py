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

from mnist.errors import DataError
from mnist.input import dataset, idx
from tests import odd_files

FILES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
# As the MNIST database's page gave the files out; the digests are of the uncompressed bytes.
BUNDLED_SHA256 = {
    "train images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def some_images(count, seed=0):
    """Images of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def some_labels(count):
    """Labels that go round."""
    return (np.arange(count) % 10).astype(np.uint8)


ARRAYS = {
    "train images": some_images(30),
    "train labels": some_labels(30),
    "test images": some_images(12, seed=1),
    "test labels": some_labels(12),
}


def idx_file(array):
    """The bytes of an array's IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def plain(directory, name, content):
    """Puts a file there as it is."""
    (directory / name).write_bytes(content)


def compressed(directory, name, content):
    """Puts it there as gzip."""
    (directory / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))


def dotted(directory, name, content):
    """Puts it there under the other name that is in use."""
    plain(directory, name.replace("-idx", ".idx"), content)


def dotted_compressed(directory, name, content):
    """Puts it there as gzip under that name."""
    compressed(directory, name.replace("-idx", ".idx"), content)


SPELLINGS = (plain, compressed, dotted, dotted_compressed)


def data_dir(directory, spellings=(plain,) * 4, **arrays):
    """A folder of the four files, each in its own spelling; `train_labels=` and the like replace an array."""
    directory.mkdir(exist_ok=True)
    for (part, name), put in zip(FILES.items(), spellings, strict=True):
        put(directory, name, idx_file(arrays.get(part.replace(" ", "_"), ARRAYS[part])))
    return directory


def complaint(directory, validation_size=5, **options):
    """The one sentence with which a data_dir is refused."""
    with pytest.raises(DataError) as refused:
        dataset.load(directory, validation_size, **options)
    sentence = str(refused.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def assert_is(data, validation_size=5):
    """The data are ARRAYS, split."""
    size = 30 - validation_size
    np.testing.assert_array_equal(data.train.images, ARRAYS["train images"][:size], strict=True)
    np.testing.assert_array_equal(data.train.labels, ARRAYS["train labels"][:size], strict=True)
    np.testing.assert_array_equal(data.validation.images, ARRAYS["train images"][size:], strict=True)
    np.testing.assert_array_equal(data.validation.labels, ARRAYS["train labels"][size:], strict=True)
    np.testing.assert_array_equal(data.test.images, ARRAYS["test images"], strict=True)
    np.testing.assert_array_equal(data.test.labels, ARRAYS["test labels"], strict=True)


@pytest.fixture(scope="module")
def bundled():
    """The MNIST that comes with the package, all of it for training."""
    return dataset.load(None, validation_size=0)


def test_without_a_data_dir_it_is_mnist(bundled):
    """The bundled files hold, to the last bit, what the MNIST database gave out."""
    arrays = zip(FILES, (*bundled.train, *bundled.test), strict=True)
    assert {part: idx.sha256(array) for part, array in arrays} == BUNDLED_SHA256


def test_without_validation_all_images_train(bundled):
    """validation_size=0 trains on all 60,000 and leaves nothing to validate by."""
    assert bundled.train.images.shape == (60_000, 28, 28)
    assert bundled.train.labels.shape == (60_000,)
    assert bundled.validation.images.shape == (0, 28, 28)
    assert bundled.validation.labels.shape == (0,)
    assert bundled.test.images.shape == (10_000, 28, 28)
    assert bundled.test.labels.shape == (10_000,)


def test_the_last_images_validate(bundled):
    """Of the bundled 60,000, the last 5,000 validate, 55,000 train, and the test set is as it was."""
    data = dataset.load(None, validation_size=5000)
    assert (len(data.train.images), len(data.validation.images), len(data.test.images)) == (55_000, 5_000, 10_000)
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (55_000, 5_000, 10_000)
    for split in ("images", "labels"):
        parts = [getattr(data.train, split), getattr(data.validation, split)]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(bundled.train, split), strict=True)
        np.testing.assert_array_equal(getattr(data.test, split), getattr(bundled.test, split), strict=True)


def test_a_data_dir_of_mnist_is_the_bundled_mnist(bundled, tmp_path):
    """The same bytes are the same data, whether bundled or from a folder: a run can go on with either."""
    shutil.copytree(dataset.BUNDLED, tmp_path, dirs_exist_ok=True)
    assert dataset.load(tmp_path, validation_size=0).fingerprint == bundled.fingerprint


def flip_a_bit(path):
    """Damages the gzip data."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    """Breaks a file off."""
    path.write_bytes(path.read_bytes()[:-100])


def alter_a_label(path):
    """Makes another, valid file of it: only its digest can tell."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] = 9 - content[-1]
    path.write_bytes(gzip.compress(content))


@pytest.mark.parametrize("name", [f"{name}.gz" for name in FILES.values()])
@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_a_damaged_bundled_file_is_refused(tmp_path, monkeypatch, name, damage):
    """Nobody trains on a damaged checkout, whichever of the files it is."""
    monkeypatch.setattr(dataset, "BUNDLED", shutil.copytree(dataset.BUNDLED, tmp_path / "data"))
    damage(tmp_path / "data" / name)
    assert str(tmp_path / "data" / name) in complaint(None)


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_an_altered_bundled_file_is_refused(tmp_path, monkeypatch, name):
    """One other label in an otherwise sound file is found by its digest."""
    monkeypatch.setattr(dataset, "BUNDLED", shutil.copytree(dataset.BUNDLED, tmp_path / "data"))
    alter_a_label(tmp_path / "data" / name)
    sentence = complaint(None)
    assert str(tmp_path / "data" / name) in sentence
    assert "the bundled MNIST is damaged" in sentence


@pytest.mark.parametrize("name", FILES.values())
def test_a_missing_bundled_file_is_refused(tmp_path, monkeypatch, name):
    """A checkout that lacks one of the files says which."""
    monkeypatch.setattr(dataset, "BUNDLED", shutil.copytree(dataset.BUNDLED, tmp_path / "data"))
    (tmp_path / "data" / f"{name}.gz").unlink()
    assert f"{name}.gz" in complaint(None)


@pytest.mark.parametrize(
    "content", [None, b"", b"half a line", b"\xff\xfe\n"], ids=["absent", "empty", "cut", "binary"]
)
def test_bundled_files_that_cannot_be_verified_are_refused(tmp_path, monkeypatch, content):
    """Without a whole list of digests, the bundled MNIST is damaged, and one sentence says so."""
    monkeypatch.setattr(dataset, "BUNDLED", shutil.copytree(dataset.BUNDLED, tmp_path / "data"))
    sums = tmp_path / "data" / "SHA256SUMS.uncompressed"
    sums.unlink()
    if content is not None:
        sums.write_bytes(content)
    assert "SHA256SUMS.uncompressed" in complaint(None)


def test_files_are_found_in_any_mix_of_spellings(tmp_path):
    """Plain or .gz, canonical or dotted names: each of the four files may be spelled any way."""
    for number, spellings in enumerate(itertools.product(SPELLINGS, repeat=4)):
        assert_is(dataset.load(data_dir(tmp_path / str(number), spellings), validation_size=5))


def test_a_plain_file_goes_before_its_gzip(tmp_path):
    """Where a file lies there both packed and unpacked, the unpacked one is read."""
    directory = data_dir(tmp_path, (compressed,) * 4, train_images=some_images(30, seed=2))
    plain(directory, FILES["train images"], idx_file(ARRAYS["train images"]))
    assert_is(dataset.load(directory, validation_size=5))


@pytest.mark.parametrize("name", ["run[1]", "with spaces", "größe-数字", "star*?"])
def test_a_data_dir_may_have_any_name(tmp_path, name):
    """Brackets, spaces and letters of any script in a path mean nothing but themselves."""
    assert_is(dataset.load(data_dir(tmp_path / name), validation_size=5))


def test_any_data_in_the_form_of_mnist_will_do(tmp_path):
    """The sizes are the files' own, and not all ten classes need be there."""
    labels = np.full(7, 3, np.uint8)
    data = dataset.load(data_dir(tmp_path, test_images=some_images(7), test_labels=labels), validation_size=29)
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (1, 29, 7)


def test_the_fingerprint_does_not_depend_on_where_data_came_from(tmp_path):
    """Packed or not, split one way or another, the same images and labels have the same fingerprint."""
    one = dataset.load(data_dir(tmp_path / "one"), validation_size=5)
    other = dataset.load(data_dir(tmp_path / "other", (dotted_compressed,) * 4), validation_size=0)
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("part", FILES)
def test_the_fingerprint_tells_any_change(tmp_path, part):
    """One other byte in any of the four files makes other data of them."""
    changed = ARRAYS[part].copy()
    changed.flat[-1] = 9 - changed.flat[-1] % 10
    one = dataset.load(data_dir(tmp_path / "one"), validation_size=5)
    other = dataset.load(data_dir(tmp_path / "other", **{part.replace(" ", "_"): changed}), validation_size=5)
    assert one.fingerprint != other.fingerprint


def test_exchanged_splits_are_other_data(tmp_path):
    """Training on the test set has a fingerprint of its own."""
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
    """Where one of the four files is missing, the sentence says which, and all names that it might have."""
    (data_dir(tmp_path) / FILES[part]).unlink()
    sentence = complaint(tmp_path)
    assert sentence.startswith(f"{tmp_path}: ")
    assert f"the file of {part} is missing" in sentence
    for put in SPELLINGS:
        (shown := tmp_path / put.__name__).mkdir()
        put(shown, FILES[part], b"")
        assert next(shown.iterdir()).name in sentence


def test_a_missing_file_is_not_downloaded(tmp_path):
    """Beside files of somebody's own, --download does not put others."""
    (data_dir(tmp_path) / FILES["test labels"]).unlink()
    assert "the file of test labels is missing" in complaint(tmp_path, download=True)


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "link to a FIFO", "directory"])
def test_what_is_no_file_is_named_at_once(tmp_path, part, kind):
    """What lies in the place of one of the four files is named as what it is, and nothing waits for it."""
    path = odd_files.make(kind, data_dir(tmp_path) / FILES[part])
    with odd_files.no_hang():
        assert complaint(tmp_path).startswith(f"{path}: cannot be read (")


def test_nothing_waits_for_what_a_tfds_directory_holds(tmp_path):
    """A FIFO among the files of tensorflow-datasets is named before the library opens it."""
    (tmp_path / "dataset_info.json").write_text("{}")
    path = odd_files.make("FIFO", tmp_path / "mnist-train.tfrecord-00000-of-00001")
    with odd_files.no_hang():
        assert complaint(tmp_path).startswith(f"{path}: cannot be read (expected a regular file, got a FIFO)")


def test_without_descriptors_the_bundled_mnist_is_not_called_damaged():
    """EMFILE says nothing about the data: the sentence names the file that could not be opened, and the shortage."""
    with odd_files.no_descriptors():
        sentence = complaint(None)
    assert sentence.startswith(f"{dataset.BUNDLED / FILES['train images']}.gz: cannot be read (Too many open files)")
    assert "run the same command again" in sentence


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.EACCES])
def test_a_shortage_at_the_last_file_is_not_damage_either(monkeypatch, number):
    """Nor is it where the list of digests is what cannot be opened."""
    sums = dataset.BUNDLED / "SHA256SUMS.uncompressed"
    open_file = os.open

    def refuse(path, *arguments, **options):
        if os.fspath(path) == str(sums):
            raise OSError(number, os.strerror(number), str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    sentence = complaint(None)
    assert sentence.startswith(f"{sums}: cannot be read ({os.strerror(number)})")
    assert "damaged" not in sentence


def test_files_that_do_not_belong_together_are_not_unpacked(tmp_path, monkeypatch):
    """Where images and labels differ in number by their headers, that is said before any data are read."""
    monkeypatch.setattr(idx, "read", None)
    assert "30 images and 29 labels found" in complaint(data_dir(tmp_path, train_labels=some_labels(29)))


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
def test_a_gzip_bomb_takes_no_memory(tmp_path, labels):
    """A gigabyte of blank images in a megabyte is refused within 64 MiB, whatever labels lie beside it."""
    directory = data_dir(tmp_path)
    count = 1_370_000
    block = gzip.compress(bytes(784 * 10_000))
    header = gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28))
    (directory / FILES["train images"]).write_bytes(header + count // 10_000 * block)
    if labels == "as many":
        (directory / FILES["train labels"]).write_bytes(idx_file(np.zeros(count, np.uint8)))
    command = [sys.executable, "-c", MEASURED, str(directory)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, sentence = ended.stdout.split(maxsplit=1)
    assert int(kilobytes) < 64 << 10
    assert sentence.startswith(f"{directory / FILES['train images']}")


def test_too_little_memory_for_the_data_is_told(tmp_path):
    """Data that are there, but do not fit into memory, are one sentence with the bytes that they need."""
    directory = data_dir(tmp_path)
    images, labels = (directory / FILES[f"train {what}"] for what in ("images", "labels"))
    count = 1 << 20
    images.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28))
    labels.write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", count))
    os.truncate(images, 16 + count * 784)
    os.truncate(labels, 8 + count)
    with odd_files.little_memory(256 << 20):
        assert f"not enough memory for {count * 784:,} bytes" in complaint(directory)


def test_a_missing_data_dir_is_told(tmp_path):
    """A data_dir that is not there is refused with its name and what to do."""
    sentence = complaint(tmp_path / "absent")
    assert sentence.startswith(f"{tmp_path / 'absent'}: ")
    assert "directory" in sentence
    assert "--download" in sentence


def test_a_file_is_no_data_dir(tmp_path):
    """A file given as data_dir is refused as what it is: the path is there, but it is no directory."""
    path = tmp_path / "mnist.npz"
    path.write_bytes(b"PK")
    for download in (False, True):
        assert complaint(path, download=download).startswith(f"{path}: expected a directory, got a file")


@pytest.mark.parametrize("kind", ["FIFO", "device", "link to itself"])
def test_nor_is_anything_else(tmp_path, kind):
    """A FIFO, a device or a link to nowhere given as data_dir is named."""
    path = odd_files.make(kind, tmp_path / "data")
    with odd_files.no_hang():
        assert complaint(path).startswith(f"{path}: ")


def test_one_of_the_files_is_no_data_dir(tmp_path):
    """Nor is one of the four files taken for the folder that it lies in."""
    path = data_dir(tmp_path) / FILES["train images"]
    assert complaint(path).startswith(f"{path}: ")


def test_an_empty_data_dir_says_what_was_looked_for(tmp_path):
    """A directory without data is refused with the names looked for and what to do."""
    sentence = complaint(tmp_path)
    assert sentence.startswith(f"{tmp_path}: no data found")
    for looked_for in (*FILES.values(), "TFDS", "--download"):
        assert looked_for in sentence


@contextmanager
def forbidden(directory):
    """Keeps everybody from looking into a directory, root included, whom permissions alone do not keep."""
    user = os.geteuid()
    directory.chmod(0)
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)
        directory.chmod(0o700)


def test_a_data_dir_without_permission_is_told(tmp_path):
    """A directory that may not be looked into is neither taken for an empty one nor an error without a sentence."""
    directory = data_dir(tmp_path / "data")
    with forbidden(directory):
        sentence = complaint(directory)
    assert "Permission denied" in sentence
    assert "permission to read it" in sentence


def test_images_without_labels_are_refused(tmp_path):
    """As many labels as images are wanted: the sentence tells both numbers and both files."""
    sentence = complaint(data_dir(tmp_path, train_labels=some_labels(29)))
    assert "30 images and 29 labels found" in sentence
    assert FILES["train images"] in sentence
    assert FILES["train labels"] in sentence


def test_exchanged_files_are_refused(tmp_path):
    """Labels under the name of the images are told by their dimensions."""
    directory = data_dir(tmp_path)
    shutil.copy(directory / FILES["train labels"], directory / FILES["train images"])
    sentence = complaint(directory)
    assert sentence.startswith(f"{directory / FILES['train images']}: ")
    assert "expected the first bytes [00 00 08 03], got [00 00 08 01]" in sentence


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_above_nine_is_refused(tmp_path, label):
    """There are ten classes: the first label beyond them is told with its position."""
    labels = some_labels(12)
    labels[[4, 7]] = label
    sentence = complaint(data_dir(tmp_path, test_labels=labels))
    assert f"label {label} found at position 4, 0 to 9 wanted" in sentence
    assert FILES["test labels"] in sentence


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_refused(tmp_path, split):
    """There must be something to train on, and something to judge by."""
    empty = {f"{split}_images": some_images(0), f"{split}_labels": some_labels(0)}
    sentence = complaint(data_dir(tmp_path, **empty), validation_size=0)
    assert "no images found, at least one wanted" in sentence
    assert FILES[f"{split} images"] in sentence


def test_images_of_another_size_are_refused(tmp_path):
    """Images must be of 28 x 28 pixels."""
    sentence = complaint(data_dir(tmp_path, test_images=np.zeros((12, 32, 32), np.uint8)))
    assert "expected dimensions any x 28 x 28, got 12 x 32 x 32" in sentence
    assert FILES["test images"] in sentence


@pytest.mark.parametrize("validation_size", [30, 31, 60_000])
def test_validation_must_leave_something_to_train_on(tmp_path, validation_size):
    """A validation_size that takes all training images is refused, with both numbers."""
    sentence = complaint(data_dir(tmp_path), validation_size)
    assert sentence.startswith(f"{tmp_path}: 30 training images found")
    assert f"--validation_size={validation_size}" in sentence
