"""When to save, and what to do if a save fails. Neither reads a clock or a disk.

The interval with the least loss is that of Young, "A first order approximation to the optimum checkpoint interval"
(CACM 1974), and Daly (FGCS 2006): the time for saves and for steps to redo is together least at
sqrt(2 * seconds of a save * mean seconds between failures).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from checkpointing.errors import LATER, NonFiniteError, NotSavedError
from checkpointing.protocol.retention import RetentionPolicy

_log = logging.getLogger(__name__)

# An undisturbed run spends at most this share of its time on saves.
_LARGEST_SHARE = 0.01
_ONE_DAY = 86_400.0
_SLOW_DISK = 50e6  # bytes per second, until a save has been measured
_SLOW_COMMIT = 0.1  # seconds
KEEP_FIVE = RetentionPolicy(max_to_keep=5)


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """Options of a CheckpointManager; those that tf.compat.v1.train.Saver has, too, have its names and defaults.

    retention: which checkpoints to keep.
    sharded: write one data file per core; from 128 MB of state on, this is always done.
    save_relative_paths: whether the state file holds names or absolute paths.
    save_every_steps: a save is due when a multiple of it is reached or passed; 0 for never.
    save_every_seconds: a save is also due this long after the last one; 0 for never, "auto" for Young's and Daly's
      interval.
    mean_seconds_between_failures: what "auto" assumes.
    save_in_background: whether training continues while files are written. The files are the same.
    max_failed_saves: number of saves in a row that may fail; one more ends the run.
    """

    retention: RetentionPolicy = KEEP_FIVE
    sharded: bool = False
    save_relative_paths: bool = True
    save_every_steps: int = 0
    save_every_seconds: float | str = 0.0
    mean_seconds_between_failures: float = _ONE_DAY
    save_in_background: bool = True
    max_failed_saves: int = 10


def seconds_between_saves(save_seconds: float, mean_seconds_between_failures: float) -> float:
    """Return Young's and Daly's interval; a longer one if saves would take more than 1 % of the time."""
    return max(math.sqrt(2 * save_seconds * mean_seconds_between_failures), save_seconds / _LARGEST_SHARE)


class SaveSchedule:
    """Decides when a save is due. Time is passed in."""

    def __init__(self, options: SaveOptions, *, state_bytes: int, now: float) -> None:
        """Start at step 0; `now` counts as the time of the last save."""
        self._options = options
        self._state_bytes = state_bytes
        self._last_step = 0
        self._last_saved_at = now

    def restart_at(self, step: int) -> None:
        """Count on from a restored step."""
        self._last_step = step

    def saved_at(self, now: float) -> None:
        """Count the seconds from now on."""
        self._last_saved_at = now

    def is_due(self, step: int, *, now: float, save_seconds: float) -> bool:
        """Return whether to save at a step.

        Args:
          step: number of updates applied so far; must not decrease.
          now: seconds on the clock.
          save_seconds: duration of the last save; 0 if there was none.
        """
        every, last = self._options.save_every_steps, self._last_step
        self._last_step = step
        if every > 0 and step // every > last // every:
            return True
        return 0 < self._interval(save_seconds) <= now - self._last_saved_at

    def _interval(self, save_seconds: float) -> float:
        if self._options.save_every_seconds != "auto":
            return float(self._options.save_every_seconds)
        estimate = save_seconds or _SLOW_COMMIT + self._state_bytes / _SLOW_DISK
        return seconds_between_saves(estimate, self._options.mean_seconds_between_failures)


class FailurePolicy:
    """Decides whether training continues after a failed save."""

    def __init__(self, max_failed_saves: int) -> None:
        """Start with no failed save."""
        self._max_failed_saves = max_failed_saves
        self._failed = 0

    def handle_save_error(self, error: BaseException | None, describe_latest: Callable[[], str]) -> None:
        """Log a failed save, or raise if it ends the run.

        Args:
          error: what the save raised; None if it succeeded.
          describe_latest: returns which checkpoint is the newest complete one, for messages.

        Raises:
          NotSavedError: more than `max_failed_saves` saves in a row have failed.
          NonFiniteError: the state is not finite. Any other error is raised as it is.
        """
        if error is None:
            if self._failed:
                _log.info("saving works again, after %d failed saves", self._failed)
            self._failed = 0
            return
        if isinstance(error, NonFiniteError):
            raise NonFiniteError(f"{error}; {describe_latest()}") from error
        if not isinstance(error, NotSavedError):
            raise error
        self._failed += 1
        if self._failed > self._max_failed_saves:
            before = f", like the {self._failed - 1} saves before it" if self._failed > 1 else ""
            raise NotSavedError(f"{error}{before}; {describe_latest()}", hint=LATER) from error
        if self._failed == 1:
            message = "%s; %s. Training continues, and stops after max_failed_saves=%d more failures in a row"
            _log.warning(message, error, describe_latest(), self._max_failed_saves)
