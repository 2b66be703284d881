"""Find faults of the processor or the memory: compute some steps twice (--recheck_every_steps).

    recheck = Recheck(training_graph, data.train, every=1000, train_steps=20_000)
    updates = loop.run_steps(session, training_graph, 0, ..., recheck=recheck)  # raises RecheckError

A step is a function of state, data, seed and step, so computing it twice gives the same bits. A recheck is due at each
multiple of `every` and at the last step. Five steps before it, the state is copied in memory. At the recheck the steps
since are computed again from the copy, and the two results are compared variable by variable. The training data are
compared with the arrays that they were loaded from, as those were when training began.
"""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from checkpointing import processor
from checkpointing.errors import listed
from mnist.errors import RecheckError
from mnist.input.dataset import Split
from mnist.model.training_graph import TrainingGraph

RECHECKED_STEPS = 5

# By name of the variable, the eight bytes of farmhash64.
Fingerprints = Mapping[str, Any]


class Recheck:
    """Computes the last steps before each recheck twice.

    trusted_step: the newest step whose state is good as far as is known: it passed a recheck, or training began there.
    passed: number of rechecks that found no fault.
    """

    def __init__(self, training_graph: TrainingGraph, train: Split, *, every: int, train_steps: int) -> None:
        """Add the copy of the state and the fingerprints to the graph, and to none of its collections.

        Args:
          training_graph: the graph.
          train: the training data that are loaded into it.
          every: steps between two rechecks; at least 1.
          train_steps: the last step.
        """
        self.trusted_step = self.passed = 0
        self._training_graph = training_graph
        self._train = train
        self._every = every
        self._train_steps = train_steps
        self._copied_at: int | None = None
        self._expected_data: Fingerprints | None = None
        state = training_graph.saved
        with training_graph.graph.as_default(), tf.name_scope("recheck"):
            copies = [_make_copy(variable) for variable in state]
            pairs = list(zip(state, copies, strict=True))
            # A copy of the bytes, not of the reference: a fault in one of the two buffers must not change both.
            self._copy = tf.group(
                *[copy.assign(tf.raw_ops.DeepCopy(x=each.read_value()), read_value=False) for each, copy in pairs]
            )
            self._put_back = tf.group(*[each.assign(copy.read_value(), read_value=False) for each, copy in pairs])
            self._release = tf.group(*[tf.raw_ops.DestroyResourceOp(resource=copy.handle) for copy in copies])
            self._state = _fingerprints(state, [variable.read_value() for variable in state])
            data = training_graph.data
            self._data = _fingerprints(data, [variable.read_value() for variable in data])
            self._loaded = _fingerprints(data, [training_graph.train_images, training_graph.train_labels])

    def begin(self, session: tf.compat.v1.Session, step: int) -> None:
        """Begin at the session's current step, whose state is trusted from here on."""
        self.trusted_step = step
        self._copied_at = None
        if self._expected_data is None:
            arrays = {
                self._training_graph.train_images: self._train.images,
                self._training_graph.train_labels: self._train.labels,
            }
            self._expected_data = session.run(self._loaded, arrays)

    def prepare(self, session: tf.compat.v1.Session, step: int) -> int:
        """Copy the state if the steps to compute twice begin here.

        Returns:
          The number of steps up to the next one at which session.run must end.
        """
        due = min(step - step % self._every + self._every, self._train_steps)
        first = due - min(RECHECKED_STEPS, self._every)
        if step < first:
            return first - step
        if self._copied_at is None:
            session.run(self._copy)
            self._copied_at = step
        return due - step

    def check(self, session: tf.compat.v1.Session, step: int, step_found: int) -> None:
        """Check the step after each session.run; if a recheck is due, also the state and the training data.

        The state stays that of the step.

        Args:
          session: holds the variables.
          step: the number of updates applied so far.
          step_found: the value of the variable that counts them.

        Raises:
          RecheckError: there is a fault; the state must not be used.
        """
        if step_found != step:
            raise self._error(step, f"expected step {step}, got {step_found}")
        if step != self._train_steps and step % self._every:
            return
        assert self._copied_at is not None  # by `prepare`
        first = session.run(self._state)
        session.run(self._put_back)
        count = step - self._copied_at
        session.run(self._training_graph.run_steps, {self._training_graph.steps_per_execution: count})
        second, data = session.run([self._state, self._data])
        session.run(self._release)
        self._copied_at = None
        assert self._expected_data is not None  # by `begin`
        problems = []
        if differing := _differing(first, second):
            problems.append(f"the last {count} steps, computed twice, differ in {listed(differing)}")
        changed = _differing(self._expected_data, data)
        if changed:
            problems.append(f"the training data in memory have changed: {listed(changed)}")
        if problems:
            raise self._error(step, "; ".join(problems), data_changed=bool(changed))
        self.trusted_step = step
        self.passed += 1

    def _error(self, step: int, problem: str, *, data_changed: bool = False) -> RecheckError:
        machine = f"{platform.node()}, {processor.name()}"
        return RecheckError(
            f"{machine}: fault of processor or memory found at step {step} ({problem})",
            step=step,
            trusted_step=self.trusted_step,
            data_changed=data_changed,
        )


def _make_copy(variable: tf.Variable) -> tf.Variable:
    zeros = tf.zeros(variable.shape, variable.dtype.base_dtype)
    return tf.compat.v1.Variable(zeros, trainable=False, collections=[], use_resource=True, name=variable.op.name)


def _fingerprints(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    return {
        variable.op.name: tf.raw_ops.Fingerprint(data=tf.reshape(value, [1, -1]), method="farmhash64")
        for variable, value in zip(variables, values, strict=True)
    }


def _differing(first: Fingerprints, second: Fingerprints) -> list[str]:
    return sorted(name for name in first if not np.array_equal(first[name], second[name]))
