import os
import sys
import threading
from functools import partial

import pytest

from checkpointing.errors import CheckpointError
from checkpointing.protocol.async_writer import AsyncWriter


@pytest.fixture(params=[True, False], ids=["background", "foreground"])
def writer(request):
    """A writer of either kind."""
    writer = AsyncWriter(in_background=request.param)
    yield writer
    writer.close()


def test_a_job_that_went_well_has_no_error(writer):
    """And it is done when the wait is over."""
    done = []
    writer.start(lambda: done.append(1))
    assert writer.has_job
    assert writer.wait() is None
    assert done == [1]
    assert not writer.has_job


def test_what_a_job_raises_is_given_to_whoever_waits(writer):
    """Once: the next job starts with a clean slate."""
    error = OSError("the disk refuses")

    def fail():
        raise error

    writer.start(fail)
    assert writer.wait() is error
    assert writer.wait() is None
    writer.start(lambda: None)
    assert writer.wait() is None


def test_without_a_job_there_is_nothing_to_wait_for(writer):
    """Neither done nor failed."""
    assert not writer.done()
    assert writer.wait() is None


def test_a_job_goes_on_beside_the_caller():
    """In the background, `start` returns while the job is under way; closing waits for it."""
    writer, may_end, ended = AsyncWriter(in_background=True), threading.Event(), []
    writer.start(lambda: ended.append(may_end.wait(10)))
    assert not writer.done()
    may_end.set()
    writer.close()
    assert ended == [True]
    assert writer.done()


@pytest.mark.skipif(sys.platform != "linux", reason="only there has each thread a priority")
def test_the_thread_gives_way_to_training():
    """Its priority is lower, and that of the caller stays, whatever that is."""
    niceness = partial(os.getpriority, os.PRIO_PROCESS)
    found, before = [], niceness(0)

    def give_way_already() -> None:
        os.nice(5)
        writer = AsyncWriter(in_background=True)
        writer.start(lambda: found.append(niceness(threading.get_native_id())))
        writer.wait()
        writer.close()
        found.append(niceness(threading.get_native_id()))

    # In a thread of its own, for no thread gets its priority back.
    caller = threading.Thread(target=give_way_already)
    caller.start()
    caller.join()
    assert found == [min(19, before + 5 + 5), min(19, before + 5)]  # 19 is the most there is
    assert niceness(0) == before


def test_one_job_at_a_time(writer):
    """A second one before the first was waited for is a mistake of the caller's."""
    writer.start(lambda: None)
    with pytest.raises(AssertionError, match="one job at a time"):
        writer.start(lambda: None)


def test_whoever_was_interrupted_in_the_job_need_not_wait_for_it():
    """A job that was done at once and never ended is no job any more."""
    writer = AsyncWriter(in_background=False)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.start(interrupt)
    assert not writer.has_job
    assert writer.wait() is None


def test_without_a_thread_there_is_no_writer(monkeypatch):
    """Where no thread can be started, that is one sentence at the start, not a failed save hours later."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(CheckpointError, match="can't start new thread"):
            AsyncWriter(in_background=True)
    AsyncWriter(in_background=False).close()
