"""Several trained networks as one model, whose answers are the average of theirs.

The variables of all of them go into one checkpoint, as `member1/...`, `member2/...`, and from there into one
SavedModel.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.graphs.saver import Saver
from checkpointing.protocol import manifest
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.resume import ResumePoint
from checkpointing.storage import layout
from checkpointing.storage.fingerprint import weights_sha256
from configs.flags import RunOptions
from configs.settings import CnnSettings
from mnist.input.dataset import Dataset
from mnist.model import ema, networks, signatures, training_graph
from mnist.reporting import model_card, results
from mnist.training import evaluation
from mnist.training.evaluation import Predictions
from mnist.training.stopwatch import Stopwatch
from trainer import train

Record = dict[str, Any]


def join_members(
    command: RunOptions,
    settings: CnnSettings,
    members: Mapping[Path, Record],
    *,
    data: Dataset,
    start: ResumePoint,
    stopwatch: Stopwatch,
) -> tuple[Record, Predictions]:
    """Joins runs that have ended; leaves a checkpoint and an exported model, as a run does.

    Args:
      command: where they go.
      settings: which networks they are.
      members: their train_dirs, and what their result.json says.
      data: what to judge by; the test set is read once.
      start: of the train_dir that all of it goes to; it is closed.
      stopwatch: counts the seconds.

    Returns:
      The contents of result.json; seconds are those of the members' last attempts, and of joining. weights_sha256 is
      taken over all variables of the members, under their names in the whole. And what the whole says of the test set.

    Raises:
      CheckpointError: a member's checkpoint is missing or damaged, or the disk refuses.
    """
    make_model = partial(_make_ensemble, settings, len(members))
    target = command.export_dir or layout.export_path(command.train_dir, settings.train_steps)
    with tf.Graph().as_default() as joined:
        inference = training_graph.build_inference(make_model())
        variables = tf.compat.v1.global_variables()
        step = tf.compat.v1.train.get_or_create_global_step()
        set_step = step.assign(settings.train_steps, read_value=False)
        checkpoints = CheckpointManager(
            joined,
            start,
            variables=[*variables, step],
            step=step,
            signatures={"serving_default": signatures.serving_default(inference)},
        )
        # After the manager, which has taken the graph down for whoever imports it: these are nobody else's business.
        savers = [Saver(_names_of(number, variables)) for number in range(1, len(members) + 1)]
        with training_graph.open_session(joined, settings.threads) as session, checkpoints:
            with stopwatch("restore"):
                checkpoints.restore(session)
                if start.prefix is None:
                    for saver, directory in zip(savers, members, strict=True):
                        _restore(saver, session, layout.prefix(directory, settings.train_steps))
                    session.run(set_step)
            with stopwatch("save_stall"):
                prefix = checkpoints.save(session)
            with stopwatch("evaluate"):
                validation_accuracy = evaluation.evaluate(session, inference, data.validation)
                answers = evaluation.predict(session, inference, data.test.images)
                test_accuracy = evaluation.accuracy(answers.classes, data.test.labels)
            weights_hash = weights_sha256(session.run({variable.op.name: variable for variable in variables}))
            accuracies = {"validation": validation_accuracy, "test": test_accuracy}
            card_text = model_card.text(
                config=command.config,
                settings=settings,
                data=data,
                accuracies=accuracies,
                checkpoint=prefix.name,
                weights_sha256=weights_hash,
            )
            with stopwatch("export"):
                example = train.predict_example(session, inference, data.train.images)
                train.export(
                    target,
                    prefix,
                    make_model,
                    example,
                    card_text,
                    train_dir=command.train_dir,
                    step=settings.train_steps,
                )
    records = list(members.values())
    own = results.seconds(stopwatch)
    own["total"] = sum(own.values()) - own["total"]  # the stopwatch runs while members are trained
    spent = [*(each["seconds"] for each in records), own]
    record = {
        **records[0],
        "config": command.config,
        "seed": settings.seed,
        "validation_accuracy": validation_accuracy,
        "test_accuracy": test_accuracy,
        "weights_sha256": weights_hash,
        "checkpoint": str(prefix.absolute()),
        "export_dir": str(target.absolute()),
        "resumed_from": None,
        "images_per_second": None,
        "seconds": {name: round(sum(each[name] for each in spent), 4) for name in own},
        "steps_redone": sum(each["steps_redone"] for each in records),
        "restarts": sum(each["restarts"] for each in records),
        "versions": manifest.versions(),
        "environment": start.environment,
        "machine": results.machine(),
        "members": [{name: each[name] for name in ("seed", "test_accuracy", "weights_sha256")} for each in records],
    }
    return record, answers


def _make_ensemble(settings: CnnSettings, members: int) -> networks.Model:
    """Adds all to the current graph; where they start does not matter."""
    make_member = partial(ema.inference_model, partial(train.make_cnn, settings), settings.ema_decay)
    return networks.Ensemble([make_member] * members)


def _names_of(number: int, variables: list[tf.Variable]) -> dict[str, tf.Variable]:
    """A member's variables, by the names that they have in its own checkpoints."""
    scope = f"member{number}/"
    named = {variable.op.name: variable for variable in variables}
    return {name.removeprefix(scope): variable for name, variable in named.items() if name.startswith(scope)}


def _restore(saver: Saver, session: tf.compat.v1.Session, prefix: Path) -> None:
    """One member's variables, once each byte has proved to be as it was written."""
    try:
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))
    except DamagedError as error:
        message = f"{prefix.parent}: {error}; delete {layout.RESULT} there and run the same command again."
        raise CheckpointError(message) from error
    saver.restore(session, prefix)
