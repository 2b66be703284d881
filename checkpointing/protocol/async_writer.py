"""A thread that writes while training goes on: one job at a time, with a smaller share of the processor.

    writer = Writer(in_background=True)
    writer.start(job)
    error = writer.wait()   # once for each job; None where it went well
    writer.close()

A job that fails raises nothing here: whoever waits is given the error.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

from checkpointing.errors import CheckpointError, reason

# Added to the process's own niceness: a third of the share of a thread that trains, where both want a core. As much as
# can be, 19, would leave the writer next to nothing on a busy machine, and training waiting for it at the next save.
_NICENESS = 5


class AsyncWriter:
    """Does a job in its own thread, or, where that is not wanted, at once."""

    def __init__(self, *, in_background: bool) -> None:
        """Starts the thread, so that a save can no longer fail for want of one.

        Raises:
          CheckpointError: no thread can be started now.
        """
        self._thread = ThreadPoolExecutor(1, "checkpoint-writer", _yield_to_training) if in_background else None
        self._job: Future[None] | None = None
        if self._thread is not None:
            try:
                self._thread.submit(lambda: None)
            except RuntimeError as error:
                self._thread.shutdown(wait=False, cancel_futures=True)
                message = f"no thread can be started to save in ({reason(error)}); see to it, and run it again."
                raise CheckpointError(message) from error

    def start(self, job: Callable[[], None]) -> None:
        """Begins a job; the one before must have been waited for."""
        assert self._job is None, "one job at a time"
        if self._thread is not None:
            self._job = self._thread.submit(job)
            return
        done: Future[None] = Future()
        try:
            job()
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 - given to whoever waits, as from the thread
            done.set_exception(error)
        self._job = done  # not before: whoever was interrupted in the job must not wait for it

    @property
    def has_job(self) -> bool:
        """Whether there is a job to be waited for."""
        return self._job is not None

    def done(self) -> bool:
        """Whether there is one, and it is over, so that waiting takes no time."""
        return self._job is not None and self._job.done()

    def wait(self) -> BaseException | None:
        """Waits for the job, if there is one; gives what it raised."""
        error = self._job.exception() if self._job else None
        self._job = None  # not before: whoever was interrupted in waiting must wait again
        return error

    def join(self) -> None:
        """Waits until the job, if there is one, is over; it is still to be waited for."""
        if self._job is not None:
            wait([self._job])

    def close(self) -> None:
        """Waits for what is being written, and ends the thread."""
        if self._thread is not None:
            self._thread.shutdown()


def _yield_to_training() -> None:
    """Lets the threads that train go first; to Linux each thread has a priority of its own."""
    if sys.platform == "linux":
        with suppress(OSError):  # some sandboxes forbid it
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
