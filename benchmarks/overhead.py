"""What saving, logging and validating cost a run: against the same run's bare loop.

    python -m benchmarks.overhead [--rounds=3] [--programs=softmax,cnn] [--save_every_steps=50]
        [--steps=softmax=20000,cnn=1000]

Told is what the runs themselves count: of the one with everything the seconds of training, of waiting for saves and of
validating; of the bare one those of training alone. The recipe's own periods of logging and validating are kept. The
one reading of the test set after the last step belongs to neither, and is taken off by its share of the images judged.
"""

import json
import statistics
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
_STEPS = flags.DEFINE_list("steps", ["softmax=20000", "cnn=1000"], "how long each program's runs are")

_BARE = ("--save_every_steps=0", "--log_every_steps=0", "--evaluate_every_steps=0")
# Of what a run judges that validates once: 5,000 images for validation, 10,000 of the test set.
_TEST_SHARE = 10_000 / 15_000


def spent(program: str, steps: str, *flags_of_run: str) -> dict[str, float]:
    """Runs a program; gives what it counted, in seconds."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, str(ROOT / f"train_{program}.py"), f"--train_dir={directory}/run"]
        subprocess.run([*command, f"--train_steps={steps}", *flags_of_run], check=True, capture_output=True)
        seconds: dict[str, float] = json.loads((Path(directory) / "run" / "result.json").read_text())["seconds"]
    return seconds


def main(_: list[str]) -> None:
    """Measures in turn, so that a machine whose speed drifts slows both alike."""
    steps = dict(pair.split("=") for pair in _STEPS.value)
    for program in _PROGRAMS.value:
        parts: dict[str, list[float]] = {"train": [], "save_stall": [], "validate": []}
        bare: list[float] = []
        for _round in range(_ROUNDS.value):
            full = spent(program, steps[program], f"--save_every_steps={_EVERY.value}")
            alone = spent(program, steps[program], *_BARE)
            full["validate"] = full["evaluate"] - _TEST_SHARE * alone["evaluate"]
            for part, seconds in parts.items():
                seconds.append(full[part])
            bare.append(alone["train"])
        rounds = {"with everything": [sum(each) for each in zip(*parts.values(), strict=True)], "bare": bare}
        notes = {
            "steps": steps[program],
            "a save every so many": _EVERY.value,
            "parts of the first, medians": {
                part: round(statistics.median(seconds), 3) for part, seconds in parts.items()
            },
        }
        report.write(f"overhead_{program}", "seconds", rounds, notes)


if __name__ == "__main__":
    app.run(main)
