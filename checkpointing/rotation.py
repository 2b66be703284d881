"""Which checkpoints survive: a pure function of what is on the disk."""

from collections.abc import Iterable
from typing import NamedTuple

_SECONDS_AN_HOUR = 3600


class Retention(NamedTuple):
    """What to keep; the first two under the names that tf.compat.v1.train.Saver gives them.

    max_to_keep: the newest so many; 0 keeps all.
    keep_checkpoint_every_n_hours: besides these, one for every n hours of training.
    keep_best: and so many with the highest score.
    """

    max_to_keep: int
    keep_checkpoint_every_n_hours: float = 10_000.0
    keep_best: int = 0


class Candidate(NamedTuple):
    """A checkpoint on the disk.

    training_seconds: how long the run had been training when it was made.
    score: how good it is, the higher the better; None where nobody asked.
    pinned: whether somebody wants it kept.
    """

    step: int
    training_seconds: float
    score: float | None = None
    pinned: bool = False


def survivors(candidates: Iterable[Candidate], retention: Retention) -> dict[int, str]:
    """The steps of the checkpoints to keep, in order, each with the reason why."""
    ordered = sorted(candidates, key=lambda candidate: candidate.step)
    newest = ordered[-retention.max_to_keep :]  # 0: all
    reasons = {
        "newest": {candidate.step for candidate in newest},
        "best": _best(ordered, retention.keep_best),
        "one for the hours": _one_for_the_hours(ordered, retention.keep_checkpoint_every_n_hours),
        "pinned": {candidate.step for candidate in ordered if candidate.pinned},
    }
    why = {
        candidate.step: ", ".join(reason for reason, steps in reasons.items() if candidate.step in steps)
        for candidate in ordered
    }
    return {step: reason for step, reason in why.items() if reason}


def _best(ordered: list[Candidate], count: int) -> set[int]:
    """Of equals the earlier one, so that a later one as good moves nothing."""
    scored = [candidate for candidate in ordered if candidate.score is not None]
    return {each.step for each in sorted(scored, key=lambda candidate: -(candidate.score or 0.0))[:count]}


def _one_for_the_hours(ordered: list[Candidate], hours: float) -> set[int]:
    """The clock is the run's own training time, kept in the manifests, so neither a restart nor a pause resets it.

    Of each stretch of n hours but the first, the earliest checkpoint stays for good.
    """
    earliest: dict[int, int] = {}
    for candidate in ordered:
        earliest.setdefault(int(candidate.training_seconds // (hours * _SECONDS_AN_HOUR)), candidate.step)
    return {step for stretch, step in earliest.items() if stretch > 0}
