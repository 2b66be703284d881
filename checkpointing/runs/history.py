"""History of a run: its logged steps and its attempts, consistent after any crash.

    history = History(train_dir)
    history.begin_attempt(step=100, resumed_from="model.ckpt-100")
    history.record({"step": 200, "loss": 0.5})
    history.progress(200, {"train": 1.5})
    history.end_attempt("done")

An attempt is the life of one process. Its progress is in `attempt.json`, which is replaced every few updates. If the
process is killed, the next attempt appends it to `history.jsonl`.
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

# Key of a record whose validation was interrupted; the same as in mnist/training/loop.py.
UNFINISHED = "unfinished"

_MOST_BYTES = 2**20  # of attempt.json

_log = logging.getLogger(__name__)


class History:
    """Writer of `metrics.jsonl`, one object per logged step, and `history.jsonl`, one object per attempt.

    Keys of an attempt: `started_at` and `last_seen_at`, seconds since 1970; `pid`; `from_step`; `resumed_from`, the
    checkpoint's name or null; `ended`, how it ended; `to_step`; `steps_done`, all its steps, including those that were
    redone later; `steps_redone`, its steps that an earlier attempt had done; `seconds`, by name.
    Summed over all attempts, `steps_done` - `steps_redone` is the run's step less the step where it started.

    Running the command of a finished run again, without a step to do, is not an attempt.

    attempts: all of them, the current one last.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        """Read and write nothing before an attempt begins. clock: returns seconds since 1970."""
        self._metrics = metrics(directory)
        self._ended = Journal(directory / layout.HISTORY, _is_attempt)
        self._path = directory / layout.ATTEMPT
        self._clock = clock
        self._unwritten: list[Record] = []
        self._write_lock = threading.Lock()
        self._unfinished: Record | None = None
        self._current: Record | None = None
        self._begin_later: Callable[[], None] | None = None
        self.attempts: list[Record] = []

    @property
    def restarts(self) -> int:
        """The number of restarts."""
        return max(0, len(self.attempts) - 1)

    @property
    def steps_redone(self) -> int:
        """The number of steps done twice, over all attempts."""
        return sum(attempt["steps_redone"] for attempt in self.attempts)

    def begin_attempt(
        self, *, step: int, resumed_from: str | None, seconds: Mapping[str, float] | None = None
    ) -> Record | None:
        """Begin an attempt.

        Args:
          step: the step to resume from; records beyond it are dropped, because their steps are redone.
          resumed_from: the checkpoint's name.
          seconds: time spent by the process so far, by name; `total` for all of it.

        Returns:
          The record of this step if its validation was interrupted. It stays until the completed one is recorded.

        Raises:
          OSError: a file cannot be read or written; no record is lost.
        """
        self._ended.rewind()
        self.attempts = self._ended.records()
        self._close_previous_attempt(step)
        record = self._metrics.rewind(lambda record: record["step"] <= step)
        self._unfinished = record if record is not None and UNFINISHED in record else None
        last = self.attempts[-1] if self.attempts else None
        steps_redone = max(0, last["to_step"] - step) if last else 0

        def begin() -> None:
            self._begin(step, resumed_from, steps_redone, seconds or {})

        if last is not None and (last["ended"], last["to_step"]) == (DONE, step):
            self._begin_later = begin  # there may be no step to do
        else:
            begin()
        return self._unfinished

    def _begin(self, step: int, resumed_from: str | None, steps_redone: int, seconds: Mapping[str, float]) -> None:
        now = self._clock()
        self._current = {
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
        self.attempts.append(self._current)
        self._save_progress()

    def _close_previous_attempt(self, step: int) -> None:
        """Append the attempt before this one to the history, if it did not do so itself."""
        last = _read(self._path)
        if last is not None and not any(each["started_at"] == last["started_at"] for each in self.attempts):
            # After a power cut, attempt.json may be older than the checkpoint.
            unseen = max(0, step - last["to_step"])
            last.update(ended=KILLED, to_step=last["to_step"] + unseen, steps_done=last["steps_done"] + unseen)
            self.attempts.append(last)
            self._ended.append(last)
            self._ended.sync()
        durable.delete([self._path])

    def record(self, record: Record) -> None:
        """Append the record of a step; if that fails, keep it for the next call."""
        if self._unfinished is not None and self._unfinished["step"] == record["step"]:
            self._metrics.rewind(lambda each: UNFINISHED not in each, add=[record])
            self._unfinished = None
            return
        self._unwritten.append(record)
        with suppress(OSError):
            self._write_records()

    def _write_records(self) -> None:
        with self._write_lock:  # the training thread records, the writer thread syncs
            while self._unwritten:
                self._metrics.append(self._unwritten[0])
                del self._unwritten[0]

    def sync(self) -> None:
        """Flush the records to the disk; done before a checkpoint of their steps is committed.

        Raises:
          OSError: they cannot be written.
        """
        self._write_records()
        self._metrics.sync()

    def progress(self, step: int, seconds: Mapping[str, float]) -> None:
        """Save how far the attempt has come, and the seconds spent, by name."""
        if self._begin_later is not None and step > self.attempts[-1]["to_step"]:
            self._begin_later()
            self._begin_later = None
        if self._current is None:
            return
        self._current.update(
            last_seen_at=self._clock(),
            steps_done=self._current["steps_done"] + step - self._current["to_step"],
            to_step=step,
            seconds=_rounded(seconds),
        )
        self._save_progress()

    def go_back(self, step: int) -> None:
        """Roll back to an earlier step, from which the attempt continues; the steps since are redone."""
        self._unwritten = [record for record in self._unwritten if record["step"] <= step]
        self._metrics.rewind(lambda record: record["step"] <= step)
        if self._current is not None:
            self._current["steps_redone"] += self._current["to_step"] - step
            self._current["to_step"] = step
            self._save_progress()

    def end_attempt(self, how: str) -> None:
        """Append the attempt to the history. how: DONE, or another short text."""
        if self._current is None:
            return
        self._current["ended"] = how
        try:
            self._ended.append(self._current)
            self._ended.sync()
            durable.delete([self._path])
        except OSError as error:
            _log.warning("%s: cannot be written (%s)", self._ended.path, reason(error))

    def _save_progress(self) -> None:
        """Write attempt.json. A failure is ignored: nothing but the report of attempts depends on it."""
        with suppress(OSError):
            durable.atomic_write_nosync(self._path, json.dumps(self._current).encode())


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in seconds.items()}


