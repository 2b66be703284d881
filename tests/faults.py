"""Faults of memory: a session that flips bits of variables between two steps of the training loop."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

NAN = -1  # in place of a bit: all values become NaN


class Fault(NamedTuple):
    """One flipped bit.

    step: the bit flips when this many updates have been applied, before the next one.
    variable: name of the variable's operation.
    bit: number of the bit, modulo the number of bits of the variable; or NAN.
    times: at which visits of the step it flips: 1 the first pass, 2 the second pass of a recheck or of a redone step.
    """

    step: int
    variable: str
    bit: int = 30
    times: tuple[int, ...] = (1,)


class FaultySession(tf.compat.v1.Session):
    """A session that flips bits. Without faults it is an ordinary one.

    flipped: the faults that have happened, in order.
    updates: the number of updates in each call.
    """

    def __init__(self, **options):
        """Take the arguments of a session."""
        super().__init__(**options)
        self.set_faults(())

    def set_faults(self, faults: Sequence[Fault]) -> None:
        """Set the faults to come, and count visits and updates from now on."""
        self.faults = list(faults)
        self.flipped: list[Fault] = []
        self.updates: list[int] = []
        self._visits: Counter[int] = Counter()

    def run(self, fetches, feed_dict=None, **options):
        """Run; if these are updates, stop at each step with a fault and flip its bit."""
        count = next((key for key in feed_dict or () if getattr(key, "name", "") == "steps_to_run:0"), None)
        if count is not None:
            self.updates.append(feed_dict[count])
        if count is None or not self.faults:
            return super().run(fetches, feed_dict, **options)
        step = int(super().run(self.graph.get_tensor_by_name("global_step/Read/ReadVariableOp:0")))
        end = step + feed_dict[count]
        for place in sorted({fault.step for fault in self.faults if step < fault.step <= end}):
            values = super().run(fetches, {count: place - step})
            step = place
            self._visits[place] += 1
            for fault in self.faults:
                if fault.step == place and self._visits[place] in fault.times:
                    self.flipped.append(fault)
                    flip_bit(self, fault.variable, fault.bit)
        return super().run(fetches, {count: end - step}) if step < end else values


def flip_bit(session, name, bit):
    """Flip one bit of a variable, or set all its values to NaN."""
    with session.graph.as_default():
        everything = [*tf.compat.v1.global_variables(), *tf.compat.v1.local_variables()]
        variable = {each.op.name: each for each in everything}[name]
        value = session.run(variable.op.name + "/Read/ReadVariableOp:0")
        if bit == NAN:
            variable.load(np.full_like(value, np.nan), session)
            return
        changed = bytearray(value.tobytes())
        bit %= 8 * len(changed)
        changed[bit // 8] ^= 1 << bit % 8
        variable.load(np.frombuffer(changed, value.dtype).reshape(value.shape), session)
