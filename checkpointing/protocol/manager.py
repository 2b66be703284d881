"""Save and restore a graph's variables with TensorFlow's Saver, so that no crash loses a run.

    start = resume.open_train_dir(train_dir, settings)
    with CheckpointManager(graph, start, variables=..., step=..., save_every_steps=100) as manager:
        manager.restore(session)
        manager.save_if_due(session)   # between updates
        manager.save(session)          # at the end

save_policy.py decides when to save, commit.py writes a checkpoint, async_writer.py runs it in a thread. The README of
this package lists the steps of a save.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tensorflow as tf

from checkpointing.errors import LATER, CheckpointError, DamagedError, NonFiniteError, NotSavedError, reason
from checkpointing.graphs import meta_graphs
from checkpointing.graphs.meta_graphs import Signature
from checkpointing.protocol import manifest, quarantine
from checkpointing.protocol.async_writer import AsyncWriter
from checkpointing.protocol.cleanup import Cleanup
from checkpointing.protocol.commit import Committer
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.resume import ResumePoint
from checkpointing.protocol.save_policy import FailurePolicy, SaveOptions, SaveSchedule
from checkpointing.protocol.snapshot import Snapshot, size
from checkpointing.storage import layout

_log = logging.getLogger(__name__)


class CheckpointManager:
    """Saves and restores the checkpoints of one train_dir.

    start: the state that the run starts from; `restore` changes it if it falls back to an older checkpoint.
    meta_graph: the graph as in the `.meta` files.
    """

    def __init__(
        self,
        graph: tf.Graph,
        start: ResumePoint,
        *,
        variables: Sequence[tf.Variable],
        step: tf.Variable,
        signatures: Mapping[str, Signature] | None = None,
        before_commit: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,  # noqa: ANN401 - the fields of SaveOptions, which checks their names
    ) -> None:
        """Add Savers to the graph.

        Args:
          graph: training graph.
          start: result of resume.open_train_dir; closing the manager closes it.
          variables: the state to save, `step` included. Their shapes must be known.
          step: variable that counts the updates.
          signatures: tensors to feed and to fetch, recorded in the `.meta` for programs without this graph's code.
          before_commit: called by the writer before each commit, to sync everything that a checkpoint must not be ahead
            of.
          clock: returns seconds; never decreases.
          options: see SaveOptions.
        """
        self.start = start
        self._options = SaveOptions(**options)
        self._directory = start.directory
        self._step = step
        self._variables = list(variables)
        self._clock = clock
        self._opened_at = clock()
        state_bytes = sum(map(size, self._variables))
        self._schedule = SaveSchedule(self._options, state_bytes=state_bytes, now=self._opened_at)
        self._failures = FailurePolicy(self._options.max_failed_saves)
        self._writer = AsyncWriter(in_background=self._options.save_in_background)
        self._cleanup = Cleanup(
            start.directory,
            self._options.retention,
            relative_paths=self._options.save_relative_paths,
            is_of_run=lambda saved: self.start.is_of_run(saved),  # noqa: PLW0108 - `restore` may change self.start
        )
        shards = (os.cpu_count() or 1) if self._options.sharded or state_bytes >= manifest.LARGE else 1
        with graph.as_default():
            self.meta_graph = self._export_meta_graph(signatures or {})
            self._snapshot = Snapshot(self._variables, shards)
        self._committer = Committer(
            self._snapshot,
            self._cleanup,
            self._options,
            meta_graph=self.meta_graph.SerializeToString(deterministic=True),
            state_bytes=state_bytes,
            before_commit=before_commit,
        )

    def _export_meta_graph(self, signatures: Mapping[str, Signature]) -> tf.compat.v1.MetaGraphDef:
        """Return the MetaGraphDef for all `.meta` files: the graph before the shadows are added to it.

        Its Saver has this manager's options for programs that import the graph. Here it saves nothing: it would forget
        the older checkpoints at each restart.
        """
        options = self._options
        saver = tf.compat.v1.train.Saver(
            self._variables,
            max_to_keep=options.retention.max_to_keep,
            keep_checkpoint_every_n_hours=options.retention.keep_checkpoint_every_n_hours,
            sharded=options.sharded,
            save_relative_paths=options.save_relative_paths,
        )
        meta_graph = saver.export_meta_graph()
        for name, signature in meta_graphs.signature_defs(signatures).items():
            meta_graph.signature_def[name].CopyFrom(signature)
        return meta_graph

    @property
    def newest_step(self) -> int | None:
        """Step of the newest checkpoint that this manager committed or restored; None if there is none."""
        return self._committer.newest_step

    @property
    def seconds_saving(self) -> float:
        """Total duration of all saves, in the background or not."""
        return self._committer.seconds

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; if the block raised an error, only log that the last save failed."""
        try:
            self.close()
        except (CheckpointError, OSError, tf.errors.OpError) as failed:
            if error is None:
                raise
            _log.warning("%s", failed)

    def close(self) -> None:
        """Wait for the save in progress, and release the train_dir.

        Raises:
          CheckpointError: that save failed, as from `save_if_due`.
        """
        try:
            self.wait_until_finished()
        finally:
            self._writer.close()
            self.start.close()

    def restore(self, session: tf.compat.v1.Session) -> None:
        """Restore every variable from the checkpoint that the run resumes from. Does nothing in a new train_dir.

        If it turns out to be damaged, it is moved to quarantine, and the checkpoint before it is restored.

        Raises:
          CheckpointError: its variables are not the graph's, or no complete checkpoint is left.
        """
        while self.start.prefix is not None:
            try:
                self._snapshot.restore_and_verify(session, self.start.prefix, self.start.newest)
            except DamagedError as error:
                self.start = self.start.fall_back(error)
                continue
            # Only now: nothing is deleted before the checkpoint that stays is restored.
            self._committer.apply_retention(self._directory)
            self._restart_at(int(session.run(self._step)))
            return

    def roll_back(self, session: tf.compat.v1.Session, before: int) -> Path:
        """Restore the run's newest complete checkpoint of a step below `before`; move newer ones to quarantine.

        Raises:
          CheckpointError: there is none.
        """
        with suppress(NonFiniteError, NotSavedError):
            self.wait_until_finished()
        steps = layout.steps_with(self._directory, "manifest.json")
        for step in reversed([step for step in steps if step < before]):
            prefix = layout.prefix(self._directory, step)
            try:
                found = Manifest.read(layout.manifest_path(prefix))
                if not self.start.is_of_run(found):
                    continue
                manifest.check_files(prefix, found)
                self._snapshot.restore_and_verify(session, prefix, found)
            except DamagedError as error:
                _log.warning("%s", error)
                continue
            # Their steps are trained and saved again, and no run may resume from states that may be non-finite.
            for newer in steps[steps.index(step) + 1 :]:
                newer_prefix = layout.prefix(self._directory, newer)
                quarantine.set_aside(newer_prefix, f"{newer_prefix.name}: the run rolled back from it to step {step}")
            self._cleanup.forget()
            self._committer.apply_retention(self._directory)
            self._restart_at(step)
            return prefix
        raise CheckpointError(f"{self._directory}: no complete checkpoint before step {before} to roll back to")

    def _restart_at(self, step: int) -> None:
        self._committer.newest_step = step
        self._schedule.restart_at(step)

    def protect(self, step: int) -> None:
        """Do not delete the newest checkpoint up to a step, so that `roll_back` finds it; each call replaces the last.

        For a caller that knows until when the states were good.
        """
        self._cleanup.protect(step)

    def save_if_due(self, session: tf.compat.v1.Session, score: float | None = None) -> None:
        """Start a save if the number of updates or the time since the last save requires one.

        Args:
          session: holds the variables.
          score: quality of the state, higher is better; None if unknown.

        Raises:
          CheckpointError: an earlier save in the background failed, as from `save`.
        """
        if self._writer.done():
            self.wait_until_finished()
        step = int(session.run(self._step))
        if self._schedule.is_due(step, now=self._clock(), save_seconds=self._committer.last_seconds):
            self.wait_until_finished()
            if job := self._prepare_save(session, step, score):
                self._writer.start(job)
            if not self._options.save_in_background:
                self.wait_until_finished()

    def save(self, session: tf.compat.v1.Session, score: float | None = None) -> Path:
        """Save a checkpoint and wait until it is on the disk.

        An existing checkpoint of the step is kept: the state at a step is always the same, and no prefix is written
        twice.

        Returns:
          The checkpoint's prefix.

        Raises:
          NotSavedError: the disk reports an error. NonFiniteError: a variable holds NaN or infinity. All complete
            checkpoints are unchanged.
        """
        with suppress(NotSavedError):  # if the save before failed, this one may succeed
            self.wait_until_finished()
        step = int(session.run(self._step))
        if job := self._prepare_save(session, step, score):
            self._writer.start(job)
        error = self._writer.wait()
        if isinstance(error, NotSavedError):
            raise NotSavedError(f"{error}; {self.describe_latest()}", hint=LATER) from error
        if error is not None:
            self._failures.handle_save_error(error, self.describe_latest)
        return layout.prefix(self._directory, step)

    def _prepare_save(self, session: tf.compat.v1.Session, step: int, score: float | None) -> Callable[[], None] | None:
        """Take the snapshot (step 1 of a save); return the job that does the rest, or None if the step is saved."""
        self._schedule.saved_at(self._clock())
        if self._is_saved(layout.prefix(self._directory, step)):
            return None
        if score is not None and not math.isfinite(score):
            score = None  # it has no order
        self._snapshot.take(session)
        before = self.start.newest.training_seconds if self.start.newest else 0.0
        training_seconds = before + self._clock() - self._opened_at
        return partial(self._committer.write_and_commit, session, self.start, step, score, training_seconds)

    def _is_saved(self, prefix: Path) -> bool:
        """Return whether a checkpoint exists: it is committed, or was adopted from a plain Saver under this name."""
        with suppress(OSError):  # the writer handles it
            is_adopted = self.start.origin == "adopted" and prefix == self.start.prefix
            return (layout.index_path(prefix) if is_adopted else layout.manifest_path(prefix)).exists()
        return False

    def wait_until_finished(self) -> None:
        """Wait for the save in progress, if there is one; raise or log its error."""
        if self._writer.has_job:
            self._failures.handle_save_error(self._writer.wait(), self.describe_latest)

    def describe_latest(self) -> str:
        """Wait for the save in progress; return a part of a sentence that names the newest checkpoint."""
        self._writer.join()
        try:
            steps = layout.steps_with(self._directory, "manifest.json") if self._directory.is_dir() else []
        except OSError as error:
            return f"the train_dir cannot be read ({reason(error)})"
        if not steps:
            return "there is no complete checkpoint yet"
        return f"the last complete checkpoint is {layout.prefix(self._directory, steps[-1])}"
