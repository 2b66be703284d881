"""Make checkpoints of text files, without TensorFlow; damage them; interrupt changes of the disk."""

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from checkpointing.protocol import manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout

SETTINGS = {"model": "counter", "seed": 0, "learning_rate": 0.1, "train_steps": 100}
KINDS = ["data-00000-of-00001", "index", "meta"]
AWKWARD = ["plain", "run[1]", "with spaces", "größe-数字", "star*?", "model.ckpt-7"]


def make_files(directory: Path, step: int, kinds: list[str] = KINDS, content: str = "this run's") -> Path:
    """Make the files of a checkpoint without a manifest; return its prefix."""
    directory.mkdir(parents=True, exist_ok=True)
    prefix = layout.prefix(directory, step)
    for kind in kinds:
        prefix.with_name(f"{prefix.name}.{kind}").write_text(f"{content} {kind} at step {step}")
    return prefix


def make_checkpoint(directory: Path, step: int, *, content: str = "this run's", **fields: Any) -> Path:
    """Make a complete checkpoint of plain files, with these fields in its manifest; return its prefix."""
    prefix = make_files(directory, step, content=content)
    paths = [prefix.with_name(f"{prefix.name}.{kind}") for kind in KINDS]
    plain: dict[str, Any] = {
        "step": step,
        "files": manifest.describe_files(paths),
        "state_digest": "00ff",
        "score": None,
        "settings": SETTINGS,
        "code": None,
        "started_from": None,
        "saved_at": 1_700_000_000.25,
        "training_seconds": float(step),
        "versions": manifest.versions(),
    }
    layout.manifest_path(prefix).write_bytes(Manifest(**plain | fields).to_json())
    return prefix


def mark(prefix: Path) -> Path:
    """Mark a checkpoint as incomplete; return its prefix."""
    layout.incomplete_path(prefix).touch()
    return prefix


def tree(directory: Path) -> dict[str, bytes]:
    """Return the content of all files below a directory, by relative path, without the lock."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path != directory / layout.LOCK
    }


def flip_a_bit(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    """Delete the last two bytes: more than a newline."""
    path.write_bytes(path.read_bytes()[:-2])


def cut_in_half(path: Path) -> None:
    """Delete the second half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def lengthen(path: Path) -> None:
    """Append a byte that TensorFlow does not read."""
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    """Empty a file, as a power cut may."""
    path.write_bytes(b"")


def zero(path: Path) -> None:
    """Fill a file with zeros, as a power cut may."""
    path.write_bytes(b"\0" * path.stat().st_size)


def turn_into_directory(path: Path) -> None:
    """Replace a file by a directory."""
    path.unlink()
    path.mkdir()


DAMAGES = [flip_a_bit, cut_in_half, cut_short, lengthen, empty, zero, turn_into_directory, Path.unlink]


class Killed(BaseException):
    """Stands for SIGKILL: no code of the product catches it."""


@contextmanager
def killed_before(change: int) -> Iterator[None]:
    """Raise Killed instead of the change to the disk of this number, counted from 0, and instead of all later ones.

    So `finally` blocks change nothing, as after a kill.
    """
    count = itertools.count()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def change_or_raise(*args: Any, **kwargs: Any) -> Any:
            if next(count) >= change:
                raise Killed
            return function(*args, **kwargs)

        return change_or_raise

    with (
        mock.patch.object(Path, "rename", counted(Path.rename)),
        mock.patch.object(Path, "unlink", counted(Path.unlink)),
        mock.patch.object(Path, "mkdir", counted(Path.mkdir)),
        mock.patch.object(Path, "rmdir", counted(Path.rmdir)),
        mock.patch.object(shutil, "rmtree", counted(shutil.rmtree)),
        mock.patch.object(os, "fsync", counted(os.fsync)),
    ):
        yield


def every_kill(place: Path, make: Callable[[Path], object], act: Callable[[Path], object]) -> Iterator[Path]:
    """Interrupt an action before each of its changes to the disk; yield the directories that this leaves.

    Args:
      place: parent of the directories.
      make: fills a directory before the action.
      act: the action, called with the directory.
    """
    for change in itertools.count():
        directory = place / f"killed-{change}"
        directory.mkdir(parents=True)
        make(directory)
        try:
            with killed_before(change):
                act(directory)
        except Killed:
            yield directory
        else:
            assert change > 0, "expected changes to the disk, got none"
            return


@contextmanager
def full_disk() -> Iterator[None]:
    """Make all writes fail with ENOSPC inside the block."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with mock.patch.object(os, "write", refuse), mock.patch.object(Path, "write_bytes", refuse):
        yield


def calls(function: Callable[..., object], *arguments: object) -> int:
    """Return the number of function calls that a call makes: a measure of work that other processes do not disturb."""
    count = 0

    def profile(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(profile)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return count


# Wrong fields of a manifest whose hash matches.
CONFUSED = [
    {"format": "3"},
    {"format": True},
    {"step": True},
    {"files": ["model.ckpt-10.index"]},
    {"files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}},
    {"files": {"../model.ckpt-10.index": {"bytes": 1, "sha256": ""}}},
    {"files": {"model.ckpt-10.index": None}},
    {"training_seconds": float("nan")},
    {"saved_at": "today"},
    {"score": "best"},
    {"settings": []},
    {"retention": {"max_to_keep": 1, "keep_newest": 2}},
    {"retention": {"max_to_keep": "1"}},
    {"versions": None},
]


def confuse(prefix: Path, **fields: Any) -> Path:
    """Set fields in a checkpoint's manifest, with a matching hash; return the prefix."""
    record = json.loads(layout.manifest_path(prefix).read_bytes())
    del record["sha256"]
    layout.manifest_path(prefix).write_text(json.dumps(manifest.sealed(record | fields)))
    return prefix


def is_one_error(text: str) -> bool:
    """Whether standard error holds one `error:` line and at most one `hint:` line."""
    error, *hints = text.splitlines()
    return error.startswith("error: ") and len(hints) <= 1 and all(line.startswith("hint: ") for line in hints)


SAVING = """
import itertools, os, sys
from pathlib import Path
from checkpointing.storage import durable, layout; from checkpointing.protocol import cleanup
from tests.checkpoints import make_checkpoint, mark
directory, elsewhere = map(Path, sys.argv[1:])
os.fsync = lambda _: None
for step in itertools.count(1):
    prefix, made = mark(layout.prefix(directory, step)), make_checkpoint(elsewhere, step)
    for path in [*layout.contents_of(made), layout.manifest_path(made)]:
        path.rename(directory / path.name)
    durable.delete([layout.incomplete_path(prefix)])
    if step > 2:
        cleanup.delete_unless_pinned(layout.prefix(directory, step - 2))
    if step == 3:
        print("saving", flush=True)
"""


@contextmanager
def saving_run(place: Path) -> Iterator[Path]:
    """Yield the train_dir of a process that saves and deletes checkpoints as fast as it can."""
    for name in ("run", "elsewhere"):
        (place / name).mkdir()
    command = [sys.executable, "-c", SAVING, str(place / "run"), str(place / "elsewhere")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"saving\n"
        try:
            yield place / "run"
            assert process.poll() is None
        finally:
            process.kill()
