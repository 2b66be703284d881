"""One attack on a run: its directories, what it does to them, the run, and the judgement.

    lab = Lab(scratch, data)
    case = Case(lab, seed=7)
    case.lay_out()
    case.put(case.train_dir / "lock", os.mkfifo)
    case.attack()

`lay_out` makes a train_dir of a killed run, and files that no run may touch. `attack` runs the command; it raises
FaultError if anything is wrong.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash import judging, victims
from tests.crash.judging import Reference
from tests.crash.victims import Ended, Trigger, Victims

# How long a run may take before it counts as hanging; an undisturbed one takes a second.
SECONDS = 90.0

# Moments of a run, counted in Python's calls that change files: before the first, after the last, and when its first
# checkpoint is complete.
NEW, FINISHED = 0, 1_000_000
FIRST_COMMIT = 44


class Program(NamedTuple):
    """A short run with three checkpoints. changes: about how many of its Python calls change files."""

    flags: tuple[str, ...]
    steps: tuple[int, int, int]
    changes: int


_COMMON = ("--validation_size=200",)
PROGRAMS = {
    "softmax": Program(
        (*_COMMON, *(f"--{name}_every_steps=20" for name in ("save", "log", "evaluate")), "--train_steps=60"),
        (20, 40, 60),
        95,
    ),
    "cnn": Program(
        (
            *(*_COMMON, "--config=cnn_small", "--batch_size=10"),
            *(f"--{name}_every_steps=2" for name in ("save", "log", "evaluate")),
            "--train_steps=6",
        ),
        (2, 4, 6),
        95,
    ),
}
# The flags of another run, whose directory and export must not be confused with the victim's.
OTHER = ("--seed=1",)


class FaultError(Exception):
    """An attack found a fault."""


class Lab:
    """State shared by all attacks: the process that forks runs, undisturbed runs, and train_dirs of killed ones."""

    def __init__(self, scratch: Path, data: Path, seconds: float = SECONDS) -> None:
        """Start the process; the attacks' directories are made in `scratch`."""
        self.scratch = scratch
        self.data = data
        self.seconds = seconds
        self.victims = Victims()
        self._references: dict[tuple[str, ...], Reference] = {}
        self._making = threading.RLock()

    def close(self) -> None:
        """End the process."""
        self.victims.__exit__()

    def flags(self, program: str, *extra: str) -> list[str]:
        """Return the command line without train_dir and data_dir."""
        return [*PROGRAMS[program].flags, *extra]

    def reference(self, program: str, *extra: str) -> Reference:
        """Return the result of the undisturbed run."""
        with self._making:
            key = (program, *extra)
            if key not in self._references:
                self._references[key] = judging.refer_to(
                    self.template(program, FINISHED, *extra), PROGRAMS[program].steps[-1]
                )
            return self._references[key]

    def same_reference(self, program: str, extra: str, other: str) -> None:
        """Declare that the undisturbed run with the flag `extra` has the result of the one with the flag `other`."""
        reference = self.reference(program, other)
        with self._making:
            self._references[program, extra] = reference

    def template(self, program: str, moment: int, *extra: str, below: str = "") -> Path:
        """Return the train_dir of a run that was killed before a call that changes files.

        Args:
          program: "softmax" or "cnn".
          moment: the number of the call among those on paths in the train_dir that begin with `below`; or FINISHED.
          extra: more flags.
          below: a relative path.
        """
        with self._making:
            name = re.sub(r"[^\w.=-]", "_", "_".join([program, str(moment), below, *extra]))
            directory = self.scratch / "templates" / name
            if not directory.exists():
                # Saving in the foreground makes the order of the calls deterministic.
                flags = [f"--train_dir={directory}", f"--data_dir={self.data}", *self.flags(program, *extra)]
                trigger = Trigger("changes", str(directory / below), moment, "kill") if moment != FINISHED else None
                ended = self.victims.start(
                    program, [*flags, "--nosave_in_background"], directory.with_name(f"{name}.output"), trigger
                ).end(120.0)
                assert ended.status in {0, -signal.SIGKILL}, ended.stderr
                directory.mkdir(parents=True, exist_ok=True)
            return directory

    def precious(self, directory: Path) -> None:
        """Fill a directory with files that no run may touch: some with a run's names, and another run's train_dir."""
        shutil.copytree(self.template("softmax", FINISHED, *OTHER), directory / "other_run")
        for name in ("file", "lock", "checkpoint", "metrics.jsonl", "attempt.json", "model.ckpt-60.manifest.json"):
            (directory / name).write_text(f"precious {name}\n")
        for name in ("assets/photo.jpg", "variables/variables.index", "model.ckpt-60_temp/part-00000-of-00001.index"):
            (directory / "directory" / name).parent.mkdir(parents=True)
            (directory / "directory" / name).write_text(f"precious {name}\n")
        (directory / "file").chmod(0o640)


