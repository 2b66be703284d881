"""Networks: raw pixels to logits.

A model creates its variables once; training, evaluation and the exported model share them. Models take raw pixels,
uint8 or float32 in 0..255, and scale them to 0..1 themselves, so that no caller can use another scale than in
training. With precision="bfloat16", convolutions and matrix products are computed in bfloat16; variables,
normalization and logits stay float32.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

from mnist.input.dataset import CLASSES, IMAGE_SHAPE
from mnist.model import layers

PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
ARCHITECTURES = ("tutorial", "one_epoch", "small", "deep")


class Model(Protocol):
    """The interface of all models."""

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """Compute logits.

        Args:
          images: uint8 or float32 [B, 28, 28], raw pixels in 0..255.
          dropout_key: int64 [2], the key of the dropout's random numbers in training; None for inference.

        Returns:
          float32 [B, 10].
        """
        ...


class Softmax:
    """Softmax regression, the tutorial's first model: 784-10, 7,850 parameters, all 0 initially."""

    def __init__(self, precision: str = "float32") -> None:
        """Create the variables in the current graph."""
        self.dtype = tf.as_dtype(precision)
        self.layer1 = layers.make_layer("layer1", tf.zeros([PIXELS, CLASSES]), bias=0.0)

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model. There is no dropout; with a key, a faster formula for training is used."""
        if dropout_key is None:
            pixels = tf.reshape(layers.scale_pixels(images, self.dtype), [-1, PIXELS])  # [B, 784]
            return tf.cast(layers.dense(pixels, self.layer1), tf.float32)  # [B, 10]
        pixels = tf.cast(tf.reshape(images, [-1, PIXELS]), self.dtype)  # [B, 784], raw
        weights, biases = (tf.cast(variable, self.dtype) for variable in self.layer1)  # [784, 10], [10]
        # Matrices of ten rows are multiplied twice as fast as matrices of ten columns. The product with a diagonal
        # matrix transposes the weights, nine times as fast as tf.transpose, and scales them in place of the pixels
        # (docs/benchmarks.md).
        rows = tf.matmul(tf.eye(CLASSES, dtype=self.dtype) / 255, weights, transpose_b=True)  # [10, 784]
        products = tf.transpose(tf.matmul(rows, pixels, transpose_b=True))  # [B, 10]
        return tf.cast(tf.nn.bias_add(products, biases), tf.float32)  # [B, 10]


class Cnn:
    """The tutorial's convolutional network, 3,274,634 parameters.

    5x5 convolution to 32 channels, 2x2 max pool, 5x5 convolution to 64 channels, 2x2 max pool, 1024 hidden units with
    dropout, 10 logits. Initial weights are truncated normal with standard deviation 0.1, biases 0.1 (source:
    TensorFlow's "Deep MNIST for Experts").
    """

    def __init__(self, seed: int, dropout_rate: float, precision: str = "float32") -> None:
        """Create the variables in the current graph; initial weights are a function of (seed, number of the layer)."""
        self.dropout_rate = dropout_rate
        self.dtype = tf.as_dtype(precision)
        shapes = ([5, 5, 1, 32], [5, 5, 32, 64], [7 * 7 * 64, 1024], [1024, CLASSES])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            layers.make_layer(
                f"layer{number}", tf.random.stateless_truncated_normal(shape, [seed, number], stddev=0.1), bias=0.1
            )
            for number, shape in enumerate(shapes, start=1)
        )

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model."""
        pixels = tf.reshape(layers.scale_pixels(images, self.dtype), [-1, *IMAGE_SHAPE, 1])  # [B, 28, 28, 1]
        maps = layers.convolve_and_pool(pixels, self.layer1, padding="SAME")  # [B, 14, 14, 32]
        maps = layers.convolve_and_pool(maps, self.layer2, padding="SAME")  # [B, 7, 7, 64]
        flat = tf.reshape(maps, [-1, 7 * 7 * 64])  # [B, 3136]
        hidden = tf.nn.relu(layers.dense(flat, self.layer3))  # [B, 1024]
        hidden = layers.dropout(hidden, self.dropout_rate, dropout_key)  # [B, 1024]
        return tf.cast(layers.dense(hidden, self.layer4), tf.float32)  # [B, 10]


class OneEpochCnn:
    """A small network that converges in one epoch, 159,978 parameters.

    5x5 convolution to 16 channels, 3x3 max pool, 3x3 convolution to 64 channels, 2x2 max pool, 256 hidden units,
    10 logits; no padding. After github.com/tuomaso/train_mnist_fast, with fewer channels in the first layer and a
    larger first pool (docs/recipes.md). Initial weights: see layers.he_normal.
    """

    def __init__(self, seed: int, dropout_rate: float, precision: str = "float32") -> None:
        """Create the variables in the current graph; initial weights are a function of (seed, number of the layer)."""
        self.dropout_rate = dropout_rate
        self.dtype = tf.as_dtype(precision)
        shapes = ([5, 5, 1, 16], [3, 3, 16, 64], [3 * 3 * 64, 256], [256, CLASSES])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            layers.make_layer(f"layer{number}", layers.he_normal(shape, [seed, number]), bias=0.0)
            for number, shape in enumerate(shapes, start=1)
        )

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model."""
        pixels = tf.reshape(layers.scale_pixels(images, self.dtype), [-1, *IMAGE_SHAPE, 1])  # [B, 28, 28, 1]
        maps = layers.convolve_and_pool(pixels, self.layer1, padding="VALID", pool=3)  # [B, 8, 8, 16]
        maps = layers.convolve_and_pool(maps, self.layer2, padding="VALID")  # [B, 3, 3, 64]
        flat = tf.reshape(maps, [-1, 3 * 3 * 64])  # [B, 576]
        hidden = tf.nn.relu(layers.dense(flat, self.layer3))  # [B, 256]
        hidden = layers.dropout(hidden, self.dropout_rate, dropout_key)  # [B, 256]
        return tf.cast(layers.dense(hidden, self.layer4), tf.float32)  # [B, 10]


class Convolution(NamedTuple):
    """One layer of a NormalizedCnn: convolution, 2x2 max pool if `pool`, batch normalization, ReLU.

    size: height and width of the kernel.
    channels: number of output channels.
    """

    size: int
    channels: int
    padding: str = "VALID"
    pool: bool = False


# 197,802 parameters. After github.com/cdeotte/MNIST-CNN-99.75, with max pools in place of strided convolutions, which
# are as accurate and cheaper, and more channels (docs/recipes.md).
DEEP = (
    Convolution(3, 32),  # [B, 26, 26, 32]
    Convolution(3, 32, pool=True),  # [B, 12, 12, 32]
    Convolution(3, 64),  # [B, 10, 10, 64]
    Convolution(3, 64, pool=True),  # [B, 4, 4, 64]
    Convolution(4, 128),  # [B, 1, 1, 128]
)

# 7,578 parameters.
SMALL = (
    Convolution(3, 8, padding="SAME"),  # [B, 28, 28, 8]
    Convolution(3, 12, pool=True),  # [B, 13, 13, 12]
    Convolution(3, 16),  # [B, 11, 11, 16]
    Convolution(3, 16, pool=True),  # [B, 4, 4, 16]
    Convolution(3, 16, padding="SAME"),  # [B, 4, 4, 16]
)


class NormalizedCnn:
    """Convolutions with batch normalization, global average pool, 10 logits.

    The moving averages of the normalization (`layer1/moving_mean`, `layer1/moving_variance`, ...) are variables, so
    they are saved, resumed and exported with the others. Initial weights: see layers.he_normal.
    """

    def __init__(
        self, convolutions: Sequence[Convolution], seed: int, dropout_rate: float, precision: str = "float32"
    ) -> None:
        """Create the variables in the current graph; initial weights are a function of (seed, number of the layer)."""
        self.convolutions = convolutions
        self.dropout_rate = dropout_rate
        self.dtype = tf.as_dtype(precision)
        channels = [1, *(each.channels for each in convolutions)]
        self.layers = [
            layers.make_normalized_layer(
                f"layer{number}",
                layers.he_normal([each.size, each.size, channels[number - 1], each.channels], [seed, number]),
            )
            for number, each in enumerate(convolutions, start=1)
        ]
        number = len(channels)
        self.last = layers.make_layer(
            f"layer{number}", layers.he_normal([channels[-1], CLASSES], [seed, number]), bias=0.0
        )

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model. With a key, the moving averages are updated before the logits are computed."""
        maps = tf.reshape(layers.scale_pixels(images, self.dtype), [-1, *IMAGE_SHAPE, 1])  # [B, 28, 28, 1]
        for convolution, layer in zip(self.convolutions, self.layers, strict=True):
            weights = tf.cast(layer.weights, self.dtype)
            maps = tf.nn.conv2d(maps, weights, strides=1, padding=convolution.padding)
            if convolution.pool:
                maps = tf.nn.max_pool2d(maps, ksize=2, strides=2, padding="VALID")
            # [B, H, W, C], as in the comments of DEEP and SMALL
            maps = tf.nn.relu(layers.batch_normalization(maps, layer, training=dropout_key is not None))
        hidden = tf.reduce_mean(maps, axis=[1, 2])  # [B, C]
        hidden = layers.dropout(hidden, self.dropout_rate, dropout_key)  # [B, C]
        return tf.cast(layers.dense(hidden, self.last), tf.float32)  # [B, 10]


