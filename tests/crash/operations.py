"""Changes of files and directories, as values that can be applied to a real directory."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A change to the disk, or an fsync.

    path: the file or directory, relative to the recorded directory.
    began, ended: positions in the recording; operations of other threads may lie in between.
    """

    path: PurePosixPath
    began: int = 0
    ended: int = 0

    def __str__(self) -> str:
        """Describe the operation."""
        return f"{type(self).__name__.lower()} {self.path.name}"


class Create(Operation):
    """Create an empty file, if there is none."""


@dataclass(frozen=True, kw_only=True)
class Resize(Operation):
    """Truncate a file, or append zeros to it; size in bytes."""

    size: int


@dataclass(frozen=True, kw_only=True)
class Write(Operation):
    """Write bytes at an offset; an offset of None appends."""

    offset: int | None
    data: bytes = field(repr=False)


class Sync(Operation):
    """Fsync a file or a directory."""


@dataclass(frozen=True, kw_only=True)
class Rename(Operation):
    """Rename a file or a directory to `target`, replacing what has that name."""

    target: PurePosixPath

    def __str__(self) -> str:
        """Describe the operation."""
        return f"rename {self.path.name} to {self.target.name}"


@dataclass(frozen=True, kw_only=True)
class Link(Operation):
    """Create a hard link named `target`."""

    target: PurePosixPath


class Unlink(Operation):
    """Delete a name of a file."""


class Mkdir(Operation):
    """Create an empty directory."""


class Rmdir(Operation):
    """Delete an empty directory."""


def replay(operations: Iterable[Operation], root: Path) -> None:
    """Apply operations to the files below `root`; an fsync changes nothing."""
    for operation in operations:
        path = root / operation.path
        match operation:
            case Create():
                path.open("ab").close()
            case Resize():
                os.truncate(path, operation.size)
            case Write():
                with path.open("r+b") as file:
                    file.seek(*((0, os.SEEK_END) if operation.offset is None else (operation.offset,)))
                    file.write(operation.data)
            case Rename():
                path.rename(root / operation.target)
            case Link():
                (root / operation.target).hardlink_to(path)
            case Unlink():
                path.unlink()
            case Mkdir():
                path.mkdir()
            case Rmdir():
                path.rmdir()


def tree(root: Path) -> dict[str, bytes | None]:
    """Return the contents of all files below a directory, by relative path; None for a directory."""
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}
