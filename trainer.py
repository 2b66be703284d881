"""One run once its data and its start are known: graph, training, evaluation, export, result, in this order.

Both programs run this; what differs between them is the model that they hand in.
"""

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from checkpointing import durable, export, layout, manifest
from checkpointing.errors import CheckpointError
from checkpointing.fingerprint import weights_sha256
from checkpointing.history import History
from checkpointing.interruption import Interrupted, StopRequest
from checkpointing.manager import CheckpointManager
from checkpointing.resume import Start
from checkpointing.rotation import Retention
from configs.command_line import Command, tell
from mnist import evaluation, graph, result, schedules, serving, training
from mnist.dataset import Dataset
from mnist.models import Model
from mnist.stopwatch import Stopwatch

DONE = 0
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again

# How many training images the exported model is asked, and compared with the trained one on.
_EXAMPLES = 100

_log = logging.getLogger(__name__)


class Run:
    """Trains, or goes on training; leaves checkpoints, metrics, an exported model and `result.json`."""

    def __init__(
        self,
        command: Command,
        make_model: Callable[[], Model],
        *,
        data: Dataset,
        identity: dict[str, Any],
        start: Start,
        stopwatch: Stopwatch,
        stop: StopRequest,
    ) -> None:
        """Builds the graph.

        Args:
          command: where things lie, and the settings.
          make_model: makes the model and its variables in the current graph.
          data: what to train on and to judge by.
          identity: all that the weights are a function of; each checkpoint records it.
          start: where the run goes on.
          stopwatch: counts the seconds that `result.json` tells.
          stop: a signal is heard between two calls of TensorFlow.
        """
        self._command = command
        self._settings = settings = command.settings
        self._data = data
        self._start = start
        self._make_model = make_model
        self._stopwatch = stopwatch
        self._stop = stop
        self._target = command.export_dir or layout.export_path(command.train_dir, settings.train_steps)
        self._graph = graph.build(
            make_model,
            data.train,
            batch_size=settings.batch_size,
            seed=settings.seed,
            make_optimizer=self._make_optimizer,
            learning_rate=self._learning_rate,
        )
        self._history = History(command.train_dir)
        self._checkpoints = CheckpointManager(
            self._graph.graph,
            command.train_dir,
            variables=self._graph.saved,
            step=self._graph.step,
            start=start,
            settings=identity,
            retention=Retention(settings.max_to_keep, settings.keep_checkpoint_every_n_hours),
            sharded=settings.sharded,
            save_relative_paths=settings.save_relative_paths,
            save_every_steps=settings.save_every_steps,
            save_every_seconds=settings.save_every_seconds,
            before_commit=self._history.sync,
        )

    def _make_optimizer(self, rate: tf.Tensor) -> tf.compat.v1.train.Optimizer:
        return graph.make_optimizer(self._settings.optimizer, rate, momentum=self._settings.momentum)

    def _learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        return schedules.learning_rate(
            step,
            schedule=self._settings.learning_rate_schedule,
            peak=self._settings.learning_rate,
            train_steps=self._settings.train_steps,
        )

    def execute(self) -> int:
        """Goes through the run.

        Returns:
          The exit status: 0 done; 75 stopped by a signal, with the state saved.

        Raises:
          CheckpointError, TrainingError: in one sentence, what is wrong and what to do.
        """
        with graph.open_session(self._graph, self._settings.threads) as session:
            first_step = self._restore(session)
            try:
                validation_accuracy = self._train(session)
                test_accuracy = self._test(session)
                self._export(session)
            except Interrupted as signal:
                self._save(session)
                tell(f"stopped by {signal}, the state is saved: run the same command again to go on")
                return STOPPED
            record = self._result(session, first_step, validation_accuracy, test_accuracy)
        durable.replace_json(self._command.train_dir / layout.RESULT, record)
        tell(result.summary(record))
        return DONE

    def _restore(self, session: tf.compat.v1.Session) -> int:
        """Puts the session where the run goes on; gives the step of that place."""
        with self._stopwatch("restore"):
            graph.start(session, self._graph, self._data.train)
            self._checkpoints.restore(session)
        step = int(session.run(self._graph.step))
        train_steps = self._settings.train_steps
        if step > train_steps:
            message = f"{self._start.prefix}: step {step} found, at most --train_steps={train_steps} wanted."
            raise CheckpointError(message)
        finished = step == train_steps
        ours = self._start.newest is not None and self._command.export_dir is None
        if not (finished or ours):
            export.check_target(self._target)
        if finished:
            _log.info("finished already: step %d of %d; only evaluating", step, train_steps)
        elif self._start.prefix:
            _log.info("going on from %s, step %d of %d", self._start.prefix, step, train_steps)
        self._tell_if_prolonged(step)
        self._history.begin_attempt(step=step, finished=finished)
        return step

    def _tell_if_prolonged(self, step: int) -> None:
        """Says what changes where the checkpoint was made for fewer steps."""
        before = self._start.newest.settings["train_steps"] if self._start.newest else self._settings.train_steps
        if before == self._settings.train_steps:
            return
        _log.info("prolonged from %d to %d steps", before, self._settings.train_steps)
        schedule = self._settings.learning_rate_schedule
        if schedules.depends_on_train_steps(schedule):
            _log.warning(
                "the %s schedule now ends at step %d: the steps up to %d followed the one that ends at %d, "
                "so the weights will not be those of an undisturbed run of %d steps",
                *(schedule, self._settings.train_steps, step, before, self._settings.train_steps),
            )

    def _train(self, session: tf.compat.v1.Session) -> float | None:
        """Trains to the end and saves; gives the validation accuracy."""
        settings = self._settings
        hooks = training.Hooks(
            evaluate=lambda: evaluation.accuracy(session, self._graph.inference, self._data.validation),
            record=self._history.record,
            save_if_due=lambda: self._save_if_due(session),
            check_stop=self._stop.check,
        )
        validation_accuracy = training.train(
            session,
            self._graph,
            hooks,
            self._stopwatch,
            train_steps=settings.train_steps,
            batch_size=settings.batch_size,
            log_every_steps=settings.log_every_steps,
            evaluate_every_steps=settings.evaluate_every_steps,
            save_every_steps=settings.save_every_steps,
        )
        self._save(session)
        return validation_accuracy

    def _save_if_due(self, session: tf.compat.v1.Session) -> None:
        with self._stopwatch("save_stall"):
            self._checkpoints.save_if_due(session)

    def _save(self, session: tf.compat.v1.Session) -> None:
        with self._stopwatch("save_stall"):
            self._checkpoints.save(session)

    def _test(self, session: tf.compat.v1.Session) -> float:
        """Reads the test set, once, after the last step."""
        with self._stopwatch("evaluate"):
            accuracy = evaluation.accuracy(session, self._graph.inference, self._data.test, self._stop.check)
        assert accuracy is not None, "dataset.load refuses an empty test set"
        return accuracy

    def _export(self, session: tf.compat.v1.Session) -> None:
        """Exports the model; one that an earlier attempt exported is compared instead."""
        self._stop.check()
        with self._stopwatch("export"):
            inference = self._graph.inference
            images = self._data.train.images[:_EXAMPLES]
            outputs = {"classes": inference.classes, "probabilities": inference.probabilities}
            example = export.Example({"images": images}, session.run(outputs, {inference.images: images}))
            if self._target.exists():
                export.check_saved_model(self._target, example)
                return
            prefix = layout.prefix(self._command.train_dir, self._settings.train_steps)
            export.export_saved_model(
                self._target, prefix, lambda: serving.build_signatures(self._make_model()), example
            )

    def _result(
        self,
        session: tf.compat.v1.Session,
        first_step: int,
        validation_accuracy: float | None,
        test_accuracy: float,
    ) -> dict[str, Any]:
        """The contents of result.json."""
        settings = self._settings
        weights = session.run({variable.op.name: variable for variable in self._graph.trained})
        images = (settings.train_steps - first_step) * settings.batch_size
        return {
            "config": self._command.config,
            "seed": settings.seed,
            "step": settings.train_steps,
            "train_images": len(self._data.train.labels),
            "validation_accuracy": validation_accuracy,
            "test_accuracy": test_accuracy,
            "weights_sha256": weights_sha256(weights),
            "checkpoint": str(layout.prefix(self._command.train_dir, settings.train_steps).absolute()),
            "export_dir": str(self._target.absolute()),
            "resumed_from": str(self._start.prefix.absolute()) if self._start.prefix else None,
            "images_per_second": images / self._stopwatch.seconds["train"] if images else None,
            "seconds": result.seconds(self._stopwatch),
            "steps_redone": self._history.steps_redone,
            "restarts": self._history.restarts,
            "versions": manifest.versions(),
            "machine": result.machine(),
        }