def _read(path: Path) -> Record | None:
    """Read attempt.json; None if it is missing or damaged."""
    try:
        record = json.loads(regular_file.read(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and _is_attempt(record) else None


def _are_seconds(value: object) -> bool:
    return isinstance(value, dict) and all(is_finite(each) and each >= 0 for each in value.values())


# The types of an attempt's values.
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
    """Return the journal of a run's logged steps: objects with `step` and other keys."""
    return Journal(directory / layout.METRICS, lambda record: is_count(record.get("step")))


def read(directory: Path) -> list[Record]:
    """Read the attempts of a run, the current one last.

    Raises:
      OSError: `history.jsonl` cannot be read, or is not a regular file.
    """
    attempts = Journal(directory / layout.HISTORY, _is_attempt).records()
    current = _read(directory / layout.ATTEMPT)
    if current is None or any(each["started_at"] == current["started_at"] for each in attempts):
        return attempts
    return [*attempts, current]


def summary(attempts: list[Record]) -> dict[str, Any]:
    """Sum up the attempts of a run; there is at least one.

    Returns:
      steps: the run's step. steps_redone: steps done twice. seconds: of all attempts. useful_share: the share of the
      seconds spent on updates that were not redone; None if no time has passed.
    """
    seconds = sum(attempt["seconds"].get("total", 0.0) for attempt in attempts)
    useful = 0.0
    still_counts = attempts[-1]["to_step"]  # the steps up to here were not redone later
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
