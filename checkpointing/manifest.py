"""The commit record of a checkpoint: which files make it up, and which run made it."""

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from checkpointing import layout
from checkpointing.errors import CheckpointError, DamagedError, is_damage, reason
from checkpointing.fingerprint import file_sha256

FORMAT = 3
_FORMATS_READ = (2, 3)

# From so many bytes on, a state is written, read and hashed in several files at the same time; and where a run goes on,
# hashing the data files is left to the digest of the restored variables, which is taken at memory's speed.
LARGE = 128 * 2**20

# Large files are hashed side by side; a core hashes 1.5 GB/s, and to start a thread takes up to a millisecond.
HASHING_THREADS = 4
_WORTH_THREADS = 4 * 2**20


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
    format: int = FORMAT

    def to_json(self) -> bytes:
        """The bytes of the file: the fields, and a hash that protects them."""
        return (json.dumps(sealed(asdict(self)), indent=2) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a manifest.

        Raises:
          DamagedError: not a byte of it can be trusted.
          CheckpointError: another version of this package wrote it.
        """
        try:
            record = json.loads(path.read_bytes())
            sha256 = record.pop("sha256", None)
            if sha256 != _sha256(record) and not (sha256 is None and record["format"] == 1):
                raise DamagedError(f"{path.name}: its own sha256 is not the one that it states")
            if record["format"] not in _FORMATS_READ:
                prefix = path.with_name(path.name.removesuffix(".manifest.json"))
                message = (
                    f"{path}: format {record['format']} found, {FORMAT} wanted: another version wrote it; "
                    f"give a new --train_dir, and --restore_from={prefix}."
                )
                raise CheckpointError(message)
            if record["step"] != layout.step_of(path.name):
                raise DamagedError(f"{path.name}: step {record['step']} found in it")
            return cls(**record)
        except OSError as error:
            raise unreadable(path, error) from error
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:  # no JSON, or not of this shape
            raise DamagedError(f"{path.name}: cannot be read as a manifest ({reason(error)})") from error


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """What to raise where a file cannot be read: it is damaged, or it cannot be read just now and nothing is moved."""
    if is_damage(error):
        return DamagedError(f"{path.name}: cannot be read ({reason(error)})")
    return CheckpointError(f"{path}: cannot be read ({reason(error)}); see to it, and run the same command again.")


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with a hash that protects it."""
    return {**record, "sha256": _sha256(record)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads a record that protects itself, and gives it without its hash.

    Raises:
      DamagedError: not a byte of it can be trusted.
    """
    try:
        record = json.loads(path.read_bytes())
        sha256 = record.pop("sha256")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path.name}: cannot be read as a manifest ({reason(error)})") from error
    if sha256 != _sha256(record):
        raise DamagedError(f"{path.name}: its own sha256 is not the one that it states")
    assert isinstance(record, dict)
    return record


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def describe_files(paths: Sequence[Path], threads: int = 1, *, below: Path | None = None) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file, by name, or by its path below a directory."""
    sizes = [path.stat().st_size for path in paths]
    if threads == 1 or sum(sizes) < _WORTH_THREADS:
        hashes = list(map(file_sha256, paths))
    else:
        with ThreadPoolExecutor(threads) as pool:
            hashes = list(pool.map(file_sha256, paths))
    names = [path.relative_to(below).as_posix() if below else path.name for path in paths]
    described = zip(names, sizes, hashes, strict=True)
    return {name: {"bytes": size, "sha256": sha256} for name, size, sha256 in described}


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
        path, wanted = directory / name, file["bytes"]
        try:
            size = path.stat().st_size if path.is_file() else None
        except FileNotFoundError:  # deleted between the two
            size = None
        if size is None:
            raise DamagedError(f"{name}: {'no file' if path.exists() else 'nothing'} found, {wanted:,} bytes wanted")
        if size != wanted:
            raise DamagedError(f"{name}: {size:,} bytes found, {wanted:,} wanted")


def _check_hashes(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    try:
        found = describe_files([directory / name for name in files], HASHING_THREADS, below=directory)
    except OSError as error:
        raise unreadable(directory / next(iter(files)), error) from error
    for name, file in files.items():
        if found[name] != file:
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
