import numpy as np
import pytest
import tensorflow as tf

from mnist.input.dataset import BUNDLED, Split
from mnist.model import networks, signatures, training_graph

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)


def predict(name, inputs):
    """The outputs of a signature of a newly initialized cnn."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        served = signatures.build_signatures(networks.Cnn(0, dropout_rate=0.5))[name]
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run(served.outputs, {served.inputs[key]: value for key, value in inputs.items()})


def png(image):
    """The bytes of a PNG file; image uint8 [H, W] or [H, W, channels]."""
    return tf.io.encode_png(np.atleast_3d(image)).numpy()


def test_png_files_give_the_predictions_of_their_pixels():
    """Bit for bit."""
    raw = predict("serving_default", {"images": IMAGES})
    from_png = predict("png", {"png": [png(image) for image in IMAGES]})
    assert np.array_equal(raw["classes"], from_png["classes"])
    assert np.array_equal(raw["probabilities"], from_png["probabilities"])


def test_shapes_and_dtypes_of_outputs():
    """classes: int64 [N], the largest index of probabilities: float32 [N, 10], with a sum of 1."""
    outputs = predict("serving_default", {"images": IMAGES})
    assert outputs["classes"].dtype == np.int64
    assert outputs["classes"].shape == (3,)
    assert outputs["probabilities"].dtype == np.float32
    assert outputs["probabilities"].sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(outputs["probabilities"].argmax(axis=1), outputs["classes"])


def test_a_png_of_another_size_raises():
    """It is not resized."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        predict("png", {"png": [png(np.zeros((29, 28), np.uint8))]})


def test_labels_are_the_lines_of_a_file():
    """The signature `labels` returns the names of classes, from a file that is an asset of the graph."""
    names = (BUNDLED / "labels.txt").read_text().splitlines()
    assert names == list("0123456789")
    with tf.Graph().as_default() as built, tf.compat.v1.Session() as session:
        served = signatures.build_signatures(networks.Cnn(0, dropout_rate=0.5))
        session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
        feed = {served["labels"].inputs["images"]: IMAGES}
        labels, classes = session.run(
            [served["labels"].outputs["labels"], served["serving_default"].outputs["classes"]], feed
        )
        assert labels.tolist() == [names[number].encode() for number in classes]
        [asset] = built.get_collection(tf.compat.v1.GraphKeys.ASSET_FILEPATHS)
        assert session.run(asset).decode().endswith("labels.txt")


def test_training_signatures_suffice_to_train():
    """They load the data, apply updates, and predict, without any other name of the graph."""
    built = training_graph.build(
        networks.Softmax,
        Split(IMAGES, np.arange(3, dtype=np.uint8)),
        batch_size=2,
        seed=0,
        make_optimizer=lambda rate: training_graph.make_optimizer("sgd", rate, momentum=0.9),
        learning_rate=lambda _: tf.constant(0.5),
    )
    served = signatures.training_signatures(built)
    assert list(served) == ["serving_default", "train", "load_data"]
    with tf.compat.v1.Session(graph=built.graph) as session, built.graph.as_default():
        session.run(tf.compat.v1.global_variables_initializer())
        data = {"train_images": IMAGES, "train_labels": np.arange(3, dtype=np.uint8)}
        inputs = served["load_data"].inputs
        session.run(tf.compat.v1.local_variables_initializer(), {inputs[name]: data[name] for name in data})
        update = session.run(served["train"].outputs, {served["train"].inputs["steps_to_run"]: 5})
        assert (update["step"], update["learning_rate"]) == (5, 0.5)
        assert np.isfinite(update["loss"])
        outputs = session.run(served["serving_default"].outputs, {served["serving_default"].inputs["images"]: IMAGES})
        assert outputs["probabilities"].shape == (3, 10)
