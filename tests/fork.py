"""Runs of the programs, forked from a process that has imported TensorFlow (`zygote.py`)."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests import zygote

_ROOT = Path(__file__).parent.parent


class Fork:
    """A run forked from the zygote, with the methods of a subprocess.Popen of text."""

    def __init__(self, program: str, *flags: str, directory: Path = _ROOT, stderr_to_stdout: bool = False) -> None:
        """Start "softmax", "cnn" or a module in a directory; standard output and error go to two pipes, or to one."""
        ours, status = os.pipe()
        stdout, out = os.pipe()
        stderr, err = (None, out) if stderr_to_stdout else os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        request = zygote.Request(program, list(flags), dict(os.environ), str(directory))
        socket.send_fds(_zygote(), [json.dumps(request._asdict()).encode()], [nothing, out, err, status])
        for descriptor in {nothing, out, err, status}:
            os.close(descriptor)
        self._status = os.fdopen(ours, "rb", buffering=0)
        self.stdout = os.fdopen(stdout)
        self.stderr = None if stderr is None else os.fdopen(stderr)
        self.returncode: int | None = None
        self.pid = self._read()

    def _read(self) -> int:
        text = self._status.read(zygote.NUMBER.size)
        assert text, "the zygote has died"
        return int(zygote.NUMBER.unpack(text)[0])

    def poll(self) -> int | None:
        """Return its exit status, or minus the signal that ended it; None while it runs."""
        return (
            self.wait() if self.returncode is None and select.select([self._status], [], [], 0)[0] else self.returncode
        )

    def wait(self) -> int:
        """Wait for its end; return its exit status, or minus the signal that ended it."""
        if self.returncode is None:
            self.returncode = self._read()
            self._status.close()
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Wait for its end; return its standard output and error."""
        with ThreadPoolExecutor() as pool:  # both at once: it blocks while a pipe is full
            stderr = pool.submit(self.stderr.read) if self.stderr else None
            stdout = self.stdout.read()
            printed = stdout, stderr.result() if stderr else ""
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()
        return printed

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


@cache
def _zygote() -> socket.socket:
    """Start the zygote, once; return the socket for requests. The zygote ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.zygote", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=_ROOT)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
