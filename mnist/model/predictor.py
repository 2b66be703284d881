"""How a graph is asked what it sees, whoever made it: which tensor takes images, which gives answers, in which form."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mnist.errors import SignatureError
from mnist.input.dataset import CLASSES, IMAGE_SHAPE
from mnist.input.idx import Bytes
from mnist.training.evaluation import Predictor

Feeds = Sequence[tuple[str, object]]

# So many of the tensors that could be a graph's answers are listed where none was named.
_MOST_LISTED = 8

# The forms in which models take an image; where a placeholder leaves it open, the first.
_PIXELS = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
_FORMS = ((_PIXELS,), IMAGE_SHAPE, (*IMAGE_SHAPE, 1), (1, *IMAGE_SHAPE))


def from_tensors(graph: tf.Graph, names: tuple[str, str], feeds: Feeds, source: Path) -> Predictor:
    """How a graph is asked by the names of two tensors: where images go in, and where answers come out.

    Args:
      graph: has been imported.
      names: of the two.
      feeds: what else it wants to be fed, each a tensor's name and a value.
      source: its file, for messages.

    Raises:
      QuestionError: it cannot be asked so; the message says what could be named instead.
    """
    images, answers = (_tensor(graph, name, source) for name in names)
    return _question(images, answers, _constants(graph, feeds, source), source)


def from_signature(graph: tf.Graph, signature: Any, feeds: Feeds, source: Path) -> Predictor:  # noqa: ANN401 - a SignatureDef
    """How a graph is asked by a signature, whoever wrote it; the other arguments are those of `by_tensors`."""
    constants = _constants(graph, feeds, source)
    images, answers = _asked_by(graph, signature, constants.keys(), source)
    return _question(images, answers, constants, source)


def _question(images: tf.Tensor, answers: tf.Tensor, constants: Mapping[str, Any], source: Path) -> Predictor:
    try:
        return make_predictor(images, answers, constants)
    except ValueError as error:
        raise SignatureError(f"{source}: cannot be asked ({error}){tensors_to_name(images.graph)}.") from error


def _constants(graph: tf.Graph, feeds: Feeds, source: Path) -> dict[str, Any]:
    return dict(_constant(graph, name, value, source) for name, value in feeds)


def _asked_by(
    graph: tf.Graph,
    signature: Any,  # noqa: ANN401 - a SignatureDef
    fed: Collection[str],
    source: Path,
) -> tuple[tf.Tensor, tf.Tensor]:
    """A signature's one input that is not fed already, and its answers: called classes, or the only ones."""
    try:
        inputs, outputs = (
            {key: _shaped(graph, info) for key, info in side.items()} for side in (signature.inputs, signature.outputs)
        )
    except (LookupError, ValueError, TypeError) as error:
        raise SignatureError(f"{source}: its signature does not fit its graph ({error}).") from error
    free = [tensor for tensor in inputs.values() if tensor.name not in fed]
    answers = {key: tensor for key, tensor in outputs.items() if gives_classes(tensor)}
    chosen = [answers["classes"]] if "classes" in answers else list(answers.values())
    if len(free) == len(chosen) == 1:
        return free[0], chosen[0]
    raise SignatureError(
        f"{source}: inputs {_listed(inputs.values())} and outputs {_listed(outputs.values())} found in its signature, "
        f"one input wanted, and one output that is integers [N] or numbers [N, 10]: "
        f"name them by --images_tensor and --answers_tensor, and feed other inputs by --feed."
    )


def _shaped(graph: tf.Graph, info: Any) -> tf.Tensor:  # noqa: ANN401 - a TensorInfo
    """The tensor that a signature names, with what the signature knows of its shape."""
    tensor = graph.get_tensor_by_name(info.name)
    tensor.set_shape(info.tensor_shape)
    return tensor


def _tensor(graph: tf.Graph, name: str, source: Path) -> tf.Tensor:
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (LookupError, ValueError) as error:
        raise SignatureError(f"{source}: no tensor {name} found{tensors_to_name(graph)}.") from error


