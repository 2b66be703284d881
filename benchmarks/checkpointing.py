"""Cost of a save and of a restore: ours against TensorFlow's Saver, torch.save and Orbax.

    python -m benchmarks.checkpointing [--parts=lost,save,restore,cnn] [--sizes=4,40,400,2000] [--rounds=5]

Each peer is a separate process that waits while another is measured. A round measures every peer once, so that drift in
the machine's speed affects all of them; the first round is not counted. PyTorch and Orbax need a separate environment,
made by `make benchmark-checkpointing`. The state is 16 float32 variables; a training step changes each of them in
place and does nothing else, so it competes with the writer for the whole memory bandwidth.

lost     time that the training thread loses: the call that saves, and the extra time of the next step, which pays for
         the copy on write. Also the extra time of the steps until the save has ended.
save     bytes per second of a save in the foreground.
restore  time of a restore from files in the page cache.
cnn      train_cnn.py with a save every n steps, against the same run without saves.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from absl import app, flags
from tabulate import tabulate

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # so that the file can also be run directly

from benchmarks import report
from benchmarks.peer_process import PeerProcess
from checkpointing.runs import history

_PARTS = flags.DEFINE_list("parts", ["lost", "save", "restore", "cnn"], "what to measure")
_SIZES = flags.DEFINE_list("sizes", ["4", "40", "400", "2000"], "sizes of the state, MB")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "measurements per peer; half as many from 1 GB on", lower_bound=1)
_CNN_STEPS = flags.DEFINE_integer("cnn_steps", 420, "training steps per CNN run", lower_bound=101)
_PEERS_PYTHON = flags.DEFINE_string(
    "peers_python", str(ROOT / ".venv-peers" / "bin" / "python"), "Python interpreter with PyTorch and Orbax"
)

_LARGE_MB = 1000

# Target of a foreground save: this many times as fast as Saver, for a state of this size.
_FASTER, _FASTER_MB = 1.6, 400

# Part -> name of the peer -> its module in benchmarks/peers. The first is ours.
PEERS = {
    "lost": {
        "ours": "ours",
        "Saver": "saver",
        "Orbax, async": "orbax_async",
        "torch.save": "torch_save",
        "one memory copy": "memory_copy",
    },
    "save": {"ours": "ours_foreground", "Saver": "saver", "torch.save": "torch_save"},
    "restore": {"ours": "ours", "Saver": "saver", "Orbax": "orbax_async", "torch.load": "torch_save"},
}
_IN_PEERS_ENVIRONMENT = {"orbax_async", "torch_save"}

# Peer -> one entry per round: part -> seconds.
Rounds = dict[str, list[dict[str, float]]]


class Target(NamedTuple):
    """A target, the measured value, and whether it is met."""

    target: str
    found: str
    met: bool


def measure_peers(part: str, size_mb: int) -> tuple[Rounds, dict[str, str]]:
    """Measure all peers in turn, round by round; return the rounds and the versions of their libraries."""
    rounds = _ROUNDS.value if size_mb < _LARGE_MB else (_ROUNDS.value + 1) // 2
    found: Rounds = {name: [] for name in PEERS[part]}
    report.DIRECTORY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=report.DIRECTORY) as directory, ExitStack() as stack:
        processes = {}
        for name, module in PEERS[part].items():
            python = _PEERS_PYTHON.value if module in _IN_PEERS_ENVIRONMENT else sys.executable
            place = Path(directory) / module
            place.mkdir()
            processes[name] = stack.enter_context(PeerProcess(python, module, size_mb * 10**6, place))
        for counted in [False, *[True] * rounds]:
            for name, process in processes.items():
                seconds = process.measure(part)
                if counted:
                    found[name].append(seconds)
        versions = {name: text for process in processes.values() for name, text in process.versions.items()}
    return found, versions


def of(rounds: Sequence[Mapping[str, float]], part: str) -> list[float]:
    """Return the seconds of one part, round by round."""
    return [each[part] for each in rounds]


def median(rounds: Sequence[Mapping[str, float]], *parts: str) -> float:
    """Return the median over the rounds of the sum of some parts."""
    return statistics.median(sum(each[part] for part in parts) for each in rounds)


def milliseconds(found: Rounds, *without: str) -> dict[str, dict[str, float]]:
    """Return the medians of all parts in ms as table columns: peer -> column -> ms, NaN for a missing part."""
    names = dict.fromkeys(part for rounds in found.values() for part in rounds[0] if part not in without)
    return {
        peer: {f"{part}, ms": 1e3 * median(rounds, part) if part in rounds[0] else float("nan") for part in names}
        for peer, rounds in found.items()
    }


def measure_lost(size_mb: int) -> list[Target]:
    """Measure the time that training loses to a save."""
    found, versions = measure_peers("lost", size_mb)
    copy = [1e3 * seconds for seconds in of(found["one memory copy"], "stall")]
    figures = {peer: [1e3 * seconds for seconds in of(rounds, "lost")] for peer, rounds in found.items()}
    figures["one memory copy"] = copy
    columns = milliseconds({peer: rounds for peer, rounds in found.items() if peer != "one memory copy"}, "lost")
    notes = {
        "lost": "the call that saves (stall), and the extra time of the next step",
        "later steps": "extra time of the following steps until the save has ended; meanwhile the writer shares "
        f"{os.cpu_count()} cores, and the memory, with a step that can use all of them",
        "versions": versions,
    }
    report.write(f"checkpointing_lost_{size_mb}MB", "ms", figures, notes, columns)
    ours, allowed = statistics.median(figures["ours"]), 5 + statistics.median(copy)
    theirs = {
        peer: statistics.median(figures[peer]) for peer in PEERS["lost"] if peer not in {"ours", "one memory copy"}
    }
    best = min(theirs, key=lambda peer: theirs[peer])
    return [
        Target(f"lost, {size_mb} MB: at most 5 ms + a copy = {allowed:,.1f} ms", f"{ours:,.1f} ms", ours <= allowed),
        Target(
            f"lost, {size_mb} MB: less than any peer; {best} {theirs[best]:,.1f} ms",
            f"{ours:,.1f} ms",
            ours < theirs[best],
        ),
    ]


def measure_save(size_mb: int) -> list[Target]:
    """Measure the speed of a foreground save."""
    found, versions = measure_peers("save", size_mb)
    before_fsync = {peer: "without fsync" if peer == "ours" else "write" for peer in found}
    figures = {peer: [size_mb / each for each in of(rounds, before_fsync[peer])] for peer, rounds in found.items()}
    notes = {
        "MB/s": "without fsync; ours includes sha256 of the files, digest and commit, the others only the save",
        "parts": "ours hashes files in several threads in parallel; fsync is the time that it adds",
        "versions": versions,
    }
    report.write(f"checkpointing_save_{size_mb}MB", "MB/s", figures, notes, milliseconds(found))
    if size_mb != _FASTER_MB:
        return []
    ours, saver = found["ours"], found["Saver"]
    ratios = {
        "only the write, against Saver's": median(saver, "write") / median(ours, "write"),
        "everything except the fsync (with digest and sha256), against Saver's write": median(saver, "write")
        / median(ours, "without fsync"),
        "everything, against Saver's write and fsync": median(saver, "whole") / median(ours, "whole"),
    }
    return [
        Target(f"save, {_FASTER_MB} MB: {_FASTER} times as fast, {what}", f"{ratio:.2f}", ratio >= _FASTER)
        for what, ratio in ratios.items()
    ]


def measure_restore(size_mb: int) -> list[Target]:
    """Measure the time of a restore."""
    found, versions = measure_peers("restore", size_mb)
    figures = {peer: [1e3 * seconds for seconds in of(rounds, "whole")] for peer, rounds in found.items()}
    notes = {
        "check": "sha256 of the files before they are read; only ours",
        "digest": "digest of the restored variables; only ours",
        "versions": versions,
    }
    report.write(f"checkpointing_restore_{size_mb}MB", "ms", figures, notes, milliseconds(found, "whole"))
    ours, saver = statistics.median(figures["ours"]), statistics.median(figures["Saver"])
    return [Target(f"restore, {size_mb} MB: at most Saver's {saver:,.1f} ms", f"{ours:,.1f} ms", ours <= saver)]


def train_cnn(save_every_steps: int) -> float:
    """Run train_cnn.py; return the seconds of training and of stalls for saves."""
    with tempfile.TemporaryDirectory(dir=report.DIRECTORY) as directory:
        options = {
            "train_dir": directory,
            "train_steps": _CNN_STEPS.value,
            "save_every_steps": save_every_steps,
            "evaluate_every_steps": 0,
        }
        command = [
            sys.executable,
            str(ROOT / "train_cnn.py"),
            *[f"--{name}={value}" for name, value in options.items()],
        ]
        subprocess.run(command, check=True, capture_output=True)
        [attempt] = history.read(Path(directory))
    seconds: dict[str, float] = attempt["seconds"]
    return seconds["train"] + seconds["stalled"]


def measure_cnn() -> list[Target]:
    """Measure how much slower a CNN run is with saves.

    Each run has a slow first second and a save at its end, so these cancel in the difference between two runs.
    """
    allowed = {100: 1.5, 25: 3.5}
    periods = [0, *allowed]
    seconds: dict[int, list[float]] = {every: [] for every in periods}
    report.DIRECTORY.mkdir(parents=True, exist_ok=True)
    train_cnn(0)  # not counted: fills the page cache
    for number in range(_ROUNDS.value):
        # Forwards and backwards, so that no period always follows the same one.
        for every in reversed(periods) if number % 2 else periods:
            seconds[every].append(train_cnn(every))
    names = {every: f"a save every {every} steps" if every else "never" for every in periods}
    steps = _CNN_STEPS.value
    figures = {names[every]: [1e3 * each / steps for each in seconds[every]] for every in periods}
    slower = {every: slowdowns(seconds[every], seconds[0], steps, every) for every in allowed}
    notes = {
        "ms a step": f"over {steps} steps, stalls included",
        "% slower than never, round by round": {
            names[every]: [round(each, 2) for each in slower[every]] for every in slower
        },
    }
    report.write("checkpointing_cnn", "ms a step", figures, notes)
    return [
        Target(f"cnn, {names[every]}: at most {most} % slower", f"{statistics.median(slower[every]):.2f} %", met)
        for every, most in allowed.items()
        for met in [statistics.median(slower[every]) <= most]
    ]


def slowdowns(seconds: Sequence[float], never: Sequence[float], steps: int, every: int) -> list[float]:
    """Return the cost of a save in percent of the steps between two saves, round by round."""
    saves = steps // every
    return [
        100 * ((mine - other) / saves) / (every * other / steps) for mine, other in zip(seconds, never, strict=True)
    ]


def report_targets(targets: Sequence[Target]) -> None:
    """Print the targets, and write them to a JSON file."""
    rows = [{"target": each.target, "found": each.found, "": "met" if each.met else "NOT MET"} for each in targets]
    print(f"\n{tabulate(rows, headers='keys', disable_numparse=True)}")
    (report.DIRECTORY / "checkpointing_targets.json").write_text(json.dumps(rows, indent=2) + "\n")


def main(_: list[str]) -> None:
    """Measure all parts."""
    if shutil.which(_PEERS_PYTHON.value) is None and set(_PARTS.value) & set(PEERS):
        sys.exit(
            f"error: {_PEERS_PYTHON.value}: no such interpreter\n"
            "hint: run `make benchmark-checkpointing`, or name an interpreter with PyTorch and Orbax by --peers_python"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that all `with` blocks clean up
    measures = {"lost": measure_lost, "save": measure_save, "restore": measure_restore}
    targets: list[Target] = []
    for size in map(int, _SIZES.value):
        for part, measure in measures.items():
            if part in _PARTS.value:
                targets += measure(size)
    if "cnn" in _PARTS.value:
        targets += measure_cnn()
    report_targets(targets)


if __name__ == "__main__":
    app.run(main)
