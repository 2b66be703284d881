import numpy as np
import pytest
import tensorflow as tf

from mnist import models

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)


def make(name, seed=0):
    """A model in the current graph."""
    return models.Softmax() if name == "softmax" else models.Cnn(seed, dropout_rate=0.5)


def logits(name, *, seed=0, dropout_key=None, images=IMAGES):
    """What a freshly made model says."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tensor = make(name, seed).logits(tf.constant(images), dropout_key)
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run(tensor)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("softmax", {"layer1/weights": [784, 10], "layer1/biases": [10]}),
        (
            "cnn",
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
    ],
)
def test_names_and_shapes_are_a_persistent_format(name, shapes):
    """Checkpoints are read by these names and shapes."""
    with tf.Graph().as_default():
        make(name)
        found = {variable.op.name: variable.shape.as_list() for variable in tf.compat.v1.trainable_variables()}
    assert found == shapes


@pytest.mark.parametrize("name", ["softmax", "cnn"])
def test_raw_pixels_give_ten_logits(name):
    """uint8 [B, 28, 28] in, float32 [B, 10] out."""
    found = logits(name)
    assert found.shape == (5, 10)
    assert found.dtype == np.float32


def test_the_cnn_starts_as_its_seed_says():
    """One seed gives one start, another seed another."""
    assert np.array_equal(logits("cnn", seed=1), logits("cnn", seed=1))
    assert not np.array_equal(logits("cnn", seed=1), logits("cnn", seed=2))


def test_dropout_is_keyed():
    """With a key, the cnn drops what the key says; without one it drops nothing."""
    dropped = logits("cnn", dropout_key=[0, 7])
    assert np.array_equal(dropped, logits("cnn", dropout_key=[0, 7]))
    assert not np.array_equal(dropped, logits("cnn", dropout_key=[0, 8]))
    assert not np.array_equal(dropped, logits("cnn"))


def test_pixels_are_scaled_to_one():
    """White pixels weigh 1: a softmax with all weights 1 says 784 for a white image."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = models.Softmax()
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(model.layer1.weights.assign(tf.ones([784, 10])))
        found = session.run(model.logits(tf.fill([1, 28, 28], tf.constant(255, tf.uint8))))
    assert found == pytest.approx(784)
