"""The model of a disk in power_cut.py: which states a power cut may leave."""

from dataclasses import replace
from pathlib import PurePosixPath

from tests.crash.operations import Create, Mkdir, Rename, Resize, Sync, Unlink, Write
from tests.crash.power_cut import PAGE, cuts

ROOT = PurePosixPath()
A, B, DIRECTORY = PurePosixPath("a"), PurePosixPath("b"), PurePosixPath("directory")
WRITE = Write(path=A, offset=0, data=b"data")


def in_sequence(*operations):
    """Number operations so that each begins after the end of the one before."""
    return [replace(operation, began=number, ended=number) for number, operation in enumerate(operations)]


def states_after(operations):
    """Return all trees that a power cut after the last operation may leave."""
    *_, last = cuts(operations)
    return [dict(key) for key in {state.key for state in last.states}]


def test_fsync_of_a_file_makes_its_bytes_durable_and_not_its_name():
    """The name needs an fsync of the directory."""
    made = [Create(path=A), WRITE, Sync(path=A)]
    assert sorted(states_after(in_sequence(*made)), key=len) == [{}, {"a": b"data"}]
    assert states_after(in_sequence(*made, Sync(path=ROOT))) == [{"a": b"data"}]


def test_fsync_of_a_directory_makes_names_durable_and_not_bytes():
    """A file may be empty, have the right length but zeros, or be cut off."""
    found = states_after(in_sequence(Create(path=A), WRITE, Sync(path=ROOT)))
    assert {each["a"] for each in found} == {b"", b"\0\0\0\0", b"da", b"data"}


def test_fsync_makes_only_earlier_changes_durable():
    """A write of another thread during the fsync may be lost."""
    create, write = in_sequence(Create(path=A), WRITE)
    found = states_after([create, write, Sync(path=A, began=1, ended=2)])
    assert {"a": b""} in found


def test_a_rename_is_atomic():
    """The target has its old bytes or the new ones."""
    old, new = Write(path=B, offset=0, data=b"old"), Write(path=A, offset=0, data=b"new")
    made = [Create(path=B), old, Sync(path=B), Create(path=A), new, Sync(path=A), Sync(path=ROOT)]
    found = states_after(in_sequence(*made, Rename(path=A, target=B)))
    assert sorted(found, key=len) == [{"b": b"new"}, {"a": b"new", "b": b"old"}]


def test_changes_of_names_become_durable_in_any_order():
    """Of two deletions, the second may be on the disk without the first."""
    made = [Create(path=A), Create(path=B), Sync(path=ROOT)]
    found = states_after(in_sequence(*made, Unlink(path=A), Unlink(path=B)))
    assert sorted(sorted(each) for each in found) == [[], ["a"], ["a", "b"], ["b"]]


def test_a_file_is_lost_if_the_name_of_its_directory_is():
    """Even if the file's bytes and name are durable."""
    file = DIRECTORY / "a"
    write = Write(path=file, offset=None, data=b"data")
    made = [Mkdir(path=DIRECTORY), Create(path=file), write, Sync(path=file), Sync(path=DIRECTORY)]
    assert {} in states_after(in_sequence(*made))
    assert states_after(in_sequence(*made, Sync(path=ROOT))) == [{"directory": None, "directory/a": b"data"}]


def test_a_write_in_place_may_be_torn_between_pages():
    """The disk may write pages in any order."""
    old, new = b"o" * 3 * PAGE, b"n" * 3 * PAGE
    made = [Create(path=A), Write(path=A, offset=0, data=old), Sync(path=A), Sync(path=ROOT)]
    found = [each["a"] for each in states_after(in_sequence(*made, Write(path=A, offset=0, data=new)))]
    assert {old, new, new[:PAGE] + old[PAGE:], old[:PAGE] + new[PAGE:]} <= set(found)


def test_a_file_that_is_truncated_and_rewritten_may_be_empty():
    """The truncation may be on the disk without the new bytes."""
    made = [Create(path=A), WRITE, Sync(path=A), Sync(path=ROOT)]
    found = states_after(in_sequence(*made, Resize(path=A, size=0), Write(path=A, offset=0, data=b"new")))
    assert {each["a"] for each in found} >= {b"data", b"", b"new"}
