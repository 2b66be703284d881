"""What saving, logging and validating cost a run: against the same run with none of them before its last step.

    python -m benchmarks.overhead [--rounds=3] [--programs=softmax,cnn] [--save_every_steps=50]
        [--steps=softmax=20000,cnn=600]

Told is what the run itself counts from its first step to its last: training, waiting for saves, judging. Both judge and
save once at the end. The recipe's own periods of logging and validating are kept.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file itself can be run, too

from benchmarks import report

_ROUNDS = flags.DEFINE_integer("rounds", 3, "how often each is measured", lower_bound=1)
_PROGRAMS = flags.DEFINE_list("programs", ["softmax", "cnn"], "which to measure")
_EVERY = flags.DEFINE_integer("save_every_steps", 50, "of the run with everything")
_STEPS = flags.DEFINE_list("steps", ["softmax=20000", "cnn=600"], "how long each program's runs are")

_BARE = ("--save_every_steps=0", "--log_every_steps=0", "--evaluate_every_steps=0")


def seconds(program: str, steps: str, *flags_of_run: str) -> float:
    """Runs a program; gives what it counted from its first step to its last."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, str(ROOT / f"train_{program}.py"), f"--train_dir={directory}/run"]
        subprocess.run([*command, f"--train_steps={steps}", *flags_of_run], check=True, capture_output=True)
        spent = json.loads((Path(directory) / "run" / "result.json").read_text())["seconds"]
    return float(spent["train"] + spent["save_stall"] + spent["evaluate"])


def main(_: list[str]) -> None:
    """Measures in turn, so that a machine whose speed drifts slows both alike."""
    steps = dict(pair.split("=") for pair in _STEPS.value)
    for program in _PROGRAMS.value:
        rounds: dict[str, list[float]] = {"with everything": [], "bare": []}
        for _round in range(_ROUNDS.value):
            rounds["with everything"].append(seconds(program, steps[program], f"--save_every_steps={_EVERY.value}"))
            rounds["bare"].append(seconds(program, steps[program], *_BARE))
        notes = {"steps": steps[program], "a save every so many": _EVERY.value}
        report.write(f"overhead_{program}", "seconds", rounds, notes)


if __name__ == "__main__":
    app.run(main)
