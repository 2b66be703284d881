"""Decide which checkpoints to keep: a pure function of all checkpoints, and the same incrementally."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from checkpointing.storage.json_kinds import is_count, is_finite

_SECONDS_PER_HOUR = 3600
_LAST_PERIOD = 2**62  # for periods so short that the quotient is no integer
_PER_N_HOURS = "one per n hours"


class RetentionPolicy(NamedTuple):
    """Which checkpoints to keep; the first two options have the names of tf.compat.v1.train.Saver's.

    max_to_keep: number of newest checkpoints; 0 keeps all.
    keep_checkpoint_every_n_hours: also keep one per n hours of training.
    keep_best: also keep this number of checkpoints with the highest scores.
    """

    max_to_keep: int
    keep_checkpoint_every_n_hours: float = 10_000.0
    keep_best: int = 0


def recorded(record: Mapping[str, Any] | None) -> RetentionPolicy | None:
    """Return the retention policy in a manifest; None if there is none, or it is not a valid one."""
    if record is None or "max_to_keep" not in record or not record.keys() <= set(RetentionPolicy._fields):
        return None
    policy = RetentionPolicy(**record)
    counts = (policy.max_to_keep, policy.keep_best)
    hours = policy.keep_checkpoint_every_n_hours
    return policy if all(map(is_count, counts)) and is_finite(hours) and hours > 0 else None


class Candidate(NamedTuple):
    """A checkpoint on the disk.

    training_seconds: duration of the run until it was saved, over all attempts.
    score: quality, higher is better; None if unknown.
    pinned: whether it has a `.pinned` mark.
    """

    step: int
    training_seconds: float
    score: float | None = None
    pinned: bool = False


def checkpoints_to_keep(candidates: Iterable[Candidate], policy: RetentionPolicy) -> dict[int, str]:
    """Return the steps of the checkpoints to keep, in order, each with the reasons."""
    ordered = sorted(candidates, key=lambda candidate: candidate.step)
    newest = ordered[-policy.max_to_keep :]  # 0: all
    reasons = {
        "newest": {candidate.step for candidate in newest},
        "best": _best(ordered, policy.keep_best),
        _PER_N_HOURS: _one_per_period(ordered, policy.keep_checkpoint_every_n_hours),
        "pinned": {candidate.step for candidate in ordered if candidate.pinned},
    }
    why = {
        candidate.step: ", ".join(reason for reason, steps in reasons.items() if candidate.step in steps)
        for candidate in ordered
    }
    return {step: reason for step, reason in why.items() if reason}


class Rotation:
    """The same as `checkpoints_to_keep` for a run that adds one checkpoint at a time.

    The cost of a save does not grow with the number of checkpoints kept for good (one per n hours): they are settled,
    and not considered again. Pins are up to the caller.
    """

    def __init__(self, policy: RetentionPolicy) -> None:
        """Start without checkpoints."""
        self._policy = policy
        self._open: dict[int, Candidate] = {}
        self._settled: dict[int, Candidate] = {}  # by period of n hours
        self._best_settled: list[Candidate] = []

    @property
    def steps(self) -> list[int]:
        """Steps of all checkpoints that have been added and not dropped, in order."""
        return sorted([*self._open, *(each.step for each in self._settled.values())])

    def add(self, candidate: Candidate) -> None:
        """Add a checkpoint; its step must be larger than all others."""
        self._open[candidate.step] = candidate

    def drop(self, steps: Iterable[int]) -> None:
        """Remove deleted checkpoints."""
        settled = {step for step in steps if self._open.pop(step, None) is None}
        if not settled:
            return
        self._settled = {period: each for period, each in self._settled.items() if each.step not in settled}
        self._best_settled = [each for each in self._best_settled if each.step not in settled]

    def to_delete(self) -> list[int]:
        """Return the steps of the checkpoints that are not kept, in order."""
        if self._policy.max_to_keep == 0:
            return []
        undecided = sorted(self._open.values(), key=lambda candidate: candidate.step)
        periods = {self._period(each) for each in undecided}
        # Settled ones count if they are the earliest of an undecided one's period, or among the best.
        counted = {each.step: each for period, each in self._settled.items() if period in periods}
        counted |= {each.step: each for each in self._best_settled}
        reasons = checkpoints_to_keep([*undecided, *counted.values()], self._policy)
        self._settle(undecided[: -self._policy.max_to_keep], reasons)
        return [each.step for each in undecided if each.step not in reasons]

    def _period(self, candidate: Candidate) -> int:
        return _period(candidate, self._policy.keep_checkpoint_every_n_hours)

    def _settle(self, older: Sequence[Candidate], reasons: Mapping[int, str]) -> None:
        """Move the checkpoints that are kept for good, one per period, out of the undecided ones."""
        for each in older:
            if _PER_N_HOURS in reasons.get(each.step, ""):
                self._settled[self._period(each)] = self._open.pop(each.step)
                self._best_settled = [*self._best_settled, each]
        steps = _best(sorted(self._best_settled), self._policy.keep_best)
        self._best_settled = [each for each in self._best_settled if each.step in steps]


def _best(ordered: list[Candidate], count: int) -> set[int]:
    """Return the steps with the highest scores; of equal scores, the earlier step."""
    scored = [candidate for candidate in ordered if candidate.score is not None]
    return {each.step for each in sorted(scored, key=lambda candidate: -(candidate.score or 0.0))[:count]}


def _one_per_period(ordered: list[Candidate], hours: float) -> set[int]:
    """Return the step of the earliest checkpoint in each period of n hours but the first.

    The clock is the training time in the manifests, so neither a restart nor a pause resets it.
    """
    earliest: dict[int, int] = {}
    for candidate in ordered:
        earliest.setdefault(_period(candidate, hours), candidate.step)
    return {step for period, step in earliest.items() if period > 0}


def _period(candidate: Candidate, hours: float) -> int:
    return int(min(candidate.training_seconds // (hours * _SECONDS_PER_HOUR), _LAST_PERIOD))
