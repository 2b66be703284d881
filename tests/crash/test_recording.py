import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.crash import recording
from tests.crash.recording import Create, Sync, Unlink, Write

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
def test_what_many_threads_did_can_be_done_again(tmp_path):
    """Every kind of change is understood, also where strace tells a call in two halves."""
    here, again = tmp_path / "here", tmp_path / "again"
    here.mkdir()
    again.mkdir()
    operations = recording.record([sys.executable, "-c", THREADS], here, cwd=here)
    recording.replay(operations, again)
    assert recording.tree(again) == recording.tree(here) != {}
    assert any(operation.began < operation.ended for operation in operations)


def parsed(text):
    """What a process did below /a, by what strace wrote."""
    return recording.parse(text.strip().splitlines(), Path("/a"), cwd=Path("/a"))


def test_what_ends_after_an_fsync_began_is_known_to_do_so():
    """Another thread's write during an fsync need not be on the disk when that returns."""
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


def test_only_what_was_done_below_the_directory_counts():
    """Other files, calls that failed, and bytes that the disk did not take, are not told."""
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


def test_what_is_not_understood_is_an_error():
    """A recording that left something out would prove nothing."""
    with pytest.raises(NotImplementedError):
        parsed(r'1 symlink("\x62", "\x2f\x61\x2f\x63") = 0')
