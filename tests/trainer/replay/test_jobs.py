import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.replay import jobs

ROOT = Path(__file__).parents[3]

# Each segment's record holds the process that made it, and is longer than a pipe holds. A segment of 13 steps kills its
# process, one of 17 kills it while it writes the record.
SCRIPT = """
import json, os, signal, sys, time
from types import SimpleNamespace
from checkpointing import cli
from trainer.replay import jobs

def work(group):
    for each in group:
        if each.steps == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if each.steps == 17:
            time.sleep(0.5)
            signal.setitimer(signal.ITIMER_REAL, 0.5)
        yield {"steps": each.steps, "pid": os.getpid(), "filler": "x" * 100_000}
        time.sleep(float(sys.argv[1]))

class Segment(SimpleNamespace):
    def __str__(self):
        return f"segment of {self.steps}"

segments = [Segment(steps=int(steps), saved=SimpleNamespace(step=0)) for steps in sys.argv[2:]]

def main():
    for record in jobs.in_processes(work, segments, 2):
        print(json.dumps({name: record[name] for name in ("steps", "pid")}), flush=True)
        time.sleep(2 if "17" in sys.argv else 0)
    return 0

sys.exit(cli.report_errors(main))
"""


def start(seconds, *steps):
    """Start a process that divides segments between two others, in which each takes some seconds."""
    command = [sys.executable, "-c", SCRIPT, str(seconds), *map(str, steps)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [
        ([100, 100, 100], 2, [[100, 100], [100]]),
        ([500, 100, 100, 100], 2, [[500], [100, 100, 100]]),
        ([100], 4, [[100]]),
        ([0, 0, 0], 2, [[0, 0], [0]]),
    ],
)
def test_groups_have_about_the_same_number_of_steps(steps, count, expected):
    """None is empty."""
    segments = [SimpleNamespace(steps=each, saved=SimpleNamespace(step=0)) for each in steps]
    groups = jobs.balanced(segments, count)
    assert [[each.steps for each in group] for group in groups] == expected


def test_records_come_from_two_processes():
    """Of any length."""
    process = start(0, 30, 10, 20)
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    records = [json.loads(line) for line in stdout.splitlines()]
    assert sorted(each["steps"] for each in records) == [10, 20, 30]
    assert len({each["pid"] for each in records} | {process.pid}) == 3


@pytest.mark.parametrize(("steps", "number"), [(13, "SIGKILL"), (17, "SIGALRM")])
def test_a_process_that_dies_is_an_error(steps, number):
    """It names what that process was to replay; the other process's records are returned."""
    process = start(0, steps, 10)
    stdout, stderr = process.communicate()
    assert [json.loads(line)["steps"] for line in stdout.splitlines()] == [10]
    assert stderr == f"error: 1 of 2 segments were not replayed: the process of segment of {steps} died of {number}\n"
    assert process.returncode == 1


def test_the_processes_end_with_the_one_that_started_them():
    """Also if that one dies of an error in between."""
    process = start(60, 30, 10)
    pids = [json.loads(process.stdout.readline())["pid"] for _ in range(2)]
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
