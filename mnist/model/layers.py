"""Layers of the networks: variables and forward functions.

Variables are named `layer1/weights`, `layer1/biases` and so on. The names are a persistent format: checkpoints and
exported models are read by them.
"""

import math
from typing import NamedTuple

import tensorflow as tf

# Fraction of the moving averages that each batch replaces.
_MOVING_AVERAGE_RATE = 0.03
# Added to the variance, so that a constant channel does not divide by 0.
_EPSILON = 1e-3


class Layer(NamedTuple):
    """Variables of a convolutional or dense layer.

    weights: float32 [height, width, inputs, outputs] or [inputs, outputs].
    biases: float32 [outputs].
    """

    weights: tf.Variable
    biases: tf.Variable


class NormalizedLayer(NamedTuple):
    """Variables of a convolution with batch normalization.

    weights: float32 [height, width, inputs, outputs].
    scale, offset, moving_mean, moving_variance: float32 [outputs]; the moving averages are not trained.
    """

    weights: tf.Variable
    scale: tf.Variable
    offset: tf.Variable
    moving_mean: tf.Variable
    moving_variance: tf.Variable


def he_normal(shape: list[int], key: list[int]) -> tf.Tensor:
    """Return initial weights: normal with variance 2 / inputs, float32 (source: He et al., "Delving Deep", 2015).

    Args:
      shape: of the weights; all dimensions but the last are inputs.
      key: two integers, the key of the random numbers.
    """
    return tf.random.stateless_normal(shape, key, stddev=math.sqrt(2 / math.prod(shape[:-1])))


def make_layer(name: str, weights: tf.Tensor, bias: float) -> Layer:
    """Create the variables of a layer in the current graph, with these initial weights and a constant bias."""
    with tf.compat.v1.variable_scope(name):
        return Layer(
            weights=_variable("weights", weights), biases=_variable("biases", tf.fill(weights.shape[-1:], bias))
        )


def make_normalized_layer(name: str, weights: tf.Tensor) -> NormalizedLayer:
    """Create the variables of a normalized layer in the current graph, with these initial weights."""
    zeros, ones = tf.zeros(weights.shape[-1:]), tf.ones(weights.shape[-1:])  # [outputs]
    with tf.compat.v1.variable_scope(name):
        return NormalizedLayer(
            weights=_variable("weights", weights),
            scale=_variable("scale", ones),
            offset=_variable("offset", zeros),
            moving_mean=_variable("moving_mean", zeros, trainable=False),
            moving_variance=_variable("moving_variance", ones, trainable=False),
        )


def _variable(name: str, initial_value: tf.Tensor, *, trainable: bool = True) -> tf.Variable:
    return tf.compat.v1.get_variable(name, initializer=initial_value, trainable=trainable, use_resource=True)


def scale_pixels(images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Scale raw pixels 0..255 to 0..1 in `dtype`; the shape is kept."""
    return tf.cast(tf.cast(images, tf.float32) * (1 / 255), dtype)


def dense(inputs: tf.Tensor, layer: Layer) -> tf.Tensor:
    """Apply a dense layer: [B, inputs] -> [B, outputs], in the dtype of the inputs."""
    weights, biases = (tf.cast(variable, inputs.dtype) for variable in layer)
    return tf.nn.bias_add(inputs @ weights, biases)


def dropout(hidden: tf.Tensor, rate: float, key: tf.Tensor | None) -> tf.Tensor:
    """Apply dropout with a stateless key (int64 [2]); without a key, return `hidden` unchanged."""
    return hidden if key is None or not rate else tf.nn.experimental.stateless_dropout(hidden, rate, seed=key)


def convolve_and_pool(maps: tf.Tensor, layer: Layer, padding: str, pool: int = 2) -> tf.Tensor:
    """Apply convolution, max pool, bias and ReLU: [B, H, W, C] -> [B, H'/pool, W'/pool, outputs].

    H' and W' are the sizes after the convolution. Bias and ReLU are monotonic, so they give the same bits after the
    pool as before it, where they would have to process `pool` squared as many numbers.
    """
    weights, biases = (tf.cast(variable, maps.dtype) for variable in layer)
    maps = tf.nn.conv2d(maps, weights, strides=1, padding=padding)  # [B, H', W', outputs]
    maps = tf.nn.max_pool2d(maps, ksize=pool, strides=pool, padding="VALID")  # [B, H'/pool, W'/pool, outputs]
    return tf.nn.relu(tf.nn.bias_add(maps, biases))  # [B, H'/pool, W'/pool, outputs]


def batch_normalization(maps: tf.Tensor, layer: NormalizedLayer, *, training: bool) -> tf.Tensor:
    """Normalize each channel: [B, H, W, C] -> [B, H, W, C] (source: Ioffe and Szegedy, 2015).

    In training by mean and variance of the batch, which also update the moving averages; otherwise by the moving
    averages.
    """
    parameters = {"scale": layer.scale, "offset": layer.offset, "epsilon": _EPSILON}
    if not training:
        moving = {"mean": layer.moving_mean, "variance": layer.moving_variance}
        return tf.compat.v1.nn.fused_batch_norm(maps, **parameters, **moving, is_training=False)[0]
    maps, mean, variance = tf.compat.v1.nn.fused_batch_norm(maps, **parameters, is_training=True)  # mean, variance: [C]
    updates = [
        average.assign_sub(_MOVING_AVERAGE_RATE * (average - current), read_value=False)
        for average, current in ((layer.moving_mean, mean), (layer.moving_variance, variance))
    ]
    with tf.control_dependencies(updates):
        return tf.identity(maps)


def log_mean_probabilities(logits: tf.Tensor) -> tf.Tensor:
    """Average probabilities over N predictions: logits [N, B, classes] -> log of the mean [B, classes]."""
    return tf.reduce_logsumexp(tf.nn.log_softmax(logits), axis=0) - math.log(logits.shape[0])
