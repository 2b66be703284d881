"""Manifests: the commit record of a checkpoint, with the size and sha256 of its files, and the run that saved it."""

import functools
import hashlib
import json
import platform
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from checkpointing.errors import LATER, CheckpointError, DamagedError, OtherVersionError, is_damage, is_shortage, reason
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.storage import json_kinds, layout, regular_file
from checkpointing.storage.fingerprint import file_sha256
from checkpointing.storage.json_kinds import COUNT, FILES, TEXT, TEXT_OR_NULL, Kind, are_texts, is_finite, shown

FORMAT = 4
_FORMATS_READ = (2, 3, 4)

# A state of this many bytes is written and read in several files at the same time. When a run resumes, its data files
# are not hashed: the digest of the restored variables is computed at memory's speed.
LARGE = 128 * 2**20

# Large files are hashed in parallel. A core hashes 1.5 GB/s, and a thread takes up to a millisecond to start.
HASHING_THREADS = 4
_WORTH_THREADS = 4 * 2**20

_MAX_BYTES = 2**24  # a manifest has about 100 per file
_OPTIONAL = {"retention", "environment", "format"}  # older formats lack the first two; the last is checked before


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `model.ckpt-N.manifest.json`."""

    step: int  # number of updates applied
    files: dict[str, dict[str, Any]]  # name, without directory, to {"bytes": size, "sha256": hex}
    state_digest: str  # digest of the variables in memory (snapshot.py)
    score: float | None  # quality of the state, higher is better; None if unknown
    settings: dict[str, Any]  # everything but the step that the weights are a function of
    code: str | None  # sha256 of the code that computed them
    started_from: str | None  # sha256 of the index file that the run's first step was restored from
    saved_at: float  # seconds since 1970
    training_seconds: float  # duration of the run so far, over all attempts
    versions: dict[str, str]  # versions of Python and of the libraries that computed the weights
    retention: dict[str, Any] | None = None  # retention policy; None in format 2
    environment: dict[str, str] | None = None  # variables that the last bits depend on; None before format 4
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Return the content of the file: the fields, and their sha256."""
        return (json.dumps(sealed(asdict(self)), indent=2) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest.

        Raises:
          DamagedError: its sha256 is wrong, or a field is invalid.
          OtherVersionError: it has another format.
          CheckpointError: it cannot be read now.
        """
        try:
            record, sha256 = _unsealed(regular_file.read(path, _MAX_BYTES))
            if not (sha256 is None and record.get("format") == 1):
                _check_seal(path, record, sha256)
            _check_format(path, record)
            _check_fields(record, layout.step_of(path.name))
            if not is_finite(record["score"]):
                record["score"] = None  # release 0.6.4 wrote NaN, too
            return cls(**record)
        except OSError as error:
            raise unreadable(path, error) from error
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{path.name}: cannot be read as a manifest ({reason(error)})") from error


def _unsealed(content: bytes) -> tuple[dict[str, Any], object]:
    """Return a sealed record without its sha256, and the sha256.

    Raises:
      ValueError: it is not a JSON object.
    """
    record = json.loads(content)
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {shown(record)}")  # noqa: TRY004 - a wrong value in a file, not a wrong type in the code
    return record, record.pop("sha256", None)


def _check_seal(path: Path, record: Mapping[str, Any], sha256: object) -> None:
    if sha256 is None:
        raise ValueError("expected its own sha256, got none")
    if sha256 != _sha256(record):
        raise DamagedError(f"{path.name}: its content does not match its own sha256")


def _check_format(path: Path, record: Mapping[str, Any]) -> None:
    """Raise OtherVersionError for a format of another version, and ValueError if it is not a number."""
    found = record.get("format")
    if type(found) is not int:
        raise ValueError(f"format: expected an integer, got {shown(found)}")
    if found not in _FORMATS_READ:
        raise OtherVersionError(
            f"{path}: expected format {FORMAT}, got {found}: another version wrote it",
            hint="start from this checkpoint in another directory",
        )


def _is_duration(value: object) -> bool:
    return is_finite(value) and float(value) >= 0  # type: ignore[arg-type]  # a number


def _is_retention(value: object) -> bool:
    """Return whether the fields have the right types; `retention.recorded` checks their values."""
    if value is None:
        return True
    known = isinstance(value, dict) and set(value) <= set(RetentionPolicy._fields)
    return known and all(each is None or type(each) in {int, float} for each in value.values())  # type: ignore[attr-defined]


# A check of each field, and the description of its values.
_KINDS: dict[str, Kind] = {
    "step": COUNT,
    "files": FILES,
    "state_digest": TEXT,
    "score": (lambda value: value is None or type(value) in {int, float}, "a number or null"),
    "settings": (lambda value: isinstance(value, dict), "an object"),
    "code": TEXT_OR_NULL,
    "started_from": TEXT_OR_NULL,
    "saved_at": (is_finite, "a finite number"),
    "training_seconds": (_is_duration, "0 or a positive number"),
    "versions": (are_texts, "an object of strings"),
    "retention": (_is_retention, "a retention policy, or null"),
    "environment": (lambda value: value is None or are_texts(value), "an object of strings or null"),
    "format": COUNT,
}


# Fields of an exported model's manifest.
EXPORT: dict[str, Kind] = {"checkpoint": TEXT, "files": FILES}


def _check_fields(record: Mapping[str, Any], step: int | None) -> None:
    """Raise ValueError if a field is missing, unknown or invalid."""
    unknown = sorted(record.keys() - _KINDS.keys())
    if unknown:
        raise ValueError(f"unknown fields: {shown(unknown)}")
    json_kinds.check_kinds(
        record, {name: kind for name, kind in _KINDS.items() if name in record or name not in _OPTIONAL}
    )
    if record["step"] != step:
        raise ValueError(f"step: expected {step}, as in the file's name, got {record['step']}")
    index = layout.index_path(layout.prefix(Path(), record["step"])).name
    if index not in record["files"] or any(layout.step_of(name) != record["step"] for name in record["files"]):
        raise ValueError(
            f"files: expected {index} and other files of its checkpoint, got {shown(list(record['files']))}"
        )


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """Return DamagedError if an error proves a file damaged, otherwise an error that concludes nothing."""
    if is_damage(error):
        return DamagedError(f"{path.name}: cannot be read ({reason(error)})")
    return CheckpointError(f"{path}: cannot be read ({reason(error)})", hint=LATER)


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its sha256."""
    return {**record, "sha256": _sha256(record)}


def read_sealed(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Read a sealed record; return it without its sha256.

    Args:
      path: the file.
      kinds: checks of its fields, by name; it may have other fields.

    Raises:
      DamagedError: its sha256 is wrong, or a field is invalid.
      CheckpointError: it cannot be read now.
    """
    try:
        record, sha256 = _unsealed(regular_file.read(path, _MAX_BYTES))
        _check_seal(path, record, sha256)
        json_kinds.check_kinds(record, kinds)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path.name}: cannot be read ({reason(error)})") from error
    return record


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def describe_files(paths: Sequence[Path], threads: int = 1, *, below: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of each file, by name, or by path relative to `below`."""
    sizes = [path.stat().st_size for path in paths]
    hashes = _hashes(paths, sum(sizes), threads)
    names = [path.relative_to(below).as_posix() if below else path.name for path in paths]
    described = zip(names, sizes, hashes, strict=True)
    return {name: {"bytes": size, "sha256": sha256} for name, size, sha256 in described}


def _hashes(paths: Sequence[Path], size: int, threads: int) -> list[str]:
    if threads == 1 or size < _WORTH_THREADS:
        return list(map(file_sha256, paths))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(file_sha256, paths))


def check_files(prefix: Path, manifest: Manifest, *, large_ones_too: bool = True) -> None:
    """Compare the files of a checkpoint with its manifest.

    Args:
      prefix: the checkpoint.
      manifest: its manifest.
      large_ones_too: whether to hash the data files even if the checkpoint has LARGE bytes or more. A restore finds all
        damage in them: TensorFlow checks the crc32c of each tensor, and the digest of the variables is compared.

    Raises:
      DamagedError: a file differs; the message begins with its name.
      CheckpointError: a file cannot be read now.
    """
    check_sizes(prefix, manifest)
    to_hash = list(manifest.files)
    if not large_ones_too and sum(file["bytes"] for file in manifest.files.values()) >= LARGE:
        to_hash = [name for name in to_hash if ".data-" not in name]
    _check_hashes(prefix.parent, {name: manifest.files[name] for name in to_hash})


def check_sizes(prefix: Path, manifest: Manifest) -> None:
    """Compare the sizes of a checkpoint's files with its manifest; raise DamagedError if one differs."""
    _check_sizes(prefix.parent, manifest.files)


def check_described(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare the files in a directory with the result of `describe_files`; raise DamagedError if one differs."""
    _check_sizes(directory, files)
    _check_hashes(directory, files)


def _check_sizes(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, file in files.items():
        path, expected = directory / name, file["bytes"]
        try:
            status = path.stat()
        except OSError as error:
            if is_damage(error):
                raise DamagedError(f"{name}: expected {expected:,} bytes, got no file") from error
            raise unreadable(path, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(f"{name}: expected {expected:,} bytes, got something other than a regular file")
        if status.st_size != expected:
            raise DamagedError(f"{name}: expected {expected:,} bytes, got {status.st_size:,}")


def _check_hashes(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    try:
        size = sum(file["bytes"] for file in files.values())
        found = _hashes([directory / name for name in files], size, HASHING_THREADS)
    except OSError as error:
        raise unreadable(Path(error.filename or directory), error) from error
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise CheckpointError(f"{directory}: its files cannot be verified ({reason(error)})", hint=LATER) from error
    for (name, file), sha256 in zip(files.items(), found, strict=True):
        if sha256 != file["sha256"]:
            raise DamagedError(f"{name}: some of its bytes have changed: its sha256 is not the manifest's")


def read_all(directory: Path) -> tuple[list[Manifest], dict[int, DamagedError]]:
    """Return the manifests of all checkpoints in a directory, oldest first; and the damage of others, by step."""
    manifests, damaged = [], {}
    for step in layout.steps_with(directory, "manifest.json"):
        path = layout.manifest_path(layout.prefix(directory, step))
        try:
            manifests.append(Manifest.read(path))
        except DamagedError as error:
            if path.exists():  # otherwise it has just been deleted
                damaged[step] = error
        except CheckpointError:  # another version's, or unreadable now
            continue
    return manifests, damaged


@functools.cache  # they are recorded at each save, and take two milliseconds to look up
def versions() -> dict[str, str]:
    """Return the versions of Python, TensorFlow and NumPy, which the last bits of the weights depend on."""
    import importlib.metadata  # noqa: PLC0415 - takes a fifth of the start of a program without TensorFlow

    libraries = {name: importlib.metadata.version(name) for name in ("tensorflow", "numpy")}
    return {"python": platform.python_version(), **libraries}
