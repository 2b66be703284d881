"""The commit record of a checkpoint: which files make it up, and which run made it."""

import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from checkpointing import layout
from checkpointing.errors import CheckpointError
from checkpointing.fingerprint import file_sha256

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `model.ckpt-N.manifest.json` holds."""

    step: int  # the number of updates applied
    files: dict[str, dict[str, Any]]  # name, without directory, to {"bytes": size, "sha256": hex}
    settings: dict[str, Any]  # all that the weights are a function of, besides the step
    started_from: str | None  # sha256 of the index file that the run's first step was restored from
    saved_at: float  # seconds since 1970
    training_seconds: float  # how long the run had been training, all attempts together
    versions: dict[str, str]  # of Python and of the libraries that computed the weights
    format: int = FORMAT

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a manifest.

        Raises:
          CheckpointError: the file is damaged or of another format.
        """
        try:
            record = json.loads(path.read_bytes())
            if record["format"] != FORMAT:
                message = f"{path}: format {record['format']} found, {FORMAT} wanted: another version wrote it."
                raise CheckpointError(message)
            if record["step"] != layout.step_of(path.name):
                message = f"step {record['step']} found in it"
                raise ValueError(message)  # noqa: TRY301 - told below, like any other damage
            return cls(**record)
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = (
                f"{path}: damaged ({error}); move the files {path.name.removesuffix('manifest.json')}* elsewhere, "
                f"and the same command goes on from the checkpoint before."
            )
            raise CheckpointError(message) from error


def describe_files(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file, by name."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in paths}


def check_files(prefix: Path, manifest: Manifest) -> None:
    """Checks that each of the checkpoint's files is what the manifest says.

    Raises:
      CheckpointError: names the first that is not.
    """
    for name, wanted in manifest.files.items():
        path = prefix.parent / name
        found = describe_files([path])[name] if path.is_file() else None
        if found != wanted:
            message = (
                f"{path}: {_told(found)} found, {_told(wanted)} wanted: the checkpoint is damaged; move the files "
                f"{prefix.name}.* elsewhere, and the same command goes on from the checkpoint before."
            )
            raise CheckpointError(message)


def _told(file: dict[str, Any] | None) -> str:
    return f"{file['bytes']} bytes with sha256 {file['sha256'][:12]}..." if file else "no such file"


def read_all(directory: Path) -> list[Manifest]:
    """The manifests of all checkpoints in a directory, oldest first.

    Raises:
      CheckpointError: one of them is damaged.
    """
    steps = layout.steps_with(directory, "manifest.json")
    return [Manifest.read(layout.manifest_path(layout.prefix(directory, step))) for step in steps]


def versions() -> dict[str, str]:
    """The versions that decide what a computation gives."""
    libraries = {name: importlib.metadata.version(name) for name in ("tensorflow", "numpy")}
    return {"python": platform.python_version(), **libraries}
