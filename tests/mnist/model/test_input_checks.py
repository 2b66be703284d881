"""Each input of each signature is held to its shape by the graph, also where no placeholder's shape is checked."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from checkpointing.format import tensor_io
from checkpointing.graphs import saved_model
from checkpointing.graphs.saved_model import TaggedGraph
from mnist.model import networks, signatures, training_graph
from tests import digit_graph

v1 = tf.compat.v1

PNG, LARGE = (tf.io.encode_png(np.zeros((size, size, 1), np.uint8)).numpy() for size in (28, 56))

# One of these matches by broadcasting.
WRONG = [*digit_graph.WRONG_SHAPES, (0, 56, 56), (2, 14, 56), (28, 28, 1), (784,), ()]


def shape_error():
    """The error of a check in the graph."""
    return pytest.raises(tf.errors.InvalidArgumentError, match="Shape of tensor")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A SavedModel of a softmax."""
    directory = tmp_path_factory.mktemp("exported")
    weights = np.random.default_rng(1).normal(size=(784, 10)).astype(np.float32)
    tensor_io.write(directory / "model", {"layer1/weights": weights, "layer1/biases": np.zeros(10, np.float32)})
    tagged = TaggedGraph(["serve"], lambda: signatures.build_signatures(networks.Softmax()))
    saved_model.write(directory / "1", directory / "model", [tagged])
    return directory / "1"


@pytest.fixture(scope="module")
def loaded(exported):
    """The signatures of the SavedModel in TensorFlow 2."""
    return tf.saved_model.load(str(exported)).signatures


def unchecked(session, inputs, fetches, targets=()):
    """Return a function that runs a graph with any values, in the order of the inputs.

    `session.run` compares the shapes of values with those of placeholders. TensorFlow Serving and other programs in
    C++ do not; this call is theirs.
    """
    options = config_pb2.CallableOptions(
        feed=[tensor.name for tensor in inputs.values()],
        fetch=[tensor.name for tensor in fetches.values()],
        target=[operation.name for operation in targets],
    )
    return session._make_callable_from_options(options)  # noqa: SLF001 - there is no public name for it


def run_signature(session, exported, name):
    """Load the SavedModel into a session; return a function that runs a signature with any values."""
    signature = saved_model.load(session, exported, ["serve"]).signature_def[name]
    return unchecked(session, signature.inputs, signature.outputs)


@pytest.mark.parametrize("name", ["serving_default", "labels"])
def test_wrong_images_raise_in_tensorflow_2(loaded, name):
    """The loader drops the placeholder; the message has both shapes."""
    serve = loaded[name]
    assert len(serve(images=tf.zeros([2, 28, 28], tf.uint8))) > 0
    for shape in WRONG:
        with shape_error() as caught:
            serve(images=tf.zeros(shape, tf.uint8))
        assert f"{list(shape)}".replace(" ", "") in str(caught.value)
        assert "[?,28,28]" in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own
def test_wrong_images_raise_in_a_keras_layer(exported):
    """TFSMLayer calls the signature of TensorFlow 2."""
    layer = keras.layers.TFSMLayer(str(exported), call_endpoint="serving_default")
    assert layer(tf.zeros([2, 28, 28], tf.uint8))["classes"].shape == [2]
    for shape in WRONG:
        with shape_error():
            layer(tf.zeros(shape, tf.uint8))


@pytest.mark.parametrize("name", ["serving_default", "labels"])
def test_wrong_images_raise_in_a_session(exported, name):
    """Also if the session does not compare them with the placeholder, as in TensorFlow Serving."""
    with tf.Graph().as_default(), v1.Session() as session:
        run = run_signature(session, exported, name)
        assert len(run(np.zeros((2, 28, 28), np.uint8))[0]) == 2
        for shape in WRONG:
            with shape_error():
                run(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("files", [[[PNG]], PNG, [LARGE]], ids=["matrix", "scalar", "large"])
def test_wrong_png_files_raise(exported, loaded, files):
    """A matrix or a scalar in place of a list, and a picture of four times the size."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="Shape of tensor"):
        loaded["png"](png=tf.constant(files))
    with tf.Graph().as_default(), v1.Session() as session:
        run = run_signature(session, exported, "png")
        assert run(np.array([PNG, PNG], object))[0].shape[0] == 2
        with pytest.raises(tf.errors.InvalidArgumentError, match="Shape of tensor"):
            run(np.array(files, object))


def test_another_dtype_raises(exported, loaded):
    """Pixels of 0 to 1 are not cast."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="uint8"):
        loaded["serving_default"](images=tf.zeros([2, 28, 28], tf.float32))
    with tf.Graph().as_default(), v1.Session() as session:
        run = run_signature(session, exported, "serving_default")
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?i)type"):
            run(np.zeros((2, 28, 28), np.float32))


def test_wrong_images_raise_in_a_meta_graph():
    """With a placeholder of any shape that replaces the images placeholder."""
    built = digit_graph.build_softmax()
    with built.graph.as_default():
        meta_graph = v1.train.export_meta_graph()
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.uint8)
        v1.train.import_meta_graph(meta_graph, input_map={built.inference.images.name: images})
        session.run(v1.global_variables_initializer())
        for output in (built.inference.classes.name, built.inference.probabilities.name):
            assert len(session.run(output, {images: np.zeros((2, 28, 28), np.uint8)})) == 2
            for shape in WRONG:
                with shape_error():
                    session.run(output, {images: np.zeros(shape, np.uint8)})


def test_steps_that_are_no_scalar_raise():
    """Nothing is trained."""
    built = digit_graph.build_softmax()
    train = signatures.training_signatures(built)["train"]
    with v1.Session(graph=built.graph) as session:
        training_graph.initialize(session, built, digit_graph.RANDOM)
        run = unchecked(session, train.inputs, train.outputs)
        assert run(np.int64(3))[0] == 3
        for shape in ((1,), (2,), (1, 1)):
            with shape_error():
                run(np.ones(shape, np.int64))
        assert session.run(built.step) == 3


@pytest.mark.parametrize(
    ("name", "shapes"),
    [("train_images", [(40, 784), (80, 14, 28), (41, 28, 28)]), ("train_labels", [(39,), (4, 10), ()])],
)
def test_training_data_of_another_shape_raise(name, shapes):
    """The signature `load_data` takes the number of images that the graph was built for."""
    built = digit_graph.build_softmax()
    inputs = signatures.training_signatures(built)["load_data"].inputs
    data = {"train_images": digit_graph.RANDOM.images, "train_labels": digit_graph.RANDOM.labels}
    with built.graph.as_default(), v1.Session() as session:
        load = unchecked(session, inputs, {}, [v1.local_variables_initializer()])
        load(*(data[key] for key in inputs))
        for shape in shapes:
            wrong = {**data, name: np.zeros(shape, np.uint8)}
            with shape_error():
                load(*(wrong[key] for key in inputs))
