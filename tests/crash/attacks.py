"""Random attacks on a run: damaged and odd files, swapped directories, shortages, concurrent runs.

    python -m tests.crash.attacks [--keep] [--seconds=90] SEED ...      A SEED may be a range: 100-199

Replays the attack of each seed, and prints its kind, its parameters, and the faults found. An attack takes the
train_dir of a killed or finished run, does something to it or to the machine, runs the same command again, and judges
the result by `judging.py`. After an error it removes the cause; then the command must succeed.

Each kind has a row number, and draws its parameters from the case's `random`.
"""

import errno
import gzip
import json
import math
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist.input import idx
from mnist.input.dataset import BUNDLED
from tests import conftest
from tests.crash import judging, victims
from tests.crash.cases import FINISHED, NEW, OTHER, PROGRAMS, Case, FaultError, Lab
from tests.crash.victims import Ended, Trigger, Victim


def flipped(content: bytes, chance: random.Random) -> bytes:
    """Return the content with one bit flipped."""
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def damaged_export(case: Case) -> None:
    """Row 1: a file of the finished export is changed, truncated or deleted; the next run must notice it."""
    case.lay_out(FINISHED)
    inside = case.random.random() < 0.6
    export = case.train_dir / "saved_model" / str(PROGRAMS[case.program].steps[-1])
    if not inside:
        case.export = case.root / "exported"
        case.owned.add(case.root / "exported.damaged")
        export = export.rename(case.export)
        export.parent.mkdir(exist_ok=True)
    path = case.random.choice(sorted(each for each in export.rglob("*") if each.is_file()))
    how = case.random.choice(["flip", "flip", "flip", "flip", "truncate", "delete"])
    case.note(how=how, file=path.relative_to(export), export="inside" if inside else "--export_dir")
    content = path.read_bytes()
    case.quarantine = True
    if how == "delete":
        path.unlink()
        case.on_undo(lambda: path.exists() or path.write_bytes(content))
    else:
        case.change(
            path, flipped(content, case.random) if how == "flip" else content[: case.random.randrange(len(content))]
        )
    case.attack(must_succeed=True)


class _Exporter(NamedTuple):
    """One of two trained runs that export to the same directory."""

    case: Case
    name: str
    extra: tuple[str, ...]

    def start(self, export: Path, trigger: Trigger | None = None) -> Victim:
        """Start it; its training has ended."""
        flags = [f"--train_dir={self.case.root / self.name}", f"--data_dir={self.case.data}", f"--export_dir={export}"]
        flags += self.case.lab.flags("softmax", *self.extra)
        output = self.case.home / f"output-{self.name}-{export.name}"
        return self.case.lab.victims.start("softmax", flags, output, trigger)

    def wrong(self, ended: Ended, export: Path, before: dict[str, str]) -> list[str]:
        """Return what is wrong with its end."""
        self.case.log.append(f"{self.name} [{ended.status}] {judging.first_error(ended)}")
        found = [judging.wrong_ending(ended), judging.differences(before, self.case.outside())]
        if ended.status == 0:
            reference = self.case.lab.reference("softmax", *self.extra)
            found.append(judging.wrong_model(self.case.root / self.name, export, reference, metrics=True))
        return [f"{self.name}: {each}" for each in found if each]


def shared_export(case: Case) -> None:
    """Row 2: two runs export to one directory, one while the other is stopped, or both at once."""
    case.lay_out(NEW, program="softmax")
    runs = [_Exporter(case, "a", ()), _Exporter(case, "b", OTHER)]
    for run in runs:
        case.bring(case.lab.template("softmax", 1, *run.extra, below="saved_model"), case.root / run.name)
        case.owned.add(case.root / run.name)
    exports = case.root / "exports"
    exports.mkdir()
    case.owned.add(exports)
    stop_at = case.random.choice([0, case.random.randint(1, 16)])
    case.note(a=f"stopped before call {stop_at}" if stop_at else "started at the same time")
    before = case.outside()
    both = _run_both(case, runs, exports / "model", stop_at)
    wrong = [
        each for run, ended in zip(runs, both, strict=True) for each in run.wrong(ended, exports / "model", before)
    ]
    if all(ended.status == 1 for ended in both):
        wrong.append("both failed")
    for run, ended in zip(runs, both, strict=True):
        if ended.status == 1 and not wrong:
            again = run.start(exports / "another").end(case.lab.seconds)
            wrong = run.wrong(again, exports / "another", before) + ([] if again.status == 0 else ["fails again"])
    if wrong:
        raise FaultError(" | ".join(wrong))


