import numpy as np
import pytest
import tensorflow as tf

from mnist.model import networks

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)


def make(name, seed=0):
    """Create a model in the current graph."""
    if name == "softmax":
        return networks.Softmax()
    return networks.make_cnn(name, seed=seed, dropout_rate=0.5, precision="float32")


def logits(name, *, seed=0, dropout_key=None, images=IMAGES):
    """The logits of a newly initialized model."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tensor = make(name, seed).logits(tf.constant(images), dropout_key)
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run(tensor)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("softmax", {"layer1/weights": [784, 10], "layer1/biases": [10]}),
        (
            "tutorial",
            {
                "layer1/weights": [5, 5, 1, 32],
                "layer1/biases": [32],
                "layer2/weights": [5, 5, 32, 64],
                "layer2/biases": [64],
                "layer3/weights": [3136, 1024],
                "layer3/biases": [1024],
                "layer4/weights": [1024, 10],
                "layer4/biases": [10],
            },
        ),
        (
            "one_epoch",
            {
                "layer1/weights": [5, 5, 1, 16],
                "layer1/biases": [16],
                "layer2/weights": [3, 3, 16, 64],
                "layer2/biases": [64],
                "layer3/weights": [576, 256],
                "layer3/biases": [256],
                "layer4/weights": [256, 10],
                "layer4/biases": [10],
            },
        ),
    ],
)
def test_names_and_shapes_are_a_persistent_format(name, shapes):
    """Checkpoints of older releases are read by these names and shapes."""
    with tf.Graph().as_default():
        make(name)
        found = {variable.op.name: variable.shape.as_list() for variable in tf.compat.v1.trainable_variables()}
    assert found == shapes


@pytest.mark.parametrize(("name", "parameters"), [("small", 7_578), ("deep", 197_802)])
def test_normalized_networks_have_the_documented_size(name, parameters):
    """Each layer has three trained variables (weights, scale, offset) and two moving averages."""
    with tf.Graph().as_default():
        make(name)
        trained = tf.compat.v1.trainable_variables()
        layers = sum("moving_mean" in variable.op.name for variable in tf.compat.v1.global_variables())
        assert sum(variable.shape.num_elements() for variable in trained) == parameters
        assert len(trained) == 3 * layers + 2
        assert len(tf.compat.v1.global_variables()) == 5 * layers + 2


def test_inference_normalizes_by_moving_averages():
    """Predictions do not depend on the rest of the batch; training uses the batch and updates the averages."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = make("small")
        mean = model.layers[0].moving_mean
        alone, beside = model.logits(tf.constant(IMAGES[:1])), model.logits(tf.constant(IMAGES))
        training = model.logits(tf.constant(IMAGES), tf.constant([0, 1], tf.int64))
        session.run(tf.compat.v1.global_variables_initializer())
        assert session.run(alone)[0] == pytest.approx(session.run(beside)[0], abs=1e-4)
        assert not session.run(mean).any()
        session.run(training)
        assert session.run(mean).all()


def test_an_unknown_architecture_raises():
    """The message lists the architectures."""
    with pytest.raises(ValueError, match="tutorial, one_epoch, small, deep"):
        make("transformer")


@pytest.mark.parametrize("name", ["softmax", *networks.ARCHITECTURES])
def test_raw_pixels_give_ten_logits(name):
    """uint8 [B, 28, 28] in, float32 [B, 10] out."""
    found = logits(name)
    assert found.shape == (5, 10)
    assert found.dtype == np.float32


def test_initial_weights_are_a_function_of_the_seed():
    """The same seed gives the same logits, another seed others."""
    assert np.array_equal(logits("tutorial", seed=1), logits("tutorial", seed=1))
    assert not np.array_equal(logits("tutorial", seed=1), logits("tutorial", seed=2))


def test_dropout_is_a_function_of_its_key():
    """The same key drops the same units, another key others; without a key there is no dropout."""
    dropped = logits("tutorial", dropout_key=[0, 7])
    assert np.array_equal(dropped, logits("tutorial", dropout_key=[0, 7]))
    assert not np.array_equal(dropped, logits("tutorial", dropout_key=[0, 8]))
    assert not np.array_equal(dropped, logits("tutorial"))


def test_pixels_are_scaled_to_one():
    """With all weights 1, the logits of a white image are 784."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = networks.Softmax()
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(model.layer1.weights.assign(tf.ones([784, 10])))
        found = session.run(model.logits(tf.fill([1, 28, 28], tf.constant(255, tf.uint8))))
    assert found == pytest.approx(784)


def test_both_formulas_of_the_softmax_are_equal():
    """Inference and training compute pixels / 255 @ weights + biases; so do the gradients."""
    rng = np.random.default_rng(1)
    weights, biases = rng.normal(size=(784, 10)).astype(np.float32), rng.normal(size=10).astype(np.float32)
    upstream = rng.normal(size=(5, 10)).astype(np.float32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = networks.Softmax()
        session.run(tf.compat.v1.global_variables_initializer())
        session.run([model.layer1.weights.assign(weights), model.layer1.biases.assign(biases)])
        inference, found = (
            model.logits(tf.constant(IMAGES)),
            model.logits(tf.constant(IMAGES), tf.constant([0, 7], tf.int64)),
        )
        gradients = tf.gradients(tf.reduce_sum(found * upstream), [model.layer1.weights, model.layer1.biases])
        inference, found, (by_weights, by_biases) = session.run([inference, found, gradients])
    pixels = IMAGES.reshape(5, 784) / 255
    assert found == pytest.approx(pixels @ weights + biases, rel=1e-4, abs=1e-4)
    assert inference == pytest.approx(found, rel=1e-4, abs=1e-4)
    assert by_weights == pytest.approx(pixels.T @ upstream, rel=1e-4, abs=1e-4)
    assert by_biases == pytest.approx(upstream.sum(axis=0), rel=1e-4, abs=1e-4)


def softmax(logits):
    """Probabilities in float64, for comparison."""
    powers = np.exp(np.float64(logits))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("crops", [2, 5, 9])
def test_crops_average_predictions_for_moved_images(crops):
    """Training uses the model without crops."""
    moves = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
    padded = np.pad(IMAGES, [(0, 0), (1, 1), (1, 1)])
    moved = [padded[:, 1 + y : 29 + y, 1 + x : 29 + x] for y, x in moves[:crops]]
    key = [0, 7]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = networks.make_cnn("one_epoch", seed=0, dropout_rate=0.0, precision="float32", crops=crops)
        found, training = model.logits(tf.constant(IMAGES)), model.logits(tf.constant(IMAGES), key)
        alone = [model.model.logits(tf.constant(images)) for images in moved]
        session.run(tf.compat.v1.global_variables_initializer())
        found, training, alone = session.run([found, training, alone])
    assert softmax(found) == pytest.approx(np.mean([softmax(each) for each in alone], axis=0), rel=1e-3)
    assert training == pytest.approx(alone[0], rel=1e-4, abs=1e-4)


def test_an_ensemble_averages_the_probabilities_of_its_members():
    """Each member has its own variables."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = networks.Ensemble([lambda seed=seed: make("one_epoch", seed) for seed in range(3)])
        names = [variable.op.name for variable in tf.compat.v1.global_variables()]
        found = model.logits(tf.constant(IMAGES))
        session.run(tf.compat.v1.global_variables_initializer())
        found = session.run(found)
    assert len(names) == 3 * 8
    assert "member3/layer1/weights" in names
    alone = [softmax(logits("one_epoch", seed=seed)) for seed in range(3)]
    assert softmax(found) == pytest.approx(np.mean(alone, axis=0), rel=1e-3)
