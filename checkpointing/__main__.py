"""What lies in a directory of checkpoints, and what can be done with it, from the command line.

Exit status: 0 done; 1 an error, in one sentence, or no for an answer: damaged, different; 2 wrong usage.
TensorFlow is imported by the commands that need it, and by no other. A graph's code is needed by none.
"""

from __future__ import annotations

from checkpointing import starting

if __name__ == "__main__":
    starting.end_on_interrupt()  # before the imports that take time

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from checkpointing.commands import quietly
from checkpointing.errors import CheckpointError, reason

if TYPE_CHECKING:
    from checkpointing.commands.answer import Answer

_PREFIX = "a checkpoint's prefix, as in DIR/model.ckpt-100; of a directory, its newest checkpoint"


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    given = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    with _interruptible():
        return _run(given)
    return 128 + signal.SIGINT  # where SIGINT is blocked


def _run(given: argparse.Namespace) -> int:
    """Runs the command; gives the exit status."""
    try:
        from checkpointing.commands.answer import as_json  # noqa: PLC0415 - --help waits for nobody

        answer = _command(given.room, given.command)(given)
        text = as_json(answer.record) if given.json else answer.text
    except (CheckpointError, OSError) as error:
        print(f"error: {error if isinstance(error, CheckpointError) else _about(error)}", file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001 - the last stop: any error becomes one sentence, none is swallowed
        print(f"error: {type(error).__name__}: {reason(error)}", file=sys.stderr)
        return 1
    if text:
        _tell(text)
    return answer.status


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


def _tell(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # `| head` has seen enough, or the disk is full: nobody reads it any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _about(error: OSError) -> str:
    return f"{error.filename}: {reason(error)}" if error.filename else reason(error)


def _command(room: str, name: str) -> Callable[[argparse.Namespace], Answer]:
    if room == "make":
        quietly.import_tensorflow()
    function: Callable[[argparse.Namespace], Answer] = getattr(
        importlib.import_module(f"checkpointing.commands.{room}"), name
    )
    return function


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m checkpointing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(name: str, room: str, function: str, meaning: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
        command.add_argument("--json", action="store_true", help="the answer for programs")
        command.set_defaults(room=room, command=function)
        return command

    _add_looking(add)
    _add_tending(add)
    _add_making(add)
    return parser


Add = Callable[[str, str, str, str], argparse.ArgumentParser]


def _add_looking(add: Add) -> None:
    command = add("list", "look", "list_checkpoints", "the checkpoints: how old, how large, complete or not, why kept")
    command.add_argument("directory", type=Path, metavar="DIR")
    command = add("show", "look", "show", "what a checkpoint or a SavedModel holds")
    command.add_argument("path", type=Path, metavar="PREFIX", help=f"{_PREFIX}; or a SavedModel's directory")
    command.add_argument("--tensor", metavar="NAME", help="this one alone, with a histogram and its values")
    command.add_argument("--stats", action="store_true", help="smallest, mean and largest value, zeros, NaNs")
    command = add("verify", "look", "verify", "reads every byte; exit status 1 and the file's name where one is wrong")
    command.add_argument("path", type=Path, metavar="DIR_OR_PREFIX", help="of a directory, its newest checkpoint")
    command.add_argument("--all", action="store_true", help="each checkpoint of the directory")
    command = add("diff", "look", "diff", "what changed between two checkpoints; exit status 1 where anything did")
    command.add_argument("one", type=Path, metavar="A", help=_PREFIX)
    command.add_argument("other", type=Path, metavar="B")
    command = add("history", "look", "show_history", "the attempts of a run, and how much of their time was useful")
    command.add_argument("directory", type=Path, metavar="DIR")
    command = add("watch", "look", "watch", "a table of a running train_dir, until Ctrl-C; once where nobody looks")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--seconds", type=float, default=1.0, help="between two looks")


def _add_tending(add: Add) -> None:
    command = add("repair", "tend", "repair", "sweep leftovers, set damaged ones aside, rebuild the state file")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--dry_run", action="store_true", help="only say what would be done")
    command = add("prune", "tend", "prune", "delete the checkpoints that are not worth keeping")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--max_to_keep", type=int, metavar="N", help="the newest; unset: as the run was told")
    command.add_argument("--keep_best", type=int, metavar="N", help="and those with the best score")
    command.add_argument("--keep_checkpoint_every_n_hours", type=float, metavar="N", help="and one for so many hours")
    command.add_argument("--dry_run", action="store_true", help="only say what would go")
    for name, meaning in (
        ("pin", "keep these checkpoints, whatever rotation says"),
        ("unpin", "leave them to rotation again"),
    ):
        command = add(name, "tend", name, meaning)
        command.add_argument("prefixes", type=Path, nargs="+", metavar="PREFIX", help="as in DIR/model.ckpt-100")


def _add_making(add: Add) -> None:
    command = add("export", "make", "export", "a SavedModel of a checkpoint and the graph beside it")
    command.add_argument("prefix", type=Path, metavar="PREFIX", help=_PREFIX)
    command.add_argument("directory", type=Path, metavar="DIR", help="must not exist")
    command.add_argument("--tags", action="append", metavar="TAG", help="serve: what answers; train: the whole graph")
    command.add_argument("--as_text", action="store_true", help="saved_model.pbtxt, for people")
    _add_signature(command)
    command = add("freeze", "make", "freeze", "one file of a checkpoint and its graph, variables turned into constants")
    command.add_argument("prefix", type=Path, metavar="PREFIX", help=_PREFIX)
    command.add_argument("file", type=Path, metavar="FILE.pb", help="or .pbtxt, for people")
    _add_signature(command)
    command = add("convert", "make", "convert", "a checkpoint to .npz or .safetensors, or back")
    command.add_argument("source", type=Path, metavar="FROM")
    command.add_argument("target", type=Path, metavar="TO")
    command = add("average", "make", "average", "the mean of several checkpoints' weights, as a new checkpoint")
    command.add_argument("prefixes", type=Path, nargs="+", metavar="PREFIX")
    command.add_argument("--output", type=Path, required=True, metavar="PREFIX", help="of the new one")
    command = add("rename", "make", "rename", "the same tensors under other names, as a new checkpoint")
    command.add_argument("prefix", type=Path, metavar="PREFIX", help=_PREFIX)
    command.add_argument("names", type=_pair, nargs="+", metavar="OLD=NEW", help="tensors or scopes")
    command.add_argument("--output", type=Path, required=True, metavar="PREFIX", help="of the new one")


def _add_signature(command: argparse.ArgumentParser) -> None:
    """For graphs that do not say what to feed and to fetch (ours do), and for those that are refused."""
    for name in ("input", "output"):
        meaning = "for graphs that do not say so themselves"
        command.add_argument(f"--{name}", type=_pair, action="append", default=[], metavar="NAME=TENSOR", help=meaning)
    command.add_argument("--trust", action="store_true", help="load a graph that can touch files (SECURITY.md)")


def _pair(text: str) -> tuple[str, str]:
    before, sign, after = text.partition("=")
    if not (before and sign and after):
        raise argparse.ArgumentTypeError(f"{text!r} found, two names with = between them wanted")
    return before, after


if __name__ == "__main__":
    sys.exit(main())
