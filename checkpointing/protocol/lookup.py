"""Which checkpoint a path names, and whether it exists for its readers.

    prefix = lookup.resolve_checkpoint(path)  # a prefix, one of its files, a train_dir, a SavedModel
    prefix = lookup.choose_checkpoint(directory, "best")  # or "latest", or a step

It works on this package's checkpoints, which have a manifest, and on those that a plain Saver, tf.train.Checkpoint or a
SavedModel's builder wrote. TensorFlow is not needed.
"""

import logging
import re
from collections.abc import Callable, Collection
from pathlib import Path

from checkpointing.errors import CheckpointError
from checkpointing.protocol import manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout, regular_file

DATA_FILE = re.compile(r"\.data-\d{5}-of-(\d{5})$", re.ASCII)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_KERAS = {".h5", ".keras"}
_MOST_DIGITS = 18  # of a step

_log = logging.getLogger(__name__)


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means.

    Args:
      path: a prefix; one of the checkpoint's files; a directory, for the newest checkpoint in it; or the directory of a
        SavedModel, whose variables are a checkpoint.

    Raises:
      CheckpointError: there is none; the message lists those that there are, or says which file is missing.
    """
    if path.is_dir() and not (path.name and layout.index_path(path).is_file()):
        return _newest_in(path)
    prefix = layout.prefix_of(path) or path
    names = {each.name for each in prefix.parent.iterdir()} if prefix.parent.is_dir() else set()
    if not any(name.startswith((f"{prefix.name}.index", f"{prefix.name}.data-")) for name in names):
        raise CheckpointError(_about_another_format(path) if path.is_file() else _about_missing(prefix))
    missing = missing_file(prefix.name, names)
    if missing:
        raise CheckpointError(f"{prefix}: {missing} is missing: the checkpoint is incomplete; put a good copy back.")
    return prefix


def newest_of_run(train_dir: Path) -> tuple[Path, Manifest]:
    """The newest checkpoint of one of our runs, and what is recorded about it.

    Raises:
      CheckpointError: there is none, or it is somebody else's.
    """
    prefix = resolve_checkpoint(train_dir)
    if not is_ours(prefix):
        raise CheckpointError(f"{prefix}: no manifest found beside it; give the train_dir of a run of this project.")
    return prefix, Manifest.read(layout.manifest_path(prefix))


def checkpoints_in(directory: Path) -> list[Path]:
    """Return the prefixes of the checkpoints in a directory, the newest last; none if there is no such directory.

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
      warn: called with a message if the choice of the best is uncertain.

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
        return prefixes[-1]
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
    return ", ".join(str(step) for step in steps if step is not None) or "none"


def is_saved_model(directory: Path) -> bool:
    """Whether this is the directory of a SavedModel."""
    return any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))


def _newest_in(directory: Path) -> Path:
    if is_saved_model(directory):
        return resolve_checkpoint(directory / "variables" / "variables")
    ours = layout.steps_with(directory, "manifest.json")
    prefixes = [layout.prefix(directory, ours[-1])] if ours else layout.prefixes_in(directory)
    if not prefixes:
        raise CheckpointError(f"{directory}: no checkpoint found in it{_whatever_else(directory)}.")
    return prefixes[-1]


def _whatever_else(directory: Path) -> str:
    """What of a checkpoint, or of its kind, is there all the same."""
    found = sorted(
        path
        for path in directory.iterdir()
        if layout.prefix_of(path) or layout.leftover_of(path) or path.suffix in _KERAS
    )
    if not found:
        return ""
    kind = ": that is Keras' own format, not TensorFlow's" if found[0].suffix in _KERAS else ""
    return f", but {found[0].name}{kind}"


def missing_file(name: str, names: Collection[str]) -> str | None:
    """The first file that a checkpoint of this name lacks, as far as the names of the others tell."""
    if f"{name}.index" not in names:
        return f"{name}.index"
    found = (DATA_FILE.search(each) for each in names if each.startswith(f"{name}.data-"))
    counts = {int(match[1]) for match in found if match} or {1}
    # Where somebody saved twice under one name, files of another number may be left of the first time.
    missing = [
        next((data for number in range(count) if (data := f"{name}.data-{number:05}-of-{count:05}") not in names), None)
        for count in sorted(counts)
    ]
    return None if None in missing else missing[-1]


def _about_another_format(path: Path) -> str:
    with regular_file.open_to_read(path) as file:
        begin = file.read(8)
    if begin == _HDF5 or path.suffix in _KERAS:
        return (
            f"{path}: Keras' own format found (.h5, .keras), a TensorFlow checkpoint wanted: load it with Keras, and "
            f"write one with tf.train.Checkpoint(model=model).write(PREFIX)."
        )
    return (
        f"{path}: a file without an .index beside it found, a checkpoint's prefix wanted: if it is one of TensorFlow's "
        f"format V1, restore it and save it anew with a Saver of today."
    )


def _about_missing(prefix: Path) -> str:
    directory = prefix.parent
    there = [path.name for path in layout.prefixes_in(directory)] if directory.is_dir() else []
    advice = f": give one of them, as in {directory / there[-1]}" if there else ""
    return f"{prefix}: no checkpoint found; in {directory} there are {', '.join(there) or 'none'}{advice}."


def is_ours(prefix: Path) -> bool:
    """Whether a manifest records what each byte of this checkpoint should be."""
    return layout.step_of(f"{prefix.name}.index") is not None and layout.manifest_path(prefix).exists()


def is_committed(prefix: Path) -> bool:
    """Whether it exists for its readers: by the name of ours with the manifest, by any other with the index."""
    named_as_ours = layout.step_of(layout.index_path(prefix).name) is not None
    return (layout.manifest_path if named_as_ours else layout.index_path)(prefix).exists()


def is_unfinished(prefix: Path) -> bool:
    """Whether it is being made or deleted, or either was interrupted: then it does not exist for its readers."""
    return layout.incomplete_path(prefix).exists() and not is_committed(prefix)
