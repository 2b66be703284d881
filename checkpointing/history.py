"""What a run has recorded over all its attempts: no step twice, whatever was killed when.

    history = History(train_dir)
    history.begin_attempt(step=100, finished=False)
    history.record({"step": 200, "loss": 0.5})

It knows no graph: the step is told to it.
"""

import time
from collections.abc import Callable
from pathlib import Path

from checkpointing import layout
from checkpointing.journal import Journal, Record


class History:
    """Writes `metrics.jsonl`, an object a logged step, and `history.jsonl`, an object an attempt.

    restarts: how often the run was started again.
    steps_redone: over all attempts, the steps made twice because a crash came between checkpoints. They are counted
      up to the last record: steps after it left no trace.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        """Nothing is read or written before an attempt begins; the clock gives seconds since 1970."""
        self._metrics = Journal(directory / layout.METRICS)
        self._attempts = Journal(directory / layout.HISTORY)
        self._clock = clock
        self.restarts = 0
        self.steps_redone = 0

    def begin_attempt(self, *, step: int, finished: bool) -> None:
        """Begins an attempt.

        Args:
          step: where this attempt goes on; records beyond it are dropped, for their steps are made again.
          finished: the run had ended before; looking at it again is no attempt.
        """
        dropped = self._metrics.rewind(lambda record: record["step"] <= step)
        self._attempts.rewind()
        if not finished:
            steps_redone = max((record["step"] - step for record in dropped), default=0)
            self._attempts.append({"started_at": self._clock(), "step": step, "steps_redone": steps_redone})
        attempts = self._attempts.records()
        self.restarts = max(0, len(attempts) - 1)
        self.steps_redone = sum(attempt["steps_redone"] for attempt in attempts)

    def record(self, record: Record) -> None:
        """Appends the record of a step."""
        self._metrics.append(record)

    def sync(self) -> None:
        """Waits until the records are on the disk, as a checkpoint must before it says that their steps are done."""
        self._metrics.sync()
