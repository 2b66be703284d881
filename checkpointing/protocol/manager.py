"""Saves and restores a graph's variables with TensorFlow's Saver, so that no crash can lose a run.

    start = resume.open_train_dir(train_dir, settings)
    with CheckpointManager(graph, start, variables=..., step=...) as manager:
        manager.restore(session)
        manager.save_if_due(session)   # after every few updates
        manager.save(session)          # at the end

How a checkpoint comes to be and goes, step by step, is in README.md beside this file.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tensorflow as tf

from checkpointing.errors import (
    LATER,
    CheckpointError,
    DamagedError,
    NonFiniteError,
    NotSavedError,
    ReplacedError,
    is_shortage,
    reason,
)
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.graphs import meta_graphs, variable_matching
from checkpointing.graphs.meta_graphs import Signature
from checkpointing.protocol import cleanup, manifest, quarantine, save_policy
from checkpointing.protocol.async_writer import AsyncWriter
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.resume import ResumePoint
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.protocol.snapshot import Snapshot, size
from checkpointing.storage import durable, layout, tf_path

_log = logging.getLogger(__name__)

KEEP_FIVE = RetentionPolicy(max_to_keep=5, keep_checkpoint_every_n_hours=10_000)
_ONE_DAY = 86_400.0


class CheckpointManager:
    """Owns the checkpoints of one train_dir.

    start: where the run goes on; restoring and falling back may change it.
    seconds_saving: what making checkpoints took so far, whether training waited for it or not.
    newest_step: of the newest complete checkpoint that this manager made or restored; None where there is none.
    meta_graph: the graph as each `.meta` file holds it.
    """

    def __init__(
        self,
        graph: tf.Graph,
        start: ResumePoint,
        *,
        variables: Sequence[tf.Variable],
        step: tf.Variable,
        signatures: Mapping[str, Signature] | None = None,
        retention: RetentionPolicy = KEEP_FIVE,
        sharded: bool = False,
        save_relative_paths: bool = True,
        save_every_steps: int = 0,
        save_every_seconds: float | str = 0.0,
        mean_seconds_between_failures: float = _ONE_DAY,
        save_in_background: bool = True,
        max_failed_saves: int = 10,
        before_commit: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Adds Savers to the graph.

        Args:
          graph: what is trained.
          start: what resume.open_train_dir said; closing the manager closes it.
          variables: the state to keep, the step among them. Their shapes must be known.
          step: the variable that counts the updates.
          signatures: what to feed and to fetch, recorded in the `.meta` for whoever opens it without this code.
          retention: which checkpoints to keep.
          sharded: a data file for each core, also where the state is small; a large one has them anyway.
          save_relative_paths: whether the state file holds names or absolute paths, as Saver's option.
          save_every_steps: a save is due whenever a multiple is reached or passed; 0 for never.
          save_every_seconds: and when so long has passed since the last one; 0 for never, "auto" for the interval of
            Young and Daly.
          mean_seconds_between_failures: what that interval is computed from, besides the measured cost of a save.
          save_in_background: whether training goes on while a checkpoint is written. The files are the same.
          max_failed_saves: so many saves in a row may fail before the run does.
          before_commit: called before a checkpoint is committed, to sync whatever it must not be ahead of; from the
            thread that writes.
          clock: seconds, which only ever grow.
        """
        self.start = start
        self.seconds_saving = 0.0
        self.newest_step: int | None = None
        self._directory = start.directory
        self._step = step
        self._variables = list(variables)
        self._retention = retention
        self._cleanup = cleanup.Cleanup(
            start.directory, retention, relative_paths=save_relative_paths, is_of_run=self._is_of_this_run
        )
        self._save_every_steps = save_every_steps
        self._save_every_seconds = save_every_seconds if save_every_seconds == "auto" else float(save_every_seconds)
        self._mean_seconds_between_failures = mean_seconds_between_failures
        self._in_background = save_in_background
        self._max_failed_saves = max_failed_saves
        self._failed_saves = 0
        self._last_step = 0
        self._before_commit = before_commit
        self._clock = clock
        self._opened_at = self._last_saved_at = clock()
        self._last_save_seconds = 0.0
        self._writer = AsyncWriter(in_background=save_in_background)
        self._bytes = sum(size(variable) for variable in self._variables)
        shards = (os.cpu_count() or 1) if sharded or self._bytes >= manifest.LARGE else 1
        with graph.as_default():
            # Its rotation stays unused, for it forgets after a restart; its options are recorded for whoever
            # imports the graph.
            saver = tf.compat.v1.train.Saver(
                self._variables,
                max_to_keep=retention.max_to_keep,
                keep_checkpoint_every_n_hours=retention.keep_checkpoint_every_n_hours,
                sharded=sharded,
                save_relative_paths=save_relative_paths,
            )
            # Made once, for the graph does not change any more, and before the shadows, which are nobody's business.
            self.meta_graph = saver.export_meta_graph()
            for name, signature in meta_graphs.signature_defs(signatures or {}).items():
                self.meta_graph.signature_def[name].CopyFrom(signature)
            self._meta_graph = self.meta_graph.SerializeToString(deterministic=True)
            self._snapshot = Snapshot(self._variables, shards)

    def __enter__(self) -> Self:
        """Gives itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes; what became of the last save is told, but does not hide the error that is under way."""
        try:
            self.close()
        except (CheckpointError, OSError, tf.errors.OpError) as failed:
            if error is None:
                raise
            _log.warning("%s", failed)

    def close(self) -> None:
        """Waits for what is being written, and lets another run have the train_dir.

        Raises:
          CheckpointError: what that save ended with, as `save_if_due` would.
        """
        try:
            self.wait_until_finished()
        finally:
            self._writer.close()
            self.start.close()

    def restore(self, session: tf.compat.v1.Session) -> None:
        """Puts every variable at its value in the checkpoint where the run goes on; does nothing in a new train_dir.

        One that cannot be read is left for the one before it, with a warning.

        Raises:
          CheckpointError: it is not of this graph, or none is left; no file is lost.
        """
        while self.start.prefix is not None:
            try:
                self._restore(session, self.start.prefix, self.start.newest)
            except DamagedError as error:
                self.start = self.start.fall_back(error)
                continue
            # A crash may have come between a commit and what follows it, and fewer may be wanted now. Not before the
            # one that stays in any case has proved to be good.
            self._apply_retention()
            self.newest_step = self._last_step = int(session.run(self._step))
            return

    def _restore(self, session: tf.compat.v1.Session, prefix: Path, recorded: Manifest | None) -> None:
        try:
            bundle = Bundle(prefix)
            variable_matching.check_variables(prefix, bundle.entries, {each.op.name: each for each in self._variables})
            if recorded is None:
                bundle.check()  # TensorFlow never looks at the sums of what it does not restore
            with tf_path.without_pattern(prefix) as plain:
                self._snapshot.restore(session, plain)
            found = self._snapshot.digest_of_variables(session)
        except _NOT_RESTORED as error:
            raise _judged(prefix, recorded, error) from error
        if recorded is not None:
            if found != recorded.state_digest:
                raise DamagedError(f"{prefix.name}: the restored state is not the one that was saved")
            _log.info("restored %s: state matches, digest %s", prefix, found[:12])

    def roll_back(self, session: tf.compat.v1.Session, before: int) -> Path:
        """Restores the newest complete checkpoint of a step smaller than `before`; newer ones go to quarantine.

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
                if not self._is_of_this_run(found):
                    continue
                manifest.check_files(prefix, found)
                self._restore(session, prefix, found)
            except DamagedError as error:
                _log.warning("%s", error)
                continue
            # Their steps are made again, and saved anew; and nobody goes on from what may be spoilt.
            for newer in steps[steps.index(step) + 1 :]:
                newer_prefix = layout.prefix(self._directory, newer)
                quarantine.set_aside(newer_prefix, f"{newer_prefix.name}: the run went back from it to step {step}")
            self._cleanup.forget()
            self._apply_retention()
            self.newest_step = self._last_step = step
            return prefix
        raise CheckpointError(f"{self._directory}: no checkpoint from before step {before} to go back to.")

    def save_if_due(self, session: tf.compat.v1.Session, score: float | None = None) -> None:
        """Begins a save where the session's step or the time since the last save asks for it.

        Args:
          session: holds the variables.
          score: how good the state is, the higher the better; None if nobody knows.

        Raises:
          CheckpointError: what an earlier save that went on in the background ended with, as `save` would.
        """
        if self._writer.done():
            self.wait_until_finished()
        step, last = int(session.run(self._step)), self._last_step
        self._last_step = step
        every = self._save_every_steps
        steps_due = every > 0 and step // every > last // every
        if steps_due or 0 < self._seconds_between_saves() <= self._clock() - self._last_saved_at:
            self.wait_until_finished()
            self._begin(session, step, score)
            if not self._in_background:
                self.wait_until_finished()

    def _seconds_between_saves(self) -> float:
        if self._save_every_seconds != "auto":
            return float(self._save_every_seconds)
        # Until one has been measured, a save is taken to be as slow as a slow disk makes it.
        measured = self._last_save_seconds or 0.1 + self._bytes / 50e6
        return save_policy.seconds_between_saves(measured, self._mean_seconds_between_failures)

    def save(self, session: tf.compat.v1.Session, score: float | None = None) -> Path:
        """Makes a checkpoint of the session's variables, and waits until it is on the disk.

        A checkpoint of that step that is there already stays as it is: a prefix is never written twice, and a run gives
        the same state at a step each time.

        Returns:
          The checkpoint's prefix.

        Raises:
          NotSavedError: the disk refused. NonFiniteError: a variable holds values that are no finite numbers. All
            complete checkpoints are as they were.
        """
        with suppress(NotSavedError):  # that the one before failed is no reason not to try
            self.wait_until_finished()
        step = int(session.run(self._step))
        self._begin(session, step, score)
        error = self._writer.wait()
        prefix = layout.prefix(self._directory, step)
        if isinstance(error, NotSavedError):
            message = f"{error}; {self.describe_latest()}. Mend that, and run the same command again."
            raise NotSavedError(message) from error
        if error is not None:
            self._handle_save_error(error)
        return prefix

    def _begin(self, session: tf.compat.v1.Session, step: int, score: float | None) -> None:
        """Takes the snapshot and leaves it to the writer."""
        self._last_saved_at = self._clock()
        if self._is_saved(layout.prefix(self._directory, step)):
            return
        if score is not None and not math.isfinite(score):
            score = None  # no order is defined for it
        self._snapshot.take(session)
        training_seconds = self._training_seconds()
        self._writer.start(lambda: self._write(session, step, score, training_seconds))

    def _is_saved(self, prefix: Path) -> bool:
        """Whether the state is on the disk already: committed, or adopted from a plain Saver under this very name."""
        with suppress(OSError):  # the disk's troubles are the writer's
            adopted = self.start.newest is None and prefix == self.start.prefix
            return (layout.index_path(prefix) if adopted else layout.manifest_path(prefix)).exists()
        return False

    def wait_until_finished(self) -> None:
        """Waits for the save that is under way, if one is, and draws the consequences of how it ends."""
        if self._writer.has_job:
            self._handle_save_error(self._writer.wait())

    def _handle_save_error(self, error: BaseException | None) -> None:
        if error is None:
            if self._failed_saves:
                _log.info("saving works again, after %d failed saves", self._failed_saves)
            self._failed_saves = 0
            return
        if isinstance(error, NonFiniteError):
            raise NonFiniteError(f"{error}; {self.describe_latest()}") from error
        if not isinstance(error, NotSavedError):
            raise error
        self._failed_saves += 1
        if self._failed_saves > self._max_failed_saves:
            as_before = f", as did the {self._failed_saves - 1} saves before it" if self._failed_saves > 1 else ""
            message = f"{error}{as_before}; {self.describe_latest()}. Mend that, and run the same command again."
            raise NotSavedError(message) from error
        if self._failed_saves == 1:
            _log.warning(
                "%s; %s. Training goes on, and stops after --max_failed_saves=%d more such failures in a row",
                *(error, self.describe_latest(), self._max_failed_saves),
            )

    def describe_latest(self) -> str:
        """Says which checkpoint a run would go on from, once the save that is under way has ended."""
        self._writer.join()
        try:
            steps = layout.steps_with(self._directory, "manifest.json") if self._directory.is_dir() else []
        except OSError as error:
            return f"the train_dir cannot be read ({reason(error)})"
        if not steps:
            return "there is no complete checkpoint yet"
        return f"the last complete checkpoint is {layout.prefix(self._directory, steps[-1])}"

    # What follows runs in the writer's thread.

    def _write(self, session: tf.compat.v1.Session, step: int, score: float | None, training_seconds: float) -> None:
        """Makes a checkpoint of the snapshot, then deletes those that are not to be kept."""
        began = time.perf_counter()
        prefix = layout.prefix(self._directory, step)
        try:
            self._write_and_commit(session, prefix, step, score, training_seconds)
        except ReplacedError:
            raise  # what lies there under this prefix is another run's
        except (OSError, tf.errors.OpError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_shortage(error):
                raise
            _remove_what_was_written(prefix)
            raise NotSavedError(f"{prefix}: could not be saved ({reason(error)})") from error
        finally:
            self._snapshot.release(session)
            self.seconds_saving += time.perf_counter() - began
        self._last_save_seconds = time.perf_counter() - began
        self.newest_step = step
        _log.info("saved %s", prefix)
        self._apply_retention()

    def _write_and_commit(
        self, session: tf.compat.v1.Session, prefix: Path, step: int, score: float | None, training_seconds: float
    ) -> None:
        """Writes a checkpoint's files and commits it."""
        digest, spoilt = self._snapshot.examine(session)
        if spoilt:
            values = f"{', '.join(spoilt)} hold values that are no finite numbers"
            raise NonFiniteError(f"step {step}: {values}, and were not saved")
        self._find_directory_again()
        _check_space(self._directory, self._bytes + len(self._meta_graph))
        mark = layout.incomplete_path(prefix)
        contents = self._contents_of(prefix)
        if any(map(os.path.lexists, contents)) and not mark.exists():
            quarantine.set_aside(prefix, f"{prefix.name}: somebody else's, and in the way of this run's")
        durable.write(mark, b"")
        durable.fsync(self._directory)
        self._snapshot.write(session, prefix, side_by_side=not self._in_background)
        durable.write(layout.meta_path(prefix), self._meta_graph)
        files = self._sync_and_describe(contents)
        durable.fsync(self._directory)
        self._before_commit()
        record = Manifest(
            step=step,
            files=files,
            state_digest=digest,
            score=score,
            settings=self.start.settings,
            code=self.start.code,
            environment=self.start.environment,
            started_from=self.start.started_from,
            saved_at=time.time(),
            training_seconds=training_seconds,
            versions=manifest.versions(),
            retention=self._retention._asdict(),
        )
        # The commit: with this one rename the checkpoint exists.
        durable.atomic_write(layout.manifest_path(prefix), record.to_json())
        self._cleanup.add(record)
        durable.delete([mark])

    def _contents_of(self, prefix: Path) -> list[Path]:
        """The files that a save writes for TensorFlow, by name: to search a directory takes long where it is full."""
        shards = self._snapshot.shards
        data = [layout.data_path(prefix, shard, shards) for shard in range(shards)]
        return [*data, layout.index_path(prefix), layout.meta_path(prefix)]

    def _is_of_this_run(self, saved: Manifest) -> bool:
        start = self.start
        return cleanup.is_of_run(
            saved,
            settings=start.settings,
            started_from=start.started_from,
            may_grow=start.may_grow,
            defaults=start.defaults,
        )

    def _sync_and_describe(self, paths: list[Path]) -> dict[str, dict[str, Any]]:
        """Waits until the files are on the disk; gives their sizes and hashes. In the foreground both at once."""
        if self._in_background:
            for path in paths:
                durable.fsync(path)
            return manifest.describe_files(paths)
        with ThreadPoolExecutor(len(paths)) as pool:
            synced = pool.map(durable.fsync, paths)
            files = manifest.describe_files(paths, manifest.HASHING_THREADS)
            list(synced)
        return files

    def _training_seconds(self) -> float:
        trained_before = self.start.newest.training_seconds if self.start.newest else 0.0
        return trained_before + self._clock() - self._opened_at

    def _find_directory_again(self) -> None:
        """Where somebody deleted the train_dir under the run, makes it anew: better a short history than none."""
        self.start.lock.renew()

    def _apply_retention(self) -> None:
        """Brings the state file and the number of checkpoints up to date; if the disk refuses, next time."""
        try:
            self._cleanup.apply_retention()
        except OSError as error:
            _log.warning("%s: old checkpoints stay for now (%s)", self._directory, reason(error))


