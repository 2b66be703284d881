"""Seconds from process start to the first training step, fresh and resumed; `import tensorflow`; --help.

python -m benchmarks.startup [--rounds=7]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file can also be run directly

from benchmarks import report
from checkpointing.storage import layout

_ROUNDS = flags.DEFINE_integer("rounds", 7, "measurements of each", lower_bound=1)


def seconds_to_line(text: str, *arguments: str) -> float:
    """Start Python; return the seconds until the first line on stderr that contains the text."""
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while text not in (line := process.stderr.readline()):
            assert line, f"{command} ended without a line with {text!r}"
        seconds = time.perf_counter() - started
        process.kill()
    return seconds


def seconds_to_first_step() -> float:
    """Start a fresh softmax run; return the seconds until the log line of its first step."""
    with tempfile.TemporaryDirectory() as directory:
        return seconds_to_line("step 1/", *_run_in(directory))


def seconds_to_resume() -> float:
    """Kill a softmax run after its first checkpoint and resume it; return the seconds until its first log line."""
    with tempfile.TemporaryDirectory() as directory:
        seconds_to_line("saved ", *_run_in(directory))
        # The killed run may have saved another checkpoint.
        return seconds_to_line(f"step {newest_step(Path(directory) / 'run') + 1}/", *_run_in(directory))


def newest_step(train_dir: Path) -> int:
    """Return the step of the newest checkpoint."""
    return max(layout.steps_with(train_dir, "manifest.json"))


def _run_in(directory: str) -> list[str]:
    flags_of_run = ["--log_every_steps=1", "--save_every_steps=10", "--evaluate_every_steps=0"]
    return [str(ROOT / "train_softmax.py"), f"--train_dir={directory}/run", *flags_of_run]


def seconds_to_import() -> float:
    """Return the seconds until TensorFlow is imported, without the end of the process."""
    return seconds_to_line("imported", "-c", "import sys, tensorflow; print('imported', file=sys.stderr, flush=True)")


def seconds_to_help() -> float:
    """Return the seconds of `--help`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "train_softmax.py"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - started


def main(_: list[str]) -> None:
    """Measure in turn, so that drift in the machine's speed affects all alike."""
    measured = {
        "first training step": seconds_to_first_step,
        "first step after a resume": seconds_to_resume,
        "import tensorflow": seconds_to_import,
        "--help": seconds_to_help,
    }
    rounds: dict[str, list[float]] = {name: [] for name in measured}
    for _round in range(_ROUNDS.value):
        for name, measure in measured.items():
            rounds[name].append(measure())
    report.write("startup", "seconds", rounds, {})


if __name__ == "__main__":
    app.run(main)
