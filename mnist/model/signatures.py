"""What a model is asked and what it answers, by public names: the signatures of exports and of `.meta` files."""

from typing import NamedTuple

import tensorflow as tf

from mnist.input.dataset import BUNDLED, IMAGE_SHAPE
from mnist.model.graph import Inference, TrainingGraph, build_inference
from mnist.model.networks import Model


class Served(NamedTuple):
    """Inputs and outputs of one signature, tensors by their public names; the names stay."""

    inputs: dict[str, tf.Tensor]
    outputs: dict[str, tf.Tensor]


def served(inference: Inference) -> Served:
    """The serving_default signature, which every graph has."""
    return Served({"images": inference.images}, _outputs(inference))


def build_signatures(model: Model) -> dict[str, Served]:
    """Adds to the current graph the ways to ask the model.

    Returns:
      serving_default: `images` uint8 [N, 28, 28], raw pixels, 0 the background.
      png: `png` string [N], each the bytes of a PNG file of 28 x 28 pixels; colours are turned to grey.
      Both give `classes` int64 [N] and `probabilities` float32 [N, 10].
      labels: `images` as above, to `labels` string [N], the classes' names: an asset, exported with the model.
    """
    raw = build_inference(model)
    png = tf.compat.v1.placeholder(tf.string, [None], name="png")
    decode = tf.autograph.experimental.do_not_convert(_decode)  # it is a graph already; looking takes 50 ms
    decoded = tf.map_fn(decode, png, fn_output_signature=tf.TensorSpec(IMAGE_SHAPE, tf.uint8))  # [N, 28, 28]
    from_png = build_inference(model, decoded)
    return {
        "serving_default": served(raw),
        "png": Served({"png": png}, _outputs(from_png)),
        "labels": Served({"images": raw.images}, {"labels": _names(raw.classes)}),
    }


def training_signatures(training_graph: TrainingGraph) -> dict[str, Served]:
    """What a training graph can be asked; with these in its `.meta`, nobody needs this code to go on.

    Returns:
      serving_default: as above.
      train: `steps_to_run` int64 scalar; makes so many updates, gives `step`, `loss`, `learning_rate` of the last.
      load_data: `train_images` uint8 [T, 28, 28] and `train_labels` uint8 [T], fed when the local variables are
        initialised; it gives nothing.
    """
    return {
        "serving_default": served(training_graph.inference),
        "train": Served({"steps_to_run": training_graph.steps_to_run}, training_graph.run_steps._asdict()),
        "load_data": Served(
            {"train_images": training_graph.train_images, "train_labels": training_graph.train_labels}, {}
        ),
    }


def _decode(png: tf.Tensor) -> tf.Tensor:
    """One PNG file's bytes (string scalar) to uint8 [28, 28]; a picture of another size is an error."""
    return tf.ensure_shape(tf.io.decode_png(png, channels=1), [*IMAGE_SHAPE, 1])[..., 0]


def _outputs(inference: Inference) -> dict[str, tf.Tensor]:
    return {"classes": inference.classes, "probabilities": inference.probabilities}


def _names(classes: tf.Tensor) -> tf.Tensor:
    """Classes (int64 [N]) to their names (string [N]), the lines of labels.txt."""
    lines = tf.lookup.TextFileInitializer(
        str(BUNDLED / "labels.txt"),
        *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
    )
    return tf.identity(tf.lookup.StaticHashTable(lines, default_value="").lookup(classes), name="labels")
