"""The programs, run as a user runs them: real processes, real signals, real files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def command(program: str, *flags: str) -> list[str]:
    """The command line of `train_<program>.py`; it draws no report, which takes seconds, unless told to."""
    return [sys.executable, str(ROOT / f"train_{program}.py"), "--noreport", *flags]


def start(program: str, *flags: str) -> subprocess.Popen[str]:
    """Starts `train_<program>.py`; what it prints goes to pipes."""
    return subprocess.Popen(
        command(program, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def run(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs `train_<program>.py` to its end."""
    process = start(program, *flags)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


class Watched:
    """A program under way, whose messages can be waited for."""

    def __init__(self, program: str, *flags: str, under: tuple[str, ...] = ()) -> None:
        """Starts it, `under` another program if one is given."""
        self.process = subprocess.Popen(
            [*under, *command(program, *flags)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
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
        return self.process.returncode


def train(program: str, train_dir: Path, *flags: str) -> dict[str, Any]:
    """Runs a program that must succeed; gives its result.json."""
    ended = run(program, f"--train_dir={train_dir}", *flags)
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
