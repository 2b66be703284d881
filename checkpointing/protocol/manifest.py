"""The commit record of a checkpoint: which files make it up, and which run made it."""

import functools
import hashlib
import importlib.metadata
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
from checkpointing.storage import layout, regular_file
from checkpointing.storage.fingerprint import file_sha256
from checkpointing.storage.json_kinds import (
    COUNT,
    FILES,
    TEXT,
    TEXT_OR_NULL,
    Kind,
    are_texts,
    check_kinds,
    is_finite,
    shown,
)

FORMAT = 4
_FORMATS_READ = (2, 3, 4)

# From so many bytes on, a state is written, read and hashed in several files at the same time; and where a run goes on,
# hashing the data files is left to the digest of the restored variables, which is taken at memory's speed.
LARGE = 128 * 2**20

# Large files are hashed side by side; a core hashes 1.5 GB/s, and to start a thread takes up to a millisecond.
HASHING_THREADS = 4
_WORTH_THREADS = 4 * 2**20

_MOST_BYTES = 2**24  # of a manifest; it holds a hundred a file
_OPTIONAL = {"retention", "environment", "format"}  # older formats lack the two; the last has been looked at


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `model.ckpt-N.manifest.json` holds."""

    step: int  # the number of updates applied
    files: dict[str, dict[str, Any]]  # name, without directory, to {"bytes": size, "sha256": hex}
    state_digest: str  # of the variables in memory when they were saved: snapshot.py says how it is taken
    score: float | None  # how good this state is, the higher the better; None where nobody asked
    settings: dict[str, Any]  # all that the weights are a function of, besides the step
    code: str | None  # sha256 of the code that computed them
    started_from: str | None  # sha256 of the index file that the run's first step was restored from
    saved_at: float  # seconds since 1970
    training_seconds: float  # how long the run had been training, all attempts together
    versions: dict[str, str]  # of Python and of the libraries that computed the weights
    retention: dict[str, Any] | None = None  # what rotation was told to keep; None in format 2
    environment: dict[str, str] | None = None  # variables that the last bits depend on; None before format 4
    format: int = FORMAT

    def to_json(self) -> bytes:
        """The bytes of the file: the fields, and a hash that protects them."""
        return (json.dumps(sealed(asdict(self)), indent=2) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a manifest.

        Raises:
          DamagedError: not a byte of it can be trusted, or a field is not of its kind.
          CheckpointError: another version of this package wrote it, or it cannot be read just now.
        """
        try:
            record, sha256 = _unsealed(regular_file.read(path, _MOST_BYTES))
            if not (sha256 is None and record.get("format") == 1):
                _check_seal(path, record, sha256)
            _check_format(path, record)
            _check_fields(record, layout.step_of(path.name))
            if not is_finite(record["score"]):
                record["score"] = None  # release 0.6.4 wrote what it was given
            return cls(**record)
        except OSError as error:
            raise unreadable(path, error) from error
        except (ValueError, RecursionError) as error:  # no JSON, or not of this shape
            raise DamagedError(f"{path.name}: cannot be read as a manifest ({reason(error)})") from error


def _unsealed(content: bytes) -> tuple[dict[str, Any], object]:
    """A record that protects itself without its hash, and the hash.

    Raises:
      ValueError: it is no JSON object.
    """
    record = json.loads(content)
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {shown(record)}")  # noqa: TRY004 - it is the file's value that is wrong
    return record, record.pop("sha256", None)


def _check_seal(path: Path, record: Mapping[str, Any], sha256: object) -> None:
    if sha256 is None:
        raise ValueError("expected its own sha256, got none")
    if sha256 != _sha256(record):
        raise DamagedError(f"{path.name}: its own sha256 is not the one that it states")


def _check_format(path: Path, record: Mapping[str, Any]) -> None:
    """Refuses what another version of this package wrote; what none could have written is a ValueError."""
    found = record.get("format")
    if type(found) is not int:
        raise ValueError(f"format: expected an integer, got {shown(found)}")
    if found not in _FORMATS_READ:
        prefix = path.with_name(path.name.removesuffix(".manifest.json"))
        message = (
            f"{path}: format {found} found, {FORMAT} wanted: another version wrote it; "
            f"give a new --train_dir, and --restore_from={prefix}."
        )
        raise OtherVersionError(message)


def _is_duration(value: object) -> bool:
    return is_finite(value) and float(value) >= 0  # type: ignore[arg-type]  # a number


def _is_retention(value: object) -> bool:
    """Whether a run could have recorded it; whether it makes sense, `rotation.recorded` decides."""
    if value is None:
        return True
    known = isinstance(value, dict) and set(value) <= set(RetentionPolicy._fields)
    return known and all(each is None or type(each) in {int, float} for each in value.values())  # type: ignore[attr-defined]


# What each field holds: a test, and the words for it.
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
    "retention": (_is_retention, "what rotation is to keep, or null"),
    "environment": (lambda value: value is None or are_texts(value), "an object of strings or null"),
    "format": COUNT,
}


# What the record of an exported model must hold.
EXPORT: dict[str, Kind] = {"checkpoint": TEXT, "files": FILES}


