"""Runs of the programs that are killed at a system call that changes files.

    with Zygotes(compile_kill_at(tmp_path), count=2) as zygotes:
        whole = zygotes.run("softmax", flags, directory)
        zygotes.run("softmax", flags, directory, Kill(before=len(whole.calls)))

`kill_at.c` counts the calls; `zygote.py` starts a run within milliseconds.
"""

import json
import queue
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Self

from tests import programs

# A run takes about a second; one that takes this long hangs, and SIGALRM ends it.
SECONDS = 120


class Call(NamedTuple):
    """A system call that changes, or would have changed, a file."""

    number: int
    name: str
    path: str

    @property
    def kind(self) -> tuple[str, str]:
        """The call and the kind of its file: equal for the checkpoints of two steps."""
        return self.name, re.sub(r"\.incomplete-[0-9a-f]{8}|\d+", "N", self.path)

    @property
    def deletes_temporary(self) -> bool:
        """Whether it deletes a temporary file, which only a killed run leaves behind."""
        return self.name == "unlink" and self.path.endswith(".tmp")

    def __str__(self) -> str:
        """Return number, call and path."""
        return f"{self.number} {self.name} {self.path}"


class Kill(NamedTuple):
    """When to kill a run.

    before: the run is killed before the call of this number, from 1; 0 for never.
    in_the_middle: if that call is a write, its first half is done.
    """

    before: int
    in_the_middle: bool = False


NO_KILL = Kill(before=0)


class Ended(NamedTuple):
    """How a run ended.

    status: its exit status, or minus the signal that ended it. calls: if killed at a call, that one is the last.
    output: its standard output and error.
    """

    status: int
    calls: list[Call]
    output: str


def compile_kill_at(directory: Path) -> Path:
    """Compile kill_at.c; return the library."""
    library = directory / "kill_at.so"
    source = Path(__file__).with_name("kill_at.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


class Zygotes:
    """Processes that fork runs, each one run at a time; `run` may be called from any thread."""

    def __init__(self, kill_at: Path, count: int) -> None:
        """Start them; the first runs wait until they have imported TensorFlow."""
        command = [sys.executable, "-m", "tests.crash.zygote", str(kill_at)]
        self.count = count
        self._all = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=programs.ROOT)
            for _ in range(count)
        ]
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for zygote in self._all:
            self._idle.put(zygote)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        for zygote in self._all:
            zygote.communicate()

    def run(self, program: str, flags: list[str], directory: Path, kill: Kill = NO_KILL) -> Ended:
        """Run a program with `directory`/run as its train_dir.

        Args:
          program: "softmax" or "cnn".
          flags: its other flags.
          directory: calls that change files in it are counted; made if it is missing.
          kill: when to kill it; by default never.
        """
        directory.mkdir(exist_ok=True)
        calls, output = directory.with_name(directory.name + ".calls"), directory.with_name(directory.name + ".output")
        request = {
            "program": program,
            "flags": [f"--train_dir={directory / 'run'}", "--noreport", *flags],
            "directory": str(directory),
            "kill_before": kill.before,
            "in_the_middle": kill.in_the_middle,
            "calls": str(calls),
            "output": str(output),
            "seconds": SECONDS,
        }
        zygote = self._idle.get()
        try:
            status = _request(zygote, json.dumps(request))
        finally:
            self._idle.put(zygote)
        return Ended(status, _read_calls(calls, directory), output.read_text())


def _request(zygote: subprocess.Popen[str], request: str) -> int:
    """Send a request; return the exit status of the run."""
    assert zygote.stdin is not None
    assert zygote.stdout is not None
    zygote.stdin.write(request + "\n")
    zygote.stdin.flush()
    response = zygote.stdout.readline()
    assert response, f"the zygote has ended with {zygote.wait()}"
    return int(response)


def _read_calls(path: Path, directory: Path) -> list[Call]:
    lines = [line.split(" ", maxsplit=2) for line in path.read_text().splitlines()]
    return [Call(int(number), name, where.removeprefix(f"{directory}/")) for number, name, where in lines]
