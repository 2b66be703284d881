"""One training run: build the graph, restore, train, save, evaluate, export, write result.json.

`train_and_evaluate` does this in order. Batch, loss and optimizer update are in mnist/model/training_graph.py, the loop
over the steps in mnist/training/loop.py, saving and restoring in checkpointing/protocol/manager.py.
"""

from collections.abc import Callable
from functools import partial

import tensorflow as tf

from checkpointing import cli
from checkpointing.errors import NonFiniteError
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.resume import ResumePoint
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.runs import history
from checkpointing.runs.history import History
from checkpointing.runs.preemption import STOPPED, StopRequested, StopSignal
from checkpointing.storage import durable, layout
from configs.flags import RunOptions
from configs.settings import Settings
from mnist.errors import NonFiniteLossError, RecheckError
from mnist.input.augment import Augmentation
from mnist.input.dataset import Dataset, Split
from mnist.model import ema, precision, schedules, signatures, training_graph
from mnist.model.networks import Model
from mnist.model.training_graph import LossOptions, TrainingGraph
from mnist.reporting.results import summary
from mnist.tools import run_report
from mnist.training import evaluation, loop
from mnist.training.recheck import Recheck
from mnist.training.stopwatch import Stopwatch
from trainer import export, results
from trainer.hooks import RunHooks
from trainer.restore import restore
from trainer.rollback import Rollback


def train_and_evaluate(
    options: RunOptions,
    make_model: Callable[[], Model],
    *,
    data: Dataset,
    start: ResumePoint,
    stopwatch: Stopwatch,
    stop: StopSignal,
) -> int:
    """Start or resume the run in the train_dir, train to the last step, evaluate, export.

    Args:
      options: settings and directories.
      make_model: makes the model and its variables in the current graph.
      data: train, validation and test splits.
      start: the open train_dir; closed at the end.
      stopwatch: counts the seconds of each stage for result.json.
      stop: raises StopRequested between two calls of session.run after SIGTERM or SIGINT.

    Returns:
      The exit status: 0 done; 75 stopped by a signal, the state saved.

    Raises:
      CheckpointError: a checkpoint or the export cannot be read or written, or the state is non-finite.
      MachineError: the processor lacks the precision.
      StopRequested: a signal came before there was anything to save.
    """
    settings = options.settings
    with stop.interruptible():  # nothing to save yet
        graph = build_graph(settings, make_model, data.train)
        run_history = History(options.train_dir)
        manager = make_manager(graph, start, settings, before_commit=run_history.sync)
        recheck = make_recheck(graph, data.train, settings)
    # Closed in reverse order: the session outlives the manager's writer thread.
    with training_graph.open_session(graph.graph, settings.threads) as session, manager:
        hooks = RunHooks(
            session,
            graph,
            manager,
            history=run_history,
            data=data,
            options=options,
            stopwatch=stopwatch,
            stop=stop,
            recheck=recheck,
        )
        with hooks.record_end_of_attempt():
            with stop.interruptible():  # nothing new to save yet
                first_step = restore(session, graph, manager, split=data.train, options=options, stopwatch=stopwatch)
                unfinished = hooks.begin_attempt(first_step)  # a record whose validation was interrupted, or None
            try:
                hooks.begin_training(first_step, unfinished)
                validation_accuracy = train(session, graph, hooks, settings, stopwatch, recheck=recheck)
                with stop.interruptible():  # the state is saved
                    with stopwatch("evaluate"):
                        predictions = evaluation.predict(session, graph.inference, data.test.images)
                    test_accuracy = evaluation.accuracy(predictions.classes, data.test.labels)
                    scores = results.score(session, graph.trained, validation=validation_accuracy, test=test_accuracy)
                    inference_model = partial(ema.inference_model, make_model, settings.ema_decay)
                    with stopwatch("export"):
                        export.export_model(
                            options,
                            inference_model,
                            session=session,
                            inference=graph.inference,
                            data=data,
                            scores=scores,
                        )
            except StopRequested as signal:
                hooks.save()
                hooks.end_attempt(f"stopped by {signal}")
                cli.print_line(f"stopped by {signal}, the state is saved: run the same command again to resume")
                return STOPPED
            result = results.result(
                options,
                scores,
                data=data,
                start=manager.start,
                first_step=first_step,
                steps_redone=run_history.steps_redone,
                restarts=run_history.restarts,
                stopwatch=stopwatch,
            )
            durable.atomic_write_json(options.train_dir / layout.RESULT, result)
            hooks.end_attempt(history.DONE)
            cli.print_line(summary(result))
            if settings.report:
                run_report.write_at_end(options.train_dir, settings.train_steps, data.test, predictions, stop)
            return cli.OK


