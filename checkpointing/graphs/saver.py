"""TensorFlow's Saver, made safe: one line changes for who has one already.

    from checkpointing.graphs.saver import Saver   # in place of tf.compat.v1.train.Saver

Takes the same arguments and leaves the same files. What differs: when `save` returns, the checkpoint is on the disk, so
that no power cut undoes it; the graph is written before the state file names the checkpoint; rotation goes on where the
last process ended, and leaves other savers' checkpoints alone; a checkpoint is never written over, for a crash in
between would leave neither; and `restore` says in a sentence what it found and what it wanted.

A run that is to be resumed by itself, with saves going on beside training and every byte verified, wants the
CheckpointManager instead.
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
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.graphs import variable_matching
from checkpointing.protocol import checkpoint_state, cleanup, lookup, quarantine
from checkpointing.storage import durable, layout, tf_path

_SECONDS_AN_HOUR = 3600
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # with this tensor, the others are not called as the variables are

_log = logging.getLogger(__name__)


class Saver(tf.compat.v1.train.Saver):
    """Takes what tf.compat.v1.train.Saver takes.

    var_list (the variables; a dict changes names on the way: what each is called in the checkpoint), reshape (restores
    also where the shape differs, if the number of elements does not), sharded, max_to_keep,
    keep_checkpoint_every_n_hours, restore_sequentially, save_relative_paths (whether the state file holds names, so
    that the directory can be moved), pad_step_number, name, ...
    """

    _directory: Path | None = None  # whose checkpoints are in last_checkpoints

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
        """Saves the variables; returns once they are on the disk.

        What a killed process left of a checkpoint of that name is moved to `quarantine/`.

        Args:
          sess: holds the variables.
          save_path: the prefix, to which the step is appended.
          global_step: the step; without, there can be one save only.
          latest_filename: the state file's name, `checkpoint` by default.
          meta_graph_suffix: how the graph's file ends.
          write_state: whether to list the checkpoint in the state file, and to rotate.
          options: write_meta_graph, strip_default_attrs, save_debug_info.

        Returns:
          The checkpoint's prefix; None where there is nothing to save.

        Raises:
          CheckpointError: it exists already. NotSavedError: the disk refuses; what was written is removed.
        """
        step = global_step
        if step is not None:
            step = int(step if isinstance(step, numbers.Integral) else sess.run(step))
        prefix = self._prefix(save_path, step)
        state_file_name = latest_filename or layout.STATE_FILE
        try:
            durable.make_directory(prefix.parent)
            _make_way(prefix, state_file_name if write_state else None)
        except OSError as error:
            raise NotSavedError(f"{prefix}: could not be saved ({reason(error)}).") from error
        try:
            with sess.graph.as_default():  # or TensorFlow 2 takes it for a save of eager variables
                saved = super().save(
                    *(sess, str(save_path), step, latest_filename, meta_graph_suffix),
                    write_state=False,
                    **options,
                )
            for path in [*_files_of(prefix, meta_graph_suffix), prefix.parent]:
                durable.fsync(path)
            if saved is not None and write_state:
                self._list_and_rotate(prefix, Path(save_path).name, state_file_name, meta_graph_suffix)
        except (OSError, tf.errors.OpError) as error:
            self._directory = None
            with suppress(OSError):  # what cannot be deleted now is in nobody's list
                if prefix.name not in _listed(prefix.parent, state_file_name):
                    _delete(prefix, meta_graph_suffix)
            raise NotSavedError(f"{prefix}: could not be saved ({reason(error)}).") from error
        return None if saved is None else str(prefix)

    def _prefix(self, save_path: str | Path, step: int | None) -> Path:
        if step is None:
            return Path(save_path)
        return Path(f"{save_path}-{step:08d}" if self._pad_step_number else f"{save_path}-{step}")

    def _list_and_rotate(self, prefix: Path, series: str, state_file_name: str, meta_graph_suffix: str) -> None:
        """Lists the newest in the state file; deletes the others after that, but for those kept for the hours."""
        most = self.saver_def.max_to_keep
        if self._directory != prefix.parent:  # the first save here
            self.set_last_checkpoints_with_time(_kept_before(prefix.parent, series, state_file_name) if most else [])
        known = [*(each for each in self._last_checkpoints if each[0] != str(prefix)), (str(prefix), time.time())]
        going, kept = (known[:-most], known[-most:]) if most else ([], known[-1:])
        checkpoint_state.write(
            prefix.parent,
            [(Path(path), saved_at) for path, saved_at in kept],
            relative_paths=self._save_relative_paths or not prefix.is_absolute(),
            name=state_file_name,
        )
        self._directory = prefix.parent
        self.set_last_checkpoints_with_time(kept if most else [])  # as TensorFlow has it
        for path, saved_at in going:
            if saved_at > self._next_checkpoint_time:
                self._next_checkpoint_time += self.saver_def.keep_checkpoint_every_n_hours * _SECONDS_AN_HOUR
            else:
                _retire(Path(path), meta_graph_suffix)

    def restore(self, sess: tf.compat.v1.Session, save_path: str | Path) -> None:
        """Restores the variables.

        Args:
          sess: takes them.
          save_path: a prefix, one of a checkpoint's files, or a directory, for its newest checkpoint.

        Raises:
          CheckpointError: there is none; a file is missing or damaged; a variable is not in it, or in another shape.
        """
        if save_path is None:  # what tf.train.latest_checkpoint gives
            raise CheckpointError(
                "None found, the prefix of a checkpoint wanted: there is none where it was looked for."
            )
        prefix = lookup.resolve_checkpoint(Path(save_path))
        entries = Bundle(prefix).entries
        if _OBJECT_GRAPH not in entries:
            variable_matching.check_variables(prefix, entries, self._variables(), reshape=self._reshape)
        try:
            with tf_path.without_pattern(prefix) as plain, sess.graph.as_default():
                super().restore(sess, str(plain))
        except (tf.errors.OpError, ValueError) as error:
            raise CheckpointError(f"{prefix}: cannot be restored ({reason(error)}).") from error

    def _variables(self) -> dict[str, tf.Variable]:
        """By their names in the checkpoint; what is spread over several, or is none, is told by TensorFlow alone."""
        given = self._var_list or []
        named = given if isinstance(given, dict) else {each.op.name: each for each in given if _is_whole(each)}
        return {name: each for name, each in named.items() if _is_whole(each)}


def _is_whole(variable: object) -> bool:
    return isinstance(variable, tf.Variable) and getattr(variable, "_save_slice_info", None) is None


def _make_way(prefix: Path, state_file_name: str | None) -> None:
    """Moves what a killed process left; a checkpoint that the state file lists, or is not to list, stays."""
    if not layout.files_of(prefix):
        return
    known = state_file_name is None or prefix.name in _listed(prefix.parent, state_file_name)
    if known and layout.index_path(prefix).exists():
        raise CheckpointError(f"{prefix}: exists already, and no checkpoint is overwritten: give a global_step.")
    quarantine.set_aside(prefix, f"{prefix.name}: not in the state file, and in the way of a new one")


def _listed(directory: Path, state_file_name: str) -> list[str]:
    """The names in the state file, whose paths lead elsewhere where the directory was moved or copied."""
    return [prefix.name for prefix in checkpoint_state.read(directory, state_file_name)]


def _kept_before(directory: Path, series: str, state_file_name: str) -> list[tuple[str, float]]:
    """What an earlier process kept of this series, and since when; the state file may list others' checkpoints, too."""
    of_series = re.compile(rf"{re.escape(series)}-\d+", re.ASCII)
    prefixes = [directory / name for name in _listed(directory, state_file_name) if of_series.fullmatch(name)]
    # A run's own, which have a manifest, are the run's to rotate.
    whole = [each for each in prefixes if layout.index_path(each).exists() and not lookup.is_ours(each)]
    return [(str(each), layout.index_path(each).stat().st_mtime) for each in whole]


def _files_of(prefix: Path, meta_graph_suffix: str) -> list[Path]:
    """Also the graph's file, whatever its ending, and what TensorFlow could not write to its end."""
    meta_name = f"{prefix.name}.{meta_graph_suffix}"
    others = [
        path
        for path in prefix.parent.iterdir()
        if path.name == meta_name or layout.leftover_of(path) in {prefix.name, meta_name}
    ]
    return sorted({*layout.files_of(prefix), *others})


def _retire(prefix: Path, meta_graph_suffix: str) -> None:
    try:
        _delete(prefix, meta_graph_suffix)
    except OSError as error:
        _log.warning("%s: stays, though it is too many (%s)", prefix, reason(error))


def _delete(prefix: Path, meta_graph_suffix: str) -> None:
    """The index first: without it there is no checkpoint, but a part of one that nobody takes for a whole."""
    cleanup.delete_files(prefix, [layout.index_path(prefix)])
    cleanup.delete_files(prefix, _files_of(prefix, meta_graph_suffix))
