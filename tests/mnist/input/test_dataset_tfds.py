"""A data_dir that tensorflow-datasets prepared, read back without a network."""

import errno
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from mnist.errors import DataError
from mnist.input import dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (42, 28, 28, 1), np.uint8)
LABELS = np.arange(42) % 10
FEATURES = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
SPLITS = {"train": range(30), "test": range(30, 42)}


def prepare(directory, *, features=FEATURES, splits=SPLITS, images=IMAGES, labels=LABELS, in_a_file=1000):
    """Has tensorflow-datasets write a small MNIST into a folder; `splits` says which images are in which."""
    directory.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="mnist", version=tfds.core.Version("3.0.1"), data_dir=str(directory), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=in_a_file)
    writer.initialize_splits(list(splits))
    # Under whatever names the features have: the first is the image, the second the label.
    writer.add_examples(
        {
            split: [dict(zip(features, (images[each], labels[each]), strict=True)) for each in chosen]
            for split, chosen in splits.items()
        }
    )
    writer.close_all()
    return directory


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data_dir as `tfds.load("mnist", data_dir=...)` leaves it; tests only read it, or copy it."""
    directory = tmp_path_factory.mktemp("tfds")
    prepare(directory / "mnist" / "3.0.1")
    return directory


def complaint(directory, **options):
    """The one sentence with which a data_dir is refused."""
    with pytest.raises(DataError) as refused:
        dataset.load(directory, 5, **options)
    sentence = str(refused.value)
    assert str(directory) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("below", ["mnist/3.0.1", "mnist", "."], ids=["version", "dataset", "data_dir"])
def test_a_tfds_directory_is_read_from_any_of_its_folders(prepared, below):
    """Be it the data_dir, the dataset's folder or the version's: the images come back in order, as they were."""
    data = dataset.load(prepared / below, validation_size=5)
    np.testing.assert_array_equal(data.train.images, IMAGES[:25, ..., 0], strict=True)
    np.testing.assert_array_equal(data.train.labels, LABELS[:25].astype(np.uint8), strict=True)
    np.testing.assert_array_equal(data.validation.images, IMAGES[25:30, ..., 0], strict=True)
    np.testing.assert_array_equal(data.validation.labels, LABELS[25:30].astype(np.uint8), strict=True)
    np.testing.assert_array_equal(data.test.images, IMAGES[30:, ..., 0], strict=True)
    np.testing.assert_array_equal(data.test.labels, LABELS[30:].astype(np.uint8), strict=True)


def test_the_last_images_validate_however_many_files_there_are(tmp_path):
    """Images that lie in several files come in the files' order: the last ones are tensorflow-datasets' train[-5:]."""
    directory = prepare(tmp_path / "mnist" / "3.0.1", in_a_file=20)
    last = tfds.as_numpy(tfds.builder_from_directory(directory).as_dataset(split="train[-5:]", batch_size=-1))
    np.testing.assert_array_equal(dataset.load(directory, 5).validation.images, last["image"][..., 0], strict=True)


def test_reading_it_again_gives_the_same_data(prepared):
    """Its order does not depend on chance: a run can go on."""
    assert dataset.load(prepared, 5).fingerprint == dataset.load(prepared, 0).fingerprint


def test_data_that_are_there_are_not_downloaded(prepared):
    """--download does nothing where the data are prepared already."""
    assert dataset.load(prepared, 5, download=True).fingerprint == dataset.load(prepared, 5).fingerprint


def test_mnist_is_found_among_others(prepared, tmp_path):
    """In a data_dir of several datasets, MNIST is the one that is meant."""
    shutil.copytree(prepared / "mnist", tmp_path / "mnist")
    prepare(tmp_path / "fashion_mnist" / "3.0.1", images=255 - IMAGES)
    assert dataset.load(tmp_path, 5).fingerprint == dataset.load(prepared, 5).fingerprint


def test_another_dataset_in_the_form_of_mnist_will_do(tmp_path):
    """Where Fashion-MNIST alone lies in the data_dir, it is read."""
    prepare(tmp_path / "fashion_mnist" / "3.0.1", images=255 - IMAGES)
    np.testing.assert_array_equal(dataset.load(tmp_path, 0).train.images, 255 - IMAGES[:30, ..., 0])


def test_two_versions_are_not_guessed_between(prepared, tmp_path):
    """Where two could be meant, both are named, and the choice is the user's."""
    for version in ("3.0.0", "3.0.1"):
        shutil.copytree(prepared / "mnist" / "3.0.1", tmp_path / "mnist" / version)
    sentence = complaint(tmp_path)
    assert str(tmp_path / "mnist" / "3.0.0") in sentence
    assert str(tmp_path / "mnist" / "3.0.1") in sentence


@pytest.mark.parametrize("name", ["run[1]", "with spaces", "größe-数字", "star*?"])
def test_a_tfds_directory_may_have_any_name(prepared, tmp_path, name):
    """Brackets, spaces and letters of any script in its path mean nothing but themselves."""
    directory = shutil.copytree(prepared, tmp_path / name)
    assert dataset.load(directory, 5).fingerprint == dataset.load(prepared, 5).fingerprint


