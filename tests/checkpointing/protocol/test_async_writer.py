import os
import sys
import threading
from functools import partial

import pytest

from checkpointing.errors import CheckpointError
from checkpointing.protocol.async_writer import AsyncWriter


@pytest.fixture(params=[True, False], ids=["background", "foreground"])
def writer(request):
    """Yield a writer of either kind."""
    writer = AsyncWriter(in_background=request.param)
    yield writer
    writer.close()


def test_a_successful_job_has_no_error(writer):
    """It has ended when `wait` returns."""
    done = []
    writer.start(lambda: done.append(1))
    assert writer.has_job
    assert writer.wait() is None
    assert done == [1]
    assert not writer.has_job


def test_wait_returns_the_error_of_a_job(writer):
    """Once: the next job starts without an error."""
    error = OSError("the disk refuses")

    def fail():
        raise error

    writer.start(fail)
    assert writer.wait() is error
    assert writer.wait() is None
    writer.start(lambda: None)
    assert writer.wait() is None


def test_without_a_job_there_is_nothing_to_wait_for(writer):
    """`done` is false, and `wait` returns None."""
    assert not writer.done()
    assert writer.wait() is None


def test_a_background_job_runs_in_parallel():
    """`start` returns while the job runs; `close` waits for it."""
    writer, may_end, ended = AsyncWriter(in_background=True), threading.Event(), []
    writer.start(lambda: ended.append(may_end.wait(10)))
    assert not writer.done()
    may_end.set()
    writer.close()
    assert ended == [True]
    assert writer.done()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority per thread")
def test_the_thread_has_a_lower_priority():
    """The writer's niceness is added to the process's; the caller's does not change."""
    niceness = partial(os.getpriority, os.PRIO_PROCESS)
    found, before = [], niceness(0)

    def start_in_a_nice_thread() -> None:
        os.nice(5)
        writer = AsyncWriter(in_background=True)
        writer.start(lambda: found.append(niceness(threading.get_native_id())))
        writer.wait()
        writer.close()
        found.append(niceness(threading.get_native_id()))

    # In a thread, because a thread cannot raise its priority again.
    caller = threading.Thread(target=start_in_a_nice_thread)
    caller.start()
    caller.join()
    assert found == [min(19, before + 5 + 5), min(19, before + 5)]  # 19 is the maximum
    assert niceness(0) == before


def test_one_job_at_a_time(writer):
    """A second one before `wait` is a mistake of the caller."""
    writer.start(lambda: None)
    with pytest.raises(AssertionError, match="one job at a time"):
        writer.start(lambda: None)


def test_an_interrupted_foreground_job_is_not_waited_for():
    """It has not ended, and never will."""
    writer = AsyncWriter(in_background=False)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.start(interrupt)
    assert not writer.has_job
    assert writer.wait() is None


def test_without_a_thread_there_is_no_writer(monkeypatch):
    """If no thread can be started, that is an error at the start, not at the first save."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(CheckpointError, match="can't start new thread"):
            AsyncWriter(in_background=True)
    AsyncWriter(in_background=False).close()
