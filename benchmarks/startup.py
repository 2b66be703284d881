"""Seconds from process start to the first training step, fresh or resumed, beside an import of TensorFlow; to the help.

python -m benchmarks.startup [--rounds=7]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file itself can be run, too

from benchmarks import report
from checkpointing.storage import layout

_ROUNDS = flags.DEFINE_integer("rounds", 7, "how often each is measured", lower_bound=1)


def seconds_to_line(text: str, *arguments: str) -> float:
    """Starts Python, and waits for the first line on standard error that contains the text."""
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
    """Starts a fresh softmax run and waits for the line that tells of its first step."""
    with tempfile.TemporaryDirectory() as directory:
        return seconds_to_line("step 1/", *_run_in(directory))


def seconds_to_resume() -> float:
    """Kills a softmax run after its first checkpoint, starts it again, and waits for the first step after that."""
    with tempfile.TemporaryDirectory() as directory:
        seconds_to_line("saved ", *_run_in(directory))
        # The killed run may have got a checkpoint further meanwhile.
        return seconds_to_line(f"step {newest_step(Path(directory) / 'run') + 1}/", *_run_in(directory))


def newest_step(train_dir: Path) -> int:
    """Of the checkpoints there."""
    return max(layout.steps_with(train_dir, "manifest.json"))


def _run_in(directory: str) -> list[str]:
    flags_of_run = ["--log_every_steps=1", "--save_every_steps=10", "--evaluate_every_steps=0"]
    return [str(ROOT / "train_softmax.py"), f"--train_dir={directory}/run", *flags_of_run]


def seconds_to_import() -> float:
    """Waits until TensorFlow is imported, and not for the process to end."""
    return seconds_to_line("imported", "-c", "import sys, tensorflow; print('imported', file=sys.stderr, flush=True)")


def seconds_to_help() -> float:
    """Runs the help to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "train_softmax.py"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - started


def main(_: list[str]) -> None:
    """Measures in turn, so that a machine whose speed drifts slows all alike."""
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
