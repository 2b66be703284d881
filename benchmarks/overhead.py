"""What saving, logging and validating cost a run: against the same run's bare loop.

    python -m benchmarks.overhead [--rounds=3] [--programs=softmax,cnn] [--save_every_steps=50]
        [--steps=softmax=20000,cnn=1000] [--slice_seconds=2]

Both runs are under way at once, but only one of them at a time: the other is stopped (SIGSTOP), and after some seconds
they change places. A machine whose neighbours take half of it for a minute slows both alike. Told is for how long each
ran between its start from step 0 and the commit of its last checkpoint, which both save: graph and data are there, the
test set is read afterwards. The recipe's own periods of logging and validating are kept. The bare run, which would
validate after its last step, has no images to do it with, and trains on those, too: a step costs the same.
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
sys.path.insert(0, str(ROOT))  # so that the file itself can be run, too

from benchmarks import report
from checkpointing.storage import layout

_ROUNDS = flags.DEFINE_integer("rounds", 3, "how often each is measured", lower_bound=1)
_PROGRAMS = flags.DEFINE_list("programs", ["softmax", "cnn"], "which to measure")
_EVERY = flags.DEFINE_integer("save_every_steps", 50, "of the run with everything")
_STEPS = flags.DEFINE_list("steps", ["softmax=20000", "cnn=1000"], "how long each program's runs are")
_SLICE = flags.DEFINE_float("slice_seconds", 2.0, "how long one runs before the other's turn", lower_bound=0.1)

_BARE = ("--save_every_steps=0", "--log_every_steps=0", "--evaluate_every_steps=0", "--validation_size=0")
_SECONDS_BETWEEN_LOOKS = 0.002


class Run:
    """A run that can be stopped and let go on, and how long it has trained."""

    def __init__(self, program: str, steps: str, train_dir: Path, *flags_of_run: str) -> None:
        """Starts it, and stops it at once."""
        command = [sys.executable, str(ROOT / f"train_{program}.py"), f"--train_dir={train_dir}", "--noreport"]
        command += [f"--train_steps={steps}", *flags_of_run]
        self._began = train_dir / layout.ATTEMPT
        self._ended = layout.manifest_path(layout.prefix(train_dir, int(steps)))
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._process.send_signal(signal.SIGSTOP)
        self.trained_seconds = 0.0

    def is_under_way(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def go_on(self, seconds: float) -> None:
        """Lets it run for so long; adds what of it was training."""
        self._process.send_signal(signal.SIGCONT)
        turn = before = time.perf_counter()
        while self.is_under_way() and before - turn < seconds:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            now = time.perf_counter()
            if self._began.exists() and not self._ended.exists():
                self.trained_seconds += now - before
            before = now
        self._process.send_signal(signal.SIGSTOP)

    def end(self) -> int:
        """Kills it, unless it has ended; gives its exit status."""
        self._process.kill()
        return self._process.wait()


def take_turns(runs: Sequence[Run], seconds: float) -> None:
    """Brings runs to their end, each for so long before the next one's turn."""
    try:
        while any(run.is_under_way() for run in runs):
            for run in runs:
                run.go_on(seconds)
    finally:
        statuses = [run.end() for run in runs]  # or one would stay, stopped
    if any(statuses):
        sys.exit("error: a run failed; start it by hand to see why.")


def main(_: list[str]) -> None:
    """Measures round after round."""
    steps = dict(pair.split("=") for pair in _STEPS.value)
    for program in _PROGRAMS.value:
        rounds: dict[str, list[float]] = {"with everything": [], "bare": []}
        for _round in range(_ROUNDS.value):
            with tempfile.TemporaryDirectory() as scratch:
                full = Run(program, steps[program], Path(scratch) / "full", f"--save_every_steps={_EVERY.value}")
                bare = Run(program, steps[program], Path(scratch) / "bare", *_BARE)
                take_turns([full, bare], _SLICE.value)
            for seconds, run in zip(rounds.values(), (full, bare), strict=True):
                seconds.append(run.trained_seconds)
            print(
                f"{program}: {full.trained_seconds:.2f} s with everything, {bare.trained_seconds:.2f} bare", flush=True
            )
        notes = {"steps": steps[program], "a save every so many": _EVERY.value, "seconds a turn": _SLICE.value}
        report.write(f"overhead_{program}", "seconds", rounds, notes)


if __name__ == "__main__":
    app.run(main)
