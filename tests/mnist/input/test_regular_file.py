import errno
import os
from pathlib import Path

import pytest

from mnist.input import regular_file
from tests import odd_files


def test_a_file_and_a_link_to_one_are_opened(tmp_path):
    """Links of the user's own making are followed for reading."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with regular_file.open_to_read(tmp_path / name) as file:
            assert regular_file.size(file) == 7
            assert file.read() == b"content"


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_nothing_else_is_opened_or_waited_for(tmp_path, kind):
    """A FIFO without a writer, an endless device, a socket and the like are errors at once, about the file."""
    path = odd_files.make(kind, tmp_path / "odd")
    with odd_files.no_hang(), pytest.raises(OSError, match=r"odd") as raised:
        regular_file.open_to_read(path)
    assert regular_file.is_about_the_file(raised.value)
    assert "put it there" in regular_file.problem(raised.value, "put it there")


def test_a_file_replaced_by_a_fifo_is_found_out(tmp_path, monkeypatch):
    """Between looking and opening, a FIFO may take the file's place: it is not waited for, and not read."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    look = Path.stat

    def look_and_replace(self: Path, **options):
        found = look(self, **options)
        odd_files.make("FIFO", path)
        return found

    monkeypatch.setattr(Path, "stat", look_and_replace)
    with odd_files.no_hang(), pytest.raises(regular_file.NotRegularError, match="got a FIFO"):
        regular_file.open_to_read(path)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES])
def test_a_shortage_says_nothing_about_the_file(number):
    """What may be gone a moment later is not answered by another file."""
    error = OSError(number, os.strerror(number), "file")
    assert not regular_file.is_about_the_file(error)
    assert "put it there" not in regular_file.problem(error, "put it there")
    assert os.strerror(number) in regular_file.problem(error, "put it there")
