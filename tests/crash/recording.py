"""Records how a process changes the files below one directory, and makes the same changes again.

    operations = recording.record([sys.executable, "-m", "tests.crash.saves", ...], root, cwd=ROOT)
    recording.replay(operations, copy_of_what_was_there_before)

strace sees every thread of the process and of its children, TensorFlow's C++ included. Calls below the directory that
are not understood here are an error, never skipped in silence. Changes through mmap are not seen. That there were none,
and that all else is right, `replay` proves: it must give, byte for byte, what the process left.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

_RECORDED = (
    "open,openat,creat,write,writev,pwrite64,lseek,ftruncate,truncate,fsync,fdatasync,rename,renameat,renameat2,"
    "link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
_NOT_UNDERSTOOD = "openat2,pwritev,pwritev2,copy_file_range,sendfile,splice,fallocate,symlink,symlinkat"
_LONGEST_WRITE = 1 << 24

# What strace writes: `123 openat(AT_FDCWD<\x2f>, "\x61", O_RDONLY) = 3<\x2f\x61>`. All strings and paths are in hex, so
# no comma, quote or bracket in them can mislead.
_HEX = r"(?:\\x[0-9a-f]{2})*"
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+).*")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_UNFINISHED = "<unfinished ...>"
_DESCRIPTOR = re.compile(rf"(-?\d+|AT_FDCWD)<({_HEX})>(\(deleted\))?")
_STRING = re.compile(rf'"({_HEX})"(\.\.\.)?')


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A change to the disk, or the demand to make changes durable.

    path: what it is done to, relative to the recorded directory.
    began, ended: its place in the recording; they differ, for other threads may have done something in between.
    """

    path: PurePosixPath
    began: int = 0
    ended: int = 0

    def __str__(self) -> str:
        """The operation in words."""
        return f"{type(self).__name__.lower()} {self.path.name}"


class Create(Operation):
    """Makes an empty file; nothing where there is one already."""


@dataclass(frozen=True, kw_only=True)
class Resize(Operation):
    """Cuts a file off, or adds zeros to it."""

    size: int


@dataclass(frozen=True, kw_only=True)
class Write(Operation):
    """Puts bytes into a file at an offset; at its end where the offset is None."""

    offset: int | None
    data: bytes = field(repr=False)


class Sync(Operation):
    """fsync of a file or of a directory."""


@dataclass(frozen=True, kw_only=True)
class Rename(Operation):
    """Gives a file or a directory another name; what had that name is replaced."""

    target: PurePosixPath

    def __str__(self) -> str:
        """The operation in words."""
        return f"rename {self.path.name} to {self.target.name}"


@dataclass(frozen=True, kw_only=True)
class Link(Operation):
    """Gives a file a second name."""

    target: PurePosixPath


class Unlink(Operation):
    """Takes a file's name away."""


class Mkdir(Operation):
    """Makes an empty directory."""


class Rmdir(Operation):
    """Takes an empty directory away."""


