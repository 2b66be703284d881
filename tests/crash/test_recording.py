import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.crash import recording
from tests.crash.operations import Create, Sync, Unlink, Write, replay, tree

THREADS = """
import os, threading

def work(name):
    for number in range(50):
        descriptor = os.open(f"{name}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.writev(descriptor, [name.encode(), bytes(5000)])
        os.pwrite(descriptor, b"in between", 17)
        os.lseek(descriptor, -7, os.SEEK_END)
        os.write(descriptor, str(number).encode())
        os.ftruncate(descriptor, 4000 + number)
        os.fsync(descriptor)
        os.close(descriptor)
        os.replace(f"{name}.tmp", f"{name}.{number % 7}")
        with open(f"{name} > log, (lög) = 1", "ab") as log:
            log.write(b"line, <unfinished ...>")
        os.mkdir(f"{name}.d")
        os.link(f"{name}.{number % 7}", f"{name}.d/linked")
        os.unlink(f"{name}.d/linked") if number % 2 else os.rename(f"{name}.d/linked", f"{name}.moved")
        os.rmdir(f"{name}.d")

threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing: apt-get install strace")
def test_operations_of_many_threads_can_be_replayed(tmp_path):
    """Every kind of change is recorded, also where strace splits a call into two lines."""
    original, replayed = tmp_path / "original", tmp_path / "replayed"
    original.mkdir()
    replayed.mkdir()
    operations = recording.record([sys.executable, "-c", THREADS], original, cwd=original)
    replay(operations, replayed)
    assert tree(replayed) == tree(original) != {}
    assert any(operation.began < operation.ended for operation in operations)


def parsed(text):
    """Parse strace's output; return the operations below /a."""
    return recording.parse(text.strip().splitlines(), Path("/a"), cwd=Path("/a"))


def test_a_write_during_an_fsync_is_recorded_as_such():
    """`began` and `ended` show that another thread's write need not be durable when the fsync returns."""
    operations = parsed(r"""
1 openat(AT_FDCWD<\x2f\x61>, "\x62", O_WRONLY|O_CREAT, 0666) = 3<\x2f\x61\x2f\x62>
1 fsync(3<\x2f\x61\x2f\x62> <unfinished ...>
2 write(3<\x2f\x61\x2f\x62>, "\x68\x69", 2) = 2
1 <... fsync resumed>) = 0
""")
    name = PurePosixPath("b")
    assert operations == [
        Create(path=name, began=0, ended=0),
        Write(path=name, offset=0, data=b"hi", began=2, ended=2),
        Sync(path=name, began=1, ended=3),
    ]


def test_only_successful_changes_below_the_directory_are_recorded():
    """Other files, failed calls, and the unwritten part of a partial write are left out."""
    operations = parsed(r"""
1 openat(AT_FDCWD<\x2f\x61>, "\x62", O_WRONLY|O_CREAT|O_APPEND, 0666) = 3<\x2f\x61\x2f\x62>
1 write(3<\x2f\x61\x2f\x62>, "\x68\x69", 2) = 1
1 write(4<\x2f\x7a>, "\x68\x69", 2) = 2
1 unlink("\x2f\x7a") = 0
1 unlink("\x62") = -1 EBUSY (Device or resource busy)
1 unlink("\x2f\x61\x2f\x62") = 0
""")
    assert [type(each) for each in operations] == [Create, Write, Unlink]
    assert (operations[1].offset, operations[1].data) == (None, b"h")


def test_a_call_that_is_not_implemented_raises():
    """A recording without it would be wrong."""
    with pytest.raises(NotImplementedError):
        parsed(r'1 symlink("\x62", "\x2f\x61\x2f\x63") = 0')
