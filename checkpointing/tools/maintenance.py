"""Putting a directory of checkpoints in order by hand: first what would be done, then doing it.

    with upkeep.held(directory):
        actions = upkeep.repairs(directory)         # or prunings(directory, {"max_to_keep": 3})
        for action in actions:
            action.do()

A plan names every file that goes. Nothing without this package's mark is deleted by a repair: it is moved to
`quarantine/`, and only where a complete checkpoint is left. What is pruned was asked for, by its number. Killed at any
time, and given again, each comes to the same end.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from checkpointing.errors import CheckpointError, DamagedError, OtherVersionError
from checkpointing.protocol import checkpoint_state, cleanup, lookup, quarantine, retention, verification
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.retention import Candidate, RetentionPolicy
from checkpointing.storage import durable, layout
from checkpointing.storage.lock import Lock
from checkpointing.tools import inspection
from checkpointing.tools.inspection import CheckpointInfo

_Pair = tuple[CheckpointInfo, Manifest | None]


class Action(NamedTuple):
    """One thing to do.

    verb: `delete`, `move to quarantine` or `write`.
    names: the files and directories that it changes.
    why: in a few words.
    do: does it.
    """

    verb: str
    names: list[str]
    why: str
    do: Callable[[], object]


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Makes sure that no run works in the directory meanwhile. A plain Saver asks for no lock: stop it before.

    Raises:
      CheckpointError: one does, or there is no such directory.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no directory found there; give one with checkpoints in it.")
    path = directory / layout.LOCK
    there = path.exists()
    with ExitStack() as stack:
        stack.callback(Lock(directory).release)
        if not there:  # a plain Saver's directory stays as it was
            stack.callback(durable.delete, [path])
        yield


class _Contents(NamedTuple):
    """What a directory holds, as one search of it finds it.

    names: of the files of each prefix, by the prefix's name.
    unfinished: what deletes or completes those that carry this package's mark.
    found: the checkpoints, but for mere rests, with their manifests.
    """

    names: dict[str, list[str]]
    unfinished: dict[Path, Action]
    found: list[_Pair]


def _contents(directory: Path) -> _Contents:
    """Looks at a directory.

    Raises:
      CheckpointError: there is neither a checkpoint nor a rest of one.
    """
    names = layout.files_by_prefix(directory)
    unfinished = _unfinished(directory, names)
    found = [
        (each, recorded)
        for each, recorded in inspection.survey(directory)
        if each.prefix not in unfinished or lookup.is_committed(each.prefix)
    ]
    if not found and not unfinished:
        lookup.resolve_checkpoint(directory)  # says what is there instead
    return _Contents(names, unfinished, found)


def plan_repair(directory: Path) -> list[Action]:
    """What has to be done for a directory to hold complete checkpoints, and a state file that lists them.

    Raises:
      CheckpointError: none is there, or only damaged ones are: then nothing is touched. Or one cannot be read just now.
    """
    names, unfinished, found = _contents(directory)
    judged = [(each, _problem(each)) for each, _ in found]
    complete = [each for each, problem in judged if problem is None]
    staying = [pair for pair, (_, problem) in zip(found, judged, strict=True) if problem is None]
    damaged = {each.prefix: problem for each, problem in judged if problem is not None}
    # A run does not go on from what somebody else left beside its own.
    left = [each for each in complete if lookup.is_ours(each.prefix) or not any(map(lookup.is_ours, damaged))]
    if damaged and not left:
        told = "; ".join(damaged.values())
        raise CheckpointError(
            f"{directory}: only damaged checkpoints found ({told}): they stay where they are; put a good copy back."
        )
    aside = [_set_aside(prefix, names[prefix.name], problem) for prefix, problem in damaged.items()]
    named = {name for action in [*unfinished.values(), *aside] for name in action.names}
    leftovers = _leftovers(directory, named) if complete else []
    # The state file before what it may name is moved; before that what makes room on a full disk.
    listing = _listing_of(directory, staying, _recorded(found))
    return _without_repetition([*unfinished.values(), *listing, *leftovers, *aside])


def _problem(each: CheckpointInfo) -> str | None:
    """What is wrong with a checkpoint; the listing has looked at the bytes of ours alone.

    Raises:
      CheckpointError: it cannot be read just now.
    """
    if each.complete is not None:
        return each.problem
    try:
        verification.verify(each.prefix)
    except DamagedError as error:
        return str(error)
    except OtherVersionError:  # whatever it is, it is not this version's to judge
        return None
    return None


def _unfinished(directory: Path, names: Mapping[str, list[str]]) -> dict[Path, Action]:
    """What carries this package's mark, by prefix: as when a run starts."""
    actions = {}
    for name, files in names.items():
        prefix = directory / name
        mark = layout.incomplete_path(prefix)
        if mark.name not in files or not _is_mark(mark):
            continue
        if lookup.is_committed(prefix):
            why = "a mark that its save or deletion did not live to delete"
            actions[prefix] = Action("delete", [mark.name], why, partial(durable.delete, [mark]))
        else:
            why = "what an interrupted save or deletion left"
            actions[prefix] = Action("delete", files, why, partial(cleanup.delete, prefix, files))
    return actions


