"""One run once its data and its start are known: graph, training, evaluation, export, result, in this order.

Both programs run this; what differs between them is the model that they hand in.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from checkpointing.cli import print_line
from checkpointing.errors import CheckpointError, NonFiniteError, ReplacedError, reason
from checkpointing.graphs import meta_graphs, saved_model, variable_matching
from checkpointing.protocol import manifest
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.resume import ResumePoint
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.runs import history
from checkpointing.runs.history import History
from checkpointing.runs.preemption import STOPPED, StopRequested, StopSignal
from checkpointing.storage import durable, layout, staging
from checkpointing.storage.fingerprint import weights_sha256
from checkpointing.storage.jsonl import Record
from configs.flags import RunOptions
from configs.settings import CnnSettings, Settings
from mnist import report
from mnist.errors import NonFiniteLossError, ResultError
from mnist.input.augment import Augmentation
from mnist.input.dataset import Dataset, Split
from mnist.input.idx import Bytes
from mnist.model import ema, networks, precision, predictor, schedules, signatures, training_graph
from mnist.model.networks import Model
from mnist.model.training_graph import Inference, TrainingGraph
from mnist.reporting import model_card, results
from mnist.training import evaluation, loop
from mnist.training.evaluation import Predictions
from mnist.training.stopwatch import Stopwatch
from mnist.training.summaries import SummaryWriter

DONE = 0

# How many training images the exported model is asked, and compared with the trained one on.
_EXAMPLES = 100

# A state that was spoilt by chance comes out well the next time; three times is no chance.
_MAX_ROLLBACKS = 3

# What TensorBoard shows of a logged step.
_SHOWN = ("loss", "learning_rate", "images_per_second", "validation_accuracy")

_log = logging.getLogger(__name__)


def make_cnn(settings: CnnSettings) -> Model:
    """The network that these settings ask for; its variables are made in the current graph."""
    return networks.make_cnn(
        settings.architecture,
        seed=settings.seed,
        dropout_rate=settings.dropout_rate,
        precision=settings.precision,
        crops=settings.crops,
    )


def make_model(settings: Settings) -> Model:
    """The model that these settings ask for: a network, or the softmax, which has fewer settings."""
    return make_cnn(settings) if isinstance(settings, CnnSettings) else networks.Softmax(settings.precision)


def build_graph(settings: Settings, make_model: Callable[[], Model], train: Split) -> TrainingGraph:
    """The training graph that these settings ask for, for training data of this size."""

    def make_optimizer(rate: tf.Tensor) -> tf.compat.v1.train.Optimizer:
        return training_graph.make_optimizer(
            settings.optimizer, rate, momentum=settings.momentum, beta1=settings.beta1, beta2=settings.beta2
        )

    def learning_rate(step: tf.Tensor) -> tf.Tensor:
        return schedules.learning_rate(
            step,
            schedule=settings.learning_rate_schedule,
            peak=settings.learning_rate,
            train_steps=settings.train_steps,
        )

    return training_graph.build(
        make_model,
        train,
        batch_size=settings.batch_size,
        seed=settings.seed,
        make_optimizer=make_optimizer,
        learning_rate=learning_rate,
        loss_options=training_graph.LossOptions(settings.label_smoothing, settings.l2, settings.clip_gradient_norm),
        augmentation=Augmentation(
            rotation=settings.augment_rotation,
            zoom=settings.augment_zoom,
            shear=settings.augment_shear,
            shift=settings.augment_shift,
        ),
        ema_decay=settings.ema_decay,
    )


def export(
    target: Path,
    prefix: Path,
    make_model: Callable[[], Model],
    example: saved_model.Example,
    card_text: str,
    *,
    train_dir: Path,
    step: int,
) -> None:
    """Exports a model; an intact export of the same weights is kept, a damaged one set aside and exported again.

    Args:
      target: where it goes.
      prefix: the checkpoint with its weights.
      make_model: makes it in the current graph.
      example: what the trained model answers, and the exported one must.
      card_text: goes with it.
      train_dir: of the run; damaged exports in it go to its quarantine.
      step: of the checkpoint.

    Raises:
      CheckpointError: it cannot be written, answers otherwise, or something else is at the target.
    """
    saved_model.ensure_exported(
        target,
        prefix,
        lambda: signatures.build_signatures(make_model()),
        example,
        notes={model_card.NAME: card_text},
        train_dir=train_dir,
        step=step,
    )


def predict_example(session: tf.compat.v1.Session, inference: Inference, images: Bytes) -> saved_model.Example:
    """What the model in the session answers, for some of these images (uint8 [N, 28, 28])."""
    images = images[:_EXAMPLES]
    outputs = {"classes": inference.classes, "probabilities": inference.probabilities}
    return saved_model.Example({"images": images}, session.run(outputs, {inference.images: images}))


class Run:
    """Trains, or goes on training; leaves checkpoints, metrics, an exported model and `result.json`."""

    def __init__(
        self,
        command: RunOptions,
        make_model: Callable[[], Model],
        *,
        data: Dataset,
        start: ResumePoint,
        stopwatch: Stopwatch,
        stop: StopSignal,
    ) -> None:
        """Builds the graph.

        Args:
          command: where things lie, and the settings.
          make_model: makes the model and its variables in the current graph.
          data: what to train on and to judge by.
          start: where the run goes on; the run closes it.
          stopwatch: counts the seconds that `result.json` tells.
          stop: a signal is heard between two calls of TensorFlow.

        Raises:
          MachineError: the precision asked for is not this machine's.
        """
        precision.check_precision(command.settings.precision)
        self._command = command
        self._settings = settings = command.settings
        self._data = data
        self._make_model = make_model
        self._stopwatch = stopwatch
        self._stop = stop
        self._target = command.export_dir or layout.export_path(command.train_dir, settings.train_steps)
        self._graph = build_graph(settings, make_model, data.train)
        self._history = History(command.train_dir)
        self._events = SummaryWriter(command.train_dir / layout.EVENTS, durable.append)
        self._checkpoints = CheckpointManager(
            self._graph.graph,
            start,
            variables=self._graph.saved,
            step=self._graph.step,
            signatures=signatures.training_signatures(self._graph),
            retention=RetentionPolicy(settings.max_to_keep, settings.keep_checkpoint_every_n_hours, settings.keep_best),
            sharded=settings.sharded,
            save_relative_paths=settings.save_relative_paths,
            save_every_steps=settings.save_every_steps,
            save_every_seconds=settings.save_every_seconds,
            mean_seconds_between_failures=settings.mean_seconds_between_failures,
            save_in_background=settings.save_in_background,
            max_failed_saves=settings.max_failed_saves,
            before_commit=self._history.sync,
        )

    def execute(self) -> int:
        """Goes through the run.

        Returns:
          The exit status: 0 done; 75 stopped by a signal, with the state saved.

        Raises:
          CheckpointError, NonFiniteLossError: in one sentence, what is wrong and what to do.
          Interrupted: a signal came before there was anything to save.
        """
        # Last in, first out: the session stays open until the writer has ended.
        with training_graph.open_session(self._graph.graph, self._settings.threads) as session, self._checkpoints:
            try:
                with self._stop.interruptible():
                    first_step, unfinished = self._restore(session)
            except StopRequested as signal:
                self._end_attempt(f"stopped by {signal}")
                raise
            if first_step < self._settings.train_steps or unfinished is not None:
                with suppress(OSError):  # the first record will say it
                    durable.make_directory(self._command.train_dir / layout.EVENTS)
                graph_def = self._checkpoints.meta_graph.graph_def
                self._events.begin(first_step, graph_def, self._settings.run_identity())
            try:
                return self._train_and_export(session, first_step, unfinished)
            except Exception as error:
                self._end_attempt(f"error: {reason(error)}")
                raise

    def _end_attempt(self, how: str) -> None:
        """Records how the attempt ended, unless another run's directory is in the train_dir's place."""
        with suppress(ReplacedError):
            self._history.end_attempt(how)

    def _restore(self, session: tf.compat.v1.Session) -> tuple[int, Record | None]:
        """Puts the session where the run goes on; gives the step of that place, and its record if it is unfinished."""
        with self._stopwatch("restore"):
            training_graph.initialize(session, self._graph, self._data.train)
            self._checkpoints.restore(session)
            start = self._checkpoints.start
            if start.prefix is None:
                self._warm_start(session)
        self._write_graph()
        step = int(session.run(self._graph.step))
        train_steps = self._settings.train_steps
        if step > train_steps:
            message = (
                f"{start.prefix}: step {step} found, at most --train_steps={train_steps} wanted: give a larger "
                "--train_steps, or another --train_dir for a shorter run."
            )
            raise CheckpointError(message)
        finished = step == train_steps
        if not (finished or self._has_exported(start)):
            staging.check_target(self._target)
        if finished:
            _log.info("finished already: step %d of %d; only evaluating", step, train_steps)
        elif start.prefix:
            _log.info("going on from %s, step %d of %d", start.prefix, step, train_steps)
        self._tell_if_prolonged(step)
        unfinished = self._history.begin_attempt(
            step=step, resumed_from=start.prefix.name if start.prefix else None, seconds=self._seconds()
        )
        return step, unfinished

    def _has_exported(self, start: ResumePoint) -> bool:
        """Whether an earlier attempt evidently made what is at the target, so that only its end shows if it may stay.

        That is so where a run goes on whose last checkpoint has been lost: the train_dir's own place for the export is
        nobody else's, and any other is named in result.json.
        """
        if start.newest is None or not staging.is_there(self._target):
            return False
        train_dir, steps = self._command.train_dir, self._settings.train_steps
        if layout.resolved(self._target) == layout.resolved(layout.export_path(train_dir, steps)):
            return True
        try:
            ended = results.read(train_dir / layout.RESULT)
        except (FileNotFoundError, ResultError):  # no evidence
            return False
        return (ended["step"], ended["export_dir"]) == (steps, str(self._target.absolute()))

    def _warm_start(self, session: tf.compat.v1.Session) -> None:
        """Takes weights over from another run, if asked to; step and optimizer begin anew."""
        origin, choice = self._checkpoints.start.warm_start, self._command.warm_start
        if origin is None or choice is None:
            return
        prefix = origin.prefix
        found = variable_matching.match(prefix, self._graph.trained, choice.pattern, renames=choice.renames)
        with self._graph.graph.as_default():
            variable_matching.restore(session, prefix, found)
        origin.check()  # it may have been replaced while it was read
        for line in found.told().splitlines():
            _log.info("warm start from %s: %s", prefix, line)

    def _write_graph(self) -> None:
        """Leaves the graph as text, once, for people and for TensorBoard."""
        path = self._command.train_dir / layout.GRAPH
        if path.exists():
            return
        try:
            meta_graphs.write_graph(self._checkpoints.meta_graph.graph_def, path)
        except OSError as error:
            _log.warning("%s: could not be written (%s); training goes on without it", path, reason(error))

    def _train_and_export(self, session: tf.compat.v1.Session, first_step: int, unfinished: Record | None) -> int:
        """All that comes after the start; gives the exit status."""
        try:
            validation_accuracy = self._train(session, unfinished)
            with self._stop.interruptible():  # from here on the state is on the disk
                answers = self._test(session)
                test_accuracy = evaluation.accuracy(answers.classes, self._data.test.labels)
                self._export(session, {"validation": validation_accuracy, "test": test_accuracy})
        except StopRequested as signal:
            self._save(session)
            self._note_progress(session)
            self._end_attempt(f"stopped by {signal}")
            print_line(f"stopped by {signal}, the state is saved: run the same command again to go on")
            return STOPPED
        record = self._result(session, first_step, validation_accuracy, test_accuracy)
        durable.atomic_write_json(self._command.train_dir / layout.RESULT, record)
        self._note_progress(session)
        self._end_attempt(history.DONE)
        print_line(results.summary(record))
        if self._settings.report:
            report.leave(self._command.train_dir, self._settings.train_steps, self._data.test, answers, self._stop)
        return DONE

    def _tell_if_prolonged(self, step: int) -> None:
        """Says what changes where the checkpoint was made for fewer steps."""
        newest = self._checkpoints.start.newest
        before = newest.settings["train_steps"] if newest else self._settings.train_steps
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

    def _train(self, session: tf.compat.v1.Session, unfinished: Record | None) -> float | None:
        """Trains to the end and saves; gives the validation accuracy. Goes back from a spoilt state, if asked to."""
        failed_at, before = 0, 0
        for rollbacks_left in reversed(range(_MAX_ROLLBACKS + 1)):
            try:
                validation_accuracy = self._train_once(session, unfinished)
                self._save(session, validation_accuracy)
            except (NonFiniteLossError, NonFiniteError) as error:
                spoilt_at = int(session.run(self._graph.step))
                self._history.progress(spoilt_at, self._seconds())
                if self._settings.on_nonfinite != "rollback" or not rollbacks_left:
                    raise CheckpointError(self._about_nonfinite(error)) from error
                # Where going back did not help, one checkpoint further.
                before = spoilt_at if spoilt_at > failed_at else before
                failed_at = max(failed_at, spoilt_at)
                before = self._roll_back(session, before, error)
                unfinished = None
            else:
                return validation_accuracy
        raise AssertionError("the last round returns or raises")

    def _about_nonfinite(self, error: Exception) -> str:
        rolled_back = self._settings.on_nonfinite == "rollback"
        told = f"{_MAX_ROLLBACKS} rollbacks notwithstanding, so by no chance, {error}" if rolled_back else f"{error}"
        if isinstance(error, NonFiniteLossError):
            told = f"{told}; {self._checkpoints.describe_latest()}"
        return f"{told}: try a lower --learning_rate in a new --train_dir."

    def _roll_back(self, session: tf.compat.v1.Session, before: int, error: Exception) -> int:
        """Goes back to the newest checkpoint from before that step; gives its step."""
        with self._stopwatch("restore"):
            prefix = self._checkpoints.roll_back(session, before)
        step = int(session.run(self._graph.step))
        self._history.go_back(step)
        self._events.purge_from(step)
        _log.warning("%s: going back to %s; each step since is made again", error, prefix)
        return step

    def _train_once(self, session: tf.compat.v1.Session, unfinished: Record | None) -> float | None:
        settings = self._settings

        def save_if_due(step: int, score: float | None) -> int | None:
            self._history.progress(step, self._seconds())
            with self._stopwatch("save_stall"):
                self._checkpoints.save_if_due(session, score)
            return self._checkpoints.newest_step

        def record(logged: Record) -> None:
            self._history.record(logged)
            if loop.UNFINISHED not in logged:  # whoever completes it shows it
                self._events.scalars(logged["step"], {name: logged[name] for name in _SHOWN if name in logged})

        hooks = loop.Hooks(partial(self._validate, session), record, save_if_due, self._stop.check)
        if unfinished:
            completed = {name: value for name, value in unfinished.items() if name != loop.UNFINISHED}
            loop.validate(completed, hooks, self._stopwatch)
            record(completed)
        return loop.train(
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

    def _validate(self, session: tf.compat.v1.Session) -> float | None:
        """The validation accuracy; TensorBoard gets what it is made of."""
        images, labels = self._data.validation
        own_predictor = predictor.from_inference(self._graph.inference)
        classes = evaluation.predict_classes(session, own_predictor, images, self._stop.check)
        if len(labels):
            step = int(session.run(self._graph.step))
            self._events.predictions(step, images, labels, classes)
            self._events.histograms(step, session.run({each.op.name: each for each in self._graph.trained}))
        return evaluation.accuracy(classes, labels)

    def _save(self, session: tf.compat.v1.Session, score: float | None = None) -> None:
        with self._stopwatch("save_stall"):
            self._checkpoints.save(session, score)

    def _note_progress(self, session: tf.compat.v1.Session) -> None:
        self._history.progress(int(session.run(self._graph.step)), self._seconds())

    def _seconds(self) -> dict[str, float]:
        """What history.jsonl tells of where the attempt's time went; saving goes on beside training."""
        spent = self._stopwatch.seconds
        return {
            **{name: spent[name] for name in ("import", "data", "train", "evaluate", "export")},
            "saving": self._checkpoints.seconds_saving,
            "stalled": spent["save_stall"],
            "restoring": spent["restore"],
            "total": self._stopwatch.total(),
        }

    def _test(self, session: tf.compat.v1.Session) -> Predictions:
        """Reads the test set, once, after the last step."""
        with self._stopwatch("evaluate"):
            return evaluation.predict(session, self._graph.inference, self._data.test.images)

    def _export(self, session: tf.compat.v1.Session, accuracies: Mapping[str, float | None]) -> None:
        settings = self._settings
        with self._stopwatch("export"):
            prefix = layout.prefix(self._command.train_dir, settings.train_steps)
            example = predict_example(session, self._graph.inference, self._data.train.images)
            model_in_use = partial(ema.inference_model, self._make_model, settings.ema_decay)
            card_text = model_card.text(
                config=self._command.config,
                settings=settings,
                data=self._data,
                accuracies=accuracies,
                checkpoint=prefix.name,
                weights_sha256=self._weights_sha256(session),
            )
            export(
                self._target,
                prefix,
                model_in_use,
                example,
                card_text,
                train_dir=self._command.train_dir,
                step=settings.train_steps,
            )

    def _weights_sha256(self, session: tf.compat.v1.Session) -> str:
        """Of the trained variables, as whoever wants to compare two runs asks for it."""
        return weights_sha256(session.run({variable.op.name: variable for variable in self._graph.trained}))

    def _result(
        self,
        session: tf.compat.v1.Session,
        first_step: int,
        validation_accuracy: float | None,
        test_accuracy: float | None,
    ) -> dict[str, Any]:
        """The contents of result.json."""
        settings = self._settings
        images = (settings.train_steps - first_step) * settings.batch_size
        resumed_from = self._checkpoints.start.prefix
        return {
            "config": self._command.config,
            "seed": settings.seed,
            "step": settings.train_steps,
            "train_images": len(self._data.train.labels),
            "validation_accuracy": validation_accuracy,
            "test_accuracy": test_accuracy,
            "weights_sha256": self._weights_sha256(session),
            "checkpoint": str(layout.prefix(self._command.train_dir, settings.train_steps).absolute()),
            "export_dir": str(self._target.absolute()),
            "resumed_from": str(resumed_from.absolute()) if resumed_from else None,
            "images_per_second": images / self._stopwatch.seconds["train"] if images else None,
            "seconds": results.seconds(self._stopwatch),
            "steps_redone": self._history.steps_redone,
            "restarts": self._history.restarts,
            "versions": manifest.versions(),
            "environment": self._checkpoints.start.environment,
            "machine": results.machine(),
        }