def record(command: Sequence[str], root: Path, *, cwd: Path) -> list[Operation]:
    """Runs a command to its end and tells what it did below `root`, in the order in which it was done.

    Raises:
      CalledProcessError: the command failed.
    """
    with TemporaryDirectory() as elsewhere:
        trace = Path(elsewhere) / "trace"
        strace = [
            *("strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "--signal=none", f"--output={trace}"),
            *("--decode-fds=path", "--strings-in-hex=all", f"--string-limit={_LONGEST_WRITE}"),
            f"--trace={_RECORDED},{_NOT_UNDERSTOOD}",
        ]
        subprocess.run([*strace, *command], cwd=cwd, check=True, capture_output=True)
        with trace.open() as lines:
            return parse(lines, root, cwd=cwd)


def replay(operations: Iterable[Operation], root: Path) -> None:
    """Does on a real disk what was recorded."""
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
    """All that is below a directory: each path's bytes, or None for a directory."""
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def parse(lines: Iterable[str], root: Path, *, cwd: Path) -> list[Operation]:
    """The operations below `root` in what strace wrote of a process that was started in `cwd` and stayed there."""
    parser = _Parser(root, cwd)
    return [
        replace(operation, began=call.began, ended=call.ended)
        for call in _calls(lines)
        for operation in parser.operations(call)
    ]


@dataclass(frozen=True)
class _Call:
    """A system call that succeeded; began and ended are the numbers of strace's lines."""

    name: str
    arguments: list[str]
    result: int
    began: int
    ended: int


def _calls(lines: Iterable[str]) -> Iterator[_Call]:
    """The calls that succeeded, in the order in which they ended; those told on two lines are put together."""
    unfinished: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        thread, _, text = line.rstrip("\n").partition(" ")
        text, began = text.lstrip(), number
        if text.endswith(_UNFINISHED):
            unfinished[thread] = number, text.removesuffix(_UNFINISHED)
            continue
        if resumed := _RESUMED.fullmatch(text):
            began, half = unfinished.pop(thread)
            text = half + resumed[1]
        call = _CALL.fullmatch(text)
        if call and int(call[3]) >= 0:
            arguments = [argument.strip() for argument in call[2].split(",")]
            yield _Call(call[1], arguments, int(call[3]), began, number)


@dataclass
class _OpenFile:
    """What a descriptor writes to, and where next; None for the end of the file."""

    path: PurePosixPath
    offset: int | None


class _Parser:
    """Knows the open files, so that each write has its offset.

    Descriptors are taken to belong to all processes, as to all threads. A child process that writes below the directory
    through one of its own could prove that wrong, and the replay would show it.
    """

    def __init__(self, root: Path, cwd: Path) -> None:
        self._root = root.resolve()
        self._cwd = cwd.resolve()
        self._files: dict[int, _OpenFile] = {}

    def operations(self, call: _Call) -> Iterator[Operation]:
        """What one call does below the directory."""
        if call.name in {"write", "writev", "pwrite64", "lseek", "ftruncate", "fsync", "fdatasync"}:
            number, path = self._descriptor(call)
            if path:
                yield from self._through_descriptor(call, path, number)
            return
        paths = [self._below(path) for path in self._paths(call.arguments)]
        if any(paths):
            # A name that comes from elsewhere, or goes there, would be half a change.
            assert all(paths), call
            yield from self._by_name(call, *paths)

    def _through_descriptor(self, call: _Call, path: PurePosixPath, number: int) -> Iterator[Operation]:
        file = self._files.get(number)
        match call.name:
            case "fsync" | "fdatasync":
                yield Sync(path=path)
            case "ftruncate":
                yield Resize(path=path, size=int(call.arguments[1]))
            case "lseek":
                if file and file.offset is not None:
                    file.offset = call.result
            case "write" | "writev" | "pwrite64":
                assert file, f"{path}: written through a descriptor that was never opened"
                # What was not taken by the disk was not written.
                data = b"".join(_strings(call.arguments))[: call.result]
                if call.name == "pwrite64" and file.offset is not None:
                    yield Write(path=path, offset=int(call.arguments[-1]), data=data)
                else:
                    yield Write(path=path, offset=file.offset, data=data)
                    file.offset = None if file.offset is None else file.offset + len(data)

    def _by_name(self, call: _Call, path: PurePosixPath, target: PurePosixPath | None = None) -> Iterator[Operation]:
        match call.name:
            case "open" | "openat" | "creat":
                yield from self._open(call, path)
            case "truncate":
                yield Resize(path=path, size=int(call.arguments[1]))
            case "rename" | "renameat" | "renameat2" if target and "RENAME_EXCHANGE" not in call.arguments[-1]:
                yield Rename(path=path, target=target)
            case "link" | "linkat" if target:
                yield Link(path=path, target=target)
            case "unlinkat" if "AT_REMOVEDIR" in call.arguments[-1]:
                yield Rmdir(path=path)
            case "unlink" | "unlinkat":
                yield Unlink(path=path)
            case "mkdir" | "mkdirat":
                yield Mkdir(path=path)
            case "rmdir":
                yield Rmdir(path=path)
            case _:
                raise NotImplementedError(call)

    def _open(self, call: _Call, path: PurePosixPath) -> Iterator[Operation]:
        flags = "O_CREAT|O_TRUNC" if call.name == "creat" else next(a for a in call.arguments if a.startswith("O_"))
        if "O_TMPFILE" in flags:
            raise NotImplementedError(call)
        self._files[call.result] = _OpenFile(path, None if "O_APPEND" in flags else 0)
        if "O_CREAT" in flags:
            yield Create(path=path)
        if "O_TRUNC" in flags:
            yield Resize(path=path, size=0)

    def _descriptor(self, call: _Call) -> tuple[int, PurePosixPath | None]:
        """The descriptor that a call begins with, and the name that its file had at that moment."""
        descriptor = _DESCRIPTOR.fullmatch(call.arguments[0])
        if descriptor is None:
            return -1, None
        path = self._below(_path(descriptor[2]))
        if path and descriptor[3]:
            raise NotImplementedError(f"{path}: written to after its last name was taken away")
        return int(descriptor[1]), path

    def _paths(self, arguments: list[str]) -> Iterator[PurePosixPath]:
        """The absolute paths among a call's arguments; a descriptor before a name says where the name counts from."""
        directory = PurePosixPath(self._cwd)
        for argument in arguments:
            if descriptor := _DESCRIPTOR.fullmatch(argument):
                directory = _path(descriptor[2])
            elif name := _STRING.fullmatch(argument):
                yield directory / _path(name[1])
                directory = PurePosixPath(self._cwd)

    def _below(self, path: PurePosixPath) -> PurePosixPath | None:
        return path.relative_to(self._root) if path.is_relative_to(self._root) else None


def _path(hexadecimal: str) -> PurePosixPath:
    return PurePosixPath(os.fsdecode(_bytes(hexadecimal)))


def _strings(arguments: list[str]) -> Iterator[bytes]:
    """The bytes among a call's arguments, in order."""
    for argument in arguments:
        for content, cut_off in _STRING.findall(argument):
            assert not cut_off, "a write is longer than strace was told to show"
            yield _bytes(content)


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))
