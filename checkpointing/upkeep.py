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

from checkpointing import durable, inspection, layout, manifest, quarantine, retirement, rotation, state_file
from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.inspection import Listed
from checkpointing.lock import Lock
from checkpointing.rotation import Candidate, Retention


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


def repairs(directory: Path) -> list[Action]:
    """What has to be done for a directory to hold complete checkpoints, and a state file that lists them.

    Raises:
      CheckpointError: none is there, or only damaged ones are: then nothing is touched.
    """
    unfinished = _unfinished(directory)
    judged = [(each, _problem(each)) for each in _listed(directory, unfinished)]
    complete = [each for each, problem in judged if problem is None]
    damaged = {each.prefix: problem for each, problem in judged if problem is not None}
    # A run does not go on from what somebody else left beside its own.
    left = [each for each in complete if inspection.is_ours(each.prefix) or not any(map(inspection.is_ours, damaged))]
    if damaged and not left:
        told = "; ".join(damaged.values())
        raise CheckpointError(
            f"{directory}: only damaged checkpoints found ({told}): they stay where they are; put a good copy back."
        )
    aside = [_set_aside(prefix, problem) for prefix, problem in damaged.items()]
    named = {name for action in [*unfinished.values(), *aside] for name in action.names}
    leftovers = _leftovers(directory, named) if complete else []
    # The state file before what it may name is moved; before that what makes room on a full disk.
    return _without_repetition([*unfinished.values(), *_listing_of(directory, complete), *leftovers, *aside])


def _listed(directory: Path, unfinished: Mapping[Path, Action]) -> list[Listed]:
    """The checkpoints but for those that are no more than a rest.

    Raises:
      CheckpointError: neither the one nor the other is there.
    """
    listed = [
        each
        for each in inspection.listing(directory)
        if each.prefix not in unfinished or inspection.is_committed(each.prefix)
    ]
    if not listed and not unfinished:
        inspection.find_prefix(directory)  # says what is there instead
    return listed


def _problem(each: Listed) -> str | None:
    """What is wrong with a checkpoint; the listing has looked at the bytes of ours alone."""
    if each.complete is not None:
        return each.problem
    try:
        inspection.verify(each.prefix)
    except DamagedError as error:
        return str(error)
    return None


def _unfinished(directory: Path) -> dict[Path, Action]:
    """What carries this package's mark, by prefix: as when a run starts."""
    actions = {}
    for mark in sorted(directory.iterdir()):
        prefix = layout.prefix_of(mark)
        if prefix is None or mark != layout.incomplete_path(prefix) or not _is_mark(mark):
            continue
        if inspection.is_committed(prefix):
            why = "a mark that its save or deletion did not live to delete"
            actions[prefix] = Action("delete", [mark.name], why, partial(durable.delete, [mark]))
        else:
            why = "what an interrupted save or deletion left"
            actions[prefix] = Action("delete", _names(prefix), why, partial(retirement.delete, prefix))
    return actions


def _is_mark(path: Path) -> bool:
    """Under another name than ours, only what is empty: programs that download call their files so, too."""
    return path.is_file() and (layout.step_of(path.name) is not None or not path.stat().st_size)


def _names(prefix: Path) -> list[str]:
    return [path.name for path in layout.files_of(prefix)]


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


def _set_aside(prefix: Path, why: str) -> Action:
    return Action("move to quarantine", _names(prefix), why, partial(quarantine.set_aside, prefix, why))


def _without_repetition(actions: Iterable[Action]) -> list[Action]:
    """Names each file once, where it goes first."""
    named: set[str] = set()
    told = []
    for action in actions:
        told.append(action._replace(names=[name for name in action.names if name not in named]))
        named.update(action.names)
    return told


