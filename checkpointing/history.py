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
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from checkpointing import durable, layout
from checkpointing.errors import reason
from checkpointing.journal import Journal, Record

DONE = "done"
KILLED = "killed"

# In a record: its step was to be validated, and the validation was interrupted.
UNFINISHED = "unfinished"

_log = logging.getLogger(__name__)


class History:
    """Writes `metrics.jsonl`, an object a logged step, and `history.jsonl`, an object an attempt.

    An attempt's object holds: `started_at` and `last_seen_at`, seconds since 1970; `pid`; `from_step`; `resumed_from`,
    the checkpoint's name or null; `ended`, in a word or two; `to_step`; `steps_done`, of which a later attempt had to
    make some again; `steps_redone`, those that an earlier attempt had made; and `seconds` by name.
    Over all attempts, `steps_done` less `steps_redone` is the run's step.

    To look at a run that has ended, without a step to make, is no attempt.

    attempts: all of them, the one under way last.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        """Nothing is read or written before an attempt begins; the clock gives seconds since 1970."""
        self._metrics = Journal(directory / layout.METRICS)
        self._ended = Journal(directory / layout.HISTORY)
        self._path = directory / layout.ATTEMPT
        self._clock = clock
        self._unwritten: list[Record] = []
        self._under_way: Record | None = None
        self.attempts: list[Record] = []

    @property
    def restarts(self) -> int:
        """How often the run was started again."""
        return max(0, len(self.attempts) - 1)

    @property
    def steps_redone(self) -> int:
        """The steps made twice, over all attempts."""
        return sum(attempt["steps_redone"] for attempt in self.attempts)

    def begin_attempt(self, *, step: int, resumed_from: str | None) -> list[Record]:
        """Begins an attempt.

        Args:
          step: where it goes on; records beyond it are dropped, for their steps are made again.
          resumed_from: the checkpoint.

        Returns:
          The records of this very step that an interrupted validation left without its figure; they are dropped, too.
        """
        self._ended.rewind()
        self.attempts = self._ended.records()
        self._close_the_books(step)
        last = self.attempts[-1] if self.attempts else None
        dropped = self._metrics.rewind(lambda record: record["step"] <= step and UNFINISHED not in record)
        if last is None or (last["ended"], last["to_step"]) != (DONE, step):
            self._begin(step, resumed_from, steps_redone=max(0, last["to_step"] - step) if last else 0)
        return [record for record in dropped if record["step"] == step]

    def _begin(self, step: int, resumed_from: str | None, steps_redone: int) -> None:
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
            "seconds": {},
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
        self._unwritten.append(record)
        with suppress(OSError):
            self._write_records()

    def _write_records(self) -> None:
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
        if self._under_way is None:
            return
        self._under_way.update(
            last_seen_at=self._clock(),
            steps_done=self._under_way["steps_done"] + step - self._under_way["to_step"],
            to_step=step,
            seconds={name: round(value, 4) for name, value in seconds.items()},
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
            durable.replace_without_waiting(self._path, json.dumps(self._under_way).encode())


def _read(path: Path) -> Record | None:
    """An attempt's object; None where there is none, or a power cut left something else."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "started_at" in record and "to_step" in record else None


def useful_share(attempts: list[dict[str, Any]]) -> float | None:
    """The share of all attempts' time that went into updates that still count; None where no time has passed."""
    total = sum(attempt["last_seen_at"] - attempt["started_at"] for attempt in attempts)
    useful = 0.0
    for attempt, after in zip(attempts, [*attempts[1:], None], strict=True):
        lost = after["steps_redone"] if after else 0
        done = attempt["steps_done"]
        if done:
            useful += attempt["seconds"].get("train", 0.0) * max(0, done - lost) / done
    return useful / total if total > 0 else None
