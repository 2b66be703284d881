"""Export of the trained model as a SavedModel, with example predictions and the model card."""

from collections.abc import Callable

import tensorflow as tf

from checkpointing import kernel_environment
from checkpointing.graphs.export import Example, ensure_exported
from checkpointing.protocol.resume import ResumePoint
from checkpointing.storage import layout, staging
from configs.flags import RunOptions
from mnist.errors import ResultError
from mnist.input.dataset import Dataset
from mnist.input.idx import Bytes
from mnist.model import signatures
from mnist.model.networks import Model
from mnist.model.training_graph import Inference
from mnist.reporting import model_card
from mnist.reporting import results as result_file
from trainer.preparation import export_dir
from trainer.results import Scores

# The exported model is published only after its predictions for so many training images match the trained model's.
_EXAMPLES = 100


def export_model(
    options: RunOptions,
    make_model: Callable[[], Model],
    *,
    session: tf.compat.v1.Session,
    inference: Inference,
    data: Dataset,
    scores: Scores,
) -> None:
    """Export the last checkpoint; an intact export of the same weights is kept.

    Args:
      options: name the target.
      make_model: makes the model to export in the current graph; its variables are named as in the checkpoint.
      session: holds the trained model.
      inference: the trained model's tensors.
      data: for the model card and the example predictions.
      scores: for the model card.

    Raises:
      CheckpointError: the export cannot be written, predicts otherwise, or something else is at the target.
    """
    settings = options.settings
    prefix = layout.prefix(options.train_dir, settings.train_steps)
    card = model_card.text(
        config=options.config,
        settings=settings,
        data=data,
        accuracies={"validation": scores.validation_accuracy, "test": scores.test_accuracy},
        checkpoint=prefix.name,
        weights_sha256=scores.weights_sha256,
        kernels=kernel_environment.summary(kernel_environment.in_force()),
    )
    ensure_exported(
        export_dir(options),
        prefix,
        lambda: signatures.build_signatures(make_model()),
        predict_example(session, inference, data.train.images),
        notes={model_card.NAME: card},
        train_dir=options.train_dir,
        step=settings.train_steps,
    )


def predict_example(session: tf.compat.v1.Session, inference: Inference, images: Bytes) -> Example:
    """Return the predictions of the model in the session for the first of these images (uint8 [N, 28, 28])."""
    images = images[:_EXAMPLES]
    outputs = {"classes": inference.classes, "probabilities": inference.probabilities}
    return Example({"images": images}, session.run(outputs, {inference.images: images}))


def check_export_dir(options: RunOptions, start: ResumePoint) -> None:
    """Raise an error before training if the model could not be exported after it.

    Raises:
      CheckpointError: something else is at the target, or it cannot be made.
    """
    if not _is_own_export(options, start):
        staging.check_target(export_dir(options))


def _is_own_export(options: RunOptions, start: ResumePoint) -> bool:
    """Whether an earlier attempt of this run made what is at the target, as far as can be known before the export.

    The case of a finished run that resumes because its last checkpoint is lost: the train_dir's own place for the
    export belongs to the run, any other place is named in result.json.
    """
    target, steps = export_dir(options), options.settings.train_steps
    if start.newest is None or not staging.is_there(target):
        return False
    if layout.resolved(target) == layout.resolved(layout.export_path(options.train_dir, steps)):
        return True
    try:
        ended = result_file.read(options.train_dir / layout.RESULT)
    except (FileNotFoundError, ResultError):  # no evidence
        return False
    return (ended["step"], ended["export_dir"]) == (steps, str(target.absolute()))
