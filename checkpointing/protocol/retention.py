"""Which checkpoints survive: a pure function of what is on the disk, and the same one checkpoint at a time."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from checkpointing.storage.json_kinds import is_count, is_finite

_SECONDS_AN_HOUR = 3600
_LAST_STRETCH = 2**62  # whatever fraction of an hour they are
_FOR_THE_HOURS = "one for the hours"


class RetentionPolicy(NamedTuple):
    """What to keep; the first two under the names that tf.compat.v1.train.Saver gives them.

    max_to_keep: the newest so many; 0 keeps all.
    keep_checkpoint_every_n_hours: besides these, one for every n hours of training.
    keep_best: and so many with the highest score.
    """

    max_to_keep: int
    keep_checkpoint_every_n_hours: float = 10_000.0
    keep_best: int = 0


def recorded(record: Mapping[str, Any] | None) -> RetentionPolicy | None:
    """What a manifest says that rotation was to keep; None where it says nothing, or what no run could have said."""
    if record is None or "max_to_keep" not in record or not record.keys() <= set(RetentionPolicy._fields):
        return None
    retention = RetentionPolicy(**record)
    counts = (retention.max_to_keep, retention.keep_best)
    hours = retention.keep_checkpoint_every_n_hours
    return retention if all(map(is_count, counts)) and is_finite(hours) and hours > 0 else None


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


def checkpoints_to_keep(candidates: Iterable[Candidate], retention: RetentionPolicy) -> dict[int, str]:
    """The steps of the checkpoints to keep, in order, each with the reason why."""
    ordered = sorted(candidates, key=lambda candidate: candidate.step)
    newest = ordered[-retention.max_to_keep :]  # 0: all
    reasons = {
        "newest": {candidate.step for candidate in newest},
        "best": _best(ordered, retention.keep_best),
        _FOR_THE_HOURS: _one_for_the_hours(ordered, retention.keep_checkpoint_every_n_hours),
        "pinned": {candidate.step for candidate in ordered if candidate.pinned},
    }
    why = {
        candidate.step: ", ".join(reason for reason, steps in reasons.items() if candidate.step in steps)
        for candidate in ordered
    }
    return {step: reason for step, reason in why.items() if reason}


class Rotation:
    """What `survivors` gives, for a run that adds a checkpoint at a time, at a cost that does not grow with those kept.

    Only the steps of those that stay for good are remembered: they are kept for the hours, and not among the newest.
    Pins are up to the caller.
    """

    def __init__(self, retention: RetentionPolicy) -> None:
        """Without a checkpoint."""
        self._retention = retention
        self._open: dict[int, Candidate] = {}
        self._settled: dict[int, Candidate] = {}  # by stretch of hours
        self._best_settled: list[Candidate] = []

    @property
    def steps(self) -> list[int]:
        """Of all that have been added and not dropped, in order."""
        return sorted([*self._open, *(each.step for each in self._settled.values())])

    def add(self, candidate: Candidate) -> None:
        """Adds a checkpoint of a larger step than all others."""
        self._open[candidate.step] = candidate

    def drop(self, steps: Iterable[int]) -> None:
        """Forgets checkpoints that are gone."""
        gone = {step for step in steps if self._open.pop(step, None) is None}
        if not gone:
            return
        self._settled = {stretch: each for stretch, each in self._settled.items() if each.step not in gone}
        self._best_settled = [each for each in self._best_settled if each.step not in gone]

    def going(self) -> list[int]:
        """The steps of those that need not be kept, in order."""
        if self._retention.max_to_keep == 0:
            return []
        judged = sorted(self._open.values(), key=lambda candidate: candidate.step)
        stretches = {_stretch(each, self._retention.keep_checkpoint_every_n_hours) for each in judged}
        # Those that stay for good count where they are the earliest of a stretch, or among the best.
        counted = {each.step: each for stretch, each in self._settled.items() if stretch in stretches}
        counted |= {each.step: each for each in self._best_settled}
        reasons = checkpoints_to_keep([*judged, *counted.values()], self._retention)
        self._settle(judged[: -self._retention.max_to_keep], reasons)
        return [each.step for each in judged if each.step not in reasons]

    def _settle(self, older: Sequence[Candidate], reasons: Mapping[int, str]) -> None:
        """Sets aside those that no later checkpoint can make go."""
        for each in older:
            if _FOR_THE_HOURS in reasons.get(each.step, ""):
                self._settled[_stretch(each, self._retention.keep_checkpoint_every_n_hours)] = self._open.pop(each.step)
                self._best_settled = [*self._best_settled, each]
        steps = _best(sorted(self._best_settled), self._retention.keep_best)
        self._best_settled = [each for each in self._best_settled if each.step in steps]


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
        earliest.setdefault(_stretch(candidate, hours), candidate.step)
    return {step for stretch, step in earliest.items() if stretch > 0}


def _stretch(candidate: Candidate, hours: float) -> int:
    return int(min(candidate.training_seconds // (hours * _SECONDS_AN_HOUR), _LAST_STRETCH))
