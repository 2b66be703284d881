"""Saver: a drop-in replacement for tf.compat.v1.train.Saver that survives crashes and power cuts.

    from checkpointing.graphs.saver import Saver   # in place of tf.compat.v1.train.Saver

It takes the same arguments and writes the same files. The differences:

- `save` returns once the checkpoint is on the disk (fsync).
- The `.meta` file is written before the state file names the checkpoint.
- A restarted process continues the rotation, and deletes no other Saver's checkpoints.
- No checkpoint is overwritten: a crash in between would leave neither the old one nor the new one.
- `restore` raises one clear error: what it expected, and what it got.

To resume a run automatically, save in the background and verify every byte, use CheckpointManager.
"""

import logging
import numbers
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from checkpointing.errors import CheckpointError, NotSavedError, reason
from checkpointing.format import tensor_io
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.graphs import variable_matching
from checkpointing.protocol import checkpoint_state, cleanup, lookup, quarantine
from checkpointing.storage import durable, layout, tf_path

_SECONDS_AN_HOUR = 3600
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # in a checkpoint with this tensor, the others have other names

_log = logging.getLogger(__name__)


class Saver(tf.compat.v1.train.Saver):
    """A tf.compat.v1.train.Saver, with the same arguments.

    Among them: var_list (the variables; a dict gives their names in the checkpoint), reshape (whether to restore a
    tensor of another shape with the same number of elements), sharded, max_to_keep, keep_checkpoint_every_n_hours,
    restore_sequentially, save_relative_paths (whether the state file holds relative paths, so that the directory can be
    moved), pad_step_number, name.
    """

    _directory: Path | None = None  # the directory of the checkpoints in last_checkpoints

    def save(
        self,
        sess: tf.compat.v1.Session,
        save_path: str | Path,
        global_step: int | tf.Tensor | str | None = None,
        latest_filename: str | None = None,
        meta_graph_suffix: str = "meta",
        *,
        write_state: bool = True,
        **options: Any,  # noqa: ANN401 - Saver's own
    ) -> str | None:
        """Save the variables; return once they are on the disk.

        The incomplete files of a killed process under the same name are moved to `quarantine/`.

        Args:
          sess: holds the variables.
          save_path: the prefix, to which the step is appended.
          global_step: the step; without it, only one save is possible.
          latest_filename: the state file's name, `checkpoint` by default.
          meta_graph_suffix: the suffix of the graph's file.
          write_state: whether to list the checkpoint in the state file, and to rotate.
          options: write_meta_graph, strip_default_attrs, save_debug_info.

        Returns:
          The checkpoint's prefix; None if there is nothing to save.

        Raises:
          CheckpointError: the checkpoint exists, or a name in var_list cannot be stored.
          NotSavedError: a file could not be written; incomplete files are deleted.
        """
        step = global_step
        if step is not None:
            step = int(step if isinstance(step, numbers.Integral) else sess.run(step))
        prefix = self._prefix(save_path, step)
        state_file_name = latest_filename or layout.STATE_FILE
        if isinstance(self._var_list, dict):
            tensor_io.check_names(self._var_list)
        try:
            durable.make_directory(prefix.parent)
            _free_name(prefix, state_file_name if write_state else None)
        except OSError as error:
            raise NotSavedError(f"{prefix}: could not be saved ({reason(error)})") from error
        try:
            with sess.graph.as_default():  # outside a graph, TensorFlow 2 would save eager variables
                saved = super().save(
                    sess,
                    str(save_path),
                    step,
                    latest_filename,
                    meta_graph_suffix,
                    write_state=False,
                    **options,
                )
            for path in [*_files_of(prefix, meta_graph_suffix), prefix.parent]:
                durable.fsync(path)
            if saved is not None and write_state:
                self._list_and_rotate(prefix, Path(save_path).name, state_file_name, meta_graph_suffix)
        except (OSError, tf.errors.OpError) as error:
            self._directory = None
            with suppress(OSError):  # files that cannot be deleted now are not in the state file
                if prefix.name not in _listed(prefix.parent, state_file_name):
                    _delete(prefix, meta_graph_suffix)
            raise NotSavedError(f"{prefix}: could not be saved ({reason(error)})") from error
        return None if saved is None else str(prefix)

    def _prefix(self, save_path: str | Path, step: int | None) -> Path:
        if step is None:
            return Path(save_path)
        return Path(f"{save_path}-{step:08d}" if self._pad_step_number else f"{save_path}-{step}")

    def _list_and_rotate(self, prefix: Path, base_name: str, state_file_name: str, meta_graph_suffix: str) -> None:
        """List the newest checkpoints in the state file, then delete the others (not those kept every n hours)."""
        most = self.saver_def.max_to_keep
        if self._directory != prefix.parent:  # the first save here
            self.set_last_checkpoints_with_time(
                _previously_kept(prefix.parent, base_name, state_file_name) if most else []
            )
        known = [*(each for each in self._last_checkpoints if each[0] != str(prefix)), (str(prefix), time.time())]
        surplus, kept = (known[:-most], known[-most:]) if most else ([], known[-1:])
        checkpoint_state.write(
            prefix.parent,
            [(Path(path), saved_at) for path, saved_at in kept],
            relative_paths=self._save_relative_paths or not prefix.is_absolute(),
            name=state_file_name,
        )
        self._directory = prefix.parent
        self.set_last_checkpoints_with_time(kept if most else [])  # as in TensorFlow
        for path, saved_at in surplus:
            if saved_at > self._next_checkpoint_time:
                self._next_checkpoint_time += self.saver_def.keep_checkpoint_every_n_hours * _SECONDS_AN_HOUR
            else:
                _delete_surplus(Path(path), meta_graph_suffix)

    def restore(self, sess: tf.compat.v1.Session, save_path: str | Path) -> None:
        """Restore the variables.

        Args:
          sess: the session with the variables.
          save_path: a prefix, one of a checkpoint's files, or a directory, for its newest checkpoint.

        Raises:
          CheckpointError: there is none; a file is missing or damaged; a variable is missing or has another shape.
        """
        if save_path is None:  # tf.train.latest_checkpoint has found none
            raise CheckpointError("save_path: expected the prefix of a checkpoint, got None")
        prefix = lookup.resolve_checkpoint(Path(save_path))
        entries = Bundle(prefix).entries
        if _OBJECT_GRAPH not in entries:
            variable_matching.check_variables(prefix, entries, self._variables(), reshape=self._reshape)
        try:
            with tf_path.without_pattern(prefix) as plain, sess.graph.as_default():
                super().restore(sess, str(plain))
        except (tf.errors.OpError, ValueError) as error:
            raise CheckpointError(f"{prefix}: cannot be restored ({reason(error)})") from error

    def _variables(self) -> dict[str, tf.Variable]:
        """Return the variables to check by their names in the checkpoint; TensorFlow checks partitioned ones."""
        variables = self._var_list or []
        if not isinstance(variables, dict):
            variables = {each.op.name: each for each in variables if _is_whole(each)}
        return {name: each for name, each in variables.items() if _is_whole(each)}


