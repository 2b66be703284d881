"""What all command lines share: standard streams, error messages, exit statuses, Ctrl-C.

    def main(arguments=None):
        args = _parser().parse_args(arguments)
        return cli.run_tool(lambda: _act(args), debug=args.debug)

Exit status: what the program returns; 1 after an error, 2 after a usage error. An error is printed to standard error as
`error: ...`, followed by `hint: ...` if it has a hint; a traceback is shown in debug mode only.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from checkpointing.errors import LATER, UserError

if TYPE_CHECKING:
    import argparse

OK, FAILED, USAGE_ERROR = 0, 1, 2
INTERRUPTED = 128 + signal.SIGINT  # if SIGINT is blocked; otherwise the process dies of it

_ESCAPE = "checkpointing.escape"  # how the standard streams handle characters that they cannot encode
_BYTE = 0xDC00  # added to a byte that is not valid (source: PEP 383)

# What the linker says if a library does not fit into memory.
_NO_MEMORY = re.compile("failed to map segment|[Cc]annot allocate memory")


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flag --debug, whose help prints the description unwrapped.

    Args:
      program: the command line up to its arguments, as in "python -m checkpointing".
      description: the module's docstring.
    """
    import argparse  # noqa: PLC0415 - the training programs, which use absl, start without it

    made = argparse.ArgumentParser(
        program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def path(text: str) -> Path:
    """Parse a path on a command line, as the `type` of an argument; `~` is the home directory."""
    import argparse  # noqa: PLC0415 - see parser

    if not text:
        raise argparse.ArgumentTypeError("expected a path, got nothing")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: no home directory of such a user") from error


def positive(text: str) -> int:
    """Parse a number from 1 up on a command line, as the `type` of an argument."""
    import argparse  # noqa: PLC0415 - see parser

    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, got {text!r}")
    return int(text)


def run_tool(act: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command-line tool; return its exit status. Ctrl-C ends the process by SIGINT, without a traceback."""
    _set_up_streams()
    silence_tensorflow()
    with _ended_by_ctrl_c():
        return report_errors(act, debug=debug)
    return INTERRUPTED  # reached if Ctrl-C ended the block, but SIGINT is blocked, so that the process is still alive


def run_program(act: Callable[[], int]) -> NoReturn:
    """Run a program that handles signals itself, and end the process with the exit status that `act` returns."""
    _set_up_streams()
    try:
        sys.exit(act())
    finally:
        # The status is decided: no signal while Python and TensorFlow shut down and no full disk may change it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                _discard_output(descriptor)


def report_errors(act: Callable[[], int], *, debug: bool = False) -> int:
    """Call `act` and return its exit status; print its error, if any, or raise it in debug mode."""
    try:
        return act()
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        _discard_output(1)
        return FAILED
    except Exception as error:  # the last handler: every error is printed
        if debug:
            raise
        return print_error(error)


def print_error(error: Exception) -> int:
    """Print an error and its hint to standard error; return the exit status that goes with it."""
    message, hint = describe(error)
    print_to_stderr("\n".join([f"error: {message}", *([f"hint: {hint}"] if hint else [])]))
    return error.exit_status if isinstance(error, UserError) else FAILED


def print_warning(message: str) -> None:
    """Print a warning to standard error, in one line."""
    print_to_stderr(f"warning: {' '.join(message.split())}")


def print_to_stderr(text: str) -> None:
    """Print text that is no result; standard error may be closed or on a full disk."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def describe(error: Exception) -> tuple[str, str | None]:
    """Return an error's message on one line, and what to do about it, if that is known."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text, error.hint
    if isinstance(error, OSError) and error.strerror:
        file = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
        return f"{file}{error.strerror}", LATER
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and _NO_MEMORY.search(text)):
        return f"not enough memory{f' ({text})' if text else ''}", LATER
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return f"no thread can be started ({text})", LATER
    return f"{type(error).__name__}: {text}", "this is a bug; --debug shows where"


def print_result(text: str) -> None:
    """Print the result of a tool to standard output. A closed pipe is not an error: `| head` needs no more.

    Raises:
      OSError: the output cannot be written, for example because the disk is full.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _discard_output(1)
    except OSError as error:
        _discard_output(1)  # what is buffered cannot be written at the end of the process either
        raise OSError(error.errno, os.strerror(error.errno or 0), "standard output") from error


def print_line(text: str) -> None:
    """Print a message of a run to standard output; a closed pipe or a full disk does not stop the run."""
    with suppress(OSError):
        print_result(text)


def silence_tensorflow() -> None:
    """Turn off TensorFlow's own log; its errors arrive as exceptions. Call it before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _discard_output(descriptor: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _set_up_streams() -> None:
    """Let standard output and error exist and accept any text.

    Descriptors 0 to 2 that a parent closed are opened; otherwise the next opened file would get such a number.
    Characters that the encoding lacks are printed as escapes: file names may hold any bytes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "wt", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "wt", encoding="utf-8", closefd=False)
    codecs.register_error(_ESCAPE, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escape characters as "backslashreplace" does; bytes of a name that is not in the file system's encoding as such.

    Python holds the byte 0xff of such a name as the character 0xdcff.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = map(ord, error.object[error.start : error.end])
    escapes = (
        f"\\x{code - _BYTE:02x}" if code - _BYTE in range(0x80, 0x100) else _escaped(code) for code in characters
    )
    return "".join(escapes), error.end


def _escaped(code: int) -> str:
    return chr(code).encode("ascii", "backslashreplace").decode("ascii")


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C unwind the block, then end the process by SIGINT, so that a loop in a shell ends, too.

    Before and after the block Ctrl-C ends the process at once. An ignored SIGINT stays ignored.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if is_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        if is_default:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
