"""The commands that change which checkpoints a directory holds: repair, prune, pin, unpin."""

import argparse
from pathlib import Path

from checkpointing.errors import LATER, CheckpointError, listed, reason
from checkpointing.protocol import lookup
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.storage import durable, layout
from checkpointing.tools import maintenance
from checkpointing.tools.maintenance import Action
from checkpointing.tools.output import CommandResult, table
from checkpointing.tools.prune import plan_prune
from checkpointing.tools.repair import plan_repair

_DONE = {"delete": "deleted", "move to quarantine": "moved to quarantine", "write": "written"}


def repair(args: argparse.Namespace) -> CommandResult:
    """Delete leftovers of crashes, move damaged checkpoints to quarantine, and rebuild the state file."""
    with maintenance.held(args.directory):
        return _carry_out(plan_repair(args.directory), dry_run=args.dry_run)


def prune(args: argparse.Namespace) -> CommandResult:
    """Delete the checkpoints that the retention policy does not keep."""
    with maintenance.held(args.directory):
        actions = plan_prune(args.directory, _retention_options(args))
        return _carry_out(actions, dry_run=args.dry_run, otherwise="nothing to do: the policy keeps every checkpoint")


def _retention_options(args: argparse.Namespace) -> dict[str, float]:
    """The fields of RetentionPolicy that the command line sets."""
    options = {name: getattr(args, name) for name in RetentionPolicy._fields if getattr(args, name) is not None}
    for name, value in options.items():
        positive = name == "keep_checkpoint_every_n_hours"
        if not (value > 0 or (value == 0 and not positive)):
            expected = "more than 0" if positive else "0 or more"
            raise CheckpointError(f"--{name}: expected {expected}, got {value}")
    return options


def _carry_out(actions: list[Action], *, dry_run: bool, otherwise: str = "nothing to do") -> CommandResult:
    record = [{"verb": each.verb, "files": each.names, "why": each.why} for each in actions]
    if not actions:
        return CommandResult({"done": False, "actions": record}, otherwise)
    if not dry_run:
        _do(actions)
    rows = [
        {
            "to do" if dry_run else "done": each.verb if number == 0 else "",
            "file": name,
            "why": each.why if number == 0 else "",
        }
        for each in actions
        for number, name in enumerate(each.names)
    ]
    end = ["nothing was changed: --dry_run"] if dry_run else []
    return CommandResult({"done": not dry_run, "actions": record}, "\n".join([table(rows), *end]))


def _do(actions: list[Action]) -> None:
    for number, each in enumerate(actions):
        try:
            each.do()
        except OSError as error:
            done = listed(name for before in actions[:number] for name in before.names) if number else "nothing"
            message = f"{each.names[0]}: cannot be {_DONE[each.verb]} ({_about(error)}); done before: {done}"
            raise CheckpointError(message, hint=LATER) from error


def _about(error: OSError) -> str:
    return f"{error.filename}: {reason(error)}" if isinstance(error.filename, str) else reason(error)


def pin(args: argparse.Namespace) -> CommandResult:
    """Pin checkpoints: retention keeps them."""
    for prefix in args.prefixes:
        _pin(prefix)
    return _result("pinned", args.prefixes)


def unpin(args: argparse.Namespace) -> CommandResult:
    """Unpin checkpoints: the run that owns the train_dir applies its retention to them at its next save."""
    for prefix in args.prefixes:
        _check_is_ours(prefix)
        durable.delete([layout.pinned_path(prefix)])
    return _result("unpinned", args.prefixes)


def _result(verb: str, prefixes: list[Path]) -> CommandResult:
    record = {verb: [str(prefix) for prefix in prefixes]}
    return CommandResult(record, "\n".join(f"{verb} {prefix}" for prefix in prefixes))


def _pin(prefix: Path) -> None:
    _check_is_ours(prefix)
    durable.write(layout.pinned_path(prefix), b"")
    durable.fsync(prefix.parent)
    try:
        _check_is_ours(prefix)  # a run may have deleted it meanwhile
    except CheckpointError:
        durable.delete([layout.pinned_path(prefix)])
        raise


def _check_is_ours(prefix: Path) -> None:
    """Raise CheckpointError unless this is a committed checkpoint with a manifest that no run is deleting."""
    being_deleted = layout.incomplete_path(prefix).exists()
    if lookup.is_ours(prefix) and not being_deleted:
        return
    steps = layout.steps_with(prefix.parent, "manifest.json") if prefix.parent.is_dir() else []
    names = listed(layout.prefix(prefix.parent, step).name for step in steps)
    message = f"{prefix}: no checkpoint with a manifest found; in {prefix.parent} there are {names}"
    raise CheckpointError(message)
