"""Predictions by a model's `serving_default` signature, from a checkpoint or a SavedModel, without its Python code.

    with predictor.open_predictor(Path("runs/cnn"), {"images"}, {"classes", "probabilities"}) as model:
        model.predict({"images": images})["probabilities"]

A checkpoint's graph comes from its `.meta` file. Every byte is verified before it is used. The graph must pass
`graph_safety.check`, unless the caller trusts it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpointing.errors import CheckpointError, DamagedError, listed, reason
from checkpointing.graphs import meta_graphs, saved_model
from checkpointing.protocol import lookup, verification
from checkpointing.storage import layout

Arrays = Mapping[str, np.ndarray[Any, Any]]
_DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


class Predictor(NamedTuple):
    """A loaded model.

    source: the checkpoint's prefix, or the SavedModel's directory.
    predict: maps the signature's inputs to its outputs, each by public name.
    """

    source: Path
    predict: Callable[[Arrays], dict[str, np.ndarray[Any, Any]]]


def predict_in_batches(
    predict: Callable[[Arrays], Arrays], inputs: Arrays, size: int = 500
) -> dict[str, np.ndarray[Any, Any]]:
    """Call `predict` on slices of the inputs along their first dimension, [N, ...] with N >= 1; join the outputs."""
    count = len(next(iter(inputs.values())))
    batches = [
        predict({name: array[begin : begin + size] for name, array in inputs.items()})
        for begin in range(0, count, size)
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@contextmanager
def open_predictor(path: Path, inputs: set[str], outputs: set[str], *, trusted: bool = False) -> Iterator[Predictor]:
    """Load a model for prediction by its `serving_default` signature.

    Args:
      path: a SavedModel's directory; a checkpoint's prefix; or a directory, for the newest checkpoint in it.
      inputs: the public names to feed; the signature must have exactly these.
      outputs: the public names to return; the signature must have at least these.
      trusted: load the graph without the safety check.

    Raises:
      CheckpointError: there is no model; it is damaged or not safe to load; or its signature has other names.
    """
    source = path if lookup.is_saved_model(path) else lookup.resolve_checkpoint(path)
    _verify(source)
    with _session(source, trusted=trusted) as (session, meta_graph):
        meta_graphs.check_signatures(meta_graph, [_DEFAULT], source)
        signature = meta_graph.signature_def[_DEFAULT]
        if set(signature.inputs) != inputs or not outputs <= set(signature.outputs):
            expected, found = _mapping(inputs, outputs), _mapping(signature.inputs, signature.outputs)
            raise CheckpointError(f"{source}: expected a signature from {expected}, got one from {found}")
        fetches = {name: signature.outputs[name].name for name in outputs}

        def predict(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
            feed = {signature.inputs[name].name: array for name, array in arrays.items()}
            try:
                return dict(session.run(fetches, feed))
            except (ValueError, TypeError, tf.errors.OpError) as error:
                raise CheckpointError(f"{source}: prediction failed ({reason(error)})") from error

        yield Predictor(source, predict)


def _mapping(inputs: Iterable[str], outputs: Iterable[str]) -> str:
    return f"{listed(sorted(inputs))} to {listed(sorted(outputs))}"


def _verify(source: Path) -> None:
    try:
        (verification.verify_saved_model if lookup.is_saved_model(source) else verification.verify)(source)
    except DamagedError as error:
        message = f"{source}: {error}"
        raise CheckpointError(message, hint="put a good copy back, or use another checkpoint or export") from error


@contextmanager
def _session(source: Path, *, trusted: bool) -> Iterator[tuple[tf.compat.v1.Session, tf.compat.v1.MetaGraphDef]]:
    """Load a model's graph and weights into a session."""
    if lookup.is_saved_model(source):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            yield session, saved_model.load(session, source, [tf.saved_model.SERVING], trusted=trusted)
        return
    meta_graph = meta_graphs.read_meta_graph(layout.meta_path(source))
    meta_graphs.check_signatures(meta_graph, [_DEFAULT], source)
    needed = meta_graphs.pruned(meta_graph, [_DEFAULT])
    with meta_graphs.restored(needed, source, trusted=trusted) as session:
        yield session, needed
