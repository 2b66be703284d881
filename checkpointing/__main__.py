"""What lies in a directory of checkpoints, and what can be done with it, from the command line.

Exit status: 0 done; 1 an error, in one sentence, or no for an answer: damaged, different; 2 wrong usage.
TensorFlow is imported by the commands that need it, and by no other. A graph's code is needed by none.
"""

from __future__ import annotations

from checkpointing.runs import starting

if __name__ == "__main__":
    starting.end_on_interrupt()  # before the imports that take time

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from checkpointing import cli, tf_import

if TYPE_CHECKING:
    from checkpointing.tools.output import CommandResult

_PREFIX = "a checkpoint's prefix, as in DIR/model.ckpt-100; of a directory, its newest checkpoint"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args = _parser().parse_args(arguments)
    return cli.run_tool(lambda: _run(args), debug=args.debug)


def _run(args: argparse.Namespace) -> int:
    from checkpointing.tools.output import as_json  # noqa: PLC0415 - --help waits for nobody

    result = _command(args.room, args.command)(args)
    text = as_json(result.record) if args.json else result.text
    if text:
        cli.print_line(text)
    return result.status


def _command(room: str, name: str) -> Callable[[argparse.Namespace], CommandResult]:
    if room == "transform":
        tf_import.import_tensorflow()
    function: Callable[[argparse.Namespace], CommandResult] = getattr(
        importlib.import_module(f"checkpointing.tools.{room}_commands"), name
    )
    return function


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m checkpointing", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(name: str, room: str, function: str, meaning: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(room=room, command=function)
        return command

    _add_inspecting(add)
    _add_maintaining(add)
    _add_transforming(add)
    return parser


Add = Callable[[str, str, str, str], argparse.ArgumentParser]


def _add_inspecting(add: Add) -> None:
    command = add(
        "list", "inspect", "list_checkpoints", "the checkpoints: how old, how large, complete or not, why kept"
    )
    command.add_argument("directory", type=Path, metavar="DIR")
    command = add("show", "inspect", "show", "what a checkpoint or a SavedModel holds")
    command.add_argument("path", type=Path, metavar="PREFIX", help=f"{_PREFIX}; or a SavedModel's directory")
    command.add_argument("--tensor", metavar="NAME", help="this one alone, with a histogram and its values")
    command.add_argument("--stats", action="store_true", help="smallest, mean and largest value, zeros, NaNs")
    command = add(
        "verify", "inspect", "verify", "reads every byte; exit status 1 and the file's name where one is wrong"
    )
    command.add_argument("path", type=Path, metavar="DIR_OR_PREFIX", help="of a directory, its newest checkpoint")
    command.add_argument("--all", action="store_true", help="each checkpoint of the directory")
    command = add("diff", "inspect", "diff", "what changed between two checkpoints; exit status 1 where anything did")
    command.add_argument("one", type=Path, metavar="A", help=_PREFIX)
    command.add_argument("other", type=Path, metavar="B")
    command = add("history", "inspect", "show_history", "the attempts of a run, and how much of their time was useful")
    command.add_argument("directory", type=Path, metavar="DIR")
    command = add("watch", "inspect", "watch", "a table of a running train_dir, until Ctrl-C; once where nobody looks")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--seconds", type=float, default=1.0, help="between two looks")


def _add_maintaining(add: Add) -> None:
    command = add("repair", "maintain", "repair", "sweep leftovers, set damaged ones aside, rebuild the state file")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--dry_run", action="store_true", help="only say what would be done")
    command = add("prune", "maintain", "prune", "delete the checkpoints that are not worth keeping")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--max_to_keep", type=int, metavar="N", help="the newest; unset: as the run was told")
    command.add_argument("--keep_best", type=int, metavar="N", help="and those with the best score")
    command.add_argument("--keep_checkpoint_every_n_hours", type=float, metavar="N", help="and one for so many hours")
    command.add_argument("--dry_run", action="store_true", help="only say what would go")
    for name, meaning in (
        ("pin", "keep these checkpoints, whatever rotation says"),
        ("unpin", "leave them to rotation again"),
    ):
        command = add(name, "maintain", name, meaning)
        command.add_argument("prefixes", type=Path, nargs="+", metavar="PREFIX", help="as in DIR/model.ckpt-100")


def _add_transforming(add: Add) -> None:
    command = add("export", "transform", "export", "a SavedModel of a checkpoint and the graph beside it")
    command.add_argument("prefix", type=Path, metavar="PREFIX", help=_PREFIX)
    command.add_argument("directory", type=Path, metavar="DIR", help="must not exist")
    command.add_argument("--tags", action="append", metavar="TAG", help="serve: what answers; train: the whole graph")
    command.add_argument("--as_text", action="store_true", help="saved_model.pbtxt, for people")
    _add_signature(command)
    command = add(
        "freeze", "transform", "freeze", "one file of a checkpoint and its graph, variables turned into constants"
    )
    command.add_argument("prefix", type=Path, metavar="PREFIX", help=_PREFIX)
    command.add_argument("file", type=Path, metavar="FILE.pb", help="or .pbtxt, for people")
    _add_signature(command)
    command = add("convert", "transform", "convert", "a checkpoint to .npz or .safetensors, or back")
    command.add_argument("source", type=Path, metavar="FROM")
    command.add_argument("target", type=Path, metavar="TO")
    command = add("average", "transform", "average", "the mean of several checkpoints' weights, as a new checkpoint")
    command.add_argument("prefixes", type=Path, nargs="+", metavar="PREFIX")
    command.add_argument("--output", type=Path, required=True, metavar="PREFIX", help="of the new one")
    command = add("rename", "transform", "rename", "the same tensors under other names, as a new checkpoint")
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
