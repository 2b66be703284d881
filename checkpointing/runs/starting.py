"""What signals do while a program starts: a run ends with status 75, for there is nothing to save yet.

    from checkpointing.runs import starting

    if __name__ == "__main__":
        starting.exit_on_signal()

    import ...  # all that takes time

Not in interruption.py, so that this module's import takes next to none. It imports `_signal`, which is built into
Python: `signal` would bring enum and collections along, milliseconds in which Ctrl-C ends in a traceback.
"""

import _signal  # type: ignore[import-not-found] # no stub describes it
import os

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again
NOTHING_LOST = "all that there was to save is saved"

_NAMES = {_signal.SIGTERM: "SIGTERM", _signal.SIGINT: "SIGINT"}


def exit_on_signal() -> None:
    """Makes SIGTERM and SIGINT end the process at once, with status 75 and one line, except in `listen_for_stop`."""
    for number in _NAMES:
        _signal.signal(number, _exit)


def end_on_interrupt() -> None:
    """Makes Ctrl-C end a tool at once and without a traceback, as it ends a program in C, unless it is ignored."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def _exit(number: int, _frame: object) -> None:
    # Not by an exception: one that is raised in the middle of an import can end up as another one.
    try:
        os.write(2, f"stopped by {_NAMES[number]}: {NOTHING_LOST}\n".encode())
    finally:
        os._exit(STOPPED)
