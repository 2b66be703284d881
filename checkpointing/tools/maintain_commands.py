"""The commands that put a directory of checkpoints in order: repair, prune, pin, unpin."""

import argparse
from pathlib import Path

from tabulate import tabulate

from checkpointing.errors import CheckpointError, reason
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.storage import durable, layout
from checkpointing.tools import maintenance
from checkpointing.tools.maintenance import Action
from checkpointing.tools.output import CommandResult

_DONE = {"delete": "deleted", "move to quarantine": "moved to quarantine", "write": "written"}


def repair(given: argparse.Namespace) -> CommandResult:
    """Sweeps what crashes left, sets damaged checkpoints aside, and rebuilds the state file."""
    with maintenance.held(given.directory):
        return _carried_out(maintenance.plan_repair(given.directory), dry_run=given.dry_run)


def prune(given: argparse.Namespace) -> CommandResult:
    """Deletes the checkpoints that are not worth keeping."""
    with maintenance.held(given.directory):
        actions = maintenance.plan_prune(given.directory, _said(given))
        return _carried_out(actions, dry_run=given.dry_run, otherwise="nothing to do: each is worth keeping")


def _said(given: argparse.Namespace) -> dict[str, float]:
    """What the command line says of what to keep."""
    said = {name: getattr(given, name) for name in RetentionPolicy._fields if getattr(given, name) is not None}
    for name, value in said.items():
        wanted = "more than 0" if name == "keep_checkpoint_every_n_hours" else "0 or more"
        if not (value > 0 or (value == 0 and wanted == "0 or more")):
            raise CheckpointError(f"--{name}: {value} found, {wanted} wanted.")
    return said


def _carried_out(actions: list[Action], *, dry_run: bool, otherwise: str = "nothing to do") -> CommandResult:
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
    table = tabulate(rows, headers="keys", disable_numparse=True)
    return CommandResult({"done": not dry_run, "actions": record}, "\n".join([table, *end]))


def _do(actions: list[Action]) -> None:
    for number, each in enumerate(actions):
        try:
            each.do()
        except OSError as error:
            done = ", ".join(name for before in actions[:number] for name in before.names) or "nothing"
            message = (
                f"{each.names[0]}: cannot be {_DONE[each.verb]} ({_about(error)}); done before: {done}. "
                f"See to it, and give the same command again."
            )
            raise CheckpointError(message) from error


def _about(error: OSError) -> str:
    return f"{error.filename}: {reason(error)}" if isinstance(error.filename, str) else reason(error)


def pin(given: argparse.Namespace) -> CommandResult:
    """Keeps these checkpoints, whatever rotation says."""
    for prefix in given.prefixes:
        pin_one(prefix)
    return _told("pinned", given.prefixes)


def unpin(given: argparse.Namespace) -> CommandResult:
    """Leaves them to rotation again."""
    for prefix in given.prefixes:
        unpin_one(prefix)
    return _told("unpinned", given.prefixes)


def _told(what: str, prefixes: list[Path]) -> CommandResult:
    return CommandResult(
        {what: [str(prefix) for prefix in prefixes]}, "\n".join(f"{what} {prefix}" for prefix in prefixes)
    )


def pin_one(prefix: Path) -> None:
    """Marks a checkpoint as one to keep.

    Raises:
      CheckpointError: there is no such checkpoint, or rotation was faster.
    """
    _check_is_ours(prefix)
    durable.write(layout.pinned_path(prefix), b"")
    durable.fsync(prefix.parent)
    try:
        _check_is_ours(prefix)
    except CheckpointError:
        durable.delete([layout.pinned_path(prefix)])
        raise


def unpin_one(prefix: Path) -> None:
    """Takes the mark away; the run that owns the train_dir rotates the checkpoint when it saves the next one.

    Raises:
      CheckpointError: there is no such checkpoint.
    """
    _check_is_ours(prefix)
    durable.delete([layout.pinned_path(prefix)])


def _check_is_ours(prefix: Path) -> None:
    going = layout.incomplete_path(prefix).exists()  # being deleted by the run
    if layout.step_of(prefix.name + ".index") is not None and layout.manifest_path(prefix).exists() and not going:
        return
    there = layout.steps_with(prefix.parent, "manifest.json") if prefix.parent.is_dir() else []
    listed = ", ".join(layout.prefix(prefix.parent, step).name for step in there) or "none"
    message = f"{prefix}: no checkpoint of this program's found; in {prefix.parent} there are {listed}."
    raise CheckpointError(message)
