"""The process of a program in benchmarks/peers."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}


class PeerProcess:
    """A peer that waits, and measures on request; see benchmarks/peers/protocol.py."""

    versions: dict[str, str]  # of its libraries

    def __init__(self, python: str, module: str, size: int, directory: Path) -> None:
        """Start the process, and wait until its state is initialized.

        Args:
          python: Python interpreter with the peer's libraries.
          module: name of the peer in benchmarks/peers.
          size: bytes of the state.
          directory: where the peer saves.
        """
        command = [python, "-m", f"benchmarks.peers.{module}", str(size), str(directory)]
        # A file, because a pipe that is not read could fill up.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | _QUIET,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.versions = self._read_reply()

    def measure(self, part: str) -> dict[str, float]:
        """Measure once; return part -> seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{part}\n")
        self._process.stdin.flush()
        return self._read_reply()

    def _read_reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self._process.args!r} ended: {self._errors.read()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
