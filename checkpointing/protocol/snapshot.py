"""The state of a graph held still while training goes on, and written from there.

    with graph.as_default():
        snapshot = Snapshot(variables, shards=1)
    snapshot.take(session)            # microseconds, whatever the size
    session.run(update)               # changes the variables, not the snapshot
    snapshot.write(session, prefix)   # TensorFlow's files, from any thread
    snapshot.release(session)

Each variable has a shadow. Assigning the one to the other shares the buffer; the next update of a resource variable
finds its buffer shared and writes to a new one (copy on write), so the shadow keeps the old value. That copy is what
saving costs the training thread. Variables of the old kind, which are updated in place, are copied at once.

The digest of a state is the sha256 over a line for each variable in sorted order: name, dtype, shape, and the
farmhash64 of its bytes, as TensorFlow's Fingerprint op gives it. It is taken in the graph, at 10 GB/s.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpointing.errors import OddFileError
from checkpointing.storage import durable, layout, write_guard

# In the calling thread: a writer does not wait in line behind the training's operations, nor they behind its.
_CALLING_THREAD = tf.compat.v1.RunOptions(inter_op_thread_pool=-1)

# What DebugNumericSummaryV2 is asked for: whether there is an infinity or a NaN, as the second of two numbers.
_CURT_HEALTH = 2


class Examination(NamedTuple):
    """What a snapshot holds.

    digest: of the state. spoilt: the names of the variables with values that are no finite numbers, in sorted order.
    """

    digest: str
    spoilt: list[str]


class Snapshot:
    """Shadows of a graph's variables, and the operations on them.

    shards: how many data files are written.
    """

    def __init__(self, variables: Sequence[tf.Variable], shards: int) -> None:
        """Adds the shadows to the current graph, outside all its collections.

        Args:
          variables: the state; their shapes must be known.
          shards: how many data files to write; never more than there are variables.
        """
        for variable in variables:
            if getattr(variable, "_save_slice_info", None) is not None:
                raise ValueError(f"{variable.op.name}: part of a partitioned variable found, whole ones wanted.")
        groups = _balanced({variable.op.name: variable for variable in variables}, shards)
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
            self._spoilt = {name: _is_spoilt(shadows[name].read_value()) for name in floats}
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
        """Holds the variables' values of this moment; no update may run meanwhile."""
        session.run(self._take, options=_CALLING_THREAD)

    def release(self, session: tf.compat.v1.Session) -> None:
        """Lets go of the memory."""
        session.run(self._release, options=_CALLING_THREAD)

    def examine(self, session: tf.compat.v1.Session) -> Examination:
        """Looks at the snapshot."""
        spoilt, fingerprints = session.run([self._spoilt, self._of_shadows], options=_CALLING_THREAD)
        return Examination(_digest(fingerprints), sorted(name for name in spoilt if spoilt[name]))

    def digest_of_variables(self, session: tf.compat.v1.Session) -> str:
        """The digest of the variables as they are now."""
        with ThreadPoolExecutor(len(self._of_variables)) as pool:
            found = pool.map(lambda group: session.run(group, options=_CALLING_THREAD), self._of_variables)
            return _digest({label: fingerprint for group in found for label, fingerprint in group.items()})

    def write(self, session: tf.compat.v1.Session, prefix: Path, *, side_by_side: bool) -> None:
        """Writes the snapshot's data and index files, as Saver does, its shards at the same time if asked to.

        Raises:
          tf.errors.OpError: the disk refuses.
          OddFileError: the directory of shards is a link that leads elsewhere.
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
        """Puts the variables at their values in a checkpoint, as many at the same time as there are shards.

        Raises:
          tf.errors.OpError: it cannot be read.
        """

        def restore(saver: tf.compat.v1.train.Saver) -> None:
            names = saver.saver_def
            session.run(names.restore_op_name, {names.filename_tensor_name: str(prefix)}, options=_CALLING_THREAD)

        with ThreadPoolExecutor(len(self._restorers)) as pool:
            list(pool.map(restore, self._restorers))


def _save(session: tf.compat.v1.Session, saver: tf.compat.v1.train.Saver, prefix: Path) -> None:
    """What Saver.save does, without its state file, and in this thread."""
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


def _is_spoilt(values: tf.Tensor) -> tf.Tensor:
    """Whether any of the values is no finite number, a bool scalar.

    In one pass of the calling thread: tf.math.is_finite would write an answer for each value, and take the threads that
    train to do so.
    """
    summary = tf.raw_ops.DebugNumericSummaryV2(input=values, tensor_debug_mode=_CURT_HEALTH)
    return summary[1] > 0


def _fingerprints(variables: Mapping[str, tf.Variable]) -> dict[str, tf.Tensor]:
    """Eight bytes for each variable, by its name, dtype and shape."""
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
    """The variables in groups of about as many bytes each: always the largest left to the smallest group."""
    groups: list[dict[str, tf.Variable]] = [{} for _ in range(max(1, min(shards, len(variables))))]
    sizes = [0] * len(groups)
    for name in sorted(variables, key=lambda name: (-size(variables[name]), name)):
        smallest = sizes.index(min(sizes))
        groups[smallest][name] = variables[name]
        sizes[smallest] += size(variables[name])
    return [group for group in groups if group]


def size(variable: tf.Variable) -> int:
    """Its bytes.

    Raises:
      ValueError: nobody knows, for its shape is not fixed.
    """
    if not variable.shape.is_fully_defined():
        raise ValueError(f"{variable.op.name}: shape {variable.shape} found, one that is known wanted.")
    return int(variable.shape.num_elements() * variable.dtype.base_dtype.size)
