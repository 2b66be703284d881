"""Exports a model as a SavedModel: written beside, loaded back, compared, and only then renamed to its place.

The model is built anew in a clean graph and its weights come from a checkpoint, so what is exported holds nothing of
training, and each export proves that the checkpoint it came from can be read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpointing import alias, durable, layout
from checkpointing.errors import CheckpointError, reason

Arrays = Mapping[str, np.ndarray[Any, Any]]
_RELATIVE_TOLERANCE = 1e-5
_ABSOLUTE_TOLERANCE = 1e-6


# What a server is asked, and what it answers: (inputs, outputs), each tensors by name.
Signature = tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]


class Example(NamedTuple):
    """Inputs of the serving_default signature, and the outputs that the trained model gave for them."""

    inputs: Arrays
    outputs: Arrays


def check_target(target: Path) -> None:
    """Refuses a target that exists or cannot be made; worth asking before training starts, not after.

    Makes its parents where they are missing.

    Raises:
      CheckpointError: something is at `target`, or it cannot be made.
    """
    if target.exists() or target.is_symlink():
        message = f"{target}: exists already, and no exported model is overwritten: give another --export_dir."
        raise CheckpointError(message)
    unfinished = layout.unfinished_export_path(target)
    try:
        durable.make_directory(unfinished)
        durable.delete([unfinished])
    except OSError as error:
        message = f"{target}: cannot be made ({error.strerror}); give another --export_dir."
        raise CheckpointError(message) from error


def export_saved_model(
    target: Path, prefix: Path, build_signatures: Callable[[], Mapping[str, Signature]], example: Example
) -> None:
    """Writes a SavedModel with the tag `serve`.

    Args:
      target: the directory to make; it must not exist. Its parents are made.
      prefix: the checkpoint with the weights.
      build_signatures: builds the model in the current graph; gives its signatures by name, `serving_default` among
        them. The names of its variables are those in the checkpoint.
      example: what the exported model must answer, or it is not put in place.

    Raises:
      CheckpointError: the target exists, or the model, loaded back, answers otherwise than the example.
    """
    check_target(target)
    unfinished = layout.unfinished_export_path(target)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = build_signatures()
        saver = tf.compat.v1.train.Saver()
        with alias.without_pattern(prefix) as plain:
            saver.restore(session, str(plain))
        builder = tf.compat.v1.saved_model.Builder(str(unfinished))
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            signature_def_map={
                name: tf.compat.v1.saved_model.predict_signature_def(inputs, outputs)
                for name, (inputs, outputs) in signatures.items()
            },
        )
        builder.save()
    check_saved_model(unfinished, example)
    durable.rename_tree(unfinished, target)


def check_saved_model(directory: Path, example: Example) -> None:
    """Loads a SavedModel and asks its serving_default signature.

    Raises:
      CheckpointError: it cannot be loaded, or answers otherwise than the example: floats may differ by 1e-5 of their
        size, for the exported graph is optimised on its own; all else must be equal.
    """
    try:
        found = _ask(directory, example.inputs, example.outputs)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, tf.errors.OpError) as error:
        message = f"{directory}: no model that this run exported ({reason(error)}); give another --export_dir."
        raise CheckpointError(message) from error
    for name, wanted in example.outputs.items():
        if np.issubdtype(wanted.dtype, np.floating):
            equal = np.allclose(found[name], wanted, rtol=_RELATIVE_TOLERANCE, atol=_ABSOLUTE_TOLERANCE)
        else:
            equal = np.array_equal(found[name], wanted)
        if not equal:
            message = (
                f"{directory}: the model there gives other {name} than the trained one, so it is not this run's; "
                f"give another --export_dir."
            )
            raise CheckpointError(message)


def _ask(directory: Path, inputs: Arrays, outputs: Arrays) -> dict[str, Any]:
    # The loader looks for the weights below the directory, so it is the directory's own name that counts, too.
    with (
        alias.without_pattern(directory / "saved_model.pb") as plain,
        tf.Graph().as_default(),
        tf.compat.v1.Session() as session,
    ):
        meta_graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(plain.parent))
        signature = meta_graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
        feed = {signature.inputs[name].name: array for name, array in inputs.items()}
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        found = dict(session.run(fetches, feed))
    return {name: found[name] for name in outputs}
