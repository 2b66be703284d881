"""What the command lines in this package have in common: a parser, and errors told in one sentence.

def main(arguments=None):
    given = _parser().parse_args(arguments)
    return program.status(lambda: _do(given))
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OK, FAILED = 0, 1
INTERRUPTED = 128 + signal.SIGINT  # where SIGINT is blocked; else the process dies of it

# Whose messages are sentences for people; any other error is one of ours, and shows where it is.
_TOLD = ("checkpointing.errors", "mnist.errors")


def parser(name: str, synopsis: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m mnist.<name>`; the module's docstring is its help."""
    return argparse.ArgumentParser(
        f"python -m mnist.{name}",
        description=synopsis,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def status(act: Callable[[], int]) -> int:
    """Does what a program is for, with TensorFlow's log held back.

    Returns:
      What `act` returns; 1 where it raises an error of this project's or the system's, which is told in one sentence.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    ended = INTERRUPTED
    try:
        with _interruptible():
            ended = act()
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return tell_error(f"{error.filename or 'the system'}: {error.strerror or error}.")
    except MemoryError:
        return tell_error("not enough memory; end other programs, or use a machine with more.")
    except ImportError as error:
        if "failed to map segment" not in str(error) and "allocate memory" not in str(error):
            raise
        return tell_error(f"not enough memory ({error}); free some, and run the same command again.")
    except Exception as error:
        if type(error).__module__ not in _TOLD:
            raise
        return tell_error(str(error))
    return ended


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets Ctrl-C leave the block in its own way, and then end the process by SIGINT, without a traceback.

    So a shell's loop around it ends, too. Before and after the block Ctrl-C ends the process at once.
    """
    at_once = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        if at_once:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def tell_error(text: str) -> int:
    """Says what went wrong; gives the exit status."""
    print(f"error: {text}", file=sys.stderr)
    return FAILED
