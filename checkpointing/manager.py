"""Saves and restores a graph's variables with TensorFlow's Saver, so that no crash can lose a run.

    start = resume.find_start(train_dir, settings, restore_from=None, may_grow=())
    manager = CheckpointManager(graph, train_dir, variables=..., step=..., start=start, settings=settings, ...)
    manager.restore(session)
    manager.save(session)

How a checkpoint comes to be and goes, step by step, is in README.md beside this file.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format

from checkpointing import alias, durable, layout, manifest, rotation
from checkpointing.errors import CheckpointError, reason
from checkpointing.manifest import Manifest
from checkpointing.resume import Start
from checkpointing.rotation import Candidate, Retention

_log = logging.getLogger(__name__)


class CheckpointManager:
    """Owns the checkpoints of one train_dir."""

    def __init__(
        self,
        graph: tf.Graph,
        directory: Path,
        *,
        variables: Sequence[tf.Variable],
        step: tf.Variable,
        start: Start,
        settings: dict[str, Any],
        retention: Retention,
        sharded: bool = False,
        save_relative_paths: bool = True,
        save_every_steps: int = 0,
        save_every_seconds: float = 0,
        before_commit: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Adds a Saver to the graph.

        Args:
          graph: what is trained.
          directory: the train_dir, made ready by resume.find_start.
          variables: the state to keep, the step among them.
          step: the variable that counts the updates.
          start: what find_start said.
          settings: recorded in each checkpoint.
          retention: which checkpoints to keep.
          sharded: one data file for each device, as Saver's option.
          save_relative_paths: whether the state file holds names or absolute paths, as Saver's option.
          save_every_steps: a save is due at each multiple; 0 for never.
          save_every_seconds: and when so long has passed since the last one; 0 for never.
          before_commit: called before a checkpoint is committed, to sync whatever it must not be ahead of.
          clock: seconds since 1970.
        """
        self._step = step
        self._variables = list(variables)
        self._directory = directory
        self._start = start
        self._settings = settings
        self._retention = retention
        self._save_relative_paths = save_relative_paths
        self._save_every_steps = save_every_steps
        self._save_every_seconds = save_every_seconds
        self._before_commit = before_commit
        self._clock = clock
        self._opened_at = self._last_saved_at = clock()
        with graph.as_default():
            # Its rotation stays unused, for it forgets after a restart; its options are recorded for whoever
            # imports the graph.
            self._saver = tf.compat.v1.train.Saver(
                self._variables,
                max_to_keep=retention.max_to_keep,
                keep_checkpoint_every_n_hours=retention.keep_checkpoint_every_n_hours,
                sharded=sharded,
                save_relative_paths=save_relative_paths,
            )
            floats = [variable for variable in self._variables if variable.dtype.is_floating]
            self._all_finite = {each.op.name: tf.reduce_all(tf.math.is_finite(each)) for each in floats}
            # Made once: the graph does not change any more.
            self._meta_graph = self._saver.export_meta_graph().SerializeToString()

    def restore(self, session: tf.compat.v1.Session) -> None:
        """Puts every variable at its value in the checkpoint where the run goes on.

        Raises:
          CheckpointError: the checkpoint is damaged, or it is not of this graph; all variables are as they were.
        """
        prefix = self._start.prefix
        if prefix is None:
            return
        manifest_path = layout.manifest_path(prefix)
        # Under another name than its own, a checkpoint is somebody's copy, and what lies beside it is no commit record.
        if manifest_path.is_file() and layout.step_of(manifest_path.name) is not None:
            manifest.check_files(prefix, Manifest.read(manifest_path))
        try:
            with alias.without_pattern(prefix) as plain, session.graph.as_default():
                self._check_variables(prefix, tf.train.load_checkpoint(str(plain)))
                self._saver.restore(session, str(plain))
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            message = f"{prefix}: cannot be restored ({reason(error)}); give another one as --restore_from."
            raise CheckpointError(message) from error
        # A crash may have come between a commit and what follows it, and fewer may be wanted now. Not before the one
        # that stays in any case has proved to be good.
        self._rewrite_state_file_and_retire()

    def _check_variables(self, prefix: Path, reader: tf.compat.v1.train.NewCheckpointReader) -> None:
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        for variable in self._variables:
            name = variable.op.name
            wanted = f"{variable.dtype.base_dtype.name} {variable.shape.as_list()}"
            found = f"{dtypes[name].name} {shapes[name]}" if name in shapes else "no such variable"
            if found != wanted:
                message = (
                    f"{prefix}: variable {name}: {found} found, {wanted} wanted: "
                    f"it is a checkpoint of another model or optimizer; it holds {', '.join(sorted(shapes))}."
                )
                raise CheckpointError(message)

    def save_if_due(self, session: tf.compat.v1.Session) -> None:
        """Saves where the session's step or the time since the last save asks for it."""
        step = int(session.run(self._step))
        steps_due = self._save_every_steps > 0 and step % self._save_every_steps == 0
        seconds = self._clock() - self._last_saved_at
        if steps_due or 0 < self._save_every_seconds <= seconds:
            self.save(session)

    def save(self, session: tf.compat.v1.Session) -> Path:
        """Makes a checkpoint of the session's variables, then deletes those that are not to be kept.

        A checkpoint of that step that is there already stays as it is: a prefix is never written twice, and a run gives
        the same state at a step each time.

        Returns:
          The checkpoint's prefix.

        Raises:
          CheckpointError: the disk refused, or a variable holds values that are no finite numbers; all complete
            checkpoints are as they were.
        """
        step = int(session.run(self._step))
        prefix = layout.prefix(self._directory, step)
        if not layout.manifest_path(prefix).exists():
            self._check_finite(session, step)
            try:
                self._make(session, prefix, step)
                self._rewrite_state_file_and_retire()
            except (OSError, tf.errors.OpError) as error:
                message = f"{prefix}: cannot be saved ({reason(error)}); run again once that is mended."
                raise CheckpointError(message) from error
        self._last_saved_at = self._clock()
        return prefix

    def _check_finite(self, session: tf.compat.v1.Session, step: int) -> None:
        """Refuses a state that is of no use, before it pushes out one that is."""
        spoilt = sorted(name for name, finite in session.run(self._all_finite).items() if not finite)
        if spoilt:
            message = (
                f"step {step}: {', '.join(spoilt)} hold values that are no finite numbers, and were not saved: "
                f"the last checkpoint is good; try a lower learning rate in a new train_dir."
            )
            raise CheckpointError(message)

    def _make(self, session: tf.compat.v1.Session, prefix: Path, step: int) -> None:
        """Writes a checkpoint's files and commits it."""
        mark = layout.incomplete_path(prefix)
        durable.write(mark, b"")
        durable.sync(self._directory)
        with session.graph.as_default():  # outside any graph the Saver believes itself in eager mode
            self._saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
        durable.write(layout.meta_path(prefix), self._meta_graph)
        files = [path for path in layout.files_of(prefix) if path != mark]
        for path in files:
            durable.sync(path)
        durable.sync(self._directory)
        self._before_commit()
        # The commit: with this one rename the checkpoint exists.
        durable.replace(layout.manifest_path(prefix), self._describe(step, files).to_json())
        durable.delete([mark])
        _log.info("saved %s", prefix)

    def _describe(self, step: int, files: list[Path]) -> Manifest:
        now = self._clock()
        trained_before = self._start.newest.training_seconds if self._start.newest else 0.0
        return Manifest(
            step=step,
            files=manifest.describe_files(files),
            settings=self._settings,
            started_from=self._start.started_from,
            saved_at=now,
            training_seconds=trained_before + now - self._opened_at,
            versions=manifest.versions(),
        )

    def _rewrite_state_file_and_retire(self) -> None:
        manifests = {each.step: each for each in manifest.read_all(self._directory)}
        candidates = [Candidate(each.step, each.training_seconds) for each in manifests.values()]
        keep = rotation.survivors(candidates, self._retention)
        if keep:
            # First the state file, so that it never names a checkpoint that is gone.
            self._write_state_file([manifests[step] for step in sorted(keep)])
        for step in sorted(manifests.keys() - keep):
            self._retire(layout.prefix(self._directory, step))

    def _write_state_file(self, kept: list[Manifest]) -> None:
        """Writes TensorFlow's `checkpoint`, which tf.train.latest_checkpoint and others read."""
        directory = self._directory.absolute()
        prefixes = [layout.prefix(directory, each.step) for each in kept]
        paths = [prefix.name if self._save_relative_paths else str(prefix) for prefix in prefixes]
        state = tf.compat.v1.train.generate_checkpoint_state_proto(
            str(directory), paths[-1], paths, all_model_checkpoint_timestamps=[each.saved_at for each in kept]
        )
        content = text_format.MessageToString(state).encode()
        state_file = self._directory / layout.STATE_FILE
        if not state_file.exists() or state_file.read_bytes() != content:
            durable.replace(state_file, content)

    def _retire(self, prefix: Path) -> None:
        """Deletes a checkpoint, its manifest first: from then on it does not exist."""
        mark = layout.incomplete_path(prefix)
        durable.write(mark, b"")
        durable.sync(self._directory)
        durable.delete([layout.manifest_path(prefix)])
        durable.sync(self._directory)
        durable.delete(path for path in layout.files_of(prefix) if path != mark)
        durable.delete([mark])
