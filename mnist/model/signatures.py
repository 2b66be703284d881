"""Signatures of exported models and of the graphs in `.meta` files: public names of inputs and outputs."""

from typing import NamedTuple

import tensorflow as tf

from mnist.input.dataset import BUNDLED, IMAGE_SHAPE
from mnist.model import input_checks
from mnist.model.networks import Model
from mnist.model.training_graph import Inference, TrainingGraph, build_inference


class Signature(NamedTuple):
    """Inputs and outputs of one signature: tensors by their public names, which never change."""

    inputs: dict[str, tf.Tensor]
    outputs: dict[str, tf.Tensor]


def serving_default(inference: Inference) -> Signature:
    """Return the signature `serving_default`, which every graph has."""
    return Signature({"images": inference.images}, _outputs(inference))


def build_signatures(model: Model) -> dict[str, Signature]:
    """Add the signatures of an exported model to the current graph.

    Returns:
      serving_default: `images` uint8 [N, 28, 28], raw pixels, 0 is the background.
      png: `png` string [N], each the bytes of a PNG file of 28 x 28 pixels; colours are converted to grey.
      Both have the outputs `classes` int64 [N] and `probabilities` float32 [N, 10].
      labels: `images` as above -> `labels` string [N], the names of the classes, from a file exported as an asset.
    """
    raw = build_inference(model)
    png = tf.compat.v1.placeholder(tf.string, [None], name="png")
    decode = tf.autograph.experimental.do_not_convert(_decode)  # there is nothing to convert; searching takes 50 ms
    files = input_checks.ensure_input(png, [None])
    decoded = tf.map_fn(decode, files, fn_output_signature=tf.TensorSpec(IMAGE_SHAPE, tf.uint8))  # [N, 28, 28]
    from_png = build_inference(model, decoded)
    return {
        "serving_default": serving_default(raw),
        "png": Signature({"png": png}, _outputs(from_png)),
        "labels": Signature({"images": raw.images}, {"labels": _label_names(raw.classes)}),
    }


def training_signatures(training_graph: TrainingGraph) -> dict[str, Signature]:
    """Return the signatures of a training graph. With them, a `.meta` file can be trained without this code.

    Returns:
      serving_default: as in `build_signatures`.
      train: `steps_to_run` int64 scalar, the number of updates to apply -> `step`, `loss`, `learning_rate` of the last.
      load_data: `train_images` uint8 [T, 28, 28] and `train_labels` uint8 [T], to feed when the local variables are
        initialized; no outputs.
    """
    return {
        "serving_default": serving_default(training_graph.inference),
        "train": Signature({"steps_to_run": training_graph.steps_per_execution}, training_graph.run_steps._asdict()),
        "load_data": Signature(
            {"train_images": training_graph.train_images, "train_labels": training_graph.train_labels}, {}
        ),
    }


def _decode(png: tf.Tensor) -> tf.Tensor:
    """Decode a PNG file (string scalar) to uint8 [28, 28]; another size is an error when it runs."""
    return tf.ensure_shape(tf.io.decode_png(png, channels=1), [*IMAGE_SHAPE, 1])[..., 0]


def _outputs(inference: Inference) -> dict[str, tf.Tensor]:
    return {"classes": inference.classes, "probabilities": inference.probabilities}


def _label_names(classes: tf.Tensor) -> tf.Tensor:
    """Map classes (int64 [N]) to their names (string [N]), the lines of labels.txt."""
    lines = tf.lookup.TextFileInitializer(
        str(BUNDLED / "labels.txt"),
        *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
    )
    return tf.identity(tf.lookup.StaticHashTable(lines, default_value="").lookup(classes), name="labels")
