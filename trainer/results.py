"""The contents of result.json, for a single run and for an ensemble."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from checkpointing.protocol import manifest
from checkpointing.protocol.resume import ResumePoint
from checkpointing.storage import fingerprint, layout
from checkpointing.storage.jsonl import Record
from configs.flags import RunOptions
from mnist.input.dataset import Dataset
from mnist.reporting import results
from mnist.training.stopwatch import Stopwatch
from trainer.preparation import export_dir


class Scores(NamedTuple):
    """What result.json and the model card say of a trained model; accuracies are None without images."""

    validation_accuracy: float | None
    test_accuracy: float | None
    weights_sha256: str


def score(
    session: tf.compat.v1.Session, variables: Sequence[tf.Variable], *, validation: float | None, test: float | None
) -> Scores:
    """Hash the variables' values; return the hash with the two accuracies."""
    weights = session.run({variable.op.name: variable for variable in variables})
    return Scores(validation, test, fingerprint.weights_sha256(weights))


def result(
    options: RunOptions,
    scores: Scores,
    *,
    data: Dataset,
    start: ResumePoint,
    first_step: int,
    steps_redone: int,
    restarts: int,
    stopwatch: Stopwatch,
) -> Record:
    """Return the contents of result.json for a run that began this attempt at `first_step`."""
    settings = options.settings
    images = (settings.train_steps - first_step) * settings.batch_size
    return {
        "config": options.config,
        "seed": settings.seed,
        "step": settings.train_steps,
        "train_images": len(data.train.labels),
        "validation_accuracy": scores.validation_accuracy,
        "test_accuracy": scores.test_accuracy,
        "weights_sha256": scores.weights_sha256,
        "checkpoint": str(layout.prefix(options.train_dir, settings.train_steps).absolute()),
        "export_dir": str(export_dir(options).absolute()),
        "resumed_from": str(start.prefix.absolute()) if start.prefix else None,
        "images_per_second": images / stopwatch.seconds["train"] if images else None,
        "seconds": results.seconds(stopwatch),
        "steps_redone": steps_redone,
        "restarts": restarts,
        "versions": manifest.versions(),
        "environment": start.environment,
        "machine": results.machine(),
    }


def ensemble_result(
    options: RunOptions,
    scores: Scores,
    members: Sequence[Record],
    *,
    data: Dataset,
    start: ResumePoint,
    stopwatch: Stopwatch,
) -> Record:
    """Return the contents of result.json for an ensemble of members with these contents of result.json.

    Seconds are those of the members' last attempts and of joining.
    """
    joined = result(
        options,
        scores,
        data=data,
        start=start,
        first_step=options.settings.train_steps,  # joining trains nothing
        steps_redone=sum(each["steps_redone"] for each in members),
        restarts=sum(each["restarts"] for each in members),
        stopwatch=stopwatch,
    )
    own = joined["seconds"]
    own["total"] = sum(own.values()) - own["total"]  # the stopwatch also ran while members were trained
    spent = [*(each["seconds"] for each in members), own]
    return joined | {
        "resumed_from": None,
        "seconds": {name: round(sum(each[name] for each in spent), 4) for name in own},
        "members": [{name: each[name] for name in ("seed", "test_accuracy", "weights_sha256")} for each in members],
    }