def _is_mark(path: Path) -> bool:
    """Under another name than ours, only what is empty: programs that download call their files so, too."""
    return path.is_file() and (layout.step_of(path.name) is not None or not path.stat().st_size)


def _leftovers(directory: Path, named: Iterable[str]) -> list[Action]:
    """What TensorFlow was writing when it was killed, but for what is named already."""
    found = defaultdict(list)
    for path in sorted(directory.iterdir()):
        name = layout.leftover_of(path)
        whole = _holds_shards(path) if path.name.endswith("_temp") else path.is_file()
        if name and path.name not in named and whole:
            found[name].append(path)
    why = "TensorFlow was killed while it wrote this"
    return [
        Action("move to quarantine", [path.name for path in paths], why, partial(_move, directory, name, paths))
        for name, paths in found.items()
    ]


def _holds_shards(directory: Path) -> bool:
    """Whether this is where TensorFlow writes shards before it merges them; others call directories so, too."""
    paths = list(directory.iterdir()) if directory.is_dir() else []
    return bool(paths) and all(path.name.startswith("part-") and layout.prefix_of(path) for path in paths)


def _move(directory: Path, name: str, paths: list[Path]) -> None:
    durable.move(paths, quarantine.place_for(directory, name))


def _set_aside(prefix: Path, names: list[str], why: str) -> Action:
    return Action("move to quarantine", names, why, partial(quarantine.set_aside, prefix, why, names))


def _without_repetition(actions: Iterable[Action]) -> list[Action]:
    """Names each file once, where it goes first."""
    named: set[str] = set()
    told = []
    for action in actions:
        told.append(action._replace(names=[name for name in action.names if name not in named]))
        named.update(action.names)
    return told


def _recorded(found: Iterable[_Pair]) -> RetentionPolicy | None:
    """What the newest manifest says that is to be kept."""
    newest = [recorded for _, recorded in found if recorded is not None][-1:]
    return retention.recorded(newest[0].retention) if newest else None


def _listing_of(directory: Path, found: list[_Pair], retention: RetentionPolicy | None) -> list[Action]:
    """The state file, where it lists what does not stay, or another one as the newest."""
    ours = [each for each, recorded in found if recorded is not None]
    staying = [*ours, *(each for each, recorded in found if recorded is None and not lookup.is_ours(each.prefix))]
    if not staying:
        return []
    listed = [prefix.resolve() for prefix in checkpoint_state.read(directory)]
    there, in_file = directory.resolve(), set(listed)
    named = [each for each in staying if there / each.prefix.name in in_file]
    # Somebody else's may list fewer than there are: those that it does not list, a Saver does not delete.
    kept = ours or _of_one_name(staying, named)
    if ours and retention is not None and retention.max_to_keep == 0:
        kept = kept[-1:]  # as a run lists them
    expected = [there / each.prefix.name for each in kept]
    if listed[-1:] == expected[-1:] and (listed == expected if ours else len(listed) == len(named)):
        return []
    do = partial(
        checkpoint_state.write, directory, [(each.prefix, each.saved_at) for each in kept], relative_paths=True
    )
    return [Action("write", [layout.STATE_FILE], f"to list what stays, {kept[-1].prefix.name} as the newest", do)]


