"""Fixtures for several of the crash tests."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# A memory disk, because there are thousands of files; any other works, too.
SHM = Path("/dev/shm")  # noqa: S108 - only the parent of directories made with mkdtemp


@pytest.fixture(scope="module")
def memory_disk() -> Iterator[Path]:
    """An empty directory, in memory if possible."""
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system of 3 MB, for about forty checkpoints."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)
