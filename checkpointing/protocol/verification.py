"""Verify checkpoints and SavedModels byte by byte, without TensorFlow; find the newest checkpoint that is complete.

    verification.verify(prefix)  # raises DamagedError if a byte is wrong

Checkpoints of this package are compared with the sha256 in their manifests; all others with TensorFlow's checksums of
each tensor and of the index.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from checkpointing.errors import DamagedError
from checkpointing.protocol import manifest
from checkpointing.protocol.lookup import is_ours, is_unfinished, resolve_checkpoint
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout

if TYPE_CHECKING:
    from checkpointing.format.tensor_bundle import Bundle

ATTEMPTS = 10  # to verify a checkpoint that a run saves or deletes at the same time


class Newest(NamedTuple):
    """Result of a search in a train_dir.

    complete: manifest of the newest complete checkpoint; None if there is none.
    damaged: the damage of the newer ones, by step; of all of them, if none is complete.
    """

    complete: Manifest | None
    damaged: dict[int, DamagedError]


def find_newest(directory: Path, known: Mapping[int, DamagedError] | None = None) -> Newest:
    """Find the newest checkpoint whose files all match its manifest. Nothing is moved.

    Args:
      directory: train_dir.
      known: damage of checkpoints that need not be verified again, by step.

    Raises:
      CheckpointError: one cannot be read now; this says nothing about its bytes.
    """
    damaged = dict(known or {})
    steps = layout.steps_with(directory, "manifest.json")
    for step in reversed([step for step in steps if step not in damaged]):
        prefix = layout.prefix(directory, step)
        try:
            complete = Manifest.read(layout.manifest_path(prefix))
            manifest.check_files(prefix, complete, large_ones_too=False)
        except DamagedError as error:
            damaged[step] = error
            continue
        # Newer tensors without a manifest may be a checkpoint of ours whose manifest is lost.
        for newer in layout.steps_with(directory, "index"):
            if newer > step and newer not in steps:
                damaged[newer] = DamagedError(f"{layout.prefix(directory, newer).name}: its manifest is missing")
        return Newest(complete, damaged)
    return Newest(None, damaged)


def verify(prefix: Path) -> str:
    """Read every byte of a checkpoint.

    Returns:
      What the bytes were compared with, such as "sha256 of 3 files".

    Raises:
      DamagedError: a byte is wrong, or a file is missing; the message begins with the file's name.
      CheckpointError: its manifest has another version's format, or it cannot be read now.
    """
    for _ in range(ATTEMPTS - 1):
        before = files_signature(prefix)
        try:
            return verify_once(prefix)
        except DamagedError:
            if files_signature(prefix) == before:
                raise
    return verify_once(prefix)


def verify_once(prefix: Path) -> str:
    """Verify a checkpoint as `verify` does, without a second attempt if a run changes it meanwhile."""
    if is_ours(prefix):
        found = Manifest.read(layout.manifest_path(prefix))
        manifest.check_files(prefix, found)
        return f"sha256 of {len(found.files)} files"
    if is_unfinished(prefix):
        raise DamagedError(about_unfinished(prefix))
    try:
        bundle = open_bundle(prefix)
        bundle.check()
    except OSError as error:
        raise manifest.unreadable(Path(error.filename or prefix), error) from error
    return f"crc32c of {len(bundle.entries)} tensors"


def files_signature(prefix: Path) -> list[tuple[int, int] | None]:
    """Return a value that changes when a checkpoint is saved, deleted, or saved again under the same name."""
    marks = (layout.manifest_path(prefix), layout.incomplete_path(prefix), layout.index_path(prefix))
    return [_identity(path) for path in marks]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def open_bundle(prefix: Path) -> Bundle:
    """Open a checkpoint's tensors; NumPy is imported only now."""
    from checkpointing.format.tensor_bundle import Bundle  # noqa: PLC0415 - needs NumPy, which most callers do not

    return Bundle(prefix)


def verify_saved_model(directory: Path) -> str:
    """Read every byte of a SavedModel; of one that this package did not export, every byte of its variables.

    Returns:
      What the bytes were compared with.

    Raises:
      DamagedError: a byte is wrong, or a file is missing; the message begins with the file's name.
    """
    path = layout.export_manifest_path(directory)
    if path.exists():
        files = manifest.read_sealed(path, manifest.EXPORT)["files"]
        manifest.check_described(directory, files)
        return f"sha256 of {len(files)} files"
    return f"{verify(resolve_checkpoint(directory))}; its graph has no checksum"


def about_unfinished(prefix: Path) -> str:
    """Return the message about a checkpoint that is being saved or deleted."""
    return f"{layout.incomplete_path(prefix).name}: it is being made or deleted, or either was interrupted"