def test_images_of_another_size_are_refused(tmp_path):
    """Images must be of 28 x 28 x 1 bytes."""
    features = FEATURES | {"image": tfds.features.Image(shape=(32, 32, 3))}
    prepare(tmp_path / "cifar10" / "1.0.0", features=features, images=np.zeros((42, 32, 32, 3), np.uint8))
    assert "images of uint8 (32, 32, 3) found, uint8 (28, 28, 1) wanted" in complaint(tmp_path)


def test_images_of_another_type_are_refused(tmp_path):
    """Images scaled to floats are none of MNIST's."""
    features = FEATURES | {"image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.float32)}
    prepare(tmp_path / "mnist" / "3.0.1", features=features, images=IMAGES / np.float32(255))
    assert "images of float32 (28, 28, 1) found, uint8 (28, 28, 1) wanted" in complaint(tmp_path)


def test_other_features_are_refused(tmp_path):
    """A dataset without 'image' and 'label' is told that both are wanted."""
    features = {"image": FEATURES["image"], "digit": FEATURES["label"]}
    prepare(tmp_path / "mnist" / "3.0.1", features=features)
    assert "features 'image' and 'label' wanted" in complaint(tmp_path)


@pytest.mark.parametrize("label", [10, 255, 256, 1000])
def test_a_label_above_nine_is_refused(tmp_path, label):
    """More than ten classes are refused; 256 is not taken for a 0."""
    labels = np.where(np.arange(42) == 7, label, LABELS)
    features = FEATURES | {"label": tfds.features.ClassLabel(num_classes=1001)}
    prepare(tmp_path / "mnist" / "3.0.1", features=features, labels=labels)
    assert "found at position 7, 0 to 9 wanted" in complaint(tmp_path)


def test_a_label_below_zero_is_refused(tmp_path):
    """So are labels that mean that there is none."""
    features = FEATURES | {"label": tfds.features.Scalar(dtype=np.int64)}
    prepare(tmp_path / "mnist" / "3.0.1", features=features, labels=LABELS - 1)
    assert "integers from 0 to 9 wanted" in complaint(tmp_path)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split_is_refused(tmp_path, missing):
    """There must be a train and a test split."""
    prepare(tmp_path / "mnist" / "3.0.1", splits={name: SPLITS[name] for name in SPLITS if name != missing})
    assert "'train' and 'test'" in complaint(tmp_path)


def flip_a_bit(path):
    """Damages a record."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    """Breaks the file off within a record."""
    path.write_bytes(path.read_bytes()[:-10])


def empty(path):
    """Leaves no record at all."""
    path.write_bytes(b"")


def remove(path):
    """Deletes the file."""
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, empty, remove])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_record_file_is_refused(prepared, tmp_path, split, damage):
    """Records that are damaged or missing are one sentence; nobody trains on what is left."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    damage(min((tmp_path / "mnist" / "3.0.1").glob(f"mnist-{split}.tfrecord*")))
    assert "could not read" in complaint(tmp_path)


def test_a_file_that_lost_its_last_records_is_refused(prepared, tmp_path):
    """A file cut between two records, which reads well to its end, is found out by its count."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    path = max((tmp_path / "mnist" / "3.0.1").glob("mnist-test.tfrecord*"))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")  # a record is its length, a checksum, its bytes, a checksum
    path.write_bytes(content[: 8 + 4 + length + 4])
    assert "could not read" in complaint(tmp_path)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{", "[]"], ids=["empty", "cut", "another"])
def test_damaged_metadata_are_refused(prepared, tmp_path, name, content):
    """So is what describes the records."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mnist" / "3.0.1" / name).write_text(content)
    assert "could not read" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (MemoryError(), "not enough memory"),
        (tf.errors.ResourceExhaustedError(None, None, "x; Too many open files"), "Too many open files"),
    ],
    ids=["descriptors", "memory", "TensorFlow's"],
)
def test_a_shortage_is_not_damage(prepared, monkeypatch, error, told):
    """Where the library fails for want of memory or descriptors, no other copy of the data is asked for."""

    def refuse(_):
        raise error

    monkeypatch.setattr(tfds, "builder_from_directory", refuse)
    sentence = complaint(prepared)
    assert told in sentence
    assert "good copy" not in sentence
    assert "run the same command again" in sentence


@pytest.fixture(scope="module")
def no_network():
    """A machine without network, where nothing is tried again.

    It lasts as long as the module, for the library's threads outlive the download that failed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        patch.setattr(downloader, "MAX_RETRIES", 0)
        yield


@pytest.mark.usefixtures("no_network")
def test_without_a_network_a_download_is_refused_twice(tmp_path):
    """What a failed download leaves behind is not taken for data: the next one fails in the same sentence."""
    for _ in range(2):
        assert "could not prepare MNIST" in complaint(tmp_path / "new", download=True)


@pytest.mark.usefixtures("no_network")
def test_a_download_fails_for_want_of_a_network_only(tmp_path):
    """All else that a download needs is installed: the sentence tells of the connection."""
    assert "storage.googleapis.com" in complaint(tmp_path, download=True)


def test_nothing_is_downloaded_into_a_file(tmp_path):
    """A data_dir that is a file is refused, and stays as it is."""
    path = tmp_path / "mnist"
    path.write_text("mine")
    complaint(path, download=True)
    assert path.read_text() == "mine"
