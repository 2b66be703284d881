"""Snapshots of a graph's variables: taken between two updates, written to files while training continues.

    with graph.as_default():
        snapshot = Snapshot(variables, shards=1)
    snapshot.take(session)            # microseconds for any size
    session.run(update)               # changes the variables, not the snapshot
    snapshot.write(session, prefix)   # TensorFlow's files, from any thread
    snapshot.release(session)

Each variable has a shadow. Assigning the variable to its shadow shares the buffer. The next update of a resource
variable finds its buffer shared and writes to a new one (copy on write), so the shadow keeps the old value. That copy
is all that the training thread pays. Variables with use_resource=False are updated in place, and are copied at once.

The digest of a state is the sha256 of one line per variable in sorted order: name, dtype, shape, and the farmhash64 of
its bytes, computed by TensorFlow's Fingerprint op at 10 GB/s.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpointing.errors import LATER, CheckpointError, DamagedError, OddFileError, reason
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.graphs import variable_matching
from checkpointing.protocol import manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import durable, layout, tf_path, write_guard

_log = logging.getLogger(__name__)

# Run in the calling thread, so that the writer's and the training's operations do not wait for each other in a queue.
_CALLING_THREAD = tf.compat.v1.RunOptions(inter_op_thread_pool=-1)

# Mode of DebugNumericSummaryV2 with two outputs; the second is positive if there is a NaN or an infinity.
_CURT_HEALTH = 2


class Examination(NamedTuple):
    """Digest of a snapshot, and the names of the variables that hold NaN or infinity, sorted."""

    digest: str
    non_finite: list[str]


class Snapshot:
    """Shadows of a graph's variables.

    shards: number of data files.
    """

    def __init__(self, variables: Sequence[tf.Variable], shards: int) -> None:
        """Add the shadows to the current graph, and to none of its collections.

        Args:
          variables: the state; their shapes must be known.
          shards: number of data files, at most one per variable.

        Raises:
          ValueError: a shape is unknown, or a variable is part of a partitioned one.
        """
        for variable in variables:
            if getattr(variable, "_save_slice_info", None) is not None:
                raise ValueError(f"{variable.op.name}: expected a whole variable, got part of a partitioned one")
        self._variables = {variable.op.name: variable for variable in variables}
        groups = _balanced(self._variables, shards)
        with tf.name_scope("snapshot"):
            shadows = {variable.op.name: _shadow(variable) for variable in variables}
            self._take = tf.group(
                *[shadows[each.op.name].assign(_value(each), read_value=False) for each in variables],
            )
            self._release = tf.group(
                *[
                    tf.raw_ops.DestroyResourceOp(resource=shadow.handle, ignore_lookup_error=True)
                    for shadow in shadows.values()
                ]
            )
            floats = [name for name in shadows if shadows[name].dtype.is_floating]
            self._non_finite = {name: _has_non_finite(shadows[name].read_value()) for name in floats}
            self._of_shadows = _fingerprints(shadows)
            self._of_variables = [_fingerprints(group) for group in groups]
            self._restorers = [tf.compat.v1.train.Saver(group) for group in groups]
            self.shards = len(groups)
            self._savers = [tf.compat.v1.train.Saver({name: shadows[name] for name in group}) for group in groups]
            self._parts = tf.compat.v1.placeholder(tf.string, [None], name="parts")
            self._prefix = tf.compat.v1.placeholder(tf.string, [], name="prefix")
            self._merge = tf.raw_ops.MergeV2Checkpoints(
                checkpoint_prefixes=self._parts, destination_prefix=self._prefix, delete_old_dirs=True
            )

    def take(self, session: tf.compat.v1.Session) -> None:
        """Share the variables' buffers with their shadows; no update may run at the same time."""
        session.run(self._take, options=_CALLING_THREAD)

    def release(self, session: tf.compat.v1.Session) -> None:
        """Free the memory."""
        session.run(self._release, options=_CALLING_THREAD)

    def examine(self, session: tf.compat.v1.Session) -> Examination:
        """Return the digest of the snapshot, and which variables hold NaN or infinity."""
        non_finite, fingerprints = session.run([self._non_finite, self._of_shadows], options=_CALLING_THREAD)
        return Examination(_digest(fingerprints), sorted(name for name in non_finite if non_finite[name]))

    def digest_of_variables(self, session: tf.compat.v1.Session) -> str:
        """Return the digest of the variables' current values."""
        with ThreadPoolExecutor(len(self._of_variables)) as pool:
            found = pool.map(lambda group: session.run(group, options=_CALLING_THREAD), self._of_variables)
            return _digest({label: fingerprint for group in found for label, fingerprint in group.items()})

    def write(self, session: tf.compat.v1.Session, prefix: Path, *, side_by_side: bool) -> None:
        """Write the snapshot's data and index files, as Saver does.

        Args:
          session: holds the snapshot.
          prefix: the checkpoint.
          side_by_side: whether to write all shards at the same time.

        Raises:
          tf.errors.OpError: the disk reports an error.
          OddFileError: a symbolic link has the name of the directory of shards.
        """
        if len(self._savers) == 1:
            _save(session, self._savers[0], prefix)
            return
        directory = layout.shards_directory(prefix)
        if directory.is_symlink():
            raise OddFileError(directory, "expected a directory, got a symbolic link")
        durable.make_directory(directory)
        parts = [directory / f"part-{number}" for number in range(len(self._savers))]
        with ThreadPoolExecutor(len(parts)) as pool:
            save_all = pool.map if side_by_side else map
            list(save_all(lambda saver, part: _save(session, saver, part), self._savers, parts))
        write_guard.check(prefix)
        session.run(
            self._merge,
            {self._parts: [str(part) for part in parts], self._prefix: str(prefix)},
            options=_CALLING_THREAD,
        )

    def restore(self, session: tf.compat.v1.Session, prefix: Path) -> None:
        """Assign the variables their values in a checkpoint, in parallel if there are shards.

        Raises:
          tf.errors.OpError: it cannot be read.
        """

        def restore(saver: tf.compat.v1.train.Saver) -> None:
            names = saver.saver_def
            session.run(names.restore_op_name, {names.filename_tensor_name: str(prefix)}, options=_CALLING_THREAD)

        with ThreadPoolExecutor(len(self._restorers)) as pool:
            list(pool.map(restore, self._restorers))

    def restore_and_verify(self, session: tf.compat.v1.Session, prefix: Path, recorded: Manifest | None) -> None:
        """Restore a checkpoint, and compare the digest of the variables with its manifest.

        Args:
          session: holds the variables.
          prefix: the checkpoint.
          recorded: its manifest; None if a plain Saver wrote it: then TensorFlow's checksums are compared.

        Raises:
          DamagedError: bytes are wrong, or the restored state is not the one that was saved.
          CheckpointError: its variables are not the graph's, or it cannot be read now.
        """
        try:
            bundle = Bundle(prefix)
            variable_matching.check_variables(prefix, bundle.entries, self._variables)
            if recorded is None:
                bundle.check()  # TensorFlow checks only the tensors that it restores
            with tf_path.without_pattern(prefix) as plain:
                self.restore(session, plain)
            digest = self.digest_of_variables(session)
        except _NOT_RESTORED as error:
            raise _restore_error(prefix, recorded, error) from error
        if recorded is not None:
            if digest != recorded.state_digest:
                raise DamagedError(f"{prefix.name}: the restored state is not the one that was saved")
            _log.info("restored %s: state matches, digest %s", prefix, digest[:12])


