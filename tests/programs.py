"""The training programs in processes, forked or started."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fork import Fork

ROOT = Path(__file__).parent.parent


def command(program: str, *flags: str) -> list[str]:
    """Return the command line of `train_<program>.py`, without the report, which takes seconds."""
    return [sys.executable, str(ROOT / f"train_{program}.py"), "--noreport", *flags]


Process = Fork | subprocess.Popen[str]


def start(program: str, *flags: str, fork: bool = True, environment: Mapping[str, str] | None = None) -> Process:
    """Start `train_<program>.py`; its output goes to pipes.

    Args:
      program: "softmax" or "cnn".
      flags: its command line.
      fork: whether to fork a process that has imported TensorFlow, which saves seconds. False to test start-up, and
        processes that must have nothing in common: all forks have the same hash seed, for example.
      environment: variables in addition to this process's; not with `fork`.
    """
    if fork:
        assert environment is None
        return Fork(program, "--noreport", *flags)
    pipe = subprocess.PIPE
    variables = os.environ | (environment or {})
    return subprocess.Popen(command(program, *flags), stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=variables)


def run(program: str, *flags: str, fork: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `train_<program>.py` to its end."""
    process = start(program, *flags, fork=fork)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(flags, process.wait(), stdout, stderr)


class Watched:
    """A running program whose output can be waited for."""

    def __init__(self, program: str, *flags: str, under: tuple[str, ...] = ()) -> None:
        """Start it, as an argument of the program `under` if there is one."""
        self.process: Process
        if under:
            both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen([*under, *command(program, *flags)], **both, text=True, cwd=ROOT)
        else:
            self.process = Fork(program, "--noreport", *flags, stderr_to_stdout=True)
        self.said = ""

    def wait_for(self, text: str) -> None:
        """Read its output up to a line with this text; it must not end before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if text in line:
                return
        raise AssertionError(f"expected {text!r}, got:\n{self.said}")

    def end(self) -> int:
        """Wait for its end; return its exit status."""
        self.said += self.process.communicate()[0]
        return self.process.wait()


def train(program: str, train_dir: Path, *flags: str, fork: bool = True) -> dict[str, Any]:
    """Run a program that must succeed; return the contents of result.json."""
    ended = run(program, f"--train_dir={train_dir}", *flags, fork=fork)
    assert ended.returncode == 0, ended.stderr
    return result(train_dir)


def result(train_dir: Path) -> dict[str, Any]:
    """Return the contents of result.json."""
    record = json.loads((train_dir / "result.json").read_text())
    assert isinstance(record, dict)
    return record


def metrics(train_dir: Path) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl."""
    return [json.loads(line) for line in (train_dir / "metrics.jsonl").read_text().splitlines()]
