"""Plan the deletion of checkpoints that a retention policy does not keep."""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from checkpointing.errors import CheckpointError
from checkpointing.protocol import cleanup, lookup, retention
from checkpointing.protocol.retention import Candidate, RetentionPolicy
from checkpointing.storage import durable, layout
from checkpointing.tools import maintenance
from checkpointing.tools.inspection import CheckpointInfo
from checkpointing.tools.maintenance import Action, Pair


def plan_prune(directory: Path, options: Mapping[str, Any]) -> list[Action]:
    """Plan the deletions that leave only what the retention policy keeps.

    Args:
      directory: a train_dir, or any directory with checkpoints; those of different families are counted apart.
      options: fields of RetentionPolicy that replace those in the newest manifest. Checkpoints without a manifest are
        deleted only if `max_to_keep` is among them.

    Raises:
      CheckpointError: there is no checkpoint, one is damaged, or `max_to_keep` is unknown.
    """
    names, unfinished, found = maintenance.read_contents(directory)
    usable = _usable(directory, found)
    policy = _policy(directory, usable, options)
    families = defaultdict(list)
    for each, recorded in usable:
        if recorded is not None or (not lookup.is_ours(each.prefix) and "max_to_keep" in options):
            families[maintenance.family(each)].append((each, recorded))
    gone = {each.prefix for pairs in families.values() for each in _not_kept(pairs, policy)}
    gone -= {lookup.newest_in(directory)}  # a plain Saver's state file may name another than the highest step
    why = "not kept by the retention policy"
    deletions = [
        Action("delete", names[prefix.name], why, partial(_delete, prefix, names[prefix.name]))
        for prefix in sorted(gone, key=layout.by_step)
    ]
    # The state file first: it must not name a deleted checkpoint.
    staying = [(each, recorded) for each, recorded in usable if each.prefix not in gone]
    state_file = maintenance.plan_state_file(directory, staying, policy) if gone else []
    return maintenance.name_files_once([*unfinished.values(), *state_file, *deletions])


def _usable(directory: Path, found: list[Pair]) -> list[Pair]:
    """The checkpoints that count. One whose manifest is damaged neither counts nor is deleted."""
    usable = []
    for each, recorded in found:
        problem = maintenance.find_problem(each)
        if problem and recorded is None and lookup.is_ours(each.prefix):
            continue
        if problem:
            raise CheckpointError(
                f"{directory}: {problem}; nothing was deleted",
                hint=f"run `python -m checkpointing repair {directory}` first",
            )
        usable.append((each, recorded))
    return usable


def _policy(directory: Path, usable: list[Pair], options: Mapping[str, Any]) -> RetentionPolicy:
    recorded = maintenance.recorded_policy(usable)
    fields = {**(recorded._asdict() if recorded else {}), **options}
    if "max_to_keep" not in fields:
        message = f"{directory}: no manifest records how many checkpoints to keep"
        raise CheckpointError(message, hint="use --max_to_keep=N")
    return RetentionPolicy(**fields)


def _not_kept(pairs: list[Pair], policy: RetentionPolicy) -> list[CheckpointInfo]:
    """The checkpoints of one family that the policy does not keep; those without a step are kept."""
    candidates = [
        Candidate(
            each.step,
            recorded.training_seconds if recorded else _clock(each, policy),
            each.score,
            pinned=layout.pinned_path(each.prefix).exists(),
        )
        for each, recorded in pairs
        if each.step is not None
    ]
    keep = retention.checkpoints_to_keep(candidates, policy)
    return [each for each, _ in pairs if each.step is not None and each.step not in keep]


def _clock(checkpoint: CheckpointInfo, policy: RetentionPolicy) -> float:
    """The time of a checkpoint without a manifest, for `keep_checkpoint_every_n_hours`: when it was saved."""
    hours = policy.keep_checkpoint_every_n_hours
    return checkpoint.saved_at if hours < RetentionPolicy(0).keep_checkpoint_every_n_hours else 0.0


def _delete(prefix: Path, names: list[str]) -> None:
    if not lookup.is_ours(prefix):
        # Mark it, then delete the index by which it exists: killed here, `repair` deletes the rest.
        durable.write(layout.incomplete_path(prefix), b"")
        durable.fsync(prefix.parent)
        durable.delete([layout.index_path(prefix)])
    cleanup.delete_unless_pinned(prefix, names)
