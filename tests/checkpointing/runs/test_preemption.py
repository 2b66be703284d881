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
    """Return the current handlers of the two signals."""
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.fixture(autouse=True)
def kept_handlers():
    """Restore the handlers after each test."""
    before = dict(zip(SIGNALS, handlers(), strict=True))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def signal_process(code, number):
    """Send a signal to a process once it is ready; return its exit status and what it printed afterwards."""
    head = (
        "import os, signal, sys, time\n"
        "from checkpointing.runs.preemption import StopRequested, listen_for_stop\n"
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
    """`check` returns."""
    with listen_for_stop() as stop:
        stop.check()
        assert stop.signal is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_next_check(number):
    """The signal itself ends nothing; every check after it raises, with the signal's name."""
    with listen_for_stop() as stop:
        os.kill(os.getpid(), number)
        for _ in range(2):
            with pytest.raises(StopRequested, match=f"^{number.name}$"):
                stop.check()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_from_outside_stops_a_process_at_its_next_check(number):
    """The process chooses its exit status."""
    code = (
        "with listen_for_stop() as stop:\n"
        "    ready()\n"
        "    try:\n"
        "        while True: time.sleep(0.01); stop.check()\n"
        "    except StopRequested as signal: print(signal); sys.exit(75)\n"
    )
    assert signal_process(code, number) == (75, f"{number.name}\n")


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_the_process(first, second):
    """The process dies of the second signal."""
    code = (
        "with listen_for_stop() as stop:\n"
        f"    os.kill(os.getpid(), {first:d})\n"
        "    ready()\n"
        "    while True: time.sleep(0.01)\n"
    )
    assert signal_process(code, second) == (-second, "")


def test_the_handlers_are_restored_after_the_block():
    """Both of them."""
    before = handlers()
    with listen_for_stop():
        assert handlers() != before
    assert handlers() == before


def test_the_handlers_are_restored_after_an_error():
    """The block may fail."""
    before = handlers()
    with pytest.raises(OSError, match="disk"), listen_for_stop():
        raise OSError("disk")
    assert handlers() == before


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_handlers_of_any_kind_are_restored(handler):
    """Even those that are not functions."""
    for number in SIGNALS:
        signal.signal(number, handler)
    with listen_for_stop():
        pass
    assert handlers() == [handler, handler]


def test_an_interrupt_after_the_block_is_a_keyboard_interrupt():
    """As it was before the block."""
    # A shell that starts a program in the background makes it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with listen_for_stop():
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_each_block_starts_without_a_signal():
    """A signal in one block does not stop the next."""
    with listen_for_stop():
        os.kill(os.getpid(), signal.SIGTERM)
    with listen_for_stop() as stop:
        stop.check()
        assert stop.signal is None


@pytest.mark.parametrize("number", SIGNALS)
def test_an_uncaught_request_ends_the_process(number):
    """With status 75 and no output."""
    code = (
        "sys.stderr = sys.stdout\n"
        "with listen_for_stop() as stop:\n"
        "    ready()\n"
        "    while True: time.sleep(0.01); stop.check()\n"
    )
    assert signal_process(code, number) == (75, "")
    assert STOPPED == 75


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_an_interruptible_block(number):
    """It does not wait for a check."""
    code = (
        "try:\n"
        "    with listen_for_stop() as stop, stop.interruptible():\n"
        "        ready()\n"
        "        time.sleep(60)\n"
        "except StopRequested as signal: print(signal); raise\n"
    )
    assert signal_process(code, number) == (75, f"{number.name}\n")


def test_finally_blocks_run_before_the_exit():
    """The request unwinds the stack."""
    code = (
        "try:\n    with listen_for_stop() as stop, stop.interruptible(): ready(); time.sleep(60)\n"
        "finally: print('cleaned')\n"
    )
    assert signal_process(code, signal.SIGTERM) == (75, "cleaned\n")


def test_the_request_is_a_system_exit():
    """So `except Exception` does not catch it."""
    assert not issubclass(StopRequested, Exception)
    assert issubclass(StopRequested, SystemExit)
    assert (str(StopRequested("SIGTERM")), StopRequested("SIGTERM").code) == ("SIGTERM", 75)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_only_inside_the_interruptible_block(number):
    """After it, a signal waits for a check again."""
    with listen_for_stop() as stop:
        with stop.interruptible():
            pass
        os.kill(os.getpid(), number)
        with pytest.raises(StopRequested, match=f"^{number.name}$"):
            stop.check()


def raise_signal(got=None):
    """Send a signal to this process, and continue for a moment."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0)
    if got is not None:
        got.append("after the signal")


def test_an_interruptible_block_after_a_signal_is_not_entered():
    """The request is raised before it."""
    with listen_for_stop() as stop:
        raise_signal()
        with pytest.raises(StopRequested), stop.interruptible():
            pytest.fail("the block was entered")


def test_nothing_after_the_signal_runs():
    """The request is raised at once."""
    got = []
    with listen_for_stop() as stop, pytest.raises(StopRequested), stop.interruptible():
        raise_signal(got)
    assert got == []


def test_blocks_can_be_nested():
    """After an inner block, the outer one is still interruptible."""
    got = []

    def leave_a_block_and_raise(stop):
        with stop.interruptible():
            pass
        raise_signal(got)

    with listen_for_stop() as stop:
        with pytest.raises(StopRequested), stop.interruptible():
            leave_a_block_and_raise(stop)
        assert got == []
        assert stop.signal is signal.SIGTERM


def test_after_an_error_in_the_block_a_signal_waits_for_a_check():
    """The block has ended."""
    with listen_for_stop() as stop:
        with pytest.raises(OSError, match="disk"), stop.interruptible():
            raise OSError("disk")
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            stop.check()


def test_a_swallowed_request_is_raised_again_at_the_end_of_the_block():
    """A library that catches everything cannot prevent the stop."""
    swallowed = suppress(BaseException)
    with listen_for_stop() as stop, pytest.raises(StopRequested, match=r"^SIGTERM$"), stop.interruptible(), swallowed:
        raise_signal()


def test_a_request_that_ends_the_program_is_logged(caplog):
    """With the signal's name."""
    caplog.set_level(logging.INFO)
    with pytest.raises(StopRequested), listen_for_stop() as stop, stop.interruptible():
        raise_signal()
    assert caplog.messages == ["stopped by SIGTERM: nothing to save"]


def test_a_request_that_is_caught_is_not_logged(caplog):
    """The caller saves its state, and says so."""
    caplog.set_level(logging.INFO)
    with listen_for_stop() as stop, pytest.raises(StopRequested), stop.interruptible():
        raise_signal()
    assert caplog.messages == []
