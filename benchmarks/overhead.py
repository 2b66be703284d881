"""Cost of saving, logging and validating: a full run against the same run's bare loop.

    python -m benchmarks.overhead [--rounds=3] [--programs=softmax,cnn] [--save_every_steps=50]
        [--steps=softmax=20000,cnn=1000] [--slice_seconds=2]

Both processes exist at once and take turns of some seconds; the other one is stopped (SIGSTOP). So changes in the
machine's speed affect both alike. Measured is the time from step 0 to the commit of the last checkpoint, which both
save; building the graph and the test are not included. The full run logs and validates as its recipe states. The bare
run has no validation set, because a run always validates after its last step; it trains on those images, too, and a
step costs the same.

    python -m benchmarks.overhead --recheck_every_steps=1000 [--programs=cnn] [--steps=cnn=2000]

measures the cost of rechecks: the bare run with them against the bare run without.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file can also be run directly

from benchmarks import report
from checkpointing.storage import layout

_ROUNDS = flags.DEFINE_integer("rounds", 3, "measurements per program", lower_bound=1)
_PROGRAMS = flags.DEFINE_list("programs", ["softmax", "cnn"], "programs to measure")
_EVERY = flags.DEFINE_integer("save_every_steps", 50, "save period of the full run, in steps")
_STEPS = flags.DEFINE_list("steps", ["softmax=20000", "cnn=1000"], "training steps per program")
_RECHECK = flags.DEFINE_integer(
    "recheck_every_steps", 0, "measure the cost of a recheck at every so many steps, not that of the full run"
)
_SLICE = flags.DEFINE_float("slice_seconds", 2.0, "seconds that one run gets before the other's turn", lower_bound=0.1)

_BARE = ("--save_every_steps=0", "--log_every_steps=0", "--evaluate_every_steps=0", "--validation_size=0")
_POLL_SECONDS = 0.002


class Run:
    """A run that can be paused and continued, and the time for which it has trained."""

    def __init__(self, program: str, steps: str, train_dir: Path, *flags_of_run: str) -> None:
        """Start the run, and pause it at once."""
        command = [sys.executable, str(ROOT / f"train_{program}.py"), f"--train_dir={train_dir}", "--noreport"]
        command += [f"--train_steps={steps}", *flags_of_run]
        self._began = train_dir / layout.ATTEMPT
        self._ended = layout.manifest_path(layout.prefix(train_dir, int(steps)))
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._process.send_signal(signal.SIGSTOP)
        self.trained_seconds = 0.0

    def is_running(self) -> bool:
        """Return whether the process has not ended yet."""
        return self._process.poll() is None

    def continue_for(self, seconds: float) -> None:
        """Continue the run for some seconds, then pause it; add the time spent in training."""
        self._process.send_signal(signal.SIGCONT)
        turn = before = time.perf_counter()
        while self.is_running() and before - turn < seconds:
            time.sleep(_POLL_SECONDS)
            now = time.perf_counter()
            if self._began.exists() and not self._ended.exists():
                self.trained_seconds += now - before
            before = now
        self._process.send_signal(signal.SIGSTOP)

    def end(self) -> int:
        """Kill the process unless it has ended; return its exit status."""
        self._process.kill()
        return self._process.wait()


def take_turns(runs: Sequence[Run], seconds: float) -> None:
    """Run all runs to their end, in turns of some seconds."""
    try:
        while any(run.is_running() for run in runs):
            for run in runs:
                run.continue_for(seconds)
    finally:
        statuses = [run.end() for run in runs]  # otherwise a paused process would stay
    if any(statuses):
        sys.exit("error: a run failed\nhint: start it by hand to see its message")


def main(_: list[str]) -> None:
    """Measure both runs, round by round."""
    steps = dict(pair.split("=") for pair in _STEPS.value)
    every = _RECHECK.value or _EVERY.value
    if _RECHECK.value:
        name, unit = "recheck", "rechecks"
        variants = {"rechecked": (*_BARE, f"--recheck_every_steps={every}"), "bare": _BARE}
    else:
        name, unit = "overhead", "saves"
        variants = {"full": (f"--save_every_steps={every}",), "bare": _BARE}
    for program in _PROGRAMS.value:
        rounds: dict[str, list[float]] = {variant: [] for variant in variants}
        for _round in range(_ROUNDS.value):
            with tempfile.TemporaryDirectory() as scratch:
                runs = {
                    variant: Run(program, steps[program], Path(scratch) / variant, *flags_of_run)
                    for variant, flags_of_run in variants.items()
                }
                take_turns(list(runs.values()), _SLICE.value)
            for variant, run in runs.items():
                rounds[variant].append(run.trained_seconds)
            found = ", ".join(f"{run.trained_seconds:.2f} s {variant}" for variant, run in runs.items())
            print(f"{program}: {found}", flush=True)
        notes = {"steps": steps[program], f"steps between {unit}": every, "seconds per turn": _SLICE.value}
        report.write(f"{name}_{program}", "seconds", rounds, notes)


if __name__ == "__main__":
    app.run(main)
