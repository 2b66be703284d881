"""The stages of an export: written to a private directory, sealed with a manifest, renamed to its target.

    with unfinished_export(target) as unfinished:
        saved_model.write(unfinished, prefix, tagged_graphs)
        seal(unfinished, prefix)
        publish(unfinished, target)

The manifest, `assets.extra/manifest.json`, records the size and sha256 of each file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from checkpointing.errors import CheckpointError, DamagedError, reason
from checkpointing.protocol import manifest
from checkpointing.storage import durable, layout, staging


@contextmanager
def unfinished_export(target: Path) -> Iterator[Path]:
    """Yield a path to write an export to, in a private directory next to the target; see `staging.staged`.

    Raises:
      CheckpointError: the directory cannot be made, or a file cannot be written.
    """
    try:
        with staging.staged(target) as unfinished:
            yield unfinished
    except OSError as error:
        message = f"{error.filename or target}: could not be written ({reason(error)})"
        raise CheckpointError(message, hint="export to another directory") from error


def seal(unfinished: Path, prefix: Path) -> dict[str, Any]:
    """Write the manifest of a SavedModel into it: size and sha256 of each file; return it.

    Args:
      unfinished: the SavedModel's directory.
      prefix: the checkpoint that it was made from, whose name is recorded.
    """
    path = layout.export_manifest_path(unfinished)
    files = list(files_of(unfinished).values())
    record = {"checkpoint": prefix.name, "files": manifest.describe_files(files, below=unfinished)}
    durable.make_directory(path.parent)
    durable.atomic_write_json(path, manifest.sealed(record))
    return record


def publish(unfinished: Path, target: Path) -> None:
    """Rename a sealed SavedModel to its target, after comparing each byte with the manifest.

    Raises:
      TargetExistsError: the target exists; it is left alone.
      CheckpointError: the SavedModel has changed since it was sealed, or cannot be renamed.
    """
    damage = find_damage(unfinished)
    if damage is not None:
        message = f"{target}: a file changed while it was being exported ({damage})"
        raise CheckpointError(message, hint="run the same command again")
    staging.check_is_free(target)
    try:
        durable.rename_tree(unfinished, target)
    except OSError as error:
        if staging.is_there(unfinished):  # a directory is never renamed over a file, or a directory with files
            staging.check_is_free(target)
        raise CheckpointError(f"{target}: could not be written ({reason(error)})") from error


def find_damage(directory: Path) -> str | None:
    """Compare an export's files with its manifest; return what is wrong, or None.

    Raises:
      CheckpointError: they cannot be read at the moment, so nothing is known about their bytes.
    """
    try:
        manifest.check_described(directory, read_record(directory)["files"])
    except DamagedError as error:
        return str(error)
    return None


def read_record(directory: Path) -> dict[str, Any]:
    """Return the manifest of an export.

    Raises:
      DamagedError: it is missing or damaged. CheckpointError: it cannot be read at the moment.
    """
    return manifest.read_sealed(layout.export_manifest_path(directory), manifest.EXPORT)


def files_of(directory: Path) -> dict[str, Path]:
    """Return all files of an export except its manifest, by relative path."""
    path = layout.export_manifest_path(directory)
    files = sorted(each for each in directory.rglob("*") if each.is_file() and each != path)
    return {each.relative_to(directory).as_posix(): each for each in files}