def _check_fields(record: Mapping[str, Any], step: int | None) -> None:
    """Raises ValueError where a field is missing, unknown, or not of its kind."""
    unknown = sorted(record.keys() - _KINDS.keys())
    if unknown:
        raise ValueError(f"expected the fields of a manifest, got {', '.join(unknown)} as well")
    check_kinds(record, {name: kind for name, kind in _KINDS.items() if name in record or name not in _OPTIONAL})
    if record["step"] != step:
        raise ValueError(f"step: expected {step}, as in the file's name, got {record['step']}")
    index = layout.index_path(layout.prefix(Path(), record["step"])).name
    if index not in record["files"] or any(layout.step_of(name) != record["step"] for name in record["files"]):
        raise ValueError(
            f"files: expected {index} and other files of its checkpoint, got {shown(list(record['files']))}"
        )


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """What to raise where a file cannot be read: it is damaged, or it cannot be read just now and nothing is moved."""
    if is_damage(error):
        return DamagedError(f"{path.name}: cannot be read ({reason(error)})")
    return CheckpointError(f"{path}: cannot be read ({reason(error)}); {LATER}.")


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with a hash that protects it."""
    return {**record, "sha256": _sha256(record)}


def read_sealed(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Reads a record that protects itself, and gives it without its hash.

    Args:
      path: the file.
      kinds: what its fields must be, by name; it may have others.

    Raises:
      DamagedError: not a byte of it can be trusted.
      CheckpointError: it cannot be read just now.
    """
    try:
        record, sha256 = _unsealed(regular_file.read(path, _MOST_BYTES))
        _check_seal(path, record, sha256)
        check_kinds(record, kinds)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path.name}: cannot be read ({reason(error)})") from error
    return record


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def describe_files(paths: Sequence[Path], threads: int = 1, *, below: Path | None = None) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file, by name, or by its path below a directory."""
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
    """Checks that each of the checkpoint's files is what the manifest says.

    Args:
      prefix: the checkpoint.
      manifest: its manifest.
      large_ones_too: whether to hash data files of LARGE bytes together, too. Where they are restored, TensorFlow's
        checksum of each tensor and the digest of the variables find whatever is wrong with them.

    Raises:
      DamagedError: names the first that is not.
    """
    check_sizes(prefix, manifest)
    to_hash = list(manifest.files)
    if not large_ones_too and sum(file["bytes"] for file in manifest.files.values()) >= LARGE:
        to_hash = [name for name in to_hash if ".data-" not in name]
    _check_hashes(prefix.parent, {name: manifest.files[name] for name in to_hash})


def check_sizes(prefix: Path, manifest: Manifest) -> None:
    """Checks that each of the checkpoint's files is there, and as long as the manifest says; reads none of them.

    Raises:
      DamagedError: names the first that is not.
    """
    _check_sizes(prefix.parent, manifest.files)


def check_described(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that the files below a directory are as `describe_files` found them.

    Raises:
      DamagedError: names the first that is not.
    """
    _check_sizes(directory, files)
    _check_hashes(directory, files)


def _check_sizes(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, file in files.items():
        path, expected = directory / name, file["bytes"]
        try:
            status = path.stat()
        except OSError as error:
            if is_damage(error):
                raise DamagedError(f"{name}: nothing found, {expected:,} bytes wanted") from error
            raise unreadable(path, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(f"{name}: no file found, {expected:,} bytes wanted")
        if status.st_size != expected:
            raise DamagedError(f"{name}: {status.st_size:,} bytes found, {expected:,} wanted")


def _check_hashes(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """The sizes are known to be right."""
    try:
        size = sum(file["bytes"] for file in files.values())
        found = _hashes([directory / name for name in files], size, HASHING_THREADS)
    except OSError as error:
        raise unreadable(Path(error.filename or directory), error) from error
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise CheckpointError(f"{directory}: its files cannot be checked ({reason(error)}); {LATER}.") from error
    for (name, file), sha256 in zip(files.items(), found, strict=True):
        if sha256 != file["sha256"]:
            raise DamagedError(f"{name}: some of its bytes have changed, its sha256 is not the one in the manifest")


def read_all(directory: Path) -> tuple[list[Manifest], dict[int, DamagedError]]:
    """The manifests of all checkpoints in a directory, oldest first; and what is wrong with those that are damaged."""
    manifests, damaged = [], {}
    for step in layout.steps_with(directory, "manifest.json"):
        path = layout.manifest_path(layout.prefix(directory, step))
        try:
            manifests.append(Manifest.read(path))
        except DamagedError as error:
            if path.exists():  # or it has been deleted meanwhile, perhaps with the directory
                damaged[step] = error
        except CheckpointError:  # another version's: left alone
            continue
    return manifests, damaged


@functools.cache  # each save records them, and looking them up takes two milliseconds
def versions() -> dict[str, str]:
    """The versions that decide what a computation gives."""
    libraries = {name: importlib.metadata.version(name) for name in ("tensorflow", "numpy")}
    return {"python": platform.python_version(), **libraries}
