"""Which checkpoint to go back to when the state has become non-finite (--on_nonfinite=rollback).

A transient fault does not repeat: from the newest checkpoint the steps come out finite. If the run fails at the same
step again, or earlier, that checkpoint may be at fault: go back one further. Three failed rollbacks are deterministic.
"""

from collections.abc import Sequence
from typing import NamedTuple

MAX_ROLLBACKS = 3


class Rollback(NamedTuple):
    """The step at which the state was found non-finite, and the step of the checkpoint restored because of it."""

    failed_at: int
    restored: int


def restore_before(failed_at: int, earlier: Sequence[Rollback]) -> int | None:
    """Return a step: restore the newest checkpoint of a smaller one. None: give up.

    Args:
      failed_at: the step at which the state was found non-finite.
      earlier: the rollbacks of this process so far, the oldest first.
    """
    if len(earlier) >= MAX_ROLLBACKS:
        return None
    if earlier and failed_at <= max(each.failed_at for each in earlier):
        return earlier[-1].restored
    return failed_at
