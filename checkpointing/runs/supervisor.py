"""Supervision: a parent process without TensorFlow restarts a run that crashes.

    status = supervise(command, max_restarts=5, newest_step=newest_step, step_back=step_back)

A crash is death by a signal that the parent did not send, or any exit status but 0, 1, 2 and 75. After two crashes in a
row without a newer checkpoint, the newest one may be the cause: the run steps back by one. A third crash is an error.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from checkpointing.errors import CheckpointError
from checkpointing.protocol import resume
from checkpointing.runs import preemption
from checkpointing.runs.preemption import SIGNALS, STOPPED
from checkpointing.storage import layout

_FINAL = {0, 1, 2, STOPPED}  # done, an error, a usage error, stopped on request
_CRASHES_TO_STEP_BACK = 2
_CRASHES_TO_GIVE_UP = 3
_MIN_START_SECONDS = 1.5  # importing TensorFlow takes longer
_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1  # of prctl(2)

_SEE_WHERE = "set PYTHONFAULTHANDLER=1 to see where it crashes"
_ELSEWHERE = f"{_SEE_WHERE}, or run it on another machine"
# What a signal commonly means, and a hint.
_SIGNAL_HINTS: dict[int, tuple[str, str]] = {
    signal.SIGKILL: (
        "often the kernel's out-of-memory killer",
        "see dmesg; free memory, use a machine with more, or train with a smaller batch in a new directory",
    ),
    signal.SIGABRT: ("a library aborted; see its last lines", _SEE_WHERE),
    signal.SIGSEGV: ("a fault in a library or in the machine's memory", _ELSEWHERE),
    signal.SIGBUS: ("a fault in a library or in the machine's memory, or a full disk", _ELSEWHERE),
    signal.SIGILL: ("a library built for another processor, or a fault in it", _ELSEWHERE),
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
    """Run a command, and restart it after crashes; SIGTERM and SIGINT are forwarded to it.

    Call it in the main thread, which alone can handle signals, before any library starts threads: it forks.

    Args:
      command: the program and its arguments; it must not supervise itself.
      max_restarts: how many restarts are allowed.
      newest_step: returns the step of the newest checkpoint; None if there is none.
      step_back: moves the newest checkpoint aside, for the reason passed, and returns the step of the one before; if
        there is none before, it changes nothing and returns None.
      sleep: waits for a number of seconds.

    Returns:
      The command's exit status; 75 if the stop request arrived while it was not running or before it could handle
      signals; 128 + n if it died of signal n after a stop request.

    Raises:
      CheckpointError: it cannot be started, crashes without progress, or has no restarts left.
    """
    child = ChildProcess()
    restarts = 0
    furthest, crashes = -1, 0  # the newest step after any crash, and the crashes since without a newer one
    with preemption.handle_signals(child.handle_signal):
        while True:
            started = time.monotonic()
            status = child.run(command)
            if child.requests == 1 and -status in SIGNALS and time.monotonic() - started < _MIN_START_SECONDS:
                return STOPPED  # it could not handle signals yet, so it had nothing to save
            if status in _FINAL or child.requests:
                return _shell_status(status)
            step = newest_step()
            if step is not None and step > furthest:
                furthest, crashes = step, 0
            crashes += 1
            cause, hint = _explain(status)
            if crashes == _CRASHES_TO_GIVE_UP or restarts == max_restarts:
                raise CheckpointError(_diagnosis(crashes, restarts, cause, step), hint=hint)
            if crashes == _CRASHES_TO_STEP_BACK:
                before = step_back(f"the run crashed twice after it; last crash: {cause}")
                step = step if before is None else before
            restarts += 1
            seconds = 2 ** (crashes - 1)
            origin = "its start" if step is None else f"step {step}"
            _log.warning(
                "the run crashed (%s): restart %d of %d in %d s, from %s",
                cause,
                restarts,
                max_restarts,
                seconds,
                origin,
            )
            if not child.wait(seconds, sleep):
                return STOPPED


def supervise_run(train_dir: Path, max_restarts: int) -> int:
    """Run this process's own command line in a child process, and supervise it."""
    command = [sys.executable, *sys.orig_argv[1:], "--max_restarts=0"]

    def newest_step() -> int | None:
        with suppress(OSError):  # an unreadable directory counts as one without checkpoints
            return max(layout.steps_with(train_dir, "manifest.json"), default=None)
        return None

    return supervise(
        command,
        max_restarts=max_restarts,
        newest_step=newest_step,
        step_back=lambda why: resume.discard_latest(train_dir, why),
    )