# Whatever reading a checkpoint may raise: a damaged file can look like the end of the data, like a wrong argument, or
# like a missing variable; but so can a shortage.
_NOT_RESTORED = (OSError, tf.errors.OpError, ValueError, RuntimeError, IndexError, MemoryError)


def _judged(prefix: Path, recorded: Manifest | None, error: BaseException) -> CheckpointError:
    """What to raise where a checkpoint could not be restored: damage is concluded from its bytes alone."""
    try:
        if recorded is not None:
            manifest.check_files(prefix, recorded)
        Bundle(prefix).check()
    except DamagedError as damage:
        return damage
    except CheckpointError as at_the_moment:
        return at_the_moment
    except OSError as again:
        return manifest.unreadable(Path(again.filename or prefix), again)
    except _NOT_RESTORED as again:
        return CheckpointError(f"{prefix}: cannot be read now ({reason(again)}); {LATER}.")
    return CheckpointError(
        f"{prefix}: cannot be restored now ({reason(error)}), though its files are as they were written; {LATER}."
    )


def _check_space(directory: Path, wanted: int) -> None:
    """Refuses to fill the disk with half a checkpoint."""
    free = durable.free_bytes(directory)
    if free < wanted:
        raise OSError(f"{free / 1e6:,.1f} MB free on the disk, {wanted / 1e6:,.1f} wanted")


def _remove_what_was_written(prefix: Path) -> None:
    """After a failed save gives back the disk's space; what cannot be deleted now, the next start sweeps."""
    with suppress(OSError):
        if layout.incomplete_path(prefix).exists():  # without our mark, what lies there is not ours
            cleanup.delete(prefix)
