"""Predictors: how to feed images to a graph and fetch classes, also for graphs of other programs."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpointing.errors import listed
from mnist.errors import SignatureError
from mnist.input.dataset import CLASSES, IMAGE_SHAPE
from mnist.input.idx import Bytes
from mnist.model.training_graph import Inference

Feeds = Sequence[tuple[str, object]]

# Shapes of one image that models take. If a placeholder's shape allows several, the first.
_IMAGE_SHAPES = ((IMAGE_SHAPE[0] * IMAGE_SHAPE[1],), IMAGE_SHAPE, (*IMAGE_SHAPE, 1), (1, *IMAGE_SHAPE))

# How many candidates for the output a hint lists.
_MAX_LISTED = 8


class Predictor(NamedTuple):
    """How to classify images with a graph.

    feed: maps raw images, uint8 [B, 28, 28], to a feed_dict.
    classes: integers [B], the tensor to fetch.
    scaled: whether pixels are fed as 0..1, not as 0..255.
    """

    feed: Callable[[Bytes], dict[Any, Any]]
    classes: tf.Tensor
    scaled: bool = False


def from_inference(inference: Inference) -> Predictor:
    """Return the predictor of a graph of this project."""
    return Predictor(lambda images: {inference.images: images}, inference.classes)


def from_tensors(graph: tf.Graph, names: tuple[str, str], feeds: Feeds, source: Path) -> Predictor:
    """Return the predictor of any imported graph, by the names of two tensors.

    Args:
      graph: the imported graph.
      names: of the input for images and of the output with predictions; see `make_predictor`.
      feeds: names and values of further tensors to feed.
      source: the graph's file, for messages.

    Raises:
      SignatureError: a tensor is missing, or of another dtype or shape; the hint lists tensors to name.
    """
    images, predictions = (_tensor(graph, name, source) for name in names)
    return _predictor(images, predictions, _constants(graph, feeds, source), source)


def from_signature(graph: tf.Graph, signature: Any, feeds: Feeds, source: Path) -> Predictor:  # noqa: ANN401 - a SignatureDef
    """Return the predictor of any imported graph, by a signature; the other arguments are those of `from_tensors`.

    Raises:
      SignatureError: the signature does not fit the graph, or it does not have one input for images and one output
        with predictions.
    """
    constants = _constants(graph, feeds, source)
    images, predictions = _find_tensors(graph, signature, constants.keys(), source)
    return _predictor(images, predictions, constants, source)


def _predictor(images: tf.Tensor, predictions: tf.Tensor, constants: Mapping[str, Any], source: Path) -> Predictor:
    try:
        return make_predictor(images, predictions, constants)
    except ValueError as error:
        raise SignatureError(f"{source}: {error}", hint=tensors_hint(images.graph)) from error


def _constants(graph: tf.Graph, feeds: Feeds, source: Path) -> dict[str, Any]:
    return dict(_constant(graph, name, value, source) for name, value in feeds)


def _find_tensors(
    graph: tf.Graph,
    signature: Any,  # noqa: ANN401 - a SignatureDef
    fed: Collection[str],
    source: Path,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Find a signature's only input that is not fed, and its predictions: the output `classes`, or the only one."""
    try:
        inputs, outputs = (
            {key: _tensor_of(graph, info) for key, info in side.items()}
            for side in (signature.inputs, signature.outputs)
        )
    except (LookupError, ValueError, TypeError) as error:
        raise SignatureError(f"{source}: the signature does not fit the graph ({error})") from error
    free = [tensor for tensor in inputs.values() if tensor.name not in fed]
    predictions = {key: tensor for key, tensor in outputs.items() if gives_classes(tensor)}
    chosen = [predictions["classes"]] if "classes" in predictions else list(predictions.values())
    if len(free) == len(chosen) == 1:
        return free[0], chosen[0]
    raise SignatureError(
        f"{source}: expected a signature with one input and one output of integers [N] or numbers [N, {CLASSES}], "
        f"got inputs {_listed(inputs.values())} and outputs {_listed(outputs.values())}",
        hint="name them with --images_tensor and --answers_tensor, and feed other inputs with --feed",
    )


def _tensor_of(graph: tf.Graph, info: Any) -> tf.Tensor:  # noqa: ANN401 - a TensorInfo
    """Return the tensor of a TensorInfo, with the shape given there."""
    tensor = graph.get_tensor_by_name(info.name)
    tensor.set_shape(info.tensor_shape)
    return tensor