def _constant(graph: tf.Graph, name: str, value: object, source: Path) -> tuple[str, Any]:
    """The name of a tensor, and the value to feed it, in its dtype."""
    tensor = _tensor(graph, name, source)
    try:
        array = np.asarray(value).astype(tensor.dtype.as_numpy_dtype)
        tensor.shape.assert_is_compatible_with(array.shape)
    except (ValueError, TypeError) as error:
        wanted = describe(tensor)
        raise SignatureError(f"{source}: --feed={name}={value} found, a value of {wanted} wanted.") from error
    return tensor.name, array


def tensors_to_name(graph: tf.Graph) -> str:
    """Which tensors there are to be named on the command line."""
    placeholders, others = [], []
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            if operation.type.startswith("Placeholder"):
                placeholders.append(tensor)
            elif gives_classes(tensor) and tensor.shape[0] is None and "gradients" not in tensor.name:
                others.append(tensor)
    fed = _listed(tensor for tensor in placeholders if tensor.dtype.name != "string" or tensor.shape.rank != 0)
    asked = _listed(others[-_MOST_LISTED:])  # a model's answers come late
    return (
        f": give --images_tensor and --answers_tensor, and --feed=NAME=VALUE for what else it wants; "
        f"its placeholders are {fed}; its answers may be among {asked}"
    )


def _listed(tensors: Iterable[tf.Tensor]) -> str:
    return ", ".join(f"{tensor.name} ({describe(tensor)})" for tensor in tensors) or "none"


def make_predictor(images: tf.Tensor, answers: tf.Tensor, constants: Mapping[str, Any] | None = None) -> Predictor:
    """How to ask any graph, whoever made it.

    Args:
      images: where the images go in, [N, 784], [N, 28, 28], [N, 28, 28, 1] or [N, 1, 28, 28]: uint8 gets raw pixels,
        floats get pixels / 255.
      answers: integers [N], the classes; or numbers [N, 10], the largest of which is at the class.
      constants: what else is fed, by the tensor's name.

    Raises:
      ValueError: they are none of these; the message says what was found and what was wanted.
    """
    form, scaled = _form(images), images.dtype.is_floating
    if not gives_classes(answers):
        found = f"{answers.name} ({describe(answers)})"
        raise ValueError(f"answers {found} found, integers [N] or numbers [N, {CLASSES}] wanted")
    with answers.graph.as_default():
        classes = answers if answers.shape.rank == 1 else tf.argmax(answers, axis=1)  # [N]

    def feed(raw: Bytes) -> dict[Any, Any]:
        pixels = raw.astype(images.dtype.as_numpy_dtype).reshape(-1, *form)  # [B, ...]
        return {**(constants or {}), images.name: pixels / pixels.dtype.type(255) if scaled else pixels}

    return Predictor(feed, classes, scaled)


def _form(images: tf.Tensor) -> tuple[int, ...]:
    """What shape an image has to have to go in there."""
    fitting = [form for form in _FORMS if images.shape.is_compatible_with([None, *form])]
    any_number = images.shape.rank is None or images.shape[0] is None
    if not (fitting and any_number and (images.dtype == tf.uint8 or images.dtype.is_floating)):
        forms = ", ".join(str([None, *form]) for form in _FORMS)
        raise ValueError(f"images {images.name} ({describe(images)}) found, uint8 or floats of {forms} wanted")
    return fitting[0]


def gives_classes(answers: tf.Tensor) -> bool:
    """Whether these answers can be read: integers [N], or numbers [N, 10]."""
    dtype, shape = answers.dtype, answers.shape
    if shape.rank == 1:
        return bool(dtype.is_integer)
    number = dtype.is_floating or dtype.is_integer or dtype.is_bool
    return shape.rank is not None and shape[1:].as_list() == [CLASSES] and bool(number)


def describe(tensor: tf.Tensor) -> str:
    """The dtype and the shape of a tensor, as in `float32 [None, 784]`."""
    shape = "of unknown shape" if tensor.shape.rank is None else tensor.shape.as_list()
    return f"{tensor.dtype.name} {shape}"
