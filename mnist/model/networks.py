"""The networks: images to logits.

A model makes its variables when it is made, and uses them each time it is called: in training, in evaluation and in
the exported model alike. The variables' names (`layer1/weights`, `layer1/biases`, ...) are a persistent format:
checkpoints and exported models are read by them.

Every model takes raw pixels, 0 to 255 (uint8, or float32 where augmentation has moved them), and scales them itself:
nobody can feed it in another scale than it was trained in. With precision="bfloat16" convolutions and products are
computed in that type; variables, normalization and logits stay float32.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

from mnist.input.dataset import CLASSES, IMAGE_SHAPE

PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]


class Model(Protocol):
    """What the rest of the project knows of a model."""

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """Raw pixels [B, 28, 28] to float32 [B, 10]; with a key (int64 [2]) as in training, without as in use."""
        ...


class Layer(NamedTuple):
    """The variables of one layer."""

    weights: tf.Variable
    biases: tf.Variable


class Softmax:
    """Softmax regression, the tutorial's first model: 784-10, 7,850 parameters, all zero at the start."""

    def __init__(self, precision: str = "float32") -> None:
        """Makes the variables in the current graph."""
        self.dtype = tf.as_dtype(precision)
        self.layer1 = _layer("layer1", tf.zeros([PIXELS, CLASSES]), bias=0.0)

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model; there is nothing to drop out here. In training it is computed in another way, which is faster."""
        if dropout_key is None:  # as plain as it can be, for whoever reads it
            pixels = tf.reshape(_scaled(images, self.dtype), [-1, PIXELS])  # [B, 784]
            return tf.cast(_multiply(pixels, self.layer1), tf.float32)  # [B, 10]
        pixels = tf.cast(tf.reshape(images, [-1, PIXELS]), self.dtype)  # [B, 784], raw: whole numbers are exact
        weights, biases = (tf.cast(variable, self.dtype) for variable in self.layer1)
        # A product with a diagonal matrix transposes the weights, and scales them in place of the pixels. Matrices of
        # ten columns are multiplied at half the speed of those of ten rows, forward and backward, and tf.transpose of
        # the gradient takes nine times as long as such a product (docs/benchmarks.md).
        rows = tf.matmul(tf.eye(CLASSES, dtype=self.dtype) / 255, weights, transpose_b=True)  # [10, 784]
        products = tf.transpose(tf.matmul(rows, pixels, transpose_b=True))  # [B, 10]
        return tf.cast(tf.nn.bias_add(products, biases), tf.float32)


class Cnn:
    """The tutorial's convolutional network, 3,274,634 parameters.

    5x5 convolution to 32 channels, 2x2 max pool, 5x5 convolution to 64, 2x2 max pool, 1024 hidden units with dropout,
    10 logits; weights start as normal numbers cut off at two standard deviations of 0.1, biases at 0.1
    (source: TensorFlow's "Deep MNIST for Experts").
    """

    def __init__(self, seed: int, dropout_rate: float, precision: str = "float32") -> None:
        """Makes the variables in the current graph; each layer's start is a pure function of (seed, its number)."""
        self.dropout_rate = dropout_rate
        self.dtype = tf.as_dtype(precision)
        shapes = ([5, 5, 1, 32], [5, 5, 32, 64], [7 * 7 * 64, 1024], [1024, CLASSES])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _layer(f"layer{number}", tf.random.stateless_truncated_normal(shape, [seed, number], stddev=0.1), bias=0.1)
            for number, shape in enumerate(shapes, start=1)
        )

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model."""
        pixels = tf.reshape(_scaled(images, self.dtype), [-1, *IMAGE_SHAPE, 1])  # [B, 28, 28, 1]
        maps = _convolve_and_pool(pixels, self.layer1, padding="SAME")  # [B, 14, 14, 32]
        maps = _convolve_and_pool(maps, self.layer2, padding="SAME")  # [B, 7, 7, 64]
        flat = tf.reshape(maps, [-1, 7 * 7 * 64])  # [B, 3136]
        hidden = _dropped(tf.nn.relu(_multiply(flat, self.layer3)), self.dropout_rate, dropout_key)  # [B, 1024]
        return tf.cast(_multiply(hidden, self.layer4), tf.float32)  # [B, 10]


class OneEpochCnn:
    """A small network that learns in one epoch, 159,978 parameters.

    5x5 convolution to 16 channels, 3x3 max pool, 3x3 convolution to 64, 2x2 max pool, 256 hidden units, 10 logits; no
    padding (after github.com/tuomaso/train_mnist_fast, with fewer channels where the maps are large, and smaller maps
    from there on: docs/recipes.md). Weights start as normal numbers of variance 2 / inputs.
    """

    def __init__(self, seed: int, dropout_rate: float, precision: str = "float32") -> None:
        """Makes the variables in the current graph; each layer's start is a pure function of (seed, its number)."""
        self.dropout_rate = dropout_rate
        self.dtype = tf.as_dtype(precision)
        shapes = ([5, 5, 1, 16], [3, 3, 16, 64], [3 * 3 * 64, 256], [256, CLASSES])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _layer(f"layer{number}", _start(shape, [seed, number]), bias=0.0)
            for number, shape in enumerate(shapes, start=1)
        )

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model."""
        pixels = tf.reshape(_scaled(images, self.dtype), [-1, *IMAGE_SHAPE, 1])  # [B, 28, 28, 1]
        maps = _convolve_and_pool(pixels, self.layer1, padding="VALID", pool=3)  # [B, 8, 8, 16]
        maps = _convolve_and_pool(maps, self.layer2, padding="VALID")  # [B, 3, 3, 64]
        flat = tf.reshape(maps, [-1, 3 * 3 * 64])  # [B, 576]
        hidden = _dropped(tf.nn.relu(_multiply(flat, self.layer3)), self.dropout_rate, dropout_key)  # [B, 256]
        return tf.cast(_multiply(hidden, self.layer4), tf.float32)  # [B, 10]


class Convolution(NamedTuple):
    """One layer of a NormalizedCnn: size x size, to so many channels, then normalization and ReLU.

    pool: whether a 2x2 max pool comes between the convolution and its normalization.
    """

    size: int
    channels: int
    padding: str = "VALID"
    pool: bool = False


# 197,802 parameters. Max pools where github.com/cdeotte/MNIST-CNN-99.75, after which it is built, has convolutions with
# a stride: as good in fewer operations, which are spent on more channels (docs/recipes.md).
DEEP = (
    Convolution(3, 32),  # [B, 26, 26, 32]
    Convolution(3, 32, pool=True),  # [B, 12, 12, 32]
    Convolution(3, 64),  # [B, 10, 10, 64]
    Convolution(3, 64, pool=True),  # [B, 4, 4, 64]
    Convolution(4, 128),  # [B, 1, 1, 128]
)

# 7,578 parameters; what is left of the maps is averaged over places.
SMALL = (
    Convolution(3, 8, padding="SAME"),  # [B, 28, 28, 8]
    Convolution(3, 12, pool=True),  # [B, 13, 13, 12]
    Convolution(3, 16),  # [B, 11, 11, 16]
    Convolution(3, 16, pool=True),  # [B, 4, 4, 16]
    Convolution(3, 16, padding="SAME"),  # [B, 4, 4, 16]
)


class NormalizedCnn:
    """Convolutions with batch normalization, the mean over what places are left, 10 logits.

    Weights start as normal numbers of variance 2 / inputs. Normalization's moving averages are variables like the
    others (`layer1/moving_mean`, `layer1/moving_variance`), so they are saved, resumed and exported with them (source:
    Ioffe and Szegedy, "Batch Normalization", 2015).
    """

    def __init__(
        self, convolutions: Sequence[Convolution], seed: int, dropout_rate: float, precision: str = "float32"
    ) -> None:
        """Makes the variables in the current graph; each layer's start is a pure function of (seed, its number)."""
        self.convolutions = convolutions
        self.dropout_rate = dropout_rate
        self.dtype = tf.as_dtype(precision)
        channels = [1, *(each.channels for each in convolutions)]
        self.layers = [
            _normalized_layer(
                f"layer{number}", _start([each.size, each.size, channels[number - 1], each.channels], [seed, number])
            )
            for number, each in enumerate(convolutions, start=1)
        ]
        number = len(channels)
        self.last = _layer(f"layer{number}", _start([channels[-1], CLASSES], [seed, number]), bias=0.0)

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model; with a key, the normalization's moving averages are updated before the logits are there."""
        maps = tf.reshape(_scaled(images, self.dtype), [-1, *IMAGE_SHAPE, 1])  # [B, 28, 28, 1]
        for convolution, layer in zip(self.convolutions, self.layers, strict=True):
            weights = tf.cast(layer.weights, self.dtype)
            maps = tf.nn.conv2d(maps, weights, strides=1, padding=convolution.padding)
            if convolution.pool:
                maps = tf.nn.max_pool2d(maps, ksize=2, strides=2, padding="VALID")
            maps = tf.nn.relu(_normalized(maps, layer, training=dropout_key is not None))
        hidden = _dropped(tf.reduce_mean(maps, axis=[1, 2]), self.dropout_rate, dropout_key)  # [B, channels]
        return tf.cast(_multiply(hidden, self.last), tf.float32)  # [B, 10]


