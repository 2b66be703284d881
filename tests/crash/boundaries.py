"""Runs of the programs that are killed at a system call that changes files.

    with Zygotes(compile_kill_at(tmp_path), count=2) as zygotes:
        whole = zygotes.run("softmax", flags, directory)
        zygotes.run("softmax", flags, directory, Kill(before=len(whole.calls)))

`kill_at.c` tells how a call is counted, `zygote.py` how a run starts within milliseconds.
"""

import json
import queue
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Self

from tests import programs

# A run takes about a second; one that takes so long hangs, and ends by SIGALRM.
SECONDS = 120


class Call(NamedTuple):
    """A system call that changes, or would have changed, a file."""

    number: int
    name: str
    path: str

    @property
    def kind(self) -> tuple[str, str]:
        """What it does to which kind of file: the same for the checkpoints of two steps."""
        return self.name, re.sub(r"\.incomplete-[0-9a-f]{8}|\d+", "N", self.path)

    def __str__(self) -> str:
        """For people."""
        return f"{self.number} {self.name} {self.path}"


class Kill(NamedTuple):
    """When to kill a run.

    before: the number, from 1, of the call that is not to happen any more; 0 for none.
    in_the_middle: the first half of that call still happens, if it is a write.
    """

    before: int
    in_the_middle: bool = False


NO_KILL = Kill(before=0)


class Ended(NamedTuple):
    """How a run ended.

    status: its exit status, or minus the signal that ended it. calls: where killed at a call, that one is the last.
    output: all that it printed.
    """

    status: int
    calls: list[Call]
    output: str


def compile_kill_at(directory: Path) -> Path:
    """Compiles kill_at.c; gives the library."""
    library = directory / "kill_at.so"
    source = Path(__file__).with_name("kill_at.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


class Zygotes:
    """Processes that fork runs, each one run at a time; any thread may ask for one."""

    def __init__(self, kill_at: Path, count: int) -> None:
        """Starts them; the first runs wait until they have imported TensorFlow."""
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
        """They run already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends them."""
        for zygote in self._all:
            zygote.communicate()

    def run(self, program: str, flags: list[str], directory: Path, kill: Kill = NO_KILL) -> Ended:
        """Runs a program with `directory`/run as its train_dir.

        Args:
          program: "softmax" or "cnn".
          flags: its other flags.
          directory: calls that change files in it are counted; it is made where it is missing.
          kill: when to kill it; by default it is let end.
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
            status = _ask(zygote, json.dumps(request))
        finally:
            self._idle.put(zygote)
        return Ended(status, _read_calls(calls, directory), output.read_text())


def _ask(zygote: subprocess.Popen[str], request: str) -> int:
    assert zygote.stdin is not None
    assert zygote.stdout is not None
    zygote.stdin.write(request + "\n")
    zygote.stdin.flush()
    answer = zygote.stdout.readline()
    assert answer, f"the zygote has ended with {zygote.wait()}"
    return int(answer)


def _read_calls(path: Path, directory: Path) -> list[Call]:
    lines = [line.split(" ", maxsplit=2) for line in path.read_text().splitlines()]
    return [Call(int(number), name, where.removeprefix(f"{directory}/")) for number, name, where in lines]
