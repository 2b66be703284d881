"""What a run has recorded over all its attempts: no step twice, whatever was killed when.

    history = History(train_dir)
    history.begin_attempt(step=100, resumed_from="model.ckpt-100")
    history.record({"step": 200, "loss": 0.5})
    history.progress(200, {"train": 1.5})
    history.end_attempt("done")

An attempt is the life of one process. How far it came lies in `attempt.json`, replaced after every few updates, so that
also of a process that was killed it is known; the next attempt writes its last line.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from checkpointing.errors import reason
from checkpointing.storage import durable, layout, regular_file
from checkpointing.storage.json_kinds import COUNT, TEXT_OR_NULL, Kind, check_kinds, is_count, is_finite
from checkpointing.storage.jsonl import Journal, Record

DONE = "done"
KILLED = "killed"

# In a record: its step was to be validated, and the validation was interrupted.
UNFINISHED = "unfinished"

_MOST_BYTES = 2**20  # of attempt.json

_log = logging.getLogger(__name__)


class History:
    """Writes `metrics.jsonl`, an object a logged step, and `history.jsonl`, an object an attempt.

    An attempt's object holds: `started_at` and `last_seen_at`, seconds since 1970; `pid`; `from_step`; `resumed_from`,
    the checkpoint's name or null; `ended`, in a word or two; `to_step`; `steps_done`, of which a later attempt had to
    make some again; `steps_redone`, those that an earlier attempt had made; and `seconds` by name.
    Over all attempts, `steps_done` less `steps_redone` is how many steps the run is away from where it started.

    To look at a run that has ended, without a step to make, is no attempt.

    attempts: all of them, the one under way last.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        """Nothing is read or written before an attempt begins; the clock gives seconds since 1970."""
        self._metrics = metrics(directory)
        self._ended = Journal(directory / layout.HISTORY, _is_attempt)
        self._path = directory / layout.ATTEMPT
        self._clock = clock
        self._unwritten: list[Record] = []
        self._writing = threading.Lock()
        self._unfinished: Record | None = None
        self._under_way: Record | None = None
        self._not_begun: Callable[[], None] | None = None
        self.attempts: list[Record] = []

    @property
    def restarts(self) -> int:
        """How often the run was started again."""
        return max(0, len(self.attempts) - 1)

    @property
    def steps_redone(self) -> int:
        """The steps made twice, over all attempts."""
        return sum(attempt["steps_redone"] for attempt in self.attempts)

    def begin_attempt(
        self, *, step: int, resumed_from: str | None, seconds: Mapping[str, float] | None = None
    ) -> Record | None:
        """Begins an attempt.

        Args:
          step: where it goes on; records beyond it are dropped, for their steps are made again.
          resumed_from: the checkpoint's name.
          seconds: where the process's time went so far, by name; `total` for all of it.

        Returns:
          The record of this very step, if an interrupted validation left it without its figure. It stays until the
          one that completes it is recorded.

        Raises:
          OSError: a file cannot be read or written; no record is lost.
        """
        self._ended.rewind()
        self.attempts = self._ended.records()
        self._close_the_books(step)
        record = self._metrics.rewind(lambda record: record["step"] <= step)
        self._unfinished = record if record is not None and UNFINISHED in record else None
        last = self.attempts[-1] if self.attempts else None
        steps_redone = max(0, last["to_step"] - step) if last else 0

        def begin() -> None:
            self._begin(step, resumed_from, steps_redone, seconds or {})

        if last is not None and (last["ended"], last["to_step"]) == (DONE, step):
            self._not_begun = begin  # it may be looked at only
        else:
            begin()
        return self._unfinished

    def _begin(self, step: int, resumed_from: str | None, steps_redone: int, seconds: Mapping[str, float]) -> None:
        now = self._clock()
        self._under_way = {
            "started_at": now,
            "last_seen_at": now,
            "pid": os.getpid(),
            "from_step": step,
            "resumed_from": resumed_from,
            "ended": None,
            "to_step": step,
            "steps_done": 0,
            "steps_redone": steps_redone,
            "seconds": _rounded(seconds),
        }
        self.attempts.append(self._under_way)
        self._note()

    def _close_the_books(self, step: int) -> None:
        """Gives the attempt before this one its last line, if it could not write it."""
        last = _read(self._path)
        if last is not None and not any(each["started_at"] == last["started_at"] for each in self.attempts):
            # After a power cut the file may be older than the checkpoint.
            unseen = max(0, step - last["to_step"])
            last.update(ended=KILLED, to_step=last["to_step"] + unseen, steps_done=last["steps_done"] + unseen)
            self.attempts.append(last)
            self._ended.append(last)
            self._ended.sync()
        durable.delete([self._path])

    def record(self, record: Record) -> None:
        """Appends the record of a step; if the disk refuses, it is kept until it does not."""
        if self._unfinished is not None and self._unfinished["step"] == record["step"]:
            self._metrics.rewind(lambda each: UNFINISHED not in each, add=[record])
            self._unfinished = None
            return
        self._unwritten.append(record)
        with suppress(OSError):
            self._write_records()

    def _write_records(self) -> None:
        with self._writing:  # the thread that trains records, the one that saves syncs
            while self._unwritten:
                self._metrics.append(self._unwritten[0])
                del self._unwritten[0]

    def sync(self) -> None:
        """Waits until the records are on the disk, as a checkpoint must before it says that their steps are done.

        Raises:
          OSError: the disk refuses.
        """
        self._write_records()
        self._metrics.sync()

    def progress(self, step: int, seconds: Mapping[str, float]) -> None:
        """Notes how far the attempt has come, and where its time went."""
        if self._not_begun is not None and step > self.attempts[-1]["to_step"]:
            self._not_begun()
            self._not_begun = None
        if self._under_way is None:
            return
        self._under_way.update(
            last_seen_at=self._clock(),
            steps_done=self._under_way["steps_done"] + step - self._under_way["to_step"],
            to_step=step,
            seconds=_rounded(seconds),
        )
        self._note()

    def go_back(self, step: int) -> None:
        """Notes that the attempt goes on from an earlier step; the steps since are made again."""
        self._unwritten = [record for record in self._unwritten if record["step"] <= step]
        self._metrics.rewind(lambda record: record["step"] <= step)
        if self._under_way is not None:
            self._under_way["steps_redone"] += self._under_way["to_step"] - step
            self._under_way["to_step"] = step
            self._note()

    def end_attempt(self, how: str) -> None:
        """Notes how the attempt ended."""
        if self._under_way is None:
            return
        self._under_way["ended"] = how
        try:
            self._ended.append(self._under_way)
            self._ended.sync()
            durable.delete([self._path])
        except OSError as error:
            _log.warning("%s: cannot be written (%s)", self._ended.path, reason(error))

    def _note(self) -> None:
        """That it cannot be written is no reason to stop: it is for the accounts alone."""
        with suppress(OSError):
            durable.atomic_write_nosync(self._path, json.dumps(self._under_way).encode())


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in seconds.items()}


