"""Models asked by the public names of their signatures, wherever they lie, without the code that built them.

    with answering.opened(Path("runs/cnn")) as model:
        model.predict({"images": images})["probabilities"]

Of a checkpoint, the graph comes from its `.meta`; every byte is checked before it is used. A graph that could touch
files, the network or Python is refused (`graph_safety`), unless the caller says that it is trusted.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpointing.errors import CheckpointError, DamagedError, reason
from checkpointing.graphs import meta_graphs, saved_model
from checkpointing.protocol import lookup, verification
from checkpointing.storage import layout

Arrays = Mapping[str, np.ndarray[Any, Any]]
_DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


class Predictor(NamedTuple):
    """A model that can be asked.

    source: the checkpoint's prefix, or the SavedModel's directory.
    predict: from the signature's inputs to its outputs, by their public names.
    """

    source: Path
    predict: Callable[[Arrays], dict[str, np.ndarray[Any, Any]]]


def predict_in_batches(
    predict: Callable[[Arrays], Arrays], inputs: Arrays, size: int = 500
) -> dict[str, np.ndarray[Any, Any]]:
    """All answers to many inputs, which are cut along their first dimension; there is at least one."""
    count = len(next(iter(inputs.values())))
    batches = [
        predict({name: array[begin : begin + size] for name, array in inputs.items()})
        for begin in range(0, count, size)
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@contextmanager
def open_predictor(path: Path, inputs: set[str], outputs: set[str], *, trusted: bool = False) -> Iterator[Predictor]:
    """Opens a model's `serving_default`.

    Args:
      path: a SavedModel's directory; a checkpoint's prefix; or a directory, for the newest checkpoint in it.
      inputs: the public names that will be fed; the signature must have these and no others.
      outputs: the public names that will be looked for.
      trusted: loads the graph without scanning it.

    Raises:
      CheckpointError: there is none; it is damaged or not safe to load; or it cannot be asked so.
    """
    source = path if lookup.is_saved_model(path) else lookup.resolve_checkpoint(path)
    with _session(source, trusted=trusted) as (session, signatures):
        if _DEFAULT not in signatures:
            raise CheckpointError(
                f"{source}: no signature {_DEFAULT} found, one wanted that says how to ask the graph."
            )
        signature = signatures[_DEFAULT]
        found = (set(signature.inputs), set(signature.outputs))
        if found[0] != inputs or not outputs <= found[1]:
            names = [", ".join(sorted(each)) for each in (*found, inputs, outputs)]
            raise CheckpointError(
                f"{source}: a signature from {names[0]} to {names[1]} found, from {names[2]} to {names[3]} wanted."
            )
        fetches = {name: signature.outputs[name].name for name in outputs}

        def predict(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
            feed = {signature.inputs[name].name: array for name, array in arrays.items()}
            try:
                return dict(session.run(fetches, feed))
            except (ValueError, TypeError, tf.errors.OpError) as error:
                raise CheckpointError(f"{source}: cannot be asked ({reason(error)}).") from error

        yield Predictor(source, predict)


@contextmanager
def _session(source: Path, *, trusted: bool) -> Iterator[tuple[tf.compat.v1.Session, Mapping[str, Any]]]:
    """The graph with its weights, and its signatures, once its bytes have been checked."""
    try:
        if lookup.is_saved_model(source):
            verification.verify_saved_model(source)
        else:
            verification.verify(source)
    except DamagedError as error:
        raise CheckpointError(f"{source}: {error}; put a good copy back, or give another.") from error
    if lookup.is_saved_model(source):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            yield session, saved_model.load(session, source, [tf.saved_model.SERVING], trusted=trusted).signature_def
        return
    meta_graph = meta_graphs.read_meta_graph(layout.meta_path(source))
    meta_graphs.check_signatures(meta_graph, [_DEFAULT], source)
    needed = meta_graphs.pruned(meta_graph, [_DEFAULT])
    with meta_graphs.restored(needed, source, trusted=trusted) as session:
        yield session, needed.signature_def
