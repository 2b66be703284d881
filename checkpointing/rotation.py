"""Which checkpoints survive: a pure function of what is on the disk."""

from collections.abc import Sequence
from typing import NamedTuple

_SECONDS_AN_HOUR = 3600


class Retention(NamedTuple):
    """What to keep, under the names that tf.compat.v1.train.Saver gives it.

    max_to_keep: the newest so many; 0 keeps all.
    keep_checkpoint_every_n_hours: besides these, one for every n hours of training.
    """

    max_to_keep: int
    keep_checkpoint_every_n_hours: float


class Candidate(NamedTuple):
    """A checkpoint on the disk: its step, and how long the run had been training when it was made."""

    step: int
    training_seconds: float


def survivors(candidates: Sequence[Candidate], retention: Retention) -> set[int]:
    """The steps of the checkpoints to keep.

    The clock is the run's own training time, kept in the manifests, so neither a restart nor a pause resets it: of
    each stretch of n hours but the first, the earliest checkpoint stays for good.
    """
    ordered = sorted(candidates)
    if not retention.max_to_keep:
        return {candidate.step for candidate in ordered}
    newest = {candidate.step for candidate in ordered[-retention.max_to_keep :]}
    stretch = retention.keep_checkpoint_every_n_hours * _SECONDS_AN_HOUR
    earliest: dict[int, int] = {}
    for candidate in ordered:
        earliest.setdefault(int(candidate.training_seconds // stretch), candidate.step)
    return newest | {step for number, step in earliest.items() if number > 0}
