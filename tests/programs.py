"""The programs in real processes, forked or started anew, with real signals and real files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fork import Fork

ROOT = Path(__file__).parent.parent


def command(program: str, *flags: str) -> list[str]:
    """The command line of `train_<program>.py`; it draws no report, which takes seconds, unless told to."""
    return [sys.executable, str(ROOT / f"train_{program}.py"), "--noreport", *flags]


Process = Fork | subprocess.Popen[str]


def start(program: str, *flags: str, anew: bool = False) -> Process:
    """Starts `train_<program>.py`; what it prints goes to pipes.

    Args:
      program: "softmax" or "cnn".
      flags: its command line.
      anew: as a process of which nothing is there yet, which takes seconds more. For beliefs about start-up, and about
        processes that have nothing in common: all forks order their sets alike, for example.
    """
    if not anew:
        return Fork(program, "--noreport", *flags)
    pipe = subprocess.PIPE
    return subprocess.Popen(command(program, *flags), stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


def run(program: str, *flags: str, anew: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs `train_<program>.py` to its end."""
    process = start(program, *flags, anew=anew)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(flags, process.wait(), stdout, stderr)


class Watched:
    """A program under way, whose messages can be waited for."""

    def __init__(self, program: str, *flags: str, under: tuple[str, ...] = ()) -> None:
        """Starts it, `under` another program if one is given."""
        self.process: Process
        if under:
            both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen([*under, *command(program, *flags)], **both, text=True, cwd=ROOT)
        else:
            self.process = Fork(program, "--noreport", *flags, stderr_to_stdout=True)
        self.said = ""

    def wait_for(self, text: str) -> None:
        """Reads what it says, up to a line with this text; it must not end before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if text in line:
                return
        raise AssertionError(f"{text!r} was never said, but:\n{self.said}")

    def end(self) -> int:
        """Waits for its end; gives its exit status."""
        self.said += self.process.communicate()[0]
        return self.process.wait()


def train(program: str, train_dir: Path, *flags: str, anew: bool = False) -> dict[str, Any]:
    """Runs a program that must succeed; gives its result.json."""
    ended = run(program, f"--train_dir={train_dir}", *flags, anew=anew)
    assert ended.returncode == 0, ended.stderr
    return result(train_dir)


def result(train_dir: Path) -> dict[str, Any]:
    """What a run left for programs to read."""
    record = json.loads((train_dir / "result.json").read_text())
    assert isinstance(record, dict)
    return record


def metrics(train_dir: Path) -> list[dict[str, Any]]:
    """The records of the logged steps."""
    return [json.loads(line) for line in (train_dir / "metrics.jsonl").read_text().splitlines()]