def _of_one_name(staying: list[CheckpointInfo], named: list[CheckpointInfo]) -> list[CheckpointInfo]:
    """Of checkpoints of several names those that the state file was about, or the newest is of; the newest last."""
    newest = max(named or staying, key=lambda each: each.saved_at)
    same = [each for each in staying if _family(each) == _family(newest)]
    return sorted(same, key=lambda each: (-1 if each.step is None else each.step, each.saved_at))


def _family(each: CheckpointInfo) -> str:
    return each.prefix.name.rpartition("-")[0]


def plan_prune(directory: Path, said: Mapping[str, Any]) -> list[Action]:
    """What has to be deleted so that only what is worth keeping is left.

    Args:
      directory: a train_dir, or a directory of anybody's checkpoints; those of different names are counted apart.
      said: what to keep, by the names of Retention's fields. What is not said is as the run was told, which its
        manifests record. Somebody else's checkpoints are pruned only where `max_to_keep` is said.

    Raises:
      CheckpointError: none is there, one is damaged, or nothing records what to keep: nothing is touched.
    """
    names, unfinished, found = _contents(directory)
    usable = []
    for each, recorded in found:
        problem = _problem(each)
        if problem and recorded is None and lookup.is_ours(each.prefix):
            continue  # what its manifest says is of no use: it is left where it is, and not counted
        if problem:
            message = f"{directory}: {problem}: nothing is pruned before `python -m checkpointing repair {directory}`."
            raise CheckpointError(message)
        usable.append((each, recorded))
    retention = _retention(directory, usable, said)
    families = defaultdict(list)
    for each, recorded in usable:
        ours = lookup.is_ours(each.prefix)
        if recorded is not None or (not ours and "max_to_keep" in said):
            families[_family(each)].append((each, recorded))
    gone = {each.prefix for family in families.values() for each in _not_worth_keeping(family, retention)}
    deletions = [
        Action("delete", names[prefix.name], "not among those to keep", partial(_delete, prefix, names[prefix.name]))
        for prefix in sorted(gone, key=layout.by_step)
    ]
    # First the state file, so that it never names a checkpoint that is gone.
    staying = [(each, recorded) for each, recorded in usable if each.prefix not in gone]
    listing = _listing_of(directory, staying, retention) if gone else []
    return _without_repetition([*unfinished.values(), *listing, *deletions])


def _retention(directory: Path, found: Iterable[_Pair], said: Mapping[str, Any]) -> RetentionPolicy:
    recorded = _recorded(found)
    told = {**(recorded._asdict() if recorded else {}), **said}
    if "max_to_keep" not in told:
        message = f"{directory}: nothing records how many checkpoints to keep: give --max_to_keep=N."
        raise CheckpointError(message)
    return RetentionPolicy(**told)


def _not_worth_keeping(family: list[_Pair], policy: RetentionPolicy) -> list[CheckpointInfo]:
    """Of checkpoints of the same name."""
    candidates = [
        Candidate(
            each.step,
            recorded.training_seconds if recorded else _clock(each, policy),
            each.score,
            pinned=layout.pinned_path(each.prefix).exists(),
        )
        for each, recorded in family
        if each.step is not None
    ]
    keep = retention.checkpoints_to_keep(candidates, policy)
    return [each for each, _ in family if each.step is not None and each.step not in keep]


def _clock(each: CheckpointInfo, policy: RetentionPolicy) -> float:
    """Where no manifest holds the run's clock, the time of day: it does not begin anew when the oldest is gone."""
    hours = policy.keep_checkpoint_every_n_hours
    return each.saved_at if hours < RetentionPolicy(0).keep_checkpoint_every_n_hours else 0.0


def _delete(prefix: Path, names: list[str]) -> None:
    if not lookup.is_ours(prefix):
        durable.write(layout.incomplete_path(prefix), b"")
        durable.fsync(prefix.parent)
        durable.delete([layout.index_path(prefix)])
    cleanup.retire(prefix, names)
