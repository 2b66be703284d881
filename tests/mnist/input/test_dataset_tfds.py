"""Read a data_dir that tensorflow-datasets prepared, without a network."""

import errno
import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from mnist.errors import DataError
from mnist.input import dataset
from tests.checkpoints import flip_a_bit

IMAGES = np.random.default_rng(0).integers(0, 256, (42, 28, 28, 1), np.uint8)
LABELS = np.arange(42) % 10
FEATURES = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
SPLITS = {"train": range(30), "test": range(30, 42)}


def prepare(
    directory,
    *,
    features=FEATURES,
    splits=SPLITS,
    images=IMAGES,
    labels=LABELS,
    in_a_file=1000,
    name="mnist",
    config=None,
):
    """Write a small dataset with tensorflow-datasets; `splits` maps names to the indices of their images."""
    directory.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(directory.name),
        data_dir=str(directory),
        module_name="",
        config_name=config,
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=in_a_file)
    writer.initialize_splits(list(splits))
    # The first feature is the image, the second the label, whatever their names.
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
    """A data_dir as written by `tfds.load("mnist", data_dir=...)`; tests read or copy it."""
    directory = tmp_path_factory.mktemp("tfds")
    prepare(directory / "mnist" / "3.0.1")
    return directory


def error_message(directory, **options):
    """The message and the hint of the error for a data_dir, as two lines."""
    with pytest.raises(DataError) as raised:
        dataset.load(directory, 5, **options)
    message, hint = str(raised.value), raised.value.hint or ""
    assert str(directory) in message
    for line in (message, hint):
        assert not line.endswith(".")
        assert "\n" not in line
    return f"{message}\nhint: {hint}"


@pytest.mark.parametrize("below", ["mnist/3.0.1", "mnist", "."], ids=["version", "dataset", "data_dir"])
def test_a_tfds_directory_is_found_at_any_level(prepared, below):
    """The directory of TFDS, of the dataset or of its version; images and labels are read in order, unchanged."""
    data = dataset.load(prepared / below, validation_size=5)
    np.testing.assert_array_equal(data.train.images, IMAGES[:25, ..., 0], strict=True)
    np.testing.assert_array_equal(data.train.labels, LABELS[:25].astype(np.uint8), strict=True)
    np.testing.assert_array_equal(data.validation.images, IMAGES[25:30, ..., 0], strict=True)
    np.testing.assert_array_equal(data.validation.labels, LABELS[25:30].astype(np.uint8), strict=True)
    np.testing.assert_array_equal(data.test.images, IMAGES[30:, ..., 0], strict=True)
    np.testing.assert_array_equal(data.test.labels, LABELS[30:].astype(np.uint8), strict=True)


def test_the_validation_split_does_not_depend_on_the_number_of_files(tmp_path):
    """Files are read in order, so the last images are those of the TFDS split train[-5:]."""
    directory = prepare(tmp_path / "mnist" / "3.0.1", in_a_file=20)
    last = tfds.as_numpy(tfds.builder_from_directory(directory).as_dataset(split="train[-5:]", batch_size=-1))
    np.testing.assert_array_equal(dataset.load(directory, 5).validation.images, last["image"][..., 0], strict=True)


def test_reading_again_gives_the_same_fingerprint(prepared):
    """The order is deterministic, so a run can be resumed."""
    assert dataset.load(prepared, 5).fingerprint == dataset.load(prepared, 0).fingerprint


def test_prepared_data_are_not_downloaded_again(prepared):
    """download=True has no effect on a prepared data_dir."""
    assert dataset.load(prepared, 5, download=True).fingerprint == dataset.load(prepared, 5).fingerprint


def test_mnist_is_preferred_to_other_datasets(prepared, tmp_path):
    """In a data_dir of several datasets, MNIST is read."""
    shutil.copytree(prepared / "mnist", tmp_path / "mnist")
    prepare(tmp_path / "fashion_mnist" / "3.0.1", name="fashion_mnist", images=255 - IMAGES)
    assert dataset.load(tmp_path, 5).fingerprint == dataset.load(prepared, 5).fingerprint