class MultiCrop:
    """A model that looks at an image several times, each time moved by a pixel or not, and averages its answers.

    Pools see a digit otherwise wherever it lies; averaged over places a pixel apart, a small network errs a quarter
    less often (docs/recipes.md). In training, the model is as it is.
    """

    def __init__(self, model: Model, crops: int) -> None:
        """Looks `crops` times, 2 to 9: where the image is, then left, right, up, down, and along the diagonals."""
        self.model = model
        self.moves = _MOVES[:crops]

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model; in use, the logarithms of the averaged probabilities."""
        if dropout_key is not None:
            return self.model.logits(images, dropout_key)
        # As floats, which are exact here: TFLite pads no bytes.
        padded = tf.pad(tf.cast(images, tf.float32), [[0, 0], [1, 1], [1, 1]])  # [B, 30, 30]
        height, width = IMAGE_SHAPE
        crops = [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in self.moves]
        logits = self.model.logits(tf.concat(crops, axis=0))  # [crops * B, 10]
        return _log_of_mean(tf.reshape(logits, [len(self.moves), -1, CLASSES]))


class Ensemble:
    """Models whose probabilities are averaged (source: Hansen and Salamon, "Neural Network Ensembles", 1990)."""

    def __init__(self, make_members: Sequence[Callable[[], Model]]) -> None:
        """Makes the members in the current graph, the variables of the first below `member1/`, and so on."""
        self.members = []
        for number, make_member in enumerate(make_members, start=1):
            with tf.compat.v1.variable_scope(f"member{number}"):
                self.members.append(make_member())

    def logits(self, images: tf.Tensor, dropout_key: tf.Tensor | None = None) -> tf.Tensor:
        """See Model; in use, the logarithms of the averaged probabilities. Its members are trained each on its own."""
        assert dropout_key is None
        answers: list[tf.Tensor] = []
        for member in self.members:
            with tf.control_dependencies(answers[-1:]):  # one after the other: together their maps take much memory
                answers.append(member.logits(images))
        return _log_of_mean(tf.stack(answers))


def make_cnn(architecture: str, *, seed: int, dropout_rate: float, precision: str, crops: int = 1) -> Model:
    """The network called `architecture`, one of ARCHITECTURES; its variables are made in the current graph."""
    network = _make_network(architecture, seed, dropout_rate, precision)
    return MultiCrop(network, crops) if crops > 1 else network


def _make_network(architecture: str, seed: int, dropout_rate: float, precision: str) -> Model:
    if architecture == "tutorial":
        return Cnn(seed, dropout_rate, precision)
    if architecture == "one_epoch":
        return OneEpochCnn(seed, dropout_rate, precision)
    if architecture in {"small", "deep"}:
        return NormalizedCnn(SMALL if architecture == "small" else DEEP, seed, dropout_rate, precision)
    message = f"architecture {architecture!r} found, one of {', '.join(ARCHITECTURES)} wanted."
    raise ValueError(message)


ARCHITECTURES = ("tutorial", "one_epoch", "small", "deep")

# Down and right, in pixels.
_MOVES = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))

# How much of the moving averages each batch replaces, and what keeps a flat channel's variance from 0.
_NORMALIZATION_STEP = 0.03
_EPSILON = 1e-3


class NormalizedLayer(NamedTuple):
    """The variables of a convolution and of its normalization; each but the weights has one value a channel."""

    weights: tf.Variable
    scale: tf.Variable
    offset: tf.Variable
    moving_mean: tf.Variable
    moving_variance: tf.Variable


def _start(shape: list[int], key: list[int]) -> tf.Tensor:
    """Normal numbers of variance 2 / inputs, which keep their size through ReLUs (source: He et al., 2015)."""
    return tf.random.stateless_normal(shape, key, stddev=math.sqrt(2 / math.prod(shape[:-1])))


def _layer(name: str, weights: tf.Tensor, bias: float) -> Layer:
    """Variables `name/weights`, starting as given, and `name/biases`, one an output, starting at `bias`."""
    with tf.compat.v1.variable_scope(name):
        return Layer(
            weights=_variable("weights", weights), biases=_variable("biases", tf.fill(weights.shape[-1:], bias))
        )


def _normalized_layer(name: str, weights: tf.Tensor) -> NormalizedLayer:
    zeros, ones = tf.zeros(weights.shape[-1:]), tf.ones(weights.shape[-1:])
    with tf.compat.v1.variable_scope(name):
        return NormalizedLayer(
            weights=_variable("weights", weights),
            scale=_variable("scale", ones),
            offset=_variable("offset", zeros),
            moving_mean=_variable("moving_mean", zeros, trainable=False),
            moving_variance=_variable("moving_variance", ones, trainable=False),
        )


def _variable(name: str, start: tf.Tensor, *, trainable: bool = True) -> tf.Variable:
    return tf.compat.v1.get_variable(name, initializer=start, trainable=trainable, use_resource=True)


def _scaled(images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Pixels 0..255 to 0..1."""
    return tf.cast(tf.cast(images, tf.float32) * (1 / 255), dtype)