def run_each(commands: Iterable[Sequence[str]]) -> int:
    """Run commands one after the other until one fails; SIGTERM and SIGINT are forwarded to the current one.

    Call it in the main thread, before any library starts threads, as `supervise`.

    Returns:
      0; or the exit status of the command that failed, 128 + n if it died of signal n; 75 after a stop request.

    Raises:
      CheckpointError: one cannot be started.
    """
    child = ChildProcess()
    with preemption.handle_signals(child.handle_signal):
        for command in commands:
            status = child.run(command)
            if child.requests and (status == 0 or -status in SIGNALS):
                return STOPPED  # the request arrived after its end, or when it did not handle signals
            if status:
                return _shell_status(status)
    return STOPPED if child.requests else 0


class ChildProcess:
    """A child process to which stop requests are forwarded.

    requests: the number of signals received.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self.requests = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []  # signals that arrived while no process was running

    def handle_signal(self, number: int, _frame: FrameType | None) -> None:
        """Forward a signal, or keep it until the process has started."""
        self.requests += 1
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)

    def run(self, command: Sequence[str]) -> int:
        """Run a command to its end; return its exit status, or -n if it died of signal n.

        After a stop request it is not started, and the status is 75.

        Raises:
          CheckpointError: it cannot be started.
        """
        if self.requests:
            return STOPPED
        try:
            # A new process group: otherwise Ctrl-C would reach the child twice, and the second ends it unsaved.
            started = subprocess.Popen(command, process_group=0, preexec_fn=_before_exec())  # noqa: PLW1509, S603 - no threads here; our own command
        except OSError as error:
            raise CheckpointError(f"{command[0]}: cannot be started ({error.strerror})") from error
        self._process = started
        for number in self._early:
            started.send_signal(number)
        status = started.wait()
        self._process = None
        return status

    def wait(self, seconds: int, sleep: Callable[[float], object]) -> bool:
        """Wait; return False at once after a stop request."""
        for _ in range(round(seconds / _POLL_SECONDS)):
            if self.requests:
                break
            sleep(_POLL_SECONDS)
        return not self.requests


def _before_exec() -> Callable[[], None] | None:
    """Return a function for the child to call before exec: SIGTERM when the parent dies, so that it stops, too."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    parent = os.getpid()

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before prctl
            os._exit(STOPPED)

    return end_with_parent


def _diagnosis(crashes: int, restarts: int, cause: str, step: int | None) -> str:
    if crashes == _CRASHES_TO_GIVE_UP:
        what = f"the run crashed {crashes} times in a row without a newer checkpoint"
    else:
        what = f"the run crashed, and all {restarts} restarts are used up"
    saved = "no checkpoint" if step is None else f"newest checkpoint: step {step}"
    return f"{what}; last crash: {cause}; {saved}"


def _explain(status: int) -> tuple[str, str]:
    """Return the cause of a crash, and a hint."""
    if status > 0:
        return f"exit status {status}", _SEE_WHERE
    name = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
    meaning, hint = _SIGNAL_HINTS.get(-status, ("", _SEE_WHERE))
    return f"killed by {name}: {meaning}" if meaning else f"killed by {name}", hint


def _shell_status(status: int) -> int:
    """Return the status that a shell reports: 128 + n for a process that died of signal n."""
    return status if status >= 0 else 128 - status
