"""Find the checkpoint that a path names, and whether it is committed.

    prefix = lookup.resolve_checkpoint(path)  # a prefix, one of its files, a train_dir, a SavedModel
    prefix = lookup.choose_checkpoint(directory, "best")  # or "latest", or a step

Works for checkpoints of this package, which have a manifest, and for those of a plain Saver, tf.train.Checkpoint or
SavedModelBuilder. TensorFlow is not needed.
"""

import logging
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from checkpointing.errors import CheckpointError, listed, reason
from checkpointing.protocol import checkpoint_state, manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout, regular_file

DATA_FILE = re.compile(r"\.data-\d{5}-of-(\d{5})$", re.ASCII)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_KERAS = {".h5", ".keras"}
_MOST_DIGITS = 18  # of a step

_log = logging.getLogger(__name__)


def resolve_checkpoint(path: Path, *, warn: Callable[[str], None] = _log.warning) -> Path:
    """Return the prefix of the checkpoint that a path names.

    Args:
      path: a prefix; one of a checkpoint's files; a directory, for the newest checkpoint in it; or the directory of a
        SavedModel, whose variables are a checkpoint.
      warn: called with a message if the newest one is uncertain.

    Raises:
      CheckpointError: there is none; the message lists those in the same directory, or names the missing file.
    """
    if path.is_dir() and not (path.name and layout.index_path(path).is_file()):
        return _newest_in(path, warn)
    prefix = layout.prefix_of(path) or path
    names = {each.name for each in prefix.parent.iterdir()} if prefix.parent.is_dir() else set()
    if not any(name.startswith((f"{prefix.name}.index", f"{prefix.name}.data-")) for name in names):
        raise _other_format_error(path) if path.is_file() else _missing_error(prefix)
    missing = missing_file(prefix.name, names)
    if missing:
        raise CheckpointError(f"{prefix}: {missing} is missing", hint="put a good copy back")
    return prefix


def newest_of_run(train_dir: Path) -> tuple[Path, Manifest]:
    """Return the prefix and the manifest of the newest checkpoint of a run.

    Raises:
      CheckpointError: there is none, or another program wrote it.
    """
    prefix = resolve_checkpoint(train_dir)
    if not is_ours(prefix):
        raise CheckpointError(f"{prefix}: it has no manifest", hint="use the train_dir of a run")
    return prefix, Manifest.read(layout.manifest_path(prefix))


def newest_in(directory: Path, *, warn: Callable[[str], None] = _log.warning) -> Path | None:
    """Return the prefix of the newest checkpoint in a directory; None if there is none. Its bytes are not verified.

    In a run's directory it is the highest step with a manifest. In others TensorFlow's state file decides, as for
    tf.train.latest_checkpoint: a higher step may be left of an earlier run, and users edit the file to go back. Only
    the last part of a path in it counts, because directories are moved and copied.

    Args:
      directory: where to search.
      warn: called with a message if the state file is needed and names no complete checkpoint of the directory; then
        the highest step is the newest.
    """
    steps = layout.steps_with(directory, "manifest.json")
    if steps:
        return layout.prefix(directory, steps[-1])
    prefixes = layout.prefixes_in(directory)
    unmarked = [prefix for prefix in prefixes if not layout.incomplete_path(prefix).exists()] or prefixes
    if not unmarked:
        return None
    problem = None
    try:
        path = checkpoint_state.read_newest(directory)
    except PermissionError as error:
        path, problem = None, reason(error)
    if path is not None:
        named = directory / (Path(path).name or layout.STATE_FILE)
        if named in unmarked and missing_file(named.name, {each.name for each in directory.iterdir()}) is None:
            return named
        problem = f"expected a complete checkpoint in its directory, got {path!r}"
    elif os.path.lexists(directory / layout.STATE_FILE):
        problem = problem or "names no checkpoint"
    elif len(unmarked) > 1:
        problem = "no such file"
    if problem:
        warn(f"{directory / layout.STATE_FILE}: {problem}; {unmarked[-1].name} is taken for the newest checkpoint")
    return unmarked[-1]