def _tensor(graph: tf.Graph, name: str, source: Path) -> tf.Tensor:
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (LookupError, ValueError) as error:
        raise SignatureError(f"{source}: no tensor {name} found", hint=tensors_hint(graph)) from error


def _constant(graph: tf.Graph, name: str, value: object, source: Path) -> tuple[str, Any]:
    """Return the full name of a tensor, and the value to feed to it in its dtype."""
    tensor = _tensor(graph, name, source)
    try:
        array = np.asarray(value).astype(tensor.dtype.as_numpy_dtype)
        tensor.shape.assert_is_compatible_with(array.shape)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"{source}: --feed={name}: expected a value of {describe(tensor)}, got {value}") from error
    return tensor.name, array


def tensors_hint(graph: tf.Graph) -> str:
    """Return a hint that lists the tensors to choose from on the command line."""
    placeholders, candidates = [], []
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            if operation.type.startswith("Placeholder"):
                placeholders.append(tensor)
            elif gives_classes(tensor) and tensor.shape[0] is None and "gradients" not in tensor.name:
                candidates.append(tensor)
    inputs = _listed(tensor for tensor in placeholders if tensor.dtype.name != "string" or tensor.shape.rank != 0)
    outputs = _listed(candidates[-_MAX_LISTED:])  # predictions are among the last tensors of a graph
    return (
        "give --images_tensor and --answers_tensor, and --feed=NAME=VALUE for other inputs; "
        f"its placeholders are {inputs}; possible answers are {outputs}"
    )


def _listed(tensors: Iterable[tf.Tensor]) -> str:
    return listed(f"{tensor.name} ({describe(tensor)})" for tensor in tensors)


def make_predictor(images: tf.Tensor, predictions: tf.Tensor, constants: Mapping[str, Any] | None = None) -> Predictor:
    """Return a predictor that feeds and fetches these tensors.

    Args:
      images: uint8, fed raw pixels, or floats, fed pixels / 255; [N, 784], [N, 28, 28], [N, 28, 28, 1] or
        [N, 1, 28, 28].
      predictions: integers [N], the classes; or numbers [N, 10], whose largest index is the class.
      constants: further values to feed, by the names of their tensors.

    Raises:
      ValueError: a dtype or shape is another one.
    """
    shape, scaled = _image_shape(images), images.dtype.is_floating
    if not gives_classes(predictions):
        raise ValueError(
            f"expected predictions of integers [N] or numbers [N, {CLASSES}], "
            f"got {predictions.name} ({describe(predictions)})"
        )
    with predictions.graph.as_default():
        classes = predictions if predictions.shape.rank == 1 else tf.argmax(predictions, axis=1)  # [N]

    def feed(raw: Bytes) -> dict[Any, Any]:
        pixels = raw.astype(images.dtype.as_numpy_dtype).reshape(-1, *shape)  # [B, *shape]
        return {**(constants or {}), images.name: pixels / pixels.dtype.type(255) if scaled else pixels}

    return Predictor(feed, classes, scaled)


def _image_shape(images: tf.Tensor) -> tuple[int, ...]:
    """Return the shape of one image for this placeholder; one of _IMAGE_SHAPES."""
    fitting = [shape for shape in _IMAGE_SHAPES if images.shape.is_compatible_with([None, *shape])]
    any_number = images.shape.rank is None or images.shape[0] is None
    if not (fitting and any_number and (images.dtype == tf.uint8 or images.dtype.is_floating)):
        shapes = ", ".join(str([None, *shape]) for shape in _IMAGE_SHAPES)
        raise ValueError(f"expected images of uint8 or floats {shapes}, got {images.name} ({describe(images)})")
    return fitting[0]


def gives_classes(predictions: tf.Tensor) -> bool:
    """Return whether a tensor can be predictions: integers [N], or numbers [N, 10]."""
    dtype, shape = predictions.dtype, predictions.shape
    if shape.rank == 1:
        return bool(dtype.is_integer)
    is_number = dtype.is_floating or dtype.is_integer or dtype.is_bool
    return shape.rank is not None and shape[1:].as_list() == [CLASSES] and bool(is_number)


def describe(tensor: tf.Tensor) -> str:
    """Format dtype and shape of a tensor, as in `float32 [None, 784]`."""
    shape = "of unknown shape" if tensor.shape.rank is None else tensor.shape.as_list()
    return f"{tensor.dtype.name} {shape}"