def _is_whole(variable: object) -> bool:
    return isinstance(variable, tf.Variable) and getattr(variable, "_save_slice_info", None) is None


def _free_name(prefix: Path, state_file_name: str | None) -> None:
    """Move the incomplete files of a killed save, under the same name, to quarantine.

    A checkpoint is complete if it has an index and is in the state file; without a state file, if it has an index.

    Raises:
      CheckpointError: a complete checkpoint has this name.
    """
    if not layout.files_of(prefix):
        return
    is_listed = state_file_name is None or prefix.name in _listed(prefix.parent, state_file_name)
    if is_listed and layout.index_path(prefix).exists():
        message = f"{prefix}: exists already, and no checkpoint is overwritten"
        raise CheckpointError(message, hint="pass a global_step")
    quarantine.set_aside(prefix, f"{prefix.name}: not in the state file, and a new one has the same name")


def _listed(directory: Path, state_file_name: str) -> list[str]:
    """Return the names in the state file; its paths are wrong if the directory was moved or copied."""
    return [prefix.name for prefix in checkpoint_state.read(directory, state_file_name)]


def _previously_kept(directory: Path, base_name: str, state_file_name: str) -> list[tuple[str, float]]:
    """Return the (prefix, time) of each checkpoint with this base name that an earlier process kept.

    The state file may list checkpoints of others, too: those with a manifest belong to a CheckpointManager.
    """
    is_numbered = re.compile(rf"{re.escape(base_name)}-\d+", re.ASCII)
    prefixes = [directory / name for name in _listed(directory, state_file_name) if is_numbered.fullmatch(name)]
    own = [each for each in prefixes if layout.index_path(each).is_file() and not lookup.is_ours(each)]
    return [(str(each), layout.index_path(each).stat().st_mtime) for each in own]


def _files_of(prefix: Path, meta_graph_suffix: str) -> list[Path]:
    """Return a checkpoint's files, its graph's file, and the temporary files of an interrupted save."""
    meta_name = f"{prefix.name}.{meta_graph_suffix}"
    others = [
        path
        for path in prefix.parent.iterdir()
        if path.name == meta_name or layout.leftover_of(path) in {prefix.name, meta_name}
    ]
    return sorted({*layout.files_of(prefix), *others})


def _delete_surplus(prefix: Path, meta_graph_suffix: str) -> None:
    try:
        _delete(prefix, meta_graph_suffix)
    except OSError as error:
        _log.warning("%s: beyond max_to_keep, but could not be deleted (%s)", prefix, reason(error))


def _delete(prefix: Path, meta_graph_suffix: str) -> None:
    """Delete the index first: without it, no reader takes the other files for a checkpoint."""
    cleanup.delete_files(prefix, [layout.index_path(prefix)])
    cleanup.delete_files(prefix, _files_of(prefix, meta_graph_suffix))