def checkpoints_in(directory: Path) -> list[Path]:
    """Return the prefixes of the checkpoints in a directory, by step; none if there is no such directory.

    A plain Saver's checkpoints count only if no checkpoint has a manifest.
    """
    if not directory.is_dir():
        return []
    steps = layout.steps_with(directory, "manifest.json")
    if steps:
        return [layout.prefix(directory, step) for step in steps]
    return [prefix for prefix in layout.prefixes_in(directory) if not layout.incomplete_path(prefix).exists()]


def best_checkpoint(directory: Path, *, warn: Callable[[str], None] = _log.warning) -> Path | None:
    """Return the prefix of the checkpoint with the highest score; of equal scores, the earliest.

    Args:
      directory: a train_dir.
      warn: called with a message for each damaged manifest, and if some checkpoints have no score.

    Returns:
      None if no checkpoint has a score.
    """
    manifests, damaged = manifest.read_all(directory)
    for error in damaged.values():
        warn(f"{error}; its score is unknown")
    scores = {each.step: each.score for each in manifests if each.score is not None}
    if len(scores) < len(manifests):
        unscored = len(manifests) - len(scores)
        warn(f"{directory}: best of {len(scores)} checkpoints; {unscored} were saved without a validation")
    return layout.prefix(directory, max(scores, key=lambda step: scores[step])) if scores else None


def is_choice(which: str) -> bool:
    """Whether `choose_checkpoint` accepts this text: "latest", "best" or a step."""
    return which in {"latest", "best"} or (which.isdecimal() and len(which) <= _MOST_DIGITS)


def choose_checkpoint(directory: Path, which: str | int, *, warn: Callable[[str], None] = _log.warning) -> Path:
    """Return the prefix of one of a directory's checkpoints. Its bytes are not verified.

    Args:
      directory: a train_dir, or a directory with a plain Saver's checkpoints.
      which: "latest", "best" (the highest score) or a step.
      warn: called with a message if the choice of the best or latest is uncertain.

    Raises:
      CheckpointError: there is no such checkpoint; the message lists the steps that there are.
    """
    if not is_choice(str(which)):
        raise CheckpointError(f"{directory}: expected latest, best or a step, got {which!r}")
    prefixes = checkpoints_in(directory)
    if not prefixes:
        hint = "use a directory in which a run has saved a checkpoint"
        raise CheckpointError(f"{directory}: no checkpoint found", hint=hint)
    if which == "latest":
        return newest_in(directory, warn=warn) or prefixes[-1]
    if which == "best":
        best = best_checkpoint(directory, warn=warn)
        if best is None:
            message = f"{directory}: no checkpoint with a validation score found; there are steps {_steps(prefixes)}"
            raise CheckpointError(message, hint="choose the latest, or a step")
        return best
    for prefix in prefixes:
        if layout.step_at_the_end(prefix) == int(which):
            return prefix
    raise CheckpointError(f"{directory}: no checkpoint of step {which} found; there are steps {_steps(prefixes)}")


def _steps(prefixes: Collection[Path]) -> str:
    steps = [layout.step_at_the_end(prefix) for prefix in prefixes]
    return listed(step for step in steps if step is not None)


def is_saved_model(directory: Path) -> bool:
    """Return whether a directory is a SavedModel."""
    return any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))


def _newest_in(directory: Path, warn: Callable[[str], None]) -> Path:
    if is_saved_model(directory):
        return resolve_checkpoint(directory / "variables" / "variables")
    newest = newest_in(directory, warn=warn)
    if newest is None:
        raise CheckpointError(f"{directory}: no checkpoint found{_about_leftovers(directory)}")
    return newest


