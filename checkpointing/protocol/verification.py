"""Reading every byte of a checkpoint or a SavedModel, without TensorFlow.

    verification.verify(prefix)  # raises DamagedError if a byte is wrong

A checkpoint of this package is compared with the hashes in its manifest. Of any other, TensorFlow's own checksums are
compared: of each tensor and of the index.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from checkpointing.errors import DamagedError
from checkpointing.protocol import manifest
from checkpointing.protocol.lookup import is_ours, is_unfinished, resolve_checkpoint
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout

if TYPE_CHECKING:
    from checkpointing.format.tensor_bundle import Bundle

ATTEMPTS = 10  # at a checkpoint that a run makes or deletes meanwhile


def verify(prefix: Path) -> str:
    """Reads every byte of a checkpoint.

    Returns:
      What it was compared with.

    Raises:
      DamagedError: a byte is wrong, or a file missing; the message begins with the file's name.
      CheckpointError: another version of this package wrote its manifest, or it cannot be read just now.
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
    """What changes where a checkpoint is made, deleted, or made again under the same name."""
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
    from checkpointing.format.tensor_bundle import Bundle  # noqa: PLC0415 - needs NumPy, which most questions do not

    return Bundle(prefix)


def verify_saved_model(directory: Path) -> str:
    """Reads every byte of a SavedModel; of one that this package did not export, its variables.

    Returns:
      What it was compared with.

    Raises:
      DamagedError: a byte is wrong, or a file missing; the message begins with the file's name.
    """
    path = layout.export_manifest_path(directory)
    if path.exists():
        files = manifest.read_sealed(path, manifest.EXPORT)["files"]
        manifest.check_described(directory, files)
        return f"sha256 of {len(files)} files"
    return f"{verify(resolve_checkpoint(directory))}; nothing is known of its graph's bytes"


def about_unfinished(prefix: Path) -> str:
    """Return the message about a checkpoint that is being made or deleted."""
    return f"{layout.incomplete_path(prefix).name}: it is being made or deleted, or either was interrupted"