def _listing_of(directory: Path, staying: list[Listed]) -> list[Action]:
    """The state file, where it lists what does not stay, or another one as the newest."""
    if not staying:
        return []
    listed = [prefix.resolve() for prefix in state_file.read(directory)]
    ours = [each for each in staying if inspection.is_ours(each.prefix)]
    named = [each for each in staying if each.prefix.resolve() in listed]
    # Somebody else's may list fewer than there are: those that it does not list, a Saver does not delete.
    kept = ours or _of_one_name(staying, named)
    wanted = [each.prefix.resolve() for each in kept]
    if listed[-1:] == wanted[-1:] and (listed == wanted if ours else len(listed) == len(named)):
        return []
    do = partial(state_file.write, directory, [(each.prefix, each.saved_at) for each in kept], relative_paths=True)
    return [Action("write", [layout.STATE_FILE], f"to list what stays, {kept[-1].prefix.name} as the newest", do)]


def _of_one_name(staying: list[Listed], named: list[Listed]) -> list[Listed]:
    """Of checkpoints of several names those that the state file was about, or the newest is of; the newest last."""
    newest = max(named or staying, key=lambda each: each.saved_at)
    same = [each for each in staying if _family(each) == _family(newest)]
    return sorted(same, key=lambda each: (-1 if each.step is None else each.step, each.saved_at))


def _family(each: Listed) -> str:
    return each.prefix.name.rpartition("-")[0]


def prunings(directory: Path, said: Mapping[str, Any]) -> list[Action]:
    """What has to be deleted so that only what is worth keeping is left.

    Args:
      directory: a train_dir, or a directory of anybody's checkpoints; those of different names are counted apart.
      said: what to keep, by the names of Retention's fields. What is not said is as the run was told, which its
        manifests record. Somebody else's checkpoints are pruned only where `max_to_keep` is said.

    Raises:
      CheckpointError: none is there, one is damaged, or nothing records what to keep: nothing is touched.
    """
    unfinished = _unfinished(directory)
    listed = _listed(directory, unfinished)
    for each in listed:
        problem = _problem(each)
        if problem:
            message = f"{directory}: {problem}: nothing is pruned before `python -m checkpointing repair {directory}`."
            raise CheckpointError(message)
    retention = _retention(directory, said)
    families = defaultdict(list)
    for each in listed:
        if inspection.is_ours(each.prefix) or "max_to_keep" in said:
            families[_family(each)].append(each)
    going = [each for family in families.values() for each in _not_worth_keeping(family, retention)]
    deletions = [
        Action("delete", _names(each.prefix), "not among those to keep", partial(_delete, each.prefix))
        for each in going
    ]
    # First the state file, so that it never names a checkpoint that is gone.
    listing = _listing_of(directory, [each for each in listed if each not in going]) if going else []
    return _without_repetition([*unfinished.values(), *listing, *deletions])


def _retention(directory: Path, said: Mapping[str, Any]) -> Retention:
    manifests, _ = manifest.read_all(directory)
    recorded = (manifests[-1].retention if manifests else None) or {}
    if "max_to_keep" not in {**recorded, **said}:
        message = f"{directory}: nothing records how many checkpoints to keep: give --max_to_keep=N."
        raise CheckpointError(message)
    return Retention(**{**recorded, **said})


def _not_worth_keeping(family: list[Listed], retention: Retention) -> list[Listed]:
    """Of checkpoints of the same name."""
    candidates = [
        Candidate(each.step, _clock(each, retention), each.score, pinned=layout.pinned_path(each.prefix).exists())
        for each in family
        if each.step is not None
    ]
    keep = rotation.survivors(candidates, retention)
    return [each for each in family if each.step is not None and each.step not in keep]


def _clock(each: Listed, retention: Retention) -> float:
    """Where no manifest holds the run's clock, the time of day: it does not begin anew when the oldest is gone."""
    if inspection.is_ours(each.prefix):
        return manifest.Manifest.read(layout.manifest_path(each.prefix)).training_seconds
    hours = retention.keep_checkpoint_every_n_hours
    return each.saved_at if hours < Retention(0).keep_checkpoint_every_n_hours else 0.0


def _delete(prefix: Path) -> None:
    if not inspection.is_ours(prefix):
        durable.write(layout.incomplete_path(prefix), b"")
        durable.sync(prefix.parent)
        durable.delete([layout.index_path(prefix)])
    retirement.retire(prefix)
