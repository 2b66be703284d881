"""Where a run goes on: what lies in its train_dir, and whether it may be continued.

    start = resume.find_start(train_dir, settings, restore_from=None, may_grow=("train_steps",))

No TensorFlow is needed to find out, so whoever may not go on is told at once.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from checkpointing import durable, layout, manifest
from checkpointing.errors import CheckpointError
from checkpointing.fingerprint import file_sha256
from checkpointing.manifest import Manifest

_log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where a run goes on.

    prefix: the checkpoint to restore; None to start from the beginning.
    newest: the manifest of the train_dir's newest checkpoint; None where there is none.
    started_from: as in the manifest, for those to come.
    """

    prefix: Path | None
    newest: Manifest | None
    started_from: str | None


def find_start(
    directory: Path, settings: dict[str, Any], *, restore_from: Path | None, may_grow: tuple[str, ...]
) -> Start:
    """Makes the train_dir ready to go on, and says from where.

    A train_dir is one run, and goes on from its newest checkpoint. `restore_from` says where a new one starts; once it
    has checkpoints of its own, the same command goes on from those. What an interrupted save or deletion left goes.

    Args:
      directory: the train_dir; made where it is missing.
      settings: all that the weights are a function of; they must be those that the train_dir was made with.
      restore_from: the prefix of a checkpoint, or None.
      may_grow: the settings that may be larger than they were.

    Raises:
      CheckpointError: other settings, files that are not ours, or no checkpoint where restore_from points.
    """
    if restore_from is not None:
        _check_is_checkpoint(restore_from)
    try:
        durable.make_directory(directory)
    except OSError as error:
        message = f"{directory}: cannot be made a directory ({error.strerror}); give another --train_dir."
        raise CheckpointError(message) from error
    sweep(directory)
    manifests = manifest.read_all(directory)
    if not manifests:
        return Start(restore_from, None, file_sha256(layout.index_path(restore_from)) if restore_from else None)
    newest = manifests[-1]
    _check_settings(directory, newest, settings, may_grow)
    prefix = layout.prefix(directory, newest.step)
    if (
        restore_from is not None
        and restore_from.resolve() != prefix.resolve()
        and file_sha256(layout.index_path(restore_from)) != newest.started_from
    ):
        message = (
            f"{directory}: checkpoints up to step {newest.step} found, which did not start from {restore_from}: "
            f"give a new --train_dir to start from there, or leave out --restore_from to go on from step {newest.step}."
        )
        raise CheckpointError(message)
    return Start(prefix, newest, newest.started_from)


def sweep(directory: Path) -> None:
    """Deletes what an interrupted save or deletion of ours left: it carries a mark, and has no manifest.

    Raises:
      CheckpointError: checkpoint files without manifest and without mark are there: somebody else's, not to be lost.
    """
    complete = set(layout.steps_with(directory, "manifest.json"))
    for step in layout.steps_with(directory, "incomplete"):
        prefix = layout.prefix(directory, step)
        mark = layout.incomplete_path(prefix)
        if step not in complete:
            _log.info("%s: deleting what an interrupted save or deletion left", prefix)
            durable.delete(path for path in layout.files_of(prefix) if path != mark)
        durable.delete([mark])
    foreign = [step for step in layout.steps_with(directory, "index") if step not in complete]
    if foreign:
        message = (
            f"{directory}: {layout.prefix(directory, foreign[-1]).name} found without a manifest, so it was not made "
            f"by this program: give a new --train_dir, and --restore_from={layout.prefix(directory, foreign[-1])}."
        )
        raise CheckpointError(message)


def _check_is_checkpoint(prefix: Path) -> None:
    """Refuses what is no checkpoint, or only the beginning of one, which the sweep would delete."""
    if _is_checkpoint(prefix):
        return
    directory = prefix if prefix.is_dir() else prefix.parent
    there = [path.with_suffix("") for path in directory.glob("*.index")]
    names = [path.name for path in there if _is_checkpoint(path)]
    listed = ", ".join(sorted(names, key=lambda name: (len(name), name))) or "none"
    message = (
        f"{prefix}: no checkpoint found; give the prefix of one (its files' name without .index or .data): "
        f"in {directory} there are {listed}."
    )
    raise CheckpointError(message)


def _is_checkpoint(prefix: Path) -> bool:
    """Also somebody else's, which has no manifest, but not one of ours that is unfinished."""
    if not prefix.name or not layout.index_path(prefix).is_file():
        return False
    return layout.manifest_path(prefix).exists() or not layout.incomplete_path(prefix).exists()


def _check_settings(directory: Path, newest: Manifest, settings: dict[str, Any], may_grow: tuple[str, ...]) -> None:
    recorded = newest.settings
    differences = [
        f"{name} {recorded.get(name)} (now {settings.get(name)})"
        for name in sorted({*recorded, *settings})
        if recorded.get(name) != settings.get(name)
        and not (name in may_grow and name in recorded and recorded[name] < settings[name])
    ]
    if differences:
        message = (
            f"{directory}: was made with {', '.join(differences)}: "
            f"give the settings that it was made with, or a new --train_dir."
        )
        raise CheckpointError(message)
    now = manifest.versions()
    if newest.versions != now:
        _log.warning("%s was made with %s, now %s: the last bits may differ", directory, newest.versions, now)
