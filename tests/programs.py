"""The programs, run as a user runs them: real processes, real signals, real files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def start(program: str, *flags: str) -> subprocess.Popen[str]:
    """Starts `train_<program>.py`; what it prints goes to pipes."""
    command = [sys.executable, str(ROOT / f"train_{program}.py"), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def run(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs `train_<program>.py` to its end."""
    process = start(program, *flags)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


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
