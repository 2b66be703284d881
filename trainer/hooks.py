"""What a run does between calls of session.run (log, validate, save, write summaries) and around an attempt.

An attempt is the life of one process; history.jsonl has one object per attempt.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import tensorflow as tf

from checkpointing.errors import CheckpointError, ReplacedError, reason
from checkpointing.graphs import meta_graphs
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.runs.history import History
from checkpointing.runs.preemption import StopRequested, StopSignal
from checkpointing.storage import durable, layout
from checkpointing.storage.jsonl import Record
from configs.flags import RunOptions
from mnist.errors import DataError, NonFiniteLossError, RecheckError
from mnist.input import dataset
from mnist.input.dataset import Dataset
from mnist.model import predictor, training_graph
from mnist.model.training_graph import TrainingGraph
from mnist.training import evaluation, loop
from mnist.training.recheck import Recheck
from mnist.training.stopwatch import Stopwatch
from mnist.training.summaries import SummaryWriter
from trainer import hints, rollback
from trainer.rollback import Rollback

# The values of a record that TensorBoard shows.
_SCALARS = ("loss", "learning_rate", "images_per_second", "validation_accuracy")

_log = logging.getLogger(__name__)


class RunHooks:
    """The hooks of one attempt, with the session and the files they need."""

    def __init__(
        self,
        session: tf.compat.v1.Session,
        graph: TrainingGraph,
        manager: CheckpointManager,
        *,
        history: History,
        data: Dataset,
        options: RunOptions,
        stopwatch: Stopwatch,
        stop: StopSignal,
        recheck: Recheck | None,
    ) -> None:
        """Write nothing yet."""
        self._session = session
        self._graph = graph
        self._manager = manager
        self._history = history
        self._data = data
        self._options = options
        self._stopwatch = stopwatch
        self._stop = stop
        self._recheck = recheck
        self._summaries = SummaryWriter(options.train_dir / layout.EVENTS, durable.append)

    def begin_attempt(self, first_step: int) -> Record | None:
        """Record the attempt in history.jsonl; write the graph to graph.pbtxt, once.

        Returns:
          The record of `first_step` if its validation was interrupted, so that it lacks the validation accuracy.
        """
        path = self._options.train_dir / layout.GRAPH
        try:
            if not path.exists():
                meta_graphs.write_graph(self._manager.meta_graph.graph_def, path)
        except OSError as error:
            _log.warning("%s: could not be written (%s); training continues without it", path, reason(error))
        prefix = self._manager.start.prefix
        return self._history.begin_attempt(
            step=first_step, resumed_from=prefix.name if prefix else None, seconds=self._seconds()
        )

    def begin_training(self, first_step: int, unfinished: Record | None) -> None:
        """Begin the TensorBoard summaries; complete the record whose validation was interrupted.

        With --recheck_every_steps, first save the state that the attempt begins with: a fault may return to it.
        """
        if first_step == self._options.settings.train_steps and unfinished is None:
            return
        with suppress(OSError):  # the first summary logs the warning
            durable.make_directory(self._options.train_dir / layout.EVENTS)
        graph_def = self._manager.meta_graph.graph_def
        self._summaries.begin(first_step, graph_def, self._options.settings.run_identity())
        if unfinished:
            record = {name: value for name, value in unfinished.items() if name != loop.UNFINISHED}
            loop.validate(record, self.for_loop(), self._stopwatch)
            self.log(record)
        if self._recheck:
            self.save()

    @contextmanager
    def record_end_of_attempt(self) -> Iterator[None]:
        """Record how the attempt ended if the block raises."""
        try:
            yield
        except StopRequested as signal:
            self._record_end(f"stopped by {signal}")
            raise
        except Exception as error:
            self._record_end(f"error: {reason(error)}")
            raise

    def end_attempt(self, how: str) -> None:
        """Record the last step and how the attempt ended."""
        self._history.progress(self._step(), self._seconds())
        self._record_end(how)

    def _record_end(self, how: str) -> None:
        with suppress(ReplacedError):  # another run's directory is in the train_dir's place
            self._history.end_attempt(how)

    def for_loop(self) -> loop.Hooks:
        """Return the hooks that the training loop calls."""
        return loop.Hooks(self.validate, self.log, self.save_if_due, self._stop.check)

    def validate(self) -> float | None:
        """Return the validation accuracy, None without validation images; write summaries of it."""
        images, labels = self._data.validation
        predict = predictor.from_inference(self._graph.inference)
        classes = evaluation.predict_classes(self._session, predict, images, self._stop.check)
        if len(labels):
            step = self._step()
            self._summaries.predictions(step, images, labels, classes)
            self._summaries.histograms(step, self._session.run({each.op.name: each for each in self._graph.trained}))
        return evaluation.accuracy(classes, labels)

    def log(self, record: Record) -> None:
        """Append a step's record to metrics.jsonl and write its scalars."""
        self._history.record(record)
        if loop.UNFINISHED not in record:  # if so, the completed record follows
            self._summaries.scalars(record["step"], {name: record[name] for name in _SCALARS if name in record})

    def save_if_due(self, step: int, score: float | None) -> int | None:
        """Begin a save if one is due; return the step of the newest complete checkpoint."""
        self._history.progress(step, self._seconds())
        if self._recheck:
            self._manager.protect(self._recheck.trusted_step)
        with self._stopwatch("save_stall"):
            self._manager.save_if_due(self._session, score)
        return self._manager.newest_step

    def save(self, score: float | None = None) -> None:
        """Save, and wait until the checkpoint is durable."""
        with self._stopwatch("save_stall"):
            self._manager.save(self._session, score)

    def roll_back(self, error: Exception, earlier: Sequence[Rollback]) -> Rollback:
        """Restore a checkpoint from before a non-finite state, if the options and rollback.py say so.

        Raises:
          CheckpointError: rollback is off, has failed too often, or there is no older checkpoint.
        """
        failed_at = self._step()
        self._history.progress(failed_at, self._seconds())
        is_on = self._options.settings.on_nonfinite == "rollback"
        before = rollback.restore_before(failed_at, earlier) if is_on else None
        if before is None:
            raise CheckpointError(self._describe(error, len(earlier)), hint=hints.LOWER_RATE) from error
        return Rollback(failed_at, self._restore_before(before, error))

    def return_to_trusted(self, error: RecheckError, faults: int) -> None:
        """Restore a checkpoint from before a fault; load the training data again if they have changed.

        Args:
          error: describes the fault.
          faults: the number of faults in this attempt.

        Raises:
          CheckpointError: there is no checkpoint from before the fault, or there were too many faults. In the second
            case the checkpoints since the last recheck are in quarantine.
          DataError: the data have also changed where they are loaded from.
        """
        self._history.progress(error.step, self._seconds())  # the variable that counts the steps may be wrong
        try:
            self._restore_before(error.trusted_step + 1, error)
        except CheckpointError as missing:
            raise CheckpointError(f"{error}; {missing}", hint=hints.OTHER_MACHINE) from error
        if error.data_changed:
            found, expected = dataset.fingerprint_in_memory(self._data), self._data.fingerprint
            if found != expected:
                message = f"the copy that the data were loaded from: expected fingerprint {expected}, got {found}"
                raise DataError(f"{error}; {message}", hint=hints.OTHER_MACHINE) from error
            training_graph.load_data(self._session, self._graph, self._data.train)
        if faults > rollback.MAX_ROLLBACKS:
            message = f"{error}, after {rollback.MAX_ROLLBACKS} rollbacks; {self._manager.describe_latest()}"
            raise CheckpointError(message, hint=hints.OTHER_MACHINE) from error

    def _restore_before(self, before: int, error: Exception) -> int:
        """Restore the newest checkpoint of a step below `before`; return its step."""
        with self._stopwatch("restore"):
            prefix = self._manager.roll_back(self._session, before)
        step = self._step()
        self._history.go_back(step)
        self._summaries.purge_from(step)
        _log.warning("%s: rolling back to %s; the steps since are run again", error, prefix)
        return step

    def _describe(self, error: Exception, rollbacks: int) -> str:
        after = f"after {rollbacks} rollback{'' if rollbacks == 1 else 's'}" if rollbacks else ""
        if isinstance(error, NonFiniteLossError):
            return f"{error}{after and f', {after}'}; {self._manager.describe_latest()}"
        return f"{error}{after and f'; given up {after}'}"  # a NonFiniteError names the newest checkpoint itself

    def _step(self) -> int:
        return int(self._session.run(self._graph.step))

    def _seconds(self) -> dict[str, float]:
        """Return the seconds by stage for history.jsonl; a background save overlaps with training."""
        spent = self._stopwatch.seconds
        return {
            **{name: spent[name] for name in ("import", "data", "train", "evaluate", "export")},
            "saving": self._manager.seconds_saving,
            "stalled": spent["save_stall"],
            "restoring": spent["restore"],
            "total": self._stopwatch.total(),
        }