def train(
    session: tf.compat.v1.Session,
    graph: TrainingGraph,
    hooks: RunHooks,
    settings: Settings,
    stopwatch: Stopwatch,
    *,
    recheck: Recheck | None,
) -> float | None:
    """Train to the last step and save; return the validation accuracy, None if there are no validation images.

    With --on_nonfinite=rollback a non-finite state is replaced by an older checkpoint (rollback.py); so is one that a
    recheck finds to be wrong.
    """
    rollbacks: list[Rollback] = []
    faults = 0
    while True:
        try:
            validation_accuracy = loop.train(
                session,
                graph,
                hooks.for_loop(),
                stopwatch,
                train_steps=settings.train_steps,
                batch_size=settings.batch_size,
                log_every_steps=settings.log_every_steps,
                evaluate_every_steps=settings.evaluate_every_steps,
                save_every_steps=settings.save_every_steps,
                recheck=recheck,
            )
            hooks.save(validation_accuracy)
        except (NonFiniteLossError, NonFiniteError) as error:
            rollbacks.append(hooks.roll_back(error, rollbacks))
        except RecheckError as error:
            faults += 1
            hooks.return_to_trusted(error, faults)
        else:
            return validation_accuracy


def build_graph(settings: Settings, make_model: Callable[[], Model], split: Split) -> TrainingGraph:
    """Build the training graph for training data of this size.

    Raises:
      MachineError: the processor lacks the precision.
    """
    precision.check_precision(settings.precision)

    def make_optimizer(learning_rate: tf.Tensor) -> tf.compat.v1.train.Optimizer:
        return training_graph.make_optimizer(
            settings.optimizer, learning_rate, momentum=settings.momentum, beta1=settings.beta1, beta2=settings.beta2
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
        split,
        batch_size=settings.batch_size,
        seed=settings.seed,
        make_optimizer=make_optimizer,
        learning_rate=learning_rate,
        loss_options=LossOptions(settings.label_smoothing, settings.l2, settings.clip_gradient_norm),
        augmentation=Augmentation(
            rotation=settings.augment_rotation,
            zoom=settings.augment_zoom,
            shear=settings.augment_shear,
            shift=settings.augment_shift,
        ),
        ema_decay=settings.ema_decay,
    )


def make_recheck(graph: TrainingGraph, train: Split, settings: Settings) -> Recheck | None:
    """Make the recheck of --recheck_every_steps; None if it is off."""
    if not settings.recheck_every_steps:
        return None
    return Recheck(graph, train, every=settings.recheck_every_steps, train_steps=settings.train_steps)


def make_manager(
    graph: TrainingGraph, start: ResumePoint, settings: Settings, before_commit: Callable[[], None]
) -> CheckpointManager:
    """Make the manager that saves and restores the graph's variables; `before_commit` runs before each commit."""
    return CheckpointManager(
        graph.graph,
        start,
        variables=graph.saved,
        step=graph.step,
        signatures=signatures.training_signatures(graph),
        retention=RetentionPolicy(settings.max_to_keep, settings.keep_checkpoint_every_n_hours, settings.keep_best),
        sharded=settings.sharded,
        save_relative_paths=settings.save_relative_paths,
        save_every_steps=settings.save_every_steps,
        save_every_seconds=settings.save_every_seconds,
        mean_seconds_between_failures=settings.mean_seconds_between_failures,
        save_in_background=settings.save_in_background,
        max_failed_saves=settings.max_failed_saves,
        before_commit=before_commit,
    )
