"""Signals while a program starts: a run exits with status 75, because there is nothing to save yet.

    from checkpointing.runs import starting

    if __name__ == "__main__":
        starting.exit_on_signal()

    import ...  # all that takes time

This is not in preemption.py, so that importing it takes almost no time. It uses `_signal`, which is built into Python:
`signal` would import enum and collections, milliseconds in which Ctrl-C ends in a traceback.
"""

import _signal  # type: ignore[import-not-found] # no stub describes it
import os

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again
NOTHING_TO_SAVE = "nothing to save"

_NAMES = {_signal.SIGTERM: "SIGTERM", _signal.SIGINT: "SIGINT"}


def exit_on_signal() -> None:
    """Make SIGTERM and SIGINT end the process with status 75 and one line, except inside `listen_for_stop`."""
    for number in _NAMES:
        _signal.signal(number, _exit)


def end_on_interrupt() -> None:
    """Make Ctrl-C end a tool without a traceback, as it ends a C program, unless SIGINT is ignored."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def _exit(number: int, _frame: object) -> None:
    # No exception: one raised in the middle of an import can turn into another one.
    try:
        os.write(2, f"stopped by {_NAMES[number]}: {NOTHING_TO_SAVE}\n".encode())
    finally:
        os._exit(STOPPED)