def _run_both(case: Case, runs: Sequence[_Exporter], export: Path, stop_at: int) -> tuple[Ended, Ended]:
    """Run the second while the first is stopped, or, with `stop_at` 0, both at once."""
    seconds = case.lab.seconds
    first = runs[0].start(export, Trigger("changes", str(export.parent), stop_at, "stop") if stop_at else None)
    if not stop_at:
        second = runs[1].start(export)
        return first.end(seconds), second.end(seconds)
    first.wait(seconds)
    ended = runs[1].start(export).end(seconds)
    first.resume()
    return first.end(seconds), ended


# Variables that change the weights of an unprotected run, and variables that might.
_CHANGING = (
    {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"},
    {"TF_XLA_FLAGS": "--tf_xla_auto_jit=fusible --tf_xla_cpu_global_jit --tf_xla_min_cluster_size=1"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"DNNL_MAX_CPU_ISA": "SSE41"},
)
_OTHERS = (
    {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true", "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"},
    {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
    {"DNNL_DEFAULT_FPMATH_MODE": "ANY"},
    {"TF_SET_ONEDNN_FPMATH_MODE": "BF16"},
    {"TF_ENABLE_ONEDNN_OPTS": "0"},
    {"TF_DISABLE_MKL": "1"},
    {"TF_ENABLE_MKL_NATIVE_FORMAT": "0"},
    {"TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL": "0"},
    {"TF_USE_CUSTOM_CONTRACTION_KERNEL": "0"},
    {"TF_ENABLE_ZENDNN_OPTS": "1"},
    {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"},
    {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"},
    {"PYTHONHASHSEED": "7", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
    {"TMPDIR": "/nonexistent", "HOME": "/nonexistent"},
)


def environment(case: Case) -> None:
    """Row 3: the next run has environment variables that select other kernels."""
    program = case.random.choice(["softmax", "cnn"])
    case.lay_out(case.random.choice([NEW, 29, 53]), program=program)
    variables = case.random.choice(case.random.choice([_CHANGING, _OTHERS]))
    case.note(variables=" ".join(f"{name}={value!r}" for name, value in variables.items()))
    case.attack(
        lambda: victims.run_in_new_process(
            case.program, case.flags(), case.output(), variables, 60.0 + case.lab.seconds
        )
    )


def warm_start(case: Case) -> None:
    """Row 4: the source of a warm start changes between a kill and the next run."""
    case.lay_out(NEW, program="softmax")
    other = case.lab.template("softmax", FINISHED, *OTHER)
    source, newest = case.root / "source", "model.ckpt-60."
    shutil.copytree(other, source, ignore=shutil.ignore_patterns(f"{newest}*", "saved_model", "checkpoint"))
    case.extra = [f"--warm_start_from={source}"]
    case.lab.same_reference("softmax", case.extra[0], f"--warm_start_from={other / 'model.ckpt-40'}")
    call = case.random.randint(1, 5)  # of the first checkpoint's; the fifth is its commit
    change = case.random.choice(["newer", "newer", "newer, older gone", "another's in its place"])
    case.note(killed_before_call_of_first_save=call, source=change)
    killed = case.run(Trigger("changes", str(case.train_dir / "model.ckpt-20"), call, "kill"))
    assert killed.status == -signal.SIGKILL, killed
    assert not judging.complete_checkpoints(case.train_dir)
    kept = case.home / "source"
    shutil.copytree(source, kept)
    if change.startswith("newer"):
        for path in other.glob(f"{newest}*"):
            shutil.copy(path, source)
    if change == "newer, older gone":
        for path in source.glob("model.ckpt-[24]0.*"):
            path.unlink()
    if change == "another's in its place":
        for path in case.lab.template("softmax", FINISHED).glob("model.ckpt-40.*"):
            shutil.copy(path, source)

    def undo() -> None:
        shutil.rmtree(source)
        shutil.copytree(kept, source)

    case.on_undo(undo)
    case.attack()


class _Swap(NamedTuple):
    """Two directories; the other one replaces the victim's.

    linked: the train_dir is a symbolic link to `own`; otherwise it is moved to `own`.
    """

    train_dir: Path
    own: Path
    other: Path
    linked: bool

    def prepare(self) -> None:
        """Make the link."""
        if self.linked:
            if self.train_dir.exists():
                self.train_dir.rename(self.own)
            else:
                self.own.mkdir()
            self.train_dir.symlink_to(self.own)

    def swap(self) -> None:
        """Replace the victim's directory by the other one."""
        if self.linked:
            self.train_dir.unlink()
            self.train_dir.symlink_to(self.other)
        else:
            self.train_dir.rename(self.own)
            self.other.rename(self.train_dir)

    def swap_back(self) -> None:
        """Undo the swap."""
        if self.linked:
            self.train_dir.unlink()
            self.train_dir.symlink_to(self.own)
        else:
            self.train_dir.rename(self.other)
            self.own.rename(self.train_dir)


def swapped_train_dir(case: Case) -> None:
    """Row 5: while the run is running, another run's directory replaces its train_dir."""
    case.lay_out(case.random.choice([NEW, None]), program="softmax")
    swap = _Swap(case.train_dir, case.root / "own", case.root / "other", case.random.random() < 0.5)
    # Not before the third: until the run has the lock of its train_dir, the other directory is its train_dir.
    call = max(3, case.random.randint(1, 40 if case.moment == FINISHED else 100))
    moment = case.random.choice([FINISHED, 41, 61])
    case.bring(case.lab.template("softmax", moment, *OTHER), swap.other)
    if case.random.random() < 0.5:
        case.extra = ["--max_to_keep=1"]
        case.keeps_all = False
    how = "link re-pointed" if swap.linked else "moved"
    case.note(how=how, at_read=call, other="finished" if moment == FINISHED else moment, flags=" ".join(case.extra))
    swap.prepare()
    if swap.linked:
        case.owned.add(swap.own)

    def run() -> Ended:
        # Stopped while it reads: its next action must not rely on what it has read.
        victim = case.start(Trigger("reads", str(case.root), call, "stop"))
        stopped = victim.wait(case.lab.seconds) == victims.STOPPED and case.train_dir.exists()
        case.note(stopped=stopped)
        if stopped:
            swap.swap()
        victim.resume()
        ended = victim.end(case.lab.seconds)
        if stopped:
            swap.swap_back()
        return ended

    case.attack(run)


_SHORTAGES = ("EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ETIMEDOUT", "EAGAIN", "EACCES")


def shortage(case: Case) -> None:
    """Row 6: for a while, too few files, threads or bytes, or an unreachable network disk: nothing is damaged."""
    case.lay_out(checkpoints=True)
    case.quarantine = False
    how = case.random.choice(["files", "reads", "reads", "reads", "threads", "file size", "TensorFlow's calls"])
    if how == "files":
        limit = case.random.randint(1, 25)
        case.note(RLIMIT_NOFILE=f"{limit} more")
        case.attack(lambda: case.run(limits={"RLIMIT_NOFILE": limit}))
    elif how == "file size":
        # The output is a file, too: the error message must fit.
        limit = case.random.choice([2000, 5000, 20_000, 31_000, 100_000])
        case.note(RLIMIT_FSIZE=limit)
        case.attack(lambda: case.run(limits={"RLIMIT_FSIZE": limit}))
    elif how == "reads":
        error, call, lasting = case.random.choice(_SHORTAGES), case.random.randint(1, 50), case.random.random() < 0.5
        case.note(error=error, at_read=call, lasting=lasting)
        trigger = Trigger("reads", str(case.train_dir), call, getattr(errno, error), lasting)
        case.attack(lambda: case.run(trigger))
    elif how == "threads":
        call, lasting = case.random.randint(1, 8), case.random.random() < 0.5
        case.note(threads="can't start new thread", at=call, lasting=lasting)
        case.attack(lambda: case.run(Trigger("threads", "", call, errno.EAGAIN, lasting)))
    else:
        _fail_in_tensorflow(case)


def _fail_in_tensorflow(case: Case) -> None:
    """Make a system call on a checkpoint file fail by strace; it affects TensorFlow's code, too."""
    call = case.random.choice(["openat", "read", "pread64"])
    error = case.random.choice(
        ["EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ETIMEDOUT"] if call == "openat" else ["ESTALE", "ETIMEDOUT", "ENOMEM"]
    )
    when = case.random.choice(["1", "2", "3", "4", "1+", "2+", "3+"])
    newest = max(case.complete, default=0)
    kind = case.random.choice(["index", "data-00000-of-00001"])
    path = case.train_dir / f"model.ckpt-{newest}.{kind}"
    case.note(call=call, error=error, when=when, file=path.name)

    def run() -> Ended:
        victim = case.start(Trigger("reads", str(case.train_dir), 1, "stop"))
        if victim.wait(case.lab.seconds) == victims.STOPPED:
            trace = case.home / "trace"
            command = ["strace", "--follow-forks", f"--attach={victim.pid}", f"--output={trace}", "--quiet=all"]
            command += [f"--trace={call}", f"--inject={call}:error={error}:when={when}", f"--trace-path={path}"]
            with subprocess.Popen(command, stdin=subprocess.DEVNULL) as strace:
                status = Path(f"/proc/{victim.pid}/status")
                while f"TracerPid:\t{strace.pid}\n" not in status.read_text(encoding="ascii"):
                    time.sleep(0.01)
                    assert strace.poll() is None, "strace cannot attach"
                victim.resume()
                ended = victim.end(case.lab.seconds)
                strace.terminate()
            case.note(injected=trace.read_text().count("INJECTED"))
            return ended
        return victim.end(case.lab.seconds)

    case.attack(run)


def _names(case: Case) -> list[str]:
    """Return the names that a run uses in its train_dir, including those of checkpoints."""
    once = ["lock", "checkpoint", "metrics.jsonl", "history.jsonl", "attempt.json", "result.json", "graph.pbtxt"]
    temporary = [f"{name}.tmp" for name in once] + ["graph.tmp.pbtxt"]
    kinds = ("index", "meta", "manifest.json", "data-00000-of-00001", "incomplete", "pinned", "manifest.json.tmp")
    steps = [f"model.ckpt-{step}.{kind}" for step in PROGRAMS[case.program].steps for kind in kinds]
    return [*once, *once, *temporary, *steps]


def users_directory(case: Case) -> None:
    """Row 7: a user's directory is where the run writes a file, or an unfinished export."""
    case.lay_out()
    if case.random.random() < 0.3:
        case.export = case.root / "exported"
        case.complete = judging.complete_checkpoints(case.train_dir)
        names = ["assets of the company/plan.txt", "assets.csv", "variables_of_interest.csv", "saved_model.pb.bak"]
        names += ["assets/photo.jpg", "variables/variables.index", "saved_model.pb", "notes.txt"]
        chosen = case.random.sample(names, case.random.randint(1, 3))
        case.note(place="exported.incomplete", names=chosen)
        directory = case.root / "exported.incomplete"
    else:
        name = case.random.choice([*_names(case), "report.html", *(f"model.ckpt-{step}_temp" for step in (20, 40, 60))])
        directory = case.train_dir / name
        chosen = case.random.choice([["mine.txt"], ["deep/mine.txt", "lock"], ["part-of-a-novel.txt"]])
        case.note(place=name, names=chosen)
    files = {directory / name: f"the user's {name}".encode() for name in chosen}

    def make(place: Path) -> None:
        place.mkdir()
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    case.put(directory, make)
    if directory.parent == case.train_dir:
        case.users_files = files
    case.attack()


def link_to_precious(case: Case) -> None:
    """Row 8: a symbolic link to another user's file is where the run writes."""
    case.lay_out()
    special = ["quarantine", "model.ckpt-60_temp", "model.ckpt-40_temp", "an event file", "report.html"]
    name = case.random.choice([*_names(case), *special])
    precious = case.root / "precious"
    targets = ["file", "new", "directory", "other_run/lock", "other_run/metrics.jsonl", "other_run/checkpoint"]
    target = precious / case.random.choice([*targets, "other_run/model.ckpt-60.data-00000-of-00001", "lock"])
    case.note(link=name, to=target.relative_to(precious))
    if name == "an event file":
        case.attack(lambda: _run_with_linked_event_files(case, target))
        return
    if name == "quarantine" and case.complete:
        path = case.train_dir / f"model.ckpt-{max(case.complete)}.index"
        case.change(path, flipped(path.read_bytes(), case.random))
    if os.path.lexists(case.train_dir):
        case.put(case.train_dir / name, lambda path: path.symlink_to(target))
    case.attack()


def _run_with_linked_event_files(case: Case, target: Path) -> Ended:
    """Make links with all names that the run's event file may get: they contain the time and the process id."""
    victim = case.start(Trigger("reads", str(case.train_dir), 1, "stop"))
    if victim.wait(case.lab.seconds) == victims.STOPPED:
        events = case.train_dir / "events"
        events.mkdir(exist_ok=True)
        for second in range(30):
            (events / f"events.out.tfevents.{int(time.time()) + second:010d}.{victim.pid}").symlink_to(target)

        def undo() -> None:
            for path in events.iterdir():
                if path.is_symlink():
                    path.unlink()

        case.on_undo(undo)
        victim.resume()
    return victim.end(case.lab.seconds)


def damaged_metadata(case: Case) -> None:
    """Row 9: any file but the tensors is changed, truncated, or garbage."""
    case.lay_out()
    files = [path for path in case.train_dir.rglob("*") if path.is_file() and "saved_model" not in path.parts]
    metadata = [path for path in files if not re.search(r"\.(data-.*|index|meta)$", path.name)]
    case.train_dir.mkdir(exist_ok=True)
    if not metadata:
        (case.train_dir / "lock").write_bytes(b'{"host": "vm", "pid": 1}')
        metadata = [case.train_dir / "lock"]
    by_kind: dict[str, list[Path]] = {}
    for each in sorted(metadata):
        by_kind.setdefault(re.sub(r"\d+", "N", each.name), []).append(each)
    path = case.random.choice(by_kind[case.random.choice(sorted(by_kind))])
    content = path.read_bytes()
    how = case.random.choice(["flip", "flip", "flip", "truncate", "garbage", "zeros", "deep"])
    if how == "flip" and content:
        changed = flipped(content, case.random)
    elif how == "truncate" and content:
        changed = content[: case.random.randrange(len(content))]
    elif how == "zeros":
        changed = bytes(len(content))
    elif how == "deep":
        changed = b"[" * 100_000
    else:
        changed = case.random.randbytes(case.random.randint(1, 300))
    case.note(file=path.relative_to(case.train_dir), how=how, now=repr(_excerpt(content, changed)))
    case.change(path, changed)
    case.attack()


def _excerpt(content: bytes, changed: bytes) -> bytes:
    """Return the bytes around the first difference."""
    first = next(
        (place for place, (old, new) in enumerate(zip(content, changed, strict=False)) if old != new), len(changed)
    )
    return changed[max(0, first - 12) : first + 12]


def _replaced(name: str, values: Sequence[Any]) -> Callable[[dict[str, Any], random.Random], Any]:
    def change(record: dict[str, Any], chance: random.Random) -> Any:
        record[name] = chance.choice(values)
        return record[name]

    return change


def _file_listed(record: dict[str, Any], chance: random.Random) -> Any:
    name = chance.choice(
        ["PRECIOUS/file", "../precious/file", "model.ckpt-20.index/../../precious/lock", "", ".", "x\0y"]
    )
    record["files"][name] = chance.choice(
        [{"bytes": 14, "sha256": "0" * 64}, {"bytes": "14"}, {}, [], None, {"bytes": -1, "sha256": 5}]
    )
    return name


def _missing(record: dict[str, Any], chance: random.Random) -> str:
    name = chance.choice(sorted(record))
    del record[name]
    return f"no {name}"


def _extra(record: dict[str, Any], chance: random.Random) -> str:
    name = chance.choice(["extra", "__class__", "to_json", "self", ""])
    record[name] = chance.choice([1, "x", [], None])
    return f"also {name!r}"


def _deep(record: dict[str, Any], chance: random.Random) -> str:
    value: Any = 1
    for _ in range(400):
        value = [value]
    record[chance.choice(["settings", "score", "versions"])] = value
    return "nested 400 deep"


_HUGE = 10**400
_WRONG = {
    "format": _replaced("format", ["3", 3.0, None, [3], {"3": 3}, True, 99, -1, _HUGE, math.nan]),
    "step": _replaced("step", [True, "60", 60.0, None, -60, _HUGE, [60], math.nan]),
    "files": _replaced("files", [[], {}, None, "x", ["model.ckpt-60.index"], 5, {"model.ckpt-60.index": None}]),
    "a listed file": _file_listed,
    "settings": _replaced("settings", [None, [], {}, "x", {"train_steps": "60"}, {"seed": math.nan}, 3]),
    "state_digest": _replaced("state_digest", [None, 5, [], "", "0" * 64]),
    "score": _replaced("score", ["high", [], math.nan, math.inf, True, _HUGE, {}]),
    "saved_at": _replaced("saved_at", [None, "now", math.nan, -math.inf, _HUGE, 1e300, -1e300, [], True]),
    "training_seconds": _replaced("training_seconds", [None, "x", math.nan, math.inf, -1e308, _HUGE, [], True]),
    "versions": _replaced("versions", [None, [], "x", {"tensorflow": 2}, 5]),
    "retention": _replaced("retention", [[], "x", {"max_to_keep": "x"}, {"max_to_keep": math.nan}, 5, {"a": 1}]),
    "code": _replaced("code", [5, [], {}, True]),
    "started_from": _replaced("started_from", [5, [], {}, True]),
    "missing key": _missing,
    "extra key": _extra,
    "deep nesting": _deep,
}


def wrong_manifest(case: Case) -> None:
    """Row 10: a manifest with values of wrong types and a valid seal."""
    case.lay_out(case.random.choice([None, FINISHED]), checkpoints=True)
    steps = sorted(case.complete)
    if not steps:
        case.attack()
        return
    step = case.random.choice([steps[-1], case.random.choice(steps)])
    path = case.train_dir / f"model.ckpt-{step}.manifest.json"
    record = json.loads(path.read_bytes())
    del record["sha256"]
    what = case.random.choice(list(_WRONG))
    now = _WRONG[what](record, case.random)
    text = json.dumps(record, sort_keys=True).replace("PRECIOUS", str(case.root / "precious"))
    record = json.loads(text) if "PRECIOUS" in json.dumps(record) else record
    seal = judging.seal_of(record)
    case.note(step=f"{step} of {steps}", what=what, now=repr(now)[:60])
    case.change(path, json.dumps({**record, "sha256": seal}, indent=2).encode())
    case.attack()


def _bomb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack(">IIII", 2051, 1200, 28, 28))
        for _ in range(300):
            file.write(bytes(2**20))


def odd_data(case: Case) -> None:
    """Row 11: a data file with a false header, wrong content, or none; or something that is not a file."""
    case.lay_out()
    case.data = case.root / "data"
    shutil.copytree(case.lab.data, case.data)
    path = case.random.choice(sorted(case.data.iterdir()))
    content = path.read_bytes()
    images = "images" in path.name
    magic = 2051 if images else 2049
    headers = {
        "count 0, huge sizes": struct.pack(">IIII", magic, 0, 2**32 - 1, 2**32 - 1),
        "huge count": struct.pack(">IIII", magic, 2**32 - 1, 28, 28) + content[16:],
        "huge sizes": struct.pack(">IIII", magic, 1, 2**31, 2**31) + content[16:],
        "255 dimensions": struct.pack(">I", 0x8FF) + b"\xff" * 1020 + content[8:],
        "floats": struct.pack(">I", magic | 0x500) + content[4:],
    }
    damages = {
        "truncated": content[: case.random.randrange(len(content))],
        "longer": content + b"x",
        "empty": b"",
        "flipped": flipped(content, case.random),
        "pickle": b"\x80\x04cos\nsystem\n(S'touch /tmp/pwned'\ntR.",
        "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1000000000, 0, 28), }\n",
    }
    odd = [*_ODD, "a gzip bomb", "a directory", "a link to the file itself", "a link to a good copy"]
    how = case.random.choice([*headers, *damages, *odd])
    case.note(file=path.name, how=how)
    if how in {**headers, **damages}:
        changed = {**headers, **damages}[how]
        if how == "flipped" and not case.complete:
            changed = content[:-1]  # without a checkpoint, a changed pixel just means another run
        case.change(path, changed)
        case.attack()
        return
    makers: dict[str, Callable[[Path], object]] = {
        **_ODD,
        "a gzip bomb": lambda place: _bomb(place.with_name(f"{place.name}.gz")),
        "a directory": lambda place: place.mkdir(),
        "a link to the file itself": lambda place: place.symlink_to(place.name),
        "a link to a good copy": lambda place: place.symlink_to(case.lab.data / path.name),
    }
    if how == "a gzip bomb":
        kept = case.home / path.name
        shutil.move(path, kept)
        makers[how](path)

        def undo() -> None:
            path.with_name(f"{path.name}.gz").unlink()
            shutil.move(kept, path)

        case.on_undo(undo)
    else:
        case.put(path, makers[how])
    case.attack(must_succeed=how == "a link to a good copy")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**30)


_ODD: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a socket": lambda path: os.mknod(path, 0o600 | stat.S_IFSOCK),
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to /dev/null": lambda path: path.symlink_to("/dev/null"),
    "a sparse file of 100 GB": _sparse,
}
if os.geteuid() == 0:
    _ODD["the device null"] = lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    _ODD["the device zero"] = lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))


def odd_file(case: Case) -> None:
    """Row 12: a FIFO, device, socket or endless file is where the run reads or writes a file."""
    case.lay_out()
    case.train_dir.mkdir(exist_ok=True)
    name, how = case.random.choice(_names(case)), case.random.choice(list(_ODD))
    case.note(file=name, how=how)
    case.put(case.train_dir / name, _ODD[how])
    case.attack()


# The kinds by row number, with their relative frequencies.
KINDS: dict[int, tuple[int, Callable[[Case], None]]] = {
    1: (9, damaged_export),
    2: (7, shared_export),
    3: (2, environment),
    4: (5, warm_start),
    5: (11, swapped_train_dir),
    6: (13, shortage),
    7: (10, users_directory),
    8: (12, link_to_precious),
    9: (12, damaged_metadata),
    10: (12, wrong_manifest),
    11: (7, odd_data),
    12: (13, odd_file),
}


def kind_of(seed: int) -> int:
    """Return the kind of a seed's attack."""
    return random.Random(seed).choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]  # noqa: S311


