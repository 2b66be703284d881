"""Make FIFOs, sockets, devices and links in place of files; limit time, memory and descriptors of a block."""

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

KINDS = ("FIFO", "socket", "device", "link to a FIFO", "directory", "dangling link", "link to itself")


def make(kind: str, path: Path) -> Path:
    """Make a file of one of KINDS at a path, replacing the file there; return the path."""
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == "device":
        path.symlink_to("/dev/zero")  # endless
    elif kind == "link to a FIFO":
        path.symlink_to(make("FIFO", path.with_name(f".{path.name}.fifo")))
    elif kind == "directory":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(path.with_name("absent"))
    else:
        path.symlink_to(path)
    return path


@contextmanager
def no_hang(seconds: float = 20) -> Iterator[None]:
    """Fail if the block takes longer than this."""

    def fail(number: int, frame: FrameType | None) -> None:
        del number, frame
        message = f"expected an end within {seconds} s"
        raise AssertionError(message)

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def little_memory(spare_bytes: int) -> Iterator[None]:
    """Limit the address space of this process to `spare_bytes` more than it uses now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + spare_bytes):
        yield


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Make each open(2) fail with EMFILE."""
    with _limit(resource.RLIMIT_NOFILE, 0):
        yield


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Make each write fail that would make a file longer than `size` bytes, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with _limit(resource.RLIMIT_FSIZE, size):
            yield
    finally:
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def _limit(kind: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
