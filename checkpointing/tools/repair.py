"""Plan the repair of a directory of checkpoints.

Only files with this package's mark are deleted. Damaged checkpoints are moved to `quarantine/`, and only if a complete
one remains.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from checkpointing.errors import CheckpointError, listed
from checkpointing.protocol import lookup, quarantine
from checkpointing.storage import durable, layout
from checkpointing.tools import maintenance
from checkpointing.tools.maintenance import Action


def plan_repair(directory: Path) -> list[Action]:
    """Plan what leaves only complete checkpoints in a directory, and a state file that lists them.

    Raises:
      CheckpointError: there is no checkpoint, or only damaged ones, or one cannot be read just now.
    """
    names, unfinished, found = maintenance.read_contents(directory)
    problems = {each.prefix: maintenance.find_problem(each) for each, _ in found}
    damaged = {prefix: problem for prefix, problem in problems.items() if problem is not None}
    staying = [pair for pair in found if pair[0].prefix not in damaged]
    # A plain Saver's complete checkpoint is no substitute: a run does not resume from it if it has damaged ones.
    usable = [each for each, _ in staying if lookup.is_ours(each.prefix) or not any(map(lookup.is_ours, damaged))]
    if damaged and not usable:
        raise CheckpointError(
            f"{directory}: only damaged checkpoints found ({listed(damaged.values(), '; ')}); nothing was moved",
            hint="put a good copy back",
        )
    aside = [_set_aside(prefix, names[prefix.name], problem) for prefix, problem in damaged.items()]
    named = {name for action in [*unfinished.values(), *aside] for name in action.names}
    leftovers = _leftovers(directory, named) if staying else []
    # Deletions first: they make room on a full disk. The state file before the moves: it must not name what has moved.
    state_file = maintenance.plan_state_file(directory, staying, maintenance.recorded_policy(found))
    return maintenance.name_files_once([*unfinished.values(), *state_file, *leftovers, *aside])


def _leftovers(directory: Path, named: Iterable[str]) -> list[Action]:
    """Moves of TensorFlow's temporary files, except those named already."""
    found = defaultdict(list)
    for path in sorted(directory.iterdir()):
        name = layout.leftover_of(path)
        is_temporary = _holds_only_saver_shards(path) if path.name.endswith("_temp") else path.is_file()
        if name and path.name not in named and is_temporary:
            found[name].append(path)
    why = "TensorFlow was killed while it wrote this"
    return [
        Action("move to quarantine", [path.name for path in paths], why, partial(_move, directory, name, paths))
        for name, paths in found.items()
    ]


def _holds_only_saver_shards(directory: Path) -> bool:
    """Whether a directory holds shards of a Saver, nothing else; other programs, too, use names that end in _temp."""
    paths = list(directory.iterdir()) if directory.is_dir() else []
    return bool(paths) and all(path.name.startswith("part-") and layout.prefix_of(path) for path in paths)


def _move(directory: Path, name: str, paths: list[Path]) -> None:
    durable.move(paths, quarantine.place_for(directory, name))


def _set_aside(prefix: Path, names: list[str], why: str) -> Action:
    return Action("move to quarantine", names, why, partial(quarantine.set_aside, prefix, why, names))