class Report(NamedTuple):
    """The result of an attack. fault: "" if there is none. log: a line per run."""

    seed: int
    kind: int
    parameters: str
    fault: str
    log: list[str]
    seconds: float

    def __str__(self) -> str:
        """Return the text to print."""
        attack = f"seed {self.seed} kind {self.kind} {KINDS[self.kind][1].__name__}: {self.parameters}"
        details = "\n    ".join([self.fault, *self.log]) if self.fault else " / ".join(self.log)
        return f"{'FAULT' if self.fault else 'ok'} [{self.seconds:.1f} s] {attack}\n    {details}"


def carry_out(lab: Lab, seed: int, *, keep: bool = False) -> Report:
    """Carry out the attack of a seed. keep: keep its directories after a fault."""
    case = Case(lab, seed)
    kind = kind_of(seed)
    case.clean()
    began = time.monotonic()
    fault = ""
    try:
        KINDS[kind][1](case)
    except FaultError as error:
        fault = str(error)
    if not (fault and keep):
        case.clean()
    parameters = " ".join(f"{name}={value}" for name, value in case.parameters.items())
    return Report(seed, kind, parameters, fault, case.log, time.monotonic() - began)


def _write_small_data(directory: Path) -> None:
    """Write the data of the fixture `small_data`."""
    directory.mkdir()
    for name, count in (("train", conftest.TRAIN_IMAGES), ("t10k", conftest.TEST_IMAGES)):
        for kind, shape in (("images-idx3", (None, 28, 28)), ("labels-idx1", (None,))):
            array = idx.read(BUNDLED / f"{name}-{kind}-ubyte.gz", shape)
            conftest.write_idx(directory / f"{name}-{kind}-ubyte", array[:count])


def _main(arguments: Sequence[str]) -> int:
    keep = "--keep" in arguments
    seconds = [float(each.partition("=")[2]) for each in arguments if each.startswith("--seconds=")]
    seeds: list[int] = []
    for text in arguments:
        if not text.startswith("--"):
            first, _, last = text.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    shm = Path("/dev/shm")  # noqa: S108 - only the parent of a directory made with mkdtemp
    scratch = Path(tempfile.mkdtemp(prefix="attacks-", dir=shm if shm.is_dir() else None))
    data = scratch / "data"
    _write_small_data(data)
    lab = Lab(scratch, data, *seconds)
    faults = 0
    try:
        for seed in seeds:
            report = carry_out(lab, seed, keep=keep)
            faults += bool(report.fault)
            print(report, flush=True)  # noqa: T201 - the command's output
    finally:
        lab.close()
        if keep and faults:
            print(f"kept: {scratch}")  # noqa: T201
        else:
            shutil.rmtree(scratch)
    print(f"{len(seeds)} attacks, {faults} faults")  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
