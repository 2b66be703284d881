"""Checks of an input's shape by operations of the graph, which hold wherever the graph runs.

The shape of a placeholder is no check: TensorFlow 2's loader drops it, TensorFlow Serving and TFLite do not read it.
"""

from collections.abc import Sequence

import tensorflow as tf


def ensure_input(value: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """Return an input; running it with another shape is an InvalidArgumentError. TFLite drops this check."""
    with tf.name_scope("check_input"):
        return tf.ensure_shape(value, shape)


def ensure_images(images: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Return a batch of images; running it with another shape than [N, *shape] is an error, also in ONNX and TFLite."""
    images = ensure_input(images, [None, *shape])  # first, because its message is clear
    with tf.name_scope("check_input"):
        # Concatenation requires equal shapes in every runtime, and converters keep it: they cannot see that nothing of
        # it is used. They would drop one with an empty tensor.
        blank = tf.zeros([1, *shape], images.dtype)
        return tf.concat([images, blank], axis=0)[:-1]  # [N, *shape]
