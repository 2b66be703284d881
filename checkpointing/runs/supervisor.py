"""A run started again when it crashes, by a parent process without TensorFlow.

    status = supervise(command, max_restarts=5, newest_step=newest_step, step_back=step_back)

A crash is death by a signal that did not come through us, or any exit status but 0, 1, 2 and 75. Two crashes in a row
without a newer checkpoint may be the newest one's fault: the run goes back by one. A third ends it, with a diagnosis.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from checkpointing.errors import CheckpointError
from checkpointing.protocol import resume
from checkpointing.runs.preemption import STOPPED
from checkpointing.storage import layout

_FINAL = {0, 1, 2, STOPPED}  # done, an error told in one sentence, wrong usage, stopped on request
_CRASHES_TO_STEP_BACK = 2
_CRASHES_TO_GIVE_UP = 3
_SECONDS_WITHOUT_A_STEP = 1.5  # the import of TensorFlow alone takes longer
_SLICE_SECONDS = 0.1  # after which a signal is heard that came while we waited
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1  # of prctl(2)

_SEE_WHERE = "run it with --debug and PYTHONFAULTHANDLER=1 to see where"
_ELSEWHERE = f"{_SEE_WHERE}, or on another machine"
# What a signal commonly means, and what to try.
_SIGNAL_HINTS: dict[int, tuple[str, str]] = {
    signal.SIGKILL: (
        "often the kernel's out-of-memory killer",
        "dmesg tells; free memory, take a machine with more, or a smaller --batch_size in a new --train_dir",
    ),
    signal.SIGABRT: ("a library gave up, its last lines say why", _SEE_WHERE),
    signal.SIGSEGV: ("a fault in a library or in the machine's memory", _ELSEWHERE),
    signal.SIGBUS: ("a fault in a library or in the machine's memory, or a full disk", _ELSEWHERE),
    signal.SIGILL: ("a library made for another processor, or a fault in it", _ELSEWHERE),
}
_log = logging.getLogger(__name__)


def supervise(
    command: Sequence[str],
    *,
    max_restarts: int,
    newest_step: Callable[[], int | None],
    step_back: Callable[[str], int | None],
    sleep: Callable[[float], object] = time.sleep,
) -> int:
    """Runs a command until it ends of itself or on request; SIGTERM and SIGINT are passed on to it.

    For the main thread, which alone may handle signals, and before a library starts threads, for it forks.

    Args:
      command: the program and its arguments, among them none that would have it supervise itself.
      max_restarts: how often it may be started again.
      newest_step: gives the step of the newest checkpoint; None where there is none.
      step_back: sets the newest checkpoint aside, for the reason given, and gives the step of the one before; None,
        and nothing is changed, where there is none before.
      sleep: waits so many seconds.

    Returns:
      The command's exit status; 75 where the request to stop came while it was not running, or could not listen yet;
      128 + n where it died of signal n later, or after more than one request.

    Raises:
      CheckpointError: it cannot be started, crashes without getting on, or has used up its restarts.
    """
    relay = ChildProcess()
    restarts = 0
    furthest, crashes = -1, 0  # the newest step that any crash left, and how many crashes left no newer one
    with _heard_by(relay):
        while True:
            started = time.monotonic()
            status = relay.run(command)
            too_soon = time.monotonic() - started < _SECONDS_WITHOUT_A_STEP
            if relay.asked == 1 and -status in _SIGNALS and too_soon:
                return STOPPED  # it could not listen yet: it had nothing to save
            if status in _FINAL or relay.asked:
                return _as_a_shell_tells(status)
            step = newest_step()
            if step is not None and step > furthest:
                furthest, crashes = step, 0
            crashes += 1
            cause, advice = _explanation(status)
            saved = "nothing saved" if step is None else f"saved up to step {step}"
            account = f"the last time {cause}, {saved}: {advice}."
            if crashes == _CRASHES_TO_GIVE_UP:
                raise CheckpointError(f"the run died {crashes} times in a row without a newer checkpoint, {account}")
            if restarts == max_restarts:
                raise CheckpointError(f"the run died with its {restarts} restarts used up, {account}")
            if crashes == _CRASHES_TO_STEP_BACK:
                before = step_back(f"the run died twice after it, the last time {cause}")
                step = step if before is None else before
            restarts += 1
            seconds = 2 ** (crashes - 1)
            origin = "its start" if step is None else f"step {step}"
            _log.warning(
                "the run died %s: restart %d of %d in %d s, from %s", cause, restarts, max_restarts, seconds, origin
            )
            if not relay.wait(seconds, sleep):
                return STOPPED


def run_each(commands: Iterable[Sequence[str]]) -> int:
    """Runs commands one after the other, as long as they succeed; SIGTERM and SIGINT are passed on to the one at work.

    For the main thread, before a library starts threads, as `supervise`.

    Returns:
      0; or the exit status of the one that failed, 128 + n where it died of signal n; 75 where it was asked to stop.

    Raises:
      CheckpointError: one cannot be started.
    """
    relay = ChildProcess()
    with _heard_by(relay):
        for command in commands:
            status = relay.run(command)
            if relay.asked and (status == 0 or -status in _SIGNALS):
                return STOPPED  # it had ended when the request came, or could not listen yet or any more
            if status:
                return _as_a_shell_tells(status)
    return STOPPED if relay.asked else 0


def _as_a_shell_tells(status: int) -> int:
    """An exit status; of a process that died of signal n, -n, 128 + n."""
    return status if status >= 0 else 128 - status


def supervise_run(train_dir: Path, max_restarts: int) -> int:
    """Runs the command line of this very process in a child, and supervises it."""
    command = [sys.executable, *sys.orig_argv[1:], "--max_restarts=0"]

    def newest_step() -> int | None:
        with suppress(OSError):  # a disk in trouble shows no checkpoint
            return max(layout.steps_with(train_dir, "manifest.json"), default=None)
        return None

    return supervise(
        command,
        max_restarts=max_restarts,
        newest_step=newest_step,
        step_back=lambda why: resume.discard_latest(train_dir, why),
    )


class ChildProcess:
    """Passes signals on to the process that it runs."""

    def __init__(self) -> None:
        """No process runs yet."""
        self.asked = 0  # how often
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []  # came while there was no process

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Takes a signal, at any point of the methods below."""
        self.asked += 1
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)

    def run(self, command: Sequence[str]) -> int:
        """Runs a command to its end; gives its exit status, or -n where it died of signal n.

        After a request to stop it is not started, and the status is 75.

        Raises:
          CheckpointError: it cannot be started.
        """
        if self.asked:
            return STOPPED
        try:
            # In a process group of its own, for else Ctrl-C would reach it twice, and the second ends it unsaved.
            started = subprocess.Popen(command, process_group=0, preexec_fn=_before_exec())  # noqa: PLW1509, S603 - no threads here; our own command
        except OSError as error:
            raise CheckpointError(f"{command[0]}: cannot be started ({error.strerror}).") from error
        self._process = started
        for number in self._early:
            started.send_signal(number)
        status = started.wait()
        self._process = None
        return status

    def wait(self, seconds: int, sleep: Callable[[float], object]) -> bool:
        """Waits; gives False, and at once, where somebody asks to stop."""
        for _ in range(round(seconds / _SLICE_SECONDS)):
            if self.asked:
                break
            sleep(_SLICE_SECONDS)
        return not self.asked


@contextmanager
def _heard_by(relay: ChildProcess) -> Iterator[None]:
    """Inside the block the relay hears the signals; afterwards they do again what they did before."""
    before = {number: signal.signal(number, relay.hear) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _before_exec() -> Callable[[], None] | None:
    """What a new process does first: it asks for SIGTERM on our death, so that it never trains on unnoticed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    parent = os.getpid()

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(STOPPED)

    return end_with_parent


def _explanation(status: int) -> tuple[str, str]:
    """Of what a process died, and what to try."""
    if status > 0:
        return f"with exit status {status}", _SEE_WHERE
    name = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
    meaning, advice = _SIGNAL_HINTS.get(-status, ("", _SEE_WHERE))
    return f"of {name} ({meaning})" if meaning else f"of {name}", advice
