import errno
import os
from pathlib import Path

import pytest

from checkpointing.errors import OddFileError
from mnist.errors import DataError
from mnist.input import regular_file
from tests import odd_files


def test_regular_files_and_links_to_them_are_opened(tmp_path):
    """Symbolic links are followed."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with regular_file.open_to_read(tmp_path / name) as file:
            assert regular_file.size(file) == 7
            assert file.read() == b"content"


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_special_files_raise_at_once(tmp_path, kind):
    """A FIFO without a writer, an endless device, a socket and so on; the error is permanent."""
    path = odd_files.make(kind, tmp_path / "odd")
    with odd_files.no_hang(), pytest.raises(OSError, match=r"odd") as raised:
        regular_file.open_to_read(path)
    assert regular_file.is_about_the_file(raised.value)
    assert regular_file.unreadable(DataError, path, raised.value, "put it there").hint == "put it there"


def test_a_file_replaced_by_a_fifo_raises(tmp_path, monkeypatch):
    """A FIFO that replaces the file between stat and open is detected, without blocking."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    stat = Path.stat

    def stat_and_replace(self: Path, **options):
        found = stat(self, **options)
        odd_files.make("FIFO", path)
        return found

    monkeypatch.setattr(Path, "stat", stat_and_replace)
    with odd_files.no_hang(), pytest.raises(OddFileError, match="got a FIFO"):
        regular_file.open_to_read(path)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES])
def test_temporary_errors_are_not_about_the_file(number):
    """The message has the reason, and the hint is to retry."""
    error = OSError(number, os.strerror(number), "file")
    assert not regular_file.is_about_the_file(error)
    made = regular_file.unreadable(DataError, "file", error, "put it there")
    assert str(made) == f"file: cannot be read ({os.strerror(number)})"
    assert made.hint != "put it there"
