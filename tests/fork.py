"""Runs of the programs, forked from a process that has imported TensorFlow: `zygote.py` is the other end."""

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
    """A run forked from the zygote; it can be treated as a subprocess.Popen of text."""

    def __init__(self, program: str, *flags: str, stderr_to_stdout: bool = False) -> None:
        """Starts it; what it prints goes to pipes, or all of it to one."""
        ours, told = os.pipe()
        stdout, out = os.pipe()
        stderr, err = (None, out) if stderr_to_stdout else os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        request = zygote.Request(program, list(flags), dict(os.environ))
        socket.send_fds(_zygote(), [json.dumps(request._asdict()).encode()], [nothing, out, err, told])
        for descriptor in {nothing, out, err, told}:
            os.close(descriptor)
        self._told = os.fdopen(ours, "rb", buffering=0)
        self.stdout = os.fdopen(stdout)
        self.stderr = None if stderr is None else os.fdopen(stderr)
        self.returncode: int | None = None
        self.pid = self._read()

    def _read(self) -> int:
        text = self._told.read(zygote.NUMBER.size)
        assert text, "the zygote has died"
        return int(zygote.NUMBER.unpack(text)[0])

    def poll(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        return self.wait() if self.returncode is None and select.select([self._told], [], [], 0)[0] else self.returncode

    def wait(self) -> int:
        """The same, once it has ended."""
        if self.returncode is None:
            self.returncode = self._read()
            self._told.close()
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """All that it prints; then it has ended."""
        with ThreadPoolExecutor() as pool:  # both at once, for it waits while a pipe is full
            stderr = pool.submit(self.stderr.read) if self.stderr else None
            stdout = self.stdout.read()
            printed = stdout, stderr.result() if stderr else ""
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()
        return printed

    def send_signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)


@cache
def _zygote() -> socket.socket:
    """The socket that takes requests; the process behind it, in whose directory runs begin, ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.zygote", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=_ROOT)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
