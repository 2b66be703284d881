"""Several trained networks as one model; its probabilities are the mean of theirs.

The variables of all members go into one checkpoint, as `member1/...`, `member2/...`, and from it into one SavedModel.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import tensorflow as tf

from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.graphs.saver import Saver
from checkpointing.protocol import manifest
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.resume import ResumePoint
from checkpointing.storage import layout
from checkpointing.storage.jsonl import Record
from configs.flags import RunOptions
from mnist.input.dataset import Dataset
from mnist.model import ema, networks, signatures, training_graph
from mnist.model.networks import Model
from mnist.training import evaluation
from mnist.training.evaluation import Predictions
from mnist.training.stopwatch import Stopwatch
from trainer import export, results


def join_members(
    options: RunOptions,
    make_model: Callable[[], Model],
    members: Mapping[Path, Record],
    *,
    data: Dataset,
    start: ResumePoint,
    stopwatch: Stopwatch,
) -> tuple[Record, Predictions]:
    """Join finished runs: save one checkpoint, evaluate it on the test set, export one model.

    Args:
      options: settings and directories of the ensemble.
      make_model: makes one member in the current graph.
      members: the contents of result.json by train_dir.
      data: validation and test splits.
      start: the ensemble's open train_dir; closed at the end.
      stopwatch: counts the seconds of each stage.

    Returns:
      The contents of result.json, weights_sha256 taken over all members' variables; the predictions on the test set.

    Raises:
      CheckpointError: a member's checkpoint is missing or damaged, or the disk refuses.
    """
    settings = options.settings
    make_member = partial(ema.inference_model, make_model, settings.ema_decay)
    make_ensemble = partial(networks.Ensemble, [make_member] * len(members))
    with tf.Graph().as_default() as graph:
        inference = training_graph.build_inference(make_ensemble())
        variables = tf.compat.v1.global_variables()
        step = tf.compat.v1.train.get_or_create_global_step()
        set_step = step.assign(settings.train_steps, read_value=False)
        manager = CheckpointManager(
            graph,
            start,
            variables=[*variables, step],
            step=step,
            signatures={"serving_default": signatures.serving_default(inference)},
        )
        # Made after the manager has exported the graph, so that .meta files do not hold them.
        savers = [Saver(_names_in_member(number, variables)) for number in range(1, len(members) + 1)]
    with training_graph.open_session(graph, settings.threads) as session, manager:
        with stopwatch("restore"):
            manager.restore(session)
            if start.prefix is None:
                for saver, directory in zip(savers, members, strict=True):
                    _restore_member(saver, session, layout.prefix(directory, settings.train_steps))
                session.run(set_step)
        with stopwatch("save_stall"):
            manager.save(session)
        with stopwatch("evaluate"):
            validation_accuracy = evaluation.evaluate(session, inference, data.validation)
            predictions = evaluation.predict(session, inference, data.test.images)
            test_accuracy = evaluation.accuracy(predictions.classes, data.test.labels)
        scores = results.score(session, variables, validation=validation_accuracy, test=test_accuracy)
        with stopwatch("export"):
            export.export_model(options, make_ensemble, session=session, inference=inference, data=data, scores=scores)
    record = results.ensemble_result(
        options, scores, list(members.values()), data=data, start=start, stopwatch=stopwatch
    )
    return record, predictions


def _names_in_member(number: int, variables: list[tf.Variable]) -> dict[str, tf.Variable]:
    """Return a member's variables by their names in its own checkpoints."""
    scope = f"member{number}/"
    named = {variable.op.name: variable for variable in variables}
    return {name.removeprefix(scope): variable for name, variable in named.items() if name.startswith(scope)}


def _restore_member(saver: Saver, session: tf.compat.v1.Session, prefix: Path) -> None:
    """Restore a member's variables after checking every byte of its checkpoint."""
    try:
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))
    except DamagedError as error:
        raise CheckpointError(
            f"{prefix.parent}: {error}", hint=f"delete {layout.RESULT} there and run the same command again"
        ) from error
    saver.restore(session, prefix)