class Case:
    """One attack: its seed, its directories, what it did, and what the run must keep."""

    def __init__(self, lab: Lab, seed: int) -> None:
        """Make no file yet."""
        self.lab = lab
        self.seed = seed
        self.random = random.Random(f"case {seed}")  # noqa: S311 - attacks that can be repeated
        self.parameters: dict[str, Any] = {}
        self.program = "softmax"
        self.moment = NEW
        self.extra: list[str] = []
        self.home = lab.scratch / "cases" / str(seed)
        self.root = self.home / "root"
        self.train_dir = self.root / "run"
        self.export: Path | None = None
        self.data = lab.data
        self.owned: set[Path] = set()  # not in the snapshot of everything outside the train_dir
        self.complete: dict[int, dict[str, str]] = {}
        self.damaged: set[int] = set()
        self.touched: set[str] = set()
        self.users_files: dict[Path, bytes] = {}
        self.keeps_all = True
        self.metrics = True
        self.quarantine = True  # whether the run may move a checkpoint there
        self.log: list[str] = []
        self._undo: list[Callable[[], None]] = []

    # ---- Before the attack ----

    def lay_out(self, moment: int | None = None, *, program: str | None = None, checkpoints: bool = False) -> None:
        """Make the directories, with the train_dir of a killed or finished run.

        Args:
          moment: as in Lab.template, or NEW; None for a random one.
          program: None for a random one.
          checkpoints: whether the train_dir must have a complete checkpoint.
        """
        if program is None:
            program = "cnn" if self.random.random() < 0.06 else "softmax"
        self.program = program
        if moment is None:
            kills = self.random.randint(FIRST_COMMIT if checkpoints else 1, PROGRAMS[program].changes)
            moment = self.random.choice([FINISHED, *[kills // 4 * 4 + 1] * 3])
        self.moment = moment
        self.note(program=program, killed_before={NEW: "new", FINISHED: "finished"}.get(moment, moment))
        self.root.mkdir(parents=True)
        self.lab.precious(self.root / "precious")
        if moment != NEW:
            self.bring(self.lab.template(program, moment), self.train_dir)
        self.complete = judging.complete_checkpoints(self.train_dir)

    def bring(self, template: Path, place: Path) -> None:
        """Copy a train_dir."""
        shutil.copytree(template, place, symlinks=True)

    def note(self, **parameters: Any) -> None:
        """Add to the parameters that the report names."""
        self.parameters |= parameters

    # ---- The attack ----

    def put(self, path: Path, make: Callable[[Path], object]) -> None:
        """Replace a file by something else."""
        original = None
        if os.path.lexists(path):
            original = self.home / "originals" / f"{len(self._undo)}"
            original.parent.mkdir(exist_ok=True)
            shutil.move(path, original)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        self._touch(path)
        put = path.lstat()
        self._undo.append(lambda: self._put_back(path, put, original))

    def change(self, path: Path, content: bytes) -> None:
        """Change a file's content in place."""
        original = path.read_bytes()
        path.write_bytes(content)
        self._touch(path)

        def put_back() -> None:
            with contextlib.suppress(OSError):
                if judging.read_regular(path) == content:
                    path.write_bytes(original)

        self._undo.append(put_back)

    def _touch(self, path: Path) -> None:
        self.touched.add(path.name)
        match = re.fullmatch(r"model\.ckpt-(\d+)\.(data-.*-of-\d+|index|meta|manifest\.json)", path.name)
        if match and path.parent == self.train_dir:
            self.damaged.add(int(match[1]))
        if path.name.startswith("metrics.jsonl"):
            self.metrics = False

    def _put_back(self, path: Path, put: os.stat_result, original: Path | None) -> None:
        if os.path.lexists(path):
            found = path.lstat()
            same = (found.st_ino, stat.S_IFMT(found.st_mode)) == (put.st_ino, stat.S_IFMT(put.st_mode))
            if not same:
                return
            remove(path)
        if original is not None and path.parent.is_dir():
            shutil.move(original, path)

    def on_undo(self, undo: Callable[[], None]) -> None:
        """Add a function that removes the cause of an error."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Remove the cause (the odd file, the link, the limit), and put good copies of damaged checkpoints back."""
        while self._undo:
            self._undo.pop()()
        for step in self.damaged & self.complete.keys():
            good = self.lab.template(self.program, self.moment)
            for name in self.complete[step]:
                path = self.train_dir / name
                if os.path.lexists(path):
                    remove(path)
                shutil.copy(good / name, path)
        self.damaged.clear()
        self.users_files.clear()

    # ---- The runs, and their judgement ----

    def flags(self) -> list[str]:
        """Return the command line."""
        flags = [f"--train_dir={self.train_dir}", f"--data_dir={self.data}", *self.lab.flags(self.program, *self.extra)]
        return flags if self.export is None else [*flags, f"--export_dir={self.export}"]

    def output(self) -> Path:
        """Return a directory for the output of the next run."""
        return self.home / f"output-{len(self.log)}"

    def start(self, trigger: Trigger | None = None, limits: Mapping[str, int] | None = None) -> victims.Victim:
        """Start the command."""
        return self.lab.victims.start(self.program, self.flags(), self.output(), trigger, limits)

    def run(self, trigger: Trigger | None = None, limits: Mapping[str, int] | None = None) -> Ended:
        """Run the command to its end."""
        return self.start(trigger, limits).end(self.lab.seconds)

    def attack(self, run: Callable[[], Ended] | None = None, *, must_succeed: bool = False) -> None:
        """Run the command under attack, judge it, remove the cause of an error, and run it once more.

        Args:
          run: runs the command; by default only the files disturb it.
          must_succeed: whether an error counts as a fault.

        Raises:
          FaultError: something is wrong.
        """
        good = {step: files for step, files in self.complete.items() if step not in self.damaged}
        moved = {
            step: {name: content for name, content in files.items() if name not in self.touched}
            for step, files in self.complete.items()
            if step in self.damaged
        }
        before = self.outside()
        ended = (run or self.run)()
        self._judge(ended, before, good if self.keeps_all else {}, moved)
        if ended.status == 1 and must_succeed:
            raise FaultError(f"expected exit status 0, got {judging.first_error(ended)}")
        if ended.status == 1:
            self.undo()
        if ended.status == 1 or self.random.random() < 0.3:
            self.again("after the cause was removed" if ended.status == 1 else "once more")

    def again(self, when: str) -> None:
        """Run the command without an attack; it must succeed."""
        good = judging.complete_checkpoints(self.train_dir) if self.keeps_all else {}
        good = {step: files for step, files in good.items() if step not in self.damaged}
        before = self.outside()
        ended = self.run()
        try:
            self._judge(ended, before, good, {})
        except FaultError as fault:
            raise FaultError(f"run {when}: {fault}") from fault
        if ended.status != 0:
            raise FaultError(f"run {when}: expected exit status 0, got {judging.first_error(ended)}")

    def outside(self) -> dict[str, str]:
        """Return a snapshot of everything except the train_dir and other files that the run owns."""
        return judging.snapshot(self.root, {self.train_dir, *self.owned, *([self.export] if self.export else [])})

    def _judge(
        self,
        ended: Ended,
        before: Mapping[str, str],
        good: judging.Checkpoints,
        moved: judging.Checkpoints,
    ) -> None:
        where = f", the attack came at {ended.acted_at}" if ended.acted_at else ""
        self.log.append(f"[{ended.status}, {ended.seconds:.1f} s{where}] {judging.first_error(ended)}")
        wrong = [
            judging.wrong_ending(ended),
            judging.differences(before, self.outside()),
            judging.lost_checkpoints(self.train_dir, good, moved),
            judging.lost_files(self.train_dir, self.users_files),
        ]
        if not self.quarantine and (self.train_dir / "quarantine").exists():
            wrong.append(f"a good checkpoint lost: moved to quarantine; {judging.first_error(ended)}")
        if ended.status == 0:
            reference = self.lab.reference(self.program, *self.extra)
            export = self.export or self.train_dir / "saved_model" / str(reference.step)
            wrong.append(judging.wrong_model(self.train_dir, export, reference, metrics=self.metrics))
        found = [each for each in wrong if each]
        if found:
            raise FaultError(" | ".join(found))

    def clean(self) -> None:
        """Delete the directories."""
        shutil.rmtree(self.home, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a file, directory or link; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