def test_another_dataset_in_the_form_of_mnist_is_read(tmp_path):
    """If Fashion-MNIST is the only dataset in the data_dir, it is read."""
    prepare(tmp_path / "fashion_mnist" / "3.0.1", name="fashion_mnist", images=255 - IMAGES)
    np.testing.assert_array_equal(dataset.load(tmp_path, 0).train.images, 255 - IMAGES[:30, ..., 0])


def prepare_emnist(directory, config="digits", **options):
    """Write a dataset as `tfds.load("emnist/digits", data_dir=...)` does: with transposed images."""
    images = IMAGES.transpose(0, 2, 1, 3)
    prepare(directory / "emnist" / config / "3.1.0", name="emnist", config=config, images=images, **options)


@pytest.mark.parametrize("below", [".", "emnist", "emnist/digits", "emnist/digits/3.1.0"])
def test_the_images_of_emnist_are_put_upright(prepared, tmp_path, caplog, below):
    """At any level of the directory; the data are then those of upright images, and a sentence in the log says so."""
    prepare_emnist(tmp_path)
    with caplog.at_level(logging.INFO, "mnist"):
        data = dataset.load(tmp_path / below, 5)
    assert data.fingerprint == dataset.load(prepared, 5).fingerprint
    np.testing.assert_array_equal(data.test.images, IMAGES[30:, ..., 0], strict=True)
    assert caplog.messages == [
        f"{tmp_path / 'emnist/digits/3.1.0'}: the images of EMNIST are transposed in its files, and were put upright"
    ]


def test_mnist_is_preferred_to_emnist(prepared, tmp_path):
    """If both are in the data_dir."""
    shutil.copytree(prepared / "mnist", tmp_path / "mnist")
    prepare_emnist(tmp_path, labels=9 - LABELS)
    assert dataset.load(tmp_path, 5).fingerprint == dataset.load(prepared, 5).fingerprint


def test_the_letters_of_emnist_raise(tmp_path):
    """There are more than ten of them."""
    features = FEATURES | {"label": tfds.features.ClassLabel(num_classes=37)}
    prepare_emnist(tmp_path, "letters", features=features, labels=1 + np.arange(42) % 26)
    assert "expected labels 0 to 9, got 10 at position 9" in error_message(tmp_path)


def test_several_configurations_of_emnist_raise(tmp_path):
    """The message lists them, and the hint says how to choose one."""
    for config in ("digits", "mnist"):
        prepare_emnist(tmp_path, config)
    message = error_message(tmp_path)
    assert f"expected one dataset, got {tmp_path}/emnist/digits/3.1.0, {tmp_path}/emnist/mnist/3.1.0" in message
    assert "give one of them as --data_dir" in message


def test_two_versions_raise(prepared, tmp_path):
    """The message lists both, and the hint says how to choose one."""
    for version in ("3.0.0", "3.0.1"):
        shutil.copytree(prepared / "mnist" / "3.0.1", tmp_path / "mnist" / version)
    message = error_message(tmp_path)
    assert str(tmp_path / "mnist" / "3.0.0") in message
    assert str(tmp_path / "mnist" / "3.0.1") in message


@pytest.mark.parametrize("name", ["run[1]", "with spaces", "größe-数字", "star*?"])
def test_a_tfds_directory_may_have_any_name(prepared, tmp_path, name):
    """Brackets, spaces and non-ASCII letters in its path have no special meaning."""
    directory = shutil.copytree(prepared, tmp_path / name)
    assert dataset.load(directory, 5).fingerprint == dataset.load(prepared, 5).fingerprint


def test_images_of_another_size_raise(tmp_path):
    """The message has the expected and the actual shape."""
    features = FEATURES | {"image": tfds.features.Image(shape=(32, 32, 3))}
    prepare(tmp_path / "cifar10" / "1.0.0", features=features, images=np.zeros((42, 32, 32, 3), np.uint8))
    assert "expected images of uint8 (28, 28, 1), got uint8 (32, 32, 3)" in error_message(tmp_path)


