"""What an exported model is asked and what it answers."""

from typing import NamedTuple

import tensorflow as tf

from mnist.dataset import IMAGE_SHAPE
from mnist.graph import Inference, build_inference
from mnist.models import Model


class Served(NamedTuple):
    """Inputs and outputs of one signature, tensors by their public names; the names stay."""

    inputs: dict[str, tf.Tensor]
    outputs: dict[str, tf.Tensor]


def build_signatures(model: Model) -> dict[str, Served]:
    """Adds to the current graph the two ways to ask the model.

    Returns:
      serving_default: `images` uint8 [N, 28, 28], raw pixels, 0 the background.
      png: `png` string [N], each the bytes of a PNG file of 28 x 28 pixels; colours are turned to grey.
      Both give `classes` int64 [N] and `probabilities` float32 [N, 10].
    """
    raw = build_inference(model)
    png = tf.compat.v1.placeholder(tf.string, [None], name="png")
    decoded = tf.map_fn(_decode, png, fn_output_signature=tf.TensorSpec(IMAGE_SHAPE, tf.uint8))  # [N, 28, 28]
    from_png = build_inference(model, decoded)
    return {
        "serving_default": Served({"images": raw.images}, _outputs(raw)),
        "png": Served({"png": png}, _outputs(from_png)),
    }


def _decode(png: tf.Tensor) -> tf.Tensor:
    """One PNG file's bytes (string scalar) to uint8 [28, 28]; a picture of another size is an error."""
    return tf.ensure_shape(tf.io.decode_png(png, channels=1), [*IMAGE_SHAPE, 1])[..., 0]


def _outputs(inference: Inference) -> dict[str, tf.Tensor]:
    return {"classes": inference.classes, "probabilities": inference.probabilities}
