"""Record how a process changes the files below a directory.

    recorded = recording.record([sys.executable, "-m", "tests.crash.saves", ...], root, cwd=ROOT)
    operations.replay(recorded, copy_of_the_former_content)

strace traces every thread of the process and of its children, including TensorFlow's C++ threads. A call below the
directory that this module does not implement is an error. Changes through mmap are not recorded. Tests verify a
recording by replaying it: that must give, byte for byte, what the process left.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from tests.crash.operations import Create, Link, Mkdir, Operation, Rename, Resize, Rmdir, Sync, Unlink, Write

_RECORDED = (
    "open,openat,creat,write,writev,pwrite64,lseek,ftruncate,truncate,fsync,fdatasync,rename,renameat,renameat2,"
    "link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
_NOT_IMPLEMENTED = "openat2,pwritev,pwritev2,copy_file_range,sendfile,splice,fallocate,symlink,symlinkat"
_LONGEST_WRITE = 1 << 24

# strace's output: `123 openat(AT_FDCWD<\x2f>, "\x61", O_RDONLY) = 3<\x2f\x61>`. All strings and paths are in hex, so
# commas, quotes and brackets separate arguments only.
_HEX = r"(?:\\x[0-9a-f]{2})*"
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+).*")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_UNFINISHED = "<unfinished ...>"
_DESCRIPTOR = re.compile(rf"(-?\d+|AT_FDCWD)<({_HEX})>(\(deleted\))?")
_STRING = re.compile(rf'"({_HEX})"(\.\.\.)?')


def record(command: Sequence[str], root: Path, *, cwd: Path) -> list[Operation]:
    """Run a command to its end; return its operations below `root`, in the order in which they ended.

    Raises:
      CalledProcessError: the command failed.
    """
    with TemporaryDirectory() as elsewhere:
        trace = Path(elsewhere) / "trace"
        strace = [
            *("strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "--signal=none", f"--output={trace}"),
            *("--decode-fds=path", "--strings-in-hex=all", f"--string-limit={_LONGEST_WRITE}"),
            f"--trace={_RECORDED},{_NOT_IMPLEMENTED}",
        ]
        subprocess.run([*strace, *command], cwd=cwd, check=True, capture_output=True)
        with trace.open() as lines:
            return parse(lines, root, cwd=cwd)


def parse(lines: Iterable[str], root: Path, *, cwd: Path) -> list[Operation]:
    """Parse strace's output for a process whose working directory is `cwd`; return its operations below `root`."""
    parser = _Parser(root, cwd)
    return [
        replace(operation, began=call.began, ended=call.ended)
        for call in _calls(lines)
        for operation in parser.operations(call)
    ]


@dataclass(frozen=True)
class _Call:
    """A system call that succeeded; `began` and `ended` are line numbers of strace's output."""

    name: str
    arguments: list[str]
    result: int
    began: int
    ended: int


def _calls(lines: Iterable[str]) -> Iterator[_Call]:
    """Yield the calls that succeeded, in the order in which they ended; strace splits some of them into two lines."""
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
    """The file of a descriptor, and its offset; None if it appends."""

    path: PurePosixPath
    offset: int | None


class _Parser:
    """Keeps the offset of each open file, which write(2) does not name.

    All processes share one table of descriptors here, as threads do. That is wrong for a child process that opens a
    file below the directory; then the replay differs.
    """

    def __init__(self, root: Path, cwd: Path) -> None:
        self._root = root.resolve()
        self._cwd = cwd.resolve()
        self._files: dict[int, _OpenFile] = {}

    def operations(self, call: _Call) -> Iterator[Operation]:
        """Yield the operations of one call below the directory."""
        if call.name in {"write", "writev", "pwrite64", "lseek", "ftruncate", "fsync", "fdatasync"}:
            number, path = self._descriptor(call)
            if path:
                yield from self._through_descriptor(call, path, number)
            return
        paths = [self._below(path) for path in self._paths(call.arguments)]
        if any(paths):
            # A rename or link across the directory's border is not implemented.
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
                assert file, f"{path}: written through a descriptor whose open was not recorded"
                # A write may be partial.
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
        """Return a call's first argument, a descriptor, and its file's path at that moment, if that is below `root`."""
        descriptor = _DESCRIPTOR.fullmatch(call.arguments[0])
        if descriptor is None:
            return -1, None
        path = self._below(_path(descriptor[2]))
        if path and descriptor[3]:
            raise NotImplementedError(f"{path}: changed after it was deleted")
        return int(descriptor[1]), path

    def _paths(self, arguments: list[str]) -> Iterator[PurePosixPath]:
        """Yield the absolute paths among a call's arguments; a descriptor before a path is the path's directory."""
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
    """Yield the bytes among a call's arguments, in order."""
    for argument in arguments:
        for content, cut_off in _STRING.findall(argument):
            assert not cut_off, f"expected writes of at most {_LONGEST_WRITE} bytes"
            yield _bytes(content)


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))
