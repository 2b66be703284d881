"""Inspect, repair and convert checkpoints.

Exit status: 0 done; 1 an error, or something is damaged or different; 2 wrong usage.
No command needs the code that built the graph; most need no TensorFlow.
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

_PREFIX = "prefix of a checkpoint, for example DIR/model.ckpt-100; or a directory, for its newest checkpoint"
_NEW_PREFIX = "prefix of the new checkpoint"
_DIRECTORY = "train_dir, or any directory with checkpoints"

# Adds a command: its name, the module checkpointing.tools.<group>_commands, the function in it, its help.
_Add = Callable[[str, str, str, str], argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args = _parser().parse_args(arguments)
    return cli.run_tool(lambda: _run(args), debug=args.debug)


def _run(args: argparse.Namespace) -> int:
    from checkpointing.tools.output import as_json  # noqa: PLC0415 - --help does not need it

    result = _command(args.group, args.command)(args)
    text = as_json(result.record) if args.json else result.text
    if text:
        cli.print_result(text)
    return result.status


def _command(group: str, name: str) -> Callable[[argparse.Namespace], CommandResult]:
    if group == "transform":
        tf_import.import_tensorflow()
    function: Callable[[argparse.Namespace], CommandResult] = getattr(
        importlib.import_module(f"checkpointing.tools.{group}_commands"), name
    )
    return function


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m checkpointing", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def add(name: str, group: str, function: str, meaning: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(group=group, command=function)
        return command

    _add_inspecting(add)
    _add_maintaining(add)
    _add_transforming(add)
    return parser


def _add_inspecting(add: _Add) -> None:
    command = add("list", "inspect", "list_checkpoints", "list checkpoints: age, size, completeness, score, why kept")
    command.add_argument("directory", type=Path, metavar="DIR", help=_DIRECTORY)
    command = add("show", "show", "show", "show the tensors of a checkpoint, or the signatures of a SavedModel")
    command.add_argument("path", type=Path, metavar="PREFIX", help=f"{_PREFIX}; or a SavedModel's directory")
    command.add_argument("--tensor", metavar="NAME", help="show this tensor only, with a histogram and its values")
    command.add_argument("--stats", action="store_true", help="show minimum, mean, maximum, zeros, NaNs and infinities")
    command = add("verify", "inspect", "verify", "read every byte; exit status 1 and the file's name if one is wrong")
    command.add_argument("path", type=Path, metavar="DIR_OR_PREFIX", help=_PREFIX)
    command.add_argument("--all", action="store_true", help="verify every checkpoint of the directory")
    command = add("diff", "show", "diff", "compare the tensors of two checkpoints; exit status 1 if any differs")
    command.add_argument("one", type=Path, metavar="A", help=_PREFIX)
    command.add_argument("other", type=Path, metavar="B", help=f"the other checkpoint: {_PREFIX}")
    command = add("history", "inspect", "show_history", "list a run's attempts, and the share of useful work")
    command.add_argument("directory", type=Path, metavar="DIR", help="train_dir of a run")
    command = add("watch", "inspect", "watch", "show a run's state, on a terminal until Ctrl-C, otherwise once")
    command.add_argument("directory", type=Path, metavar="DIR", help="train_dir of a run")
    command.add_argument("--seconds", type=float, default=1.0, help="seconds between two updates; default 1")


def _add_maintaining(add: _Add) -> None:
    meaning = "delete leftovers of crashes, quarantine damaged checkpoints, rebuild the state file"
    command = add("repair", "maintain", "repair", meaning)
    command.add_argument("directory", type=Path, metavar="DIR", help=_DIRECTORY)
    command.add_argument("--dry_run", action="store_true", help="print the plan and change nothing")
    command = add("prune", "maintain", "prune", "delete the checkpoints that the retention policy does not keep")
    command.add_argument("directory", type=Path, metavar="DIR", help=_DIRECTORY)
    unset = "unset: as recorded by the run"
    command.add_argument("--max_to_keep", type=int, metavar="N", help=f"keep the newest N; 0 keeps all; {unset}")
    command.add_argument("--keep_best", type=int, metavar="N", help=f"also keep the N with the best score; {unset}")
    name = "--keep_checkpoint_every_n_hours"
    command.add_argument(name, type=float, metavar="N", help=f"also keep one for every N hours of training; {unset}")
    command.add_argument("--dry_run", action="store_true", help="print the plan and change nothing")
    for name, meaning in (
        ("pin", "pin checkpoints: retention keeps them"),
        ("unpin", "unpin checkpoints: retention applies to them again"),
    ):
        command = add(name, "maintain", name, meaning)
        prefixes = "prefixes of checkpoints, for example DIR/model.ckpt-100"
        command.add_argument("prefixes", type=Path, nargs="+", metavar="PREFIX", help=prefixes)


def _add_transforming(add: _Add) -> None:
    command = add("export", "transform", "export", "export a checkpoint and its graph as a SavedModel")
    command.add_argument("prefix", type=Path, metavar="PREFIX", help=_PREFIX)
    command.add_argument("directory", type=Path, metavar="DIR", help="directory of the SavedModel; it must not exist")
    tags = "tag to export, may be repeated: serve, the default, for the inference graph; train for the whole graph"
    command.add_argument("--tags", action="append", metavar="TAG", help=tags)
    command.add_argument("--as_text", action="store_true", help="write saved_model.pbtxt instead of saved_model.pb")
    _add_signature(command)
    command = add(
        "freeze", "transform", "freeze", "write a checkpoint's graph as one file, with variables as constants"
    )
    command.add_argument("prefix", type=Path, metavar="PREFIX", help=_PREFIX)
    command.add_argument("file", type=Path, metavar="FILE.pb", help="file to write; .pbtxt writes text")
    _add_signature(command)
    command = add("convert", "transform", "convert", "convert a checkpoint to .npz or .safetensors, or back")
    either = "prefix of a checkpoint, or a .npz or .safetensors file"
    command.add_argument("source", type=Path, metavar="FROM", help=either)
    command.add_argument("target", type=Path, metavar="TO", help=f"{either}; it must not exist")
    command = add("average", "transform", "average", "average the weights of checkpoints into a new checkpoint")
    command.add_argument("prefixes", type=Path, nargs="+", metavar="PREFIX", help=_PREFIX)
    command.add_argument("--output", type=Path, required=True, metavar="PREFIX", help=_NEW_PREFIX)
    command = add("rename", "transform", "rename", "rename tensors in a new checkpoint")
    command.add_argument("prefix", type=Path, metavar="PREFIX", help=_PREFIX)
    names = "a tensor or a scope and its new name, for example layer1=hidden"
    command.add_argument("names", type=_pair, nargs="+", metavar="OLD=NEW", help=names)
    command.add_argument("--output", type=Path, required=True, metavar="PREFIX", help=_NEW_PREFIX)


def _add_signature(command: argparse.ArgumentParser) -> None:
    """Add the flags for graphs without a signature, and for graphs that are refused without --trust."""
    for name, verb in (("input", "feed"), ("output", "fetch")):
        meaning = f"tensor to {verb}, for a graph without a signature; may be repeated"
        command.add_argument(f"--{name}", type=_pair, action="append", default=[], metavar="NAME=TENSOR", help=meaning)
    command.add_argument("--trust", action="store_true", help="load a graph that can touch files (SECURITY.md)")


def _pair(text: str) -> tuple[str, str]:
    before, sign, after = text.partition("=")
    if not (before and sign and after):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW or NAME=TENSOR, got {text!r}")
    return before, after


if __name__ == "__main__":
    sys.exit(main())