# What reading a checkpoint may raise. Damage can look like the end of a file, a wrong argument or a missing variable;
# but so can a shortage of memory or descriptors.
_NOT_RESTORED = (OSError, tf.errors.OpError, ValueError, RuntimeError, IndexError, MemoryError)


def _restore_error(prefix: Path, recorded: Manifest | None, error: BaseException) -> CheckpointError:
    """Return DamagedError if the files' bytes are wrong, otherwise an error that concludes nothing."""
    try:
        if recorded is not None:
            manifest.check_files(prefix, recorded)
        Bundle(prefix).check()
    except CheckpointError as found:
        return found
    except OSError as found:
        return manifest.unreadable(Path(found.filename or prefix), found)
    except _NOT_RESTORED as found:
        return CheckpointError(f"{prefix}: cannot be read now ({reason(found)})", hint=LATER)
    message = f"{prefix}: cannot be restored now ({reason(error)}), although its files are intact"
    return CheckpointError(message, hint=LATER)


def _save(session: tf.compat.v1.Session, saver: tf.compat.v1.train.Saver, prefix: Path) -> None:
    """Do what Saver.save does, without the state file and in this thread."""
    names = saver.saver_def
    write_guard.check(prefix)
    session.run(names.save_tensor_name, {names.filename_tensor_name: str(prefix)}, options=_CALLING_THREAD)


def _shadow(variable: tf.Variable) -> tf.Variable:
    zeros = tf.zeros(variable.shape, variable.dtype.base_dtype)
    return tf.compat.v1.Variable(zeros, trainable=False, collections=[], use_resource=True, name=variable.op.name)


def _value(variable: tf.Variable) -> tf.Tensor:
    if hasattr(variable, "handle"):
        return variable.read_value()
    return tf.raw_ops.DeepCopy(x=variable.read_value())


def _has_non_finite(values: tf.Tensor) -> tf.Tensor:
    """Return whether any value is NaN or infinity (bool scalar).

    One pass in the calling thread. tf.math.is_finite would write a result for each value, in the training's threads.
    """
    summary = tf.raw_ops.DebugNumericSummaryV2(input=values, tensor_debug_mode=_CURT_HEALTH)
    return summary[1] > 0


def _fingerprints(variables: Mapping[str, tf.Variable]) -> dict[str, tf.Tensor]:
    """Return eight bytes per variable, by "name dtype shape"."""
    return {
        f"{name} {variable.dtype.base_dtype.name} {variable.shape.as_list()}": tf.raw_ops.Fingerprint(
            data=tf.reshape(variable.read_value(), [1, -1]), method="farmhash64"
        )
        for name, variable in variables.items()
    }


def _digest(fingerprints: Mapping[str, np.ndarray[Any, Any]]) -> str:
    lines = [f"{label} {fingerprint.tobytes().hex()}\n" for label, fingerprint in fingerprints.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _balanced(variables: dict[str, tf.Variable], shards: int) -> list[dict[str, tf.Variable]]:
    """Return the variables in groups of about equal size: the largest variable left is added to the smallest group."""
    groups: list[dict[str, tf.Variable]] = [{} for _ in range(max(1, min(shards, len(variables))))]
    sizes = [0] * len(groups)
    for name in sorted(variables, key=lambda name: (-size(variables[name]), name)):
        smallest = sizes.index(min(sizes))
        groups[smallest][name] = variables[name]
        sizes[smallest] += size(variables[name])
    return [group for group in groups if group]


def size(variable: tf.Variable) -> int:
    """Return the size of a variable in bytes.

    Raises:
      ValueError: its shape is unknown.
    """
    if not variable.shape.is_fully_defined():
        raise ValueError(f"{variable.op.name}: expected a known shape, got {variable.shape}")
    return int(variable.shape.num_elements() * variable.dtype.base_dtype.size)
