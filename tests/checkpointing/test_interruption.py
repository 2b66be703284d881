import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from checkpointing.interruption import Interrupted, listen_for_stop

ROOT = Path(__file__).parent.parent.parent
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
        "from checkpointing.interruption import Interrupted, listen_for_stop\n"
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
            with pytest.raises(Interrupted, match=f"^{number.name}$"):
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
