"""Count the correct predictions of models that are loaded from their files alone. Needs TensorFlow."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import tensorflow as tf
from google.protobuf.message import DecodeError

from checkpointing.errors import CheckpointError, reason
from checkpointing.graphs import meta_graphs, saved_model
from checkpointing.storage import tf_path
from mnist.errors import SignatureError
from mnist.input.dataset import Split
from mnist.model import predictor
from mnist.model.predictor import Predictor
from mnist.reporting import metrics
from mnist.tools import checkpoint_refs
from mnist.tools.checkpoint_refs import CheckpointRef
from mnist.tools.graph_interface import GraphInterface
from mnist.training import evaluation

Record = dict[str, Any]


class Evaluator:
    """Evaluates checkpoints, one after the other.

        with Evaluator(interface, split) as evaluate:
            evaluate(ref)["accuracy"]

    Equal graphs are imported once.
    """

    def __init__(self, interface: GraphInterface, split: Split) -> None:
        """Nothing is loaded yet."""
        self._interface = interface
        self._split = split
        self._stack = ExitStack()
        self._meta_graph: tf.compat.v1.MetaGraphDef | None = None

    def __enter__(self) -> Self:
        """Return the evaluator itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the session."""
        self._stack.close()

    def __call__(self, ref: CheckpointRef) -> Record:
        """Evaluate a checkpoint.

        Returns:
          images, wrong, accuracy, standard_error and scaled (whether pixels were divided by 255).

        Raises:
          CheckpointError, SignatureError: it cannot be restored, or it is not a classifier of images.
        """
        meta_graph = meta_graphs.read_meta_graph(ref.meta)
        if meta_graph == self._meta_graph:
            with _checkpoint_errors(ref.prefix, "cannot be restored"), tf_path.without_pattern(ref.prefix) as plain:
                self._saver.restore(self._session, str(plain))
        else:
            self._open(meta_graph, ref)
        return _evaluate(self._session, self._predictor, self._split, ref.meta)

    def _open(self, meta_graph: tf.compat.v1.MetaGraphDef, ref: CheckpointRef) -> None:
        """Import a graph into a new session, and close the one before."""
        self._stack.close()
        self._meta_graph = None  # until the new graph is imported completely
        if ref.manifest:  # as in training, so that the accuracy is exactly the run's
            tf.config.experimental.enable_op_determinism()
        with _checkpoint_errors(ref.meta, "its signature does not fit its graph"):
            needed = self._interface.needed(meta_graph, ref.meta)
        with _checkpoint_errors(ref.meta, "cannot be imported"):
            restored = meta_graphs.restored(
                needed, ref.prefix, source=ref.meta, runs=self._interface.runs, trusted=self._interface.trusted
            )
            self._session = self._stack.enter_context(restored)
        self._predictor = self._interface.predictor(self._session.graph, needed.signature_def, ref.meta)
        # Another program's Saver may have saved the variables under other names than their own.
        own = {"saver_def": needed.saver_def} if needed.HasField("saver_def") else {}
        self._saver = tf.compat.v1.train.Saver(**own)
        self._meta_graph = meta_graph


def evaluate_one(ref: CheckpointRef, evaluator: Evaluator) -> Record:
    """Evaluate a checkpoint, as `Evaluator` does; also its name, graph, step and notes are returned.

    Raises:
      CheckpointError, SignatureError: it cannot be evaluated.
    """
    if ref.problem:
        raise ref.problem
    try:
        return _described(ref) | evaluator(ref)
    except (CheckpointError, SignatureError) as error:
        if checkpoint_refs.was_deleted(ref.prefix):
            raise CheckpointError(f"{ref.prefix}: its run has just deleted it") from error
        raise


def evaluate_all(refs: Sequence[CheckpointRef], evaluator: Evaluator) -> list[Record]:
    """Evaluate checkpoints; leave out those that their run deletes meanwhile.

    Returns:
      A record for each as from `evaluate_one`; accuracy None and a problem if it cannot be evaluated.
    """
    records = []
    for ref in refs:
        try:
            records.append(evaluate_one(ref, evaluator))
        except (CheckpointError, SignatureError) as error:
            if not checkpoint_refs.was_deleted(ref.prefix):
                notes = [*ref.notes] if ref.problem else [*ref.notes, "not evaluated"]
                records.append(_described(ref) | {"notes": notes, "accuracy": None, "problem": str(error)})
    return records


def _described(ref: CheckpointRef) -> Record:
    return {
        "checkpoint": str(ref.prefix),
        "meta_graph": str(ref.meta),
        "step": ref.step,
        "notes": list(ref.notes),
    }


def evaluate_saved_model(directory: Path, tags: Sequence[str], interface: GraphInterface, split: Split) -> Record:
    """Evaluate a SavedModel, as `Evaluator` does a checkpoint.

    Args:
      directory: of the SavedModel; its bytes have been verified.
      tags: of the graph.
      interface: of the graph.
      split: the images.

    Raises:
      CheckpointError, SignatureError: it cannot be loaded, or it is not a classifier of images.
    """
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        with _checkpoint_errors(directory, "cannot be loaded"):
            signatures = saved_model.load(
                session, directory, tags, runs=interface.runs, trusted=interface.trusted
            ).signature_def
        if interface.tensors is None and interface.signature not in signatures:
            there = saved_model.describe(saved_model.read(directory))
            raise CheckpointError(f"{directory}: no signature {interface.signature}; there are {there}")
        return _evaluate(session, interface.predictor(graph, signatures, directory), split, directory)


def _evaluate(session: tf.compat.v1.Session, classify: Predictor, split: Split, source: Path) -> Record:
    with _checkpoint_errors(source, "cannot be run", predictor.tensors_hint(session.graph)):
        correct = evaluation.count_correct(session, classify, split)
    images = len(split.labels)
    accuracy = correct / images
    return {
        "images": images,
        "wrong": images - correct,
        "accuracy": accuracy,
        "standard_error": metrics.standard_error(accuracy, images),
        "scaled": classify.scaled,
    }


@contextmanager
def _checkpoint_errors(source: Path, what: str, hint: str | None = None) -> Iterator[None]:
    """Turn the errors of TensorFlow in the block into CheckpointError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AssertionError, RuntimeError, DecodeError, tf.errors.OpError) as error:
        raise CheckpointError(f"{source}: {what} ({reason(error)})", hint=hint) from error