def _read(path: Path) -> Record | None:
    """An attempt's object; None where there is none, or a power cut or a flipped bit left something else."""
    try:
        record = json.loads(regular_file.read(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and _is_attempt(record) else None


def _are_seconds(value: object) -> bool:
    return isinstance(value, dict) and all(is_finite(each) and each >= 0 for each in value.values())


# What an attempt's object holds for certain.
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("started_at", "last_seen_at"), (is_finite, "a finite number")),
    **dict.fromkeys(("pid", "from_step", "to_step", "steps_done", "steps_redone"), COUNT),
    **dict.fromkeys(("resumed_from", "ended"), TEXT_OR_NULL),
    "seconds": (_are_seconds, "seconds by name"),
}


def _is_attempt(record: Record) -> bool:
    try:
        check_kinds(record, _KINDS)
    except ValueError:
        return False
    return True


def metrics(directory: Path) -> Journal:
    """The journal of a run's logged steps: objects with a step, and whatever else was recorded."""
    return Journal(directory / layout.METRICS, lambda record: is_count(record.get("step")))


def read(directory: Path) -> list[Record]:
    """The attempts of a run, the one under way last; changes nothing.

    Raises:
      OSError: the file of attempts cannot be read, or is no regular file.
    """
    attempts = Journal(directory / layout.HISTORY, _is_attempt).records()
    under_way = _read(directory / layout.ATTEMPT)
    if under_way is None or any(each["started_at"] == under_way["started_at"] for each in attempts):
        return attempts
    return [*attempts, under_way]


def summary(attempts: list[Record]) -> dict[str, Any]:
    """What attempts add up to.

    Returns:
      steps: where the run is. steps_redone: made twice. seconds: of all attempts together. useful_share: how much of
      them went into updates that still count; None where no time has passed.
    """
    seconds = sum(attempt["seconds"].get("total", 0.0) for attempt in attempts)
    useful = 0.0
    still_counts = attempts[-1]["to_step"]  # the steps up to here were not made again later
    for attempt in reversed(attempts):
        kept = max(0, min(attempt["to_step"], still_counts) - attempt["from_step"])
        useful += attempt["seconds"].get("train", 0.0) * kept / max(1, attempt["steps_done"])
        still_counts = min(still_counts, attempt["from_step"])
    return {
        "steps": attempts[-1]["to_step"],
        "steps_redone": sum(attempt["steps_redone"] for attempt in attempts),
        "seconds": round(seconds, 4),
        "useful_share": round(useful / seconds, 4) if seconds > 0 else None,
    }
