import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from checkpointing.runs.preemption import STOPPED, StopRequested, listen_for_stop

ROOT = Path(__file__).parents[3]
SIGNALS = [signal.SIGTERM, signal.SIGINT]


def handlers():
    """What the two signals do."""
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.fixture(autouse=True)
def kept_handlers():
    """Whatever a test does, the signals do afterwards what they did before."""
    before = dict(zip(SIGNALS, handlers(), strict=True))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def told(code, number):
    """Sends a signal to a process as soon as it is ready; gives its exit status and what it then printed."""
    head = (
        "import os, signal, sys, time\n"
        "from checkpointing.runs.preemption import Interrupted, listen_for_stop\n"
        "def ready(): print('ready', flush=True)\n"
    )
    command = [sys.executable, "-c", head + code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            return process.wait(timeout=10), process.stdout.read()
        finally:
            process.kill()


def test_without_a_signal_nothing_stops():
    """A run that nobody asked to stop goes on."""
    with listen_for_stop() as stop:
        stop.check()
        assert stop.signal is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_next_check(number):
    """A signal ends nothing by itself; the check that follows says which it was, and so does every later one."""
    with listen_for_stop() as stop:
        os.kill(os.getpid(), number)
        for _ in range(2):
            with pytest.raises(StopRequested, match=f"^{number.name}$"):
                stop.check()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_asked_to_stop_ends_in_its_own_way(number):
    """Sent from outside in the middle of its work, the signal is heard at the next whole state."""
    code = (
        "with listen_for_stop() as stop:\n"
        "    ready()\n"
        "    try:\n"
        "        while True: time.sleep(0.01); stop.check()\n"
        "    except Interrupted as signal: print(signal); sys.exit(75)\n"
    )
    assert told(code, number) == (75, f"{number.name}\n")


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_the_process(first, second):
    """Who asks twice does not wait: the process dies of the second signal."""
    code = (
        "with listen_for_stop() as stop:\n"
        f"    os.kill(os.getpid(), {first:d})\n"
        "    ready()\n"
        "    while True: time.sleep(0.01)\n"
    )
    assert told(code, second) == (-second, "")


def test_afterwards_the_signals_do_what_they_did():
    """Outside the block nothing is heard any more."""
    before = handlers()
    with listen_for_stop():
        assert handlers() != before
    assert handlers() == before


def test_a_block_that_fails_gives_the_signals_back():
    """So it is after an error."""
    before = handlers()
    with pytest.raises(OSError, match="disk"), listen_for_stop():
        raise OSError("disk")
    assert handlers() == before


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_handlers_of_any_kind_are_given_back(handler):
    """Also the two that are no functions."""
    for number in SIGNALS:
        signal.signal(number, handler)
    with listen_for_stop():
        pass
    assert handlers() == [handler, handler]


def test_an_interrupt_after_the_block_is_pythons():
    """Ctrl-C stops a program again as it always does."""
    # Not what a shell may have set: one that starts a program in the background has it ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with listen_for_stop():
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_stop_is_heard_once():
    """The next block knows nothing of the signal that the one before heard."""
    with listen_for_stop():
        os.kill(os.getpid(), signal.SIGTERM)
    with listen_for_stop() as stop:
        stop.check()
        assert stop.signal is None


@pytest.mark.parametrize("number", SIGNALS)
def test_where_nobody_has_anything_to_save_the_process_ends(number):
    """Caught by nobody, the request ends the process with the status that asks to be started again, in silence."""
    code = (
        "sys.stderr = sys.stdout\n"
        "with listen_for_stop() as stop:\n"
        "    ready()\n"
        "    while True: time.sleep(0.01); stop.check()\n"
    )
    assert told(code, number) == (75, "")
    assert STOPPED == 75


@pytest.mark.parametrize("number", SIGNALS)
def test_a_block_with_nothing_to_save_is_left_in_the_middle(number):
    """In it a signal does not wait for a check, however long what is going on would take."""
    code = (
        "try:\n"
        "    with listen_for_stop() as stop, stop.interruptible():\n"
        "        ready()\n"
        "        time.sleep(60)\n"
        "except Interrupted as signal: print(signal); raise\n"
    )
    assert told(code, number) == (75, f"{number.name}\n")


def test_cleaning_up_goes_before_the_end():
    """Blocks that are left clean up behind them."""
    code = (
        "try:\n    with listen_for_stop() as stop, stop.interruptible(): ready(); time.sleep(60)\n"
        "finally: print('cleaned')\n"
    )
    assert told(code, signal.SIGTERM) == (75, "cleaned\n")


def test_no_error_handler_takes_it_for_an_error():
    """Who catches all errors does not catch the request; who catches what ends a process does."""
    assert not issubclass(StopRequested, Exception)
    assert issubclass(StopRequested, SystemExit)
    assert (str(StopRequested("SIGTERM")), StopRequested("SIGTERM").code) == ("SIGTERM", 75)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_heard_at_once_inside_the_block_only(number):
    """Before and after it a signal waits for a check."""
    with listen_for_stop() as stop:
        with stop.interruptible():
            pass
        os.kill(os.getpid(), number)
        with pytest.raises(StopRequested, match=f"^{number.name}$"):
            stop.check()


def come(got=None):
    """Has a signal come, and goes on for a moment."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0)
    if got is not None:
        got.append("after the signal")


def test_a_block_after_a_signal_is_not_begun():
    """What would be left at once is not entered."""
    with listen_for_stop() as stop:
        come()
        with pytest.raises(StopRequested), stop.interruptible():
            pytest.fail("the block was entered")


def test_in_the_middle_means_in_the_middle():
    """Nothing after the signal is done."""
    got = []
    with listen_for_stop() as stop, pytest.raises(StopRequested), stop.interruptible():
        come(got)
    assert got == []


def test_blocks_can_be_nested():
    """The end of an inner one is not the end of the outer one."""
    got = []

    def leave_a_block_and_hear(stop):
        with stop.interruptible():
            pass
        come(got)

    with listen_for_stop() as stop:
        with pytest.raises(StopRequested), stop.interruptible():
            leave_a_block_and_hear(stop)
        assert got == []
        assert stop.signal is signal.SIGTERM


def test_a_block_that_fails_is_over():
    """After an error in it, a signal waits for a check again."""
    with listen_for_stop() as stop:
        with pytest.raises(OSError, match="disk"), stop.interruptible():
            raise OSError("disk")
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            stop.check()


def test_a_signal_that_somebody_swallowed_is_heard_at_the_end_of_the_block():
    """A library that catches everything keeps nobody from stopping."""
    swallowed = suppress(BaseException)
    with listen_for_stop() as stop, pytest.raises(StopRequested, match=r"^SIGTERM$"), stop.interruptible(), swallowed:
        come()


def test_stopping_at_once_is_told(caplog):
    """Who wonders why it ended reads that nothing is lost; a check that somebody heeds tells it in their own way."""
    caplog.set_level(logging.INFO)
    with listen_for_stop() as stop, pytest.raises(StopRequested), stop.interruptible():
        come()
    (record,) = caplog.records
    assert record.getMessage().startswith("stopped by SIGTERM: ")