def test_images_of_another_dtype_raise(tmp_path):
    """Images scaled to floats are not in MNIST's form."""
    features = FEATURES | {"image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.float32)}
    prepare(tmp_path / "mnist" / "3.0.1", features=features, images=IMAGES / np.float32(255))
    assert "expected images of uint8 (28, 28, 1), got float32 (28, 28, 1)" in error_message(tmp_path)


def test_other_features_raise(tmp_path):
    """A dataset needs the features 'image' and 'label'."""
    features = {"image": FEATURES["image"], "digit": FEATURES["label"]}
    prepare(tmp_path / "mnist" / "3.0.1", features=features)
    assert "expected features 'image' and 'label'" in error_message(tmp_path)


@pytest.mark.parametrize("label", [10, 255, 256, 1000])
def test_a_label_above_nine_raises(tmp_path, label):
    """A label of 256 is not wrapped to 0."""
    labels = np.where(np.arange(42) == 7, label, LABELS)
    features = FEATURES | {"label": tfds.features.ClassLabel(num_classes=1001)}
    prepare(tmp_path / "mnist" / "3.0.1", features=features, labels=labels)
    message = error_message(tmp_path)
    assert "expected labels 0 to 9, got " in message
    assert "at position 7" in message


def test_a_label_below_zero_raises(tmp_path):
    """As some datasets mark images without a label."""
    features = FEATURES | {"label": tfds.features.Scalar(dtype=np.int64)}
    prepare(tmp_path / "mnist" / "3.0.1", features=features, labels=LABELS - 1)
    assert "expected labels 0 to 9, got -1" in error_message(tmp_path)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split_raises(tmp_path, missing):
    """The splits train and test are required."""
    prepare(tmp_path / "mnist" / "3.0.1", splits={name: SPLITS[name] for name in SPLITS if name != missing})
    assert "'train' and 'test'" in error_message(tmp_path)


def cut_short(path):
    """Truncate a file within a record."""
    path.write_bytes(path.read_bytes()[:-10])


def empty(path):
    """Truncate a file to no records."""
    path.write_bytes(b"")


def remove(path):
    """Delete a file."""
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, empty, remove])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_record_file_raises(prepared, tmp_path, split, damage):
    """The remaining records are not used."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    damage(min((tmp_path / "mnist" / "3.0.1").glob(f"mnist-{split}.tfrecord*")))
    assert "could not read" in error_message(tmp_path)


def test_a_file_without_its_last_records_raises(prepared, tmp_path):
    """A file truncated between two records is readable, but has too few records."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    path = max((tmp_path / "mnist" / "3.0.1").glob("mnist-test.tfrecord*"))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")  # a record is its length, a checksum, its bytes, a checksum
    path.write_bytes(content[: 8 + 4 + length + 4])
    assert "could not read" in error_message(tmp_path)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "{", "[]"], ids=["empty", "cut", "another"])
def test_damaged_metadata_raise(prepared, tmp_path, name, content):
    """The JSON files that describe the records are checked by the library."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mnist" / "3.0.1" / name).write_text(content)
    assert "could not read" in error_message(tmp_path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (MemoryError(), "not enough memory"),
        (tf.errors.ResourceExhaustedError(None, None, "x; Too many open files"), "Too many open files"),
    ],
    ids=["descriptors", "memory", "TensorFlow's"],
)
def test_a_temporary_error_is_not_damage(prepared, monkeypatch, error, reason):
    """If the library lacks memory or descriptors, the hint is to retry, not to replace the data."""

    def refuse(_):
        raise error

    monkeypatch.setattr(tfds, "builder_from_directory", refuse)
    message = error_message(prepared)
    assert reason in message
    assert "good copy" not in message
    assert "run the same command again" in message


@pytest.fixture(scope="module")
def no_network():
    """A machine without a network, on which the library does not retry.

    Of module scope, because the library's threads outlive a failed download.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        patch.setattr(downloader, "MAX_RETRIES", 0)
        yield


@pytest.mark.usefixtures("no_network")
def test_a_failed_download_can_be_repeated(tmp_path):
    """Leftovers of a failed download are not read as data: the next one fails in the same way."""
    for _ in range(2):
        assert "could not prepare MNIST" in error_message(tmp_path / "new", download=True)


@pytest.mark.usefixtures("no_network")
def test_a_download_fails_at_the_connection(tmp_path):
    """Everything else that a download needs is installed; the message has the unreachable host."""
    assert "storage.googleapis.com" in error_message(tmp_path, download=True)


def test_download_does_not_replace_a_file(tmp_path):
    """A data_dir that is a file raises, and the file is unchanged."""
    path = tmp_path / "mnist"
    path.write_text("mine")
    error_message(path, download=True)
    assert path.read_text() == "mine"
