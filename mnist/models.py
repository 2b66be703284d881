"""The networks: images to logits.

A model makes its variables when it is made, and uses them each time it is called: in training, in evaluation and in
the exported model alike. The variables' names (`layer1/weights`, `layer1/biases`, ...) are a persistent format:
checkpoints and exported models are read by them.

Every model takes raw pixels, uint8 0 to 255, and scales them itself: nobody can feed it in another scale than it was
trained in.
"""

from typing import NamedTuple, Protocol

import tensorflow as tf

from mnist.dataset import CLASSES, IMAGE_SHAPE

PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]


class Model(Protocol):
    """What the rest of the project knows of a model."""

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """uint8 [B, 28, 28] to float32 [B, 10]; with a key (int64 [2]) as in training, without as in use."""
        ...


class Layer(NamedTuple):
    """The variables of one layer."""

    weights: tf.Variable
    biases: tf.Variable


class Softmax:
    """Softmax regression, the tutorial's first model: 784-10, 7,850 parameters, all zero at the start."""

    def __init__(self) -> None:
        """Makes the variables in the current graph."""
        self.layer1 = _layer("layer1", tf.zeros([PIXELS, CLASSES]), bias=0.0)

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model; there is nothing to drop out here."""
        del dropout_key
        pixels = tf.reshape(_scaled(images), [-1, PIXELS])  # [B, 784]
        return tf.nn.bias_add(pixels @ self.layer1.weights, self.layer1.biases)  # [B, 10]


class Cnn:
    """The tutorial's convolutional network, 3,274,634 parameters.

    5x5 convolution to 32 channels, 2x2 max pool, 5x5 convolution to 64, 2x2 max pool, 1024 hidden units with dropout,
    10 logits; weights start as normal numbers cut off at two standard deviations of 0.1, biases at 0.1
    (source: TensorFlow's "Deep MNIST for Experts").
    """

    def __init__(self, seed: int, dropout_rate: float) -> None:
        """Makes the variables in the current graph; each layer's start is a pure function of (seed, its number)."""
        self.dropout_rate = dropout_rate
        shapes = ([5, 5, 1, 32], [5, 5, 32, 64], [7 * 7 * 64, 1024], [1024, CLASSES])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _layer(f"layer{number}", tf.random.stateless_truncated_normal(shape, [seed, number], stddev=0.1), bias=0.1)
            for number, shape in enumerate(shapes, start=1)
        )

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model."""
        pixels = tf.reshape(_scaled(images), [-1, *IMAGE_SHAPE, 1])  # [B, 28, 28, 1]
        maps = _convolve_and_pool(pixels, self.layer1)  # [B, 14, 14, 32]
        maps = _convolve_and_pool(maps, self.layer2)  # [B, 7, 7, 64]
        flat = tf.reshape(maps, [-1, 7 * 7 * 64])  # [B, 3136]
        hidden = tf.nn.relu(tf.nn.bias_add(flat @ self.layer3.weights, self.layer3.biases))  # [B, 1024]
        if dropout_key is not None and self.dropout_rate:
            hidden = tf.nn.experimental.stateless_dropout(hidden, self.dropout_rate, seed=dropout_key)
        return tf.nn.bias_add(hidden @ self.layer4.weights, self.layer4.biases)  # [B, 10]


def _layer(name: str, weights: tf.Tensor, bias: float) -> Layer:
    """Variables `name/weights`, starting as given, and `name/biases`, one an output, starting at `bias`."""
    with tf.compat.v1.variable_scope(name):
        return Layer(
            weights=tf.compat.v1.get_variable("weights", initializer=weights, use_resource=True),
            biases=tf.compat.v1.get_variable(
                "biases", initializer=tf.fill(weights.shape[-1:], bias), use_resource=True
            ),
        )


def _scaled(images: tf.Tensor) -> tf.Tensor:
    """uint8 0..255 to float32 0..1, the only place where pixels change their scale."""
    return tf.cast(images, tf.float32) * (1 / 255)


def _convolve_and_pool(maps: tf.Tensor, layer: Layer) -> tf.Tensor:
    """[B, H, W, C] to [B, H/2, W/2, channels of the layer].

    Bias and ReLU come after the pooling: both keep the order of numbers, so the maps are the same to the last bit,
    and a quarter of the numbers is left to do it to.
    """
    maps = tf.nn.conv2d(maps, layer.weights, strides=1, padding="SAME")  # [B, H, W, channels]
    maps = tf.nn.max_pool2d(maps, ksize=2, strides=2, padding="VALID")  # [B, H/2, W/2, channels]
    return tf.nn.relu(tf.nn.bias_add(maps, layer.biases))