class MultiCrop:
    """Average a model's predictions over copies of the image, each moved by at most one pixel.

    Max pools respond differently to an image moved by a pixel; for a small network, averaging removes a quarter of the
    errors (docs/recipes.md). Training uses the model as it is.
    """

    # Offsets (down, right) in pixels: none, left, right, up, down, diagonals.
    _OFFSETS = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))

    def __init__(self, model: Model, crops: int) -> None:
        """Wrap a model; `crops` is the number of copies, 2 to 9."""
        self.model = model
        self.offsets = self._OFFSETS[:crops]

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model. For inference, the logarithms of the averaged probabilities."""
        if dropout_key is not None:
            return self.model.logits(images, dropout_key)
        # In float32, which is exact for pixels: TFLite cannot pad uint8.
        padded = tf.pad(tf.cast(images, tf.float32), [[0, 0], [1, 1], [1, 1]])  # [B, 30, 30]
        height, width = IMAGE_SHAPE
        crops = [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in self.offsets]  # each [B, 28, 28]
        logits = self.model.logits(tf.concat(crops, axis=0))  # [crops * B, 10]
        return layers.log_mean_probabilities(tf.reshape(logits, [len(self.offsets), -1, CLASSES]))  # [B, 10]


class Ensemble:
    """Average the probabilities of several models (source: Hansen and Salamon, "Neural Network Ensembles", 1990)."""

    def __init__(self, make_members: Sequence[Callable[[], Model]]) -> None:
        """Create the members in the current graph, their variables in scopes `member1/`, `member2/` and so on."""
        self.members = []
        for number, make_member in enumerate(make_members, start=1):
            with tf.compat.v1.variable_scope(f"member{number}"):
                self.members.append(make_member())

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model. For inference only: the logarithms of the averaged probabilities. Members are trained apart."""
        assert dropout_key is None
        logits: list[tf.Tensor] = []  # each [B, 10]
        for member in self.members:
            with tf.control_dependencies(logits[-1:]):  # one after the other, to save memory
                logits.append(member.logits(images))
        return layers.log_mean_probabilities(tf.stack(logits))  # [B, 10]


def make_cnn(architecture: str, *, seed: int, dropout_rate: float, precision: str, crops: int = 1) -> Model:
    """Create a convolutional network, with its variables in the current graph.

    Args:
      architecture: one of ARCHITECTURES.
      seed: random seed of the initial weights.
      dropout_rate: fraction of hidden units set to 0 in training.
      precision: "float32" or "bfloat16".
      crops: number of moved copies of an image to average predictions over, 1 to 9.

    Raises:
      ValueError: the architecture is unknown.
    """
    network = _make_network(architecture, seed, dropout_rate, precision)
    return MultiCrop(network, crops) if crops > 1 else network


def _make_network(architecture: str, seed: int, dropout_rate: float, precision: str) -> Model:
    if architecture == "tutorial":
        return Cnn(seed, dropout_rate, precision)
    if architecture == "one_epoch":
        return OneEpochCnn(seed, dropout_rate, precision)
    if architecture in {"small", "deep"}:
        return NormalizedCnn(SMALL if architecture == "small" else DEEP, seed, dropout_rate, precision)
    raise ValueError(f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