def _multiply(inputs: tf.Tensor, layer: Layer) -> tf.Tensor:
    """[B, inputs] to [B, outputs of the layer], in the type of the inputs."""
    weights, biases = (tf.cast(variable, inputs.dtype) for variable in layer)
    return tf.nn.bias_add(inputs @ weights, biases)


def _log_of_mean(logits: tf.Tensor) -> tf.Tensor:
    """Logits [N, B, 10] to the logarithms, [B, 10], of the mean over N of the probabilities."""
    return tf.reduce_logsumexp(tf.nn.log_softmax(logits), axis=0) - math.log(logits.shape[0])


def _dropped(hidden: tf.Tensor, rate: float, key: tf.Tensor | None) -> tf.Tensor:
    return hidden if key is None or not rate else tf.nn.experimental.stateless_dropout(hidden, rate, seed=key)


def _convolve_and_pool(maps: tf.Tensor, layer: Layer, padding: str, pool: int = 2) -> tf.Tensor:
    """[B, H, W, C] to [B, H/pool, W/pool, channels of the layer]; H and W are those after the convolution.

    Bias and ReLU come after the pooling: both keep the order of numbers, so the maps are the same to the last bit,
    and a quarter of the numbers, or less, is left to do it to.
    """
    weights, biases = (tf.cast(variable, maps.dtype) for variable in layer)
    maps = tf.nn.conv2d(maps, weights, strides=1, padding=padding)  # [B, H, W, channels]
    maps = tf.nn.max_pool2d(maps, ksize=pool, strides=pool, padding="VALID")  # [B, H/pool, W/pool, channels]
    return tf.nn.relu(tf.nn.bias_add(maps, biases))


def _normalized(maps: tf.Tensor, layer: NormalizedLayer, *, training: bool) -> tf.Tensor:
    """[B, H, W, C] to the same, by the batch's own mean and variance in training, by the moving averages in use."""
    parameters = {"scale": layer.scale, "offset": layer.offset, "epsilon": _EPSILON}
    if not training:
        moving = {"mean": layer.moving_mean, "variance": layer.moving_variance}
        return tf.compat.v1.nn.fused_batch_norm(maps, **parameters, **moving, is_training=False)[0]
    maps, mean, variance = tf.compat.v1.nn.fused_batch_norm(maps, **parameters, is_training=True)
    moved = [
        average.assign_sub(_NORMALIZATION_STEP * (average - now), read_value=False)
        for average, now in ((layer.moving_mean, mean), (layer.moving_variance, variance))
    ]
    with tf.control_dependencies(moved):
        return tf.identity(maps)
