"""Run one job at a time in a background thread of lower priority.

    writer = AsyncWriter(in_background=True)
    writer.start(job)
    error = writer.wait()   # once per job; None if it succeeded
    writer.close()

The error of a failed job is returned by `wait`, not raised.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

from checkpointing.errors import LATER, CheckpointError, reason

# Added to the process's niceness: if both need the same core, the writer gets a third of a training thread's share.
# With 19 it would get almost nothing on a busy machine, and training would wait for it at the next save.
_NICENESS = 5


class AsyncWriter:
    """Runs a job in its own thread, or, if not in the background, in the calling one."""

    def __init__(self, *, in_background: bool) -> None:
        """Start the thread now, so that no save fails later because it cannot be started.

        Raises:
          CheckpointError: no thread can be started.
        """
        self._thread = ThreadPoolExecutor(1, "checkpoint-writer", _yield_to_training) if in_background else None
        self._job: Future[None] | None = None
        if self._thread is not None:
            try:
                self._thread.submit(lambda: None)
            except RuntimeError as error:
                self._thread.shutdown(wait=False, cancel_futures=True)
                message = f"no thread can be started to save in ({reason(error)})"
                raise CheckpointError(message, hint=LATER) from error

    def start(self, job: Callable[[], None]) -> None:
        """Start a job; the one before must have been waited for."""
        assert self._job is None, "one job at a time"
        if self._thread is not None:
            self._job = self._thread.submit(job)
            return
        done: Future[None] = Future()
        try:
            job()
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 - returned by `wait`, as from the thread
            done.set_exception(error)
        self._job = done  # only now: if the job is interrupted, there is nothing to wait for

    @property
    def has_job(self) -> bool:
        """Whether there is a job to wait for."""
        return self._job is not None

    def done(self) -> bool:
        """Return whether there is a job to wait for, and it has ended."""
        return self._job is not None and self._job.done()

    def wait(self) -> BaseException | None:
        """Wait for the job, if there is one; return what it raised."""
        error = self._job.exception() if self._job else None
        self._job = None  # only now: if waiting is interrupted, the job must be waited for again
        return error

    def join(self) -> None:
        """Wait until the job, if there is one, has ended; `wait` still returns its error."""
        if self._job is not None:
            wait([self._job])

    def close(self) -> None:
        """Wait for the job, and end the thread."""
        if self._thread is not None:
            self._thread.shutdown()


def _yield_to_training() -> None:
    """Lower the priority of this thread. Linux has a priority per thread."""
    if sys.platform == "linux":
        with suppress(OSError):  # some sandboxes forbid it
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
