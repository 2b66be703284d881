"""What repair and prune share: planned actions, the lock, a directory's contents, the state file.

    with maintenance.held(directory):
        actions = repair.plan_repair(directory)  # or prune.plan_prune(directory, {"max_to_keep": 3})
        for action in actions:
            action.do()

A plan names every file that is changed. Killed at any time and run again, a command ends in the same state.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from checkpointing.errors import CheckpointError, DamagedError, OtherVersionError
from checkpointing.protocol import checkpoint_state, cleanup, lookup, retention, verification
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.storage import durable, layout
from checkpointing.storage.lock import Lock
from checkpointing.tools import inspection
from checkpointing.tools.inspection import CheckpointInfo

Pair = tuple[CheckpointInfo, Manifest | None]


class Action(NamedTuple):
    """One planned change.

    verb: `delete`, `move to quarantine` or `write`.
    names: the files and directories that it changes.
    why: the reason in a few words.
    do: carries it out.
    """

    verb: str
    names: list[str]
    why: str
    do: Callable[[], object]


class Contents(NamedTuple):
    """What a directory holds.

    names: of each prefix's files, by the prefix's name.
    unfinished: for each prefix with an `.incomplete` mark, the action that finishes its deletion or removes the mark.
    found: the checkpoints with their manifests; without those that have only a mark and no manifest.
    """

    names: dict[str, list[str]]
    unfinished: dict[Path, Action]
    found: list[Pair]


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, so that no run uses it meanwhile. A plain Saver takes no lock: stop it first.

    Raises:
      CheckpointError: a run uses it, or there is no such directory.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory", hint="use a directory with checkpoints in it")
    path = directory / layout.LOCK
    existed = path.exists()
    with ExitStack() as stack:
        stack.callback(Lock(directory).release)
        if not existed:  # leave no lock in a plain Saver's directory
            stack.callback(durable.delete, [path])
        yield


def read_contents(directory: Path) -> Contents:
    """Inspect a directory, reading every byte of the checkpoints with a manifest.

    Raises:
      CheckpointError: it holds neither a checkpoint nor part of one.
    """
    names = layout.files_by_prefix(directory)
    unfinished = _unfinished(directory, names)
    found = [
        (each, recorded)
        for each, recorded in inspection.survey(directory)
        if each.prefix not in unfinished or lookup.is_committed(each.prefix)
    ]
    if not found and not unfinished:
        lookup.resolve_checkpoint(directory)  # raises an error that says what is there instead
    return Contents(names, unfinished, found)


def _unfinished(directory: Path, names: Mapping[str, list[str]]) -> dict[Path, Action]:
    """The actions for prefixes with a mark, the same that a run takes when it starts."""
    actions = {}
    for name, files in names.items():
        prefix = directory / name
        mark = layout.incomplete_path(prefix)
        if mark.name not in files or not _is_mark(mark):
            continue
        if lookup.is_committed(prefix):
            why = "a mark left by an interrupted save or deletion"
            actions[prefix] = Action("delete", [mark.name], why, partial(durable.delete, [mark]))
        else:
            why = "left by an interrupted save or deletion"
            actions[prefix] = Action("delete", files, why, partial(cleanup.delete, prefix, files))
    return actions


def _is_mark(path: Path) -> bool:
    """Whether a file is this package's mark. Other programs' downloads end in .incomplete, too, but are not empty."""
    return path.is_file() and (layout.step_of(path.name) is not None or not path.stat().st_size)


def find_problem(checkpoint: CheckpointInfo) -> str | None:
    """What is wrong with a checkpoint. Those without a manifest are verified here.

    Raises:
      CheckpointError: it cannot be read just now.
    """
    if checkpoint.complete is not None:
        return checkpoint.problem
    try:
        verification.verify(checkpoint.prefix)
    except DamagedError as error:
        return str(error)
    except OtherVersionError:  # only that version can verify it
        return None
    return None


def recorded_policy(found: Iterable[Pair]) -> RetentionPolicy | None:
    """The retention policy in the newest manifest, if there is one."""
    newest = [recorded for _, recorded in found if recorded is not None][-1:]
    return retention.recorded(newest[0].retention) if newest else None


def plan_state_file(directory: Path, found: list[Pair], policy: RetentionPolicy | None) -> list[Action]:
    """The action that rewrites the state file, if it lists other checkpoints than it should.

    Args:
      directory: where it is.
      found: the checkpoints that stay.
      policy: the run's retention policy, if known.
    """
    ours = [each for each, recorded in found if recorded is not None]
    staying = [*ours, *(each for each, recorded in found if recorded is None and not lookup.is_ours(each.prefix))]
    if not staying:
        return []
    places = {directory.resolve() / each.prefix.name: each for each in staying}
    listed = [prefix.resolve() for prefix in checkpoint_state.read(directory)]
    if ours:
        # With max_to_keep=0 the manager, like Saver, lists the newest alone.
        kept = ours[-1:] if policy is not None and policy.max_to_keep == 0 else ours
        is_right = [places.get(prefix) for prefix in listed] == kept
    else:
        # A plain Saver's file decides which is the newest, and may list fewer than exist: Saver deletes what it lists.
        newest = checkpoint_state.read_newest(directory)
        kept = _of_one_family(staying, [places[prefix] for prefix in listed if prefix in places], newest)
        is_right = newest is not None and {(directory / newest).resolve(), *listed} <= places.keys()
    if is_right:
        return []
    entries = [(each.prefix, each.saved_at) for each in kept]
    do = partial(checkpoint_state.write, directory, entries, relative_paths=True)
    return [Action("write", [layout.STATE_FILE], f"list what stays, {kept[-1].prefix.name} as the newest", do)]


def _of_one_family(
    staying: list[CheckpointInfo], named: list[CheckpointInfo], newest: str | None
) -> list[CheckpointInfo]:
    """The family that the state file lists, or else that of the last one saved; the newest step last.

    Steps beyond the state file's `newest` are of an earlier run, or a user goes back: only if there are no others.
    """
    name = Path(newest or "").name
    of_file = [each for each in staying if each.prefix.name == name]
    model = max(of_file or named or staying, key=lambda each: each.saved_at)
    same = sorted(
        (each for each in staying if family(each) == family(model)), key=lambda each: layout.by_step(each.prefix)
    )
    return [each for each in same if not name or layout.by_step(each.prefix) <= layout.by_step(Path(name))] or same


def family(checkpoint: CheckpointInfo) -> str:
    """The name of a checkpoint without its step; one Saver's checkpoints share it."""
    return checkpoint.prefix.name.rpartition("-")[0]


def name_files_once(actions: Iterable[Action]) -> list[Action]:
    """Drop a file's name from all actions after the first that has it."""
    named: set[str] = set()
    plan = []
    for action in actions:
        plan.append(action._replace(names=[name for name in action.names if name not in named]))
        named.update(action.names)
    return plan
