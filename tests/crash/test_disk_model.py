"""What the model of a disk promises, and what it does not."""

from dataclasses import replace
from pathlib import PurePosixPath

from tests.crash.power_cut import PAGE, cuts
from tests.crash.recording import Create, Mkdir, Rename, Resize, Sync, Unlink, Write

ROOT = PurePosixPath()
A, B, DIRECTORY = PurePosixPath("a"), PurePosixPath("b"), PurePosixPath("directory")
WRITE = Write(path=A, offset=0, data=b"data")


def one_after_the_other(*operations):
    """Operations each of which begins when the one before has ended."""
    return [replace(operation, began=number, ended=number) for number, operation in enumerate(operations)]


def left(operations):
    """All that the disk may hold when the last operation has ended."""
    *_, last = cuts(operations)
    return [dict(key) for key in {state.key for state in last.states}]


def test_fsync_of_a_file_keeps_its_bytes_and_not_its_name():
    """The name comes with the directory's fsync."""
    made = [Create(path=A), WRITE, Sync(path=A)]
    assert sorted(left(one_after_the_other(*made)), key=len) == [{}, {"a": b"data"}]
    assert left(one_after_the_other(*made, Sync(path=ROOT))) == [{"a": b"data"}]


def test_fsync_of_a_directory_keeps_names_and_not_bytes():
    """A file may be empty, of the right length without its bytes, or cut off."""
    found = left(one_after_the_other(Create(path=A), WRITE, Sync(path=ROOT)))
    assert {each["a"] for each in found} == {b"", b"\0\0\0\0", b"da", b"data"}


def test_fsync_keeps_only_what_had_ended_when_it_began():
    """Another thread's write meanwhile may be lost."""
    create, write = one_after_the_other(Create(path=A), WRITE)
    found = left([create, write, Sync(path=A, began=1, ended=2)])
    assert {"a": b""} in found


def test_a_rename_is_done_or_not():
    """Onto another file: its old bytes, or the new ones, and never neither."""
    old, new = Write(path=B, offset=0, data=b"old"), Write(path=A, offset=0, data=b"new")
    made = [Create(path=B), old, Sync(path=B), Create(path=A), new, Sync(path=A), Sync(path=ROOT)]
    found = left(one_after_the_other(*made, Rename(path=A, target=B)))
    assert sorted(found, key=len) == [{"b": b"new"}, {"a": b"new", "b": b"old"}]


def test_names_are_kept_in_any_order():
    """Of two deletions, the second may be there without the first."""
    made = [Create(path=A), Create(path=B), Sync(path=ROOT)]
    found = left(one_after_the_other(*made, Unlink(path=A), Unlink(path=B)))
    assert sorted(sorted(each) for each in found) == [[], ["a"], ["a", "b"], ["b"]]


def test_what_is_in_a_directory_goes_with_its_name():
    """A file whose every byte and name is durable is lost where its directory is not."""
    file = DIRECTORY / "a"
    write = Write(path=file, offset=None, data=b"data")
    made = [Mkdir(path=DIRECTORY), Create(path=file), write, Sync(path=file), Sync(path=DIRECTORY)]
    assert {} in left(one_after_the_other(*made))
    assert left(one_after_the_other(*made, Sync(path=ROOT))) == [{"directory": None, "directory/a": b"data"}]


def test_a_write_in_place_may_be_torn_between_pages():
    """The disk may write them in either order."""
    old, new = b"o" * 3 * PAGE, b"n" * 3 * PAGE
    made = [Create(path=A), Write(path=A, offset=0, data=old), Sync(path=A), Sync(path=ROOT)]
    found = [each["a"] for each in left(one_after_the_other(*made, Write(path=A, offset=0, data=new)))]
    assert {old, new, new[:PAGE] + old[PAGE:], old[:PAGE] + new[PAGE:]} <= set(found)


def test_a_file_that_is_written_anew_may_be_empty():
    """What O_TRUNC took away is gone before there is anything else."""
    made = [Create(path=A), WRITE, Sync(path=A), Sync(path=ROOT)]
    found = left(one_after_the_other(*made, Resize(path=A, size=0), Write(path=A, offset=0, data=b"new")))
    assert {each["a"] for each in found} >= {b"data", b"", b"new"}