def _about_leftovers(directory: Path) -> str:
    """Return a part of a message about a file that belongs to an incomplete checkpoint or has Keras' format."""
    found = sorted(
        path
        for path in directory.iterdir()
        if layout.prefix_of(path) or layout.leftover_of(path) or path.suffix in _KERAS
    )
    if not found:
        return ""
    if found[0].suffix in _KERAS:
        return f"; {found[0].name} has Keras' own format"
    return f"; {found[0].name} belongs to none, or to an incomplete one"


def missing_file(name: str, names: Collection[str]) -> str | None:
    """Return the first file that is missing from a checkpoint; None if the names show no gap.

    Args:
      name: name of the prefix.
      names: names of the files in its directory.
    """
    if f"{name}.index" not in names:
        return f"{name}.index"
    found = (DATA_FILE.search(each) for each in names if each.startswith(f"{name}.data-"))
    counts = {int(match[1]) for match in found if match} or {1}
    # After two saves under one name, files with the first save's number of shards may be left.
    missing = [
        next((data for number in range(count) if (data := f"{name}.data-{number:05}-of-{count:05}") not in names), None)
        for count in sorted(counts)
    ]
    return None if None in missing else missing[-1]


def _other_format_error(path: Path) -> CheckpointError:
    with regular_file.open_to_read(path) as file:
        begin = file.read(8)
    if begin == _HDF5 or path.suffix in _KERAS:
        return CheckpointError(
            f"{path}: expected a TensorFlow checkpoint, got Keras' own format (.h5, .keras)",
            hint="load it with Keras, and write one with tf.train.Checkpoint(model=model).write(PREFIX)",
        )
    return CheckpointError(
        f"{path}: expected a checkpoint's prefix, got a file without an .index file",
        hint="if it has TensorFlow's format V1, restore it and save it again with a current Saver",
    )


def _missing_error(prefix: Path) -> CheckpointError:
    directory = prefix.parent
    found = [path.name for path in layout.prefixes_in(directory)] if directory.is_dir() else []
    hint = f"use one of them, such as {directory / found[-1]}" if found else None
    return CheckpointError(f"{prefix}: no checkpoint found; in {directory} there are {listed(found)}", hint=hint)


def check_prefix(prefix: Path) -> None:
    """Check that a path is the prefix of a committed checkpoint.

    Raises:
      CheckpointError: it is not; the message lists the prefixes in its directory.
    """
    if _is_complete_prefix(prefix):
        return
    directory = prefix if prefix.is_dir() else prefix.parent
    found = (
        [path.name for path in layout.prefixes_in(directory) if _is_complete_prefix(path)] if directory.is_dir() else []
    )
    raise CheckpointError(
        f"{prefix}: no checkpoint found; in {directory} there are {listed(found)}",
        hint="use a prefix: the name of a checkpoint's files without .index, .meta or .data",
    )


def _is_complete_prefix(prefix: Path) -> bool:
    """Return whether a checkpoint of any program is here; not one of this package's that is unfinished."""
    if not prefix.name or not layout.index_path(prefix).is_file():
        return False
    return layout.manifest_path(prefix).exists() or not layout.incomplete_path(prefix).exists()


def is_ours(prefix: Path) -> bool:
    """Return whether a checkpoint has a manifest: this package wrote it."""
    return layout.step_of(f"{prefix.name}.index") is not None and layout.manifest_path(prefix).exists()


def is_committed(prefix: Path) -> bool:
    """Return whether a checkpoint is committed: with its manifest if named model.ckpt-N, otherwise with its index."""
    named_as_ours = layout.step_of(layout.index_path(prefix).name) is not None
    return (layout.manifest_path if named_as_ours else layout.index_path)(prefix).exists()


def is_unfinished(prefix: Path) -> bool:
    """Return whether a checkpoint is being saved or deleted, or either was interrupted. Readers ignore it then."""
    return layout.incomplete_path(prefix).exists() and not is_committed(prefix)
