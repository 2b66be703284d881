import re
from pathlib import Path

import pytest

from checkpointing.errors import OddFileError, is_damage
from checkpointing.storage import regular_file
from tests import odd_files


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "directory"])
def test_only_regular_files_are_read(tmp_path, monkeypatch, kind):
    """Anything else is an error at once: no FIFO is waited for, and no endless device is read."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    odd_files.make(kind, Path("odd"))
    with pytest.raises(OSError, match=re.escape(kind)) as caught:
        regular_file.read(Path("odd"), 100)
    assert is_damage(caught.value)


def test_a_file_is_read_up_to_a_size(tmp_path):
    """A larger file is an error, and is not read into memory."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert regular_file.read(path, 100) == b"x" * 100
    with pytest.raises(OddFileError, match="at most 99 bytes, got 100"):
        regular_file.read(path, 99)


def test_a_link_to_a_file_is_read(tmp_path):
    """A data file may lie on another disk; only writers do not follow links."""
    (tmp_path / "there").write_bytes(b"content")
    (tmp_path / "here").symlink_to("there")
    assert regular_file.read(tmp_path / "here", 100) == b"content"
