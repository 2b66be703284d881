"""Runs of the programs under attack: stopped or killed at a call, with few files or threads, with failing reads.

    with Victims() as victims:
        victim = victims.start("softmax", flags, output_directory, Trigger("changes", train_dir, 7, "stop"))
        victim.wait(seconds=30)    # STOPPED
        ...
        victim.resume()
        ended = victim.end(seconds=30)

Each run is forked from a process that has imported TensorFlow: `python -m tests.crash.victims DESCRIPTOR`. Triggers act
on Python's audit events, so they see the calls of Python code, and not those of TensorFlow's C++ code.
"""

import contextlib
import itertools
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

from tests import programs
from tests.zygote import become

# What the parent of a run reports: one of these, and a number.
PID, STOPPED, ENDED = 1, 2, 3
_REPORT = struct.Struct("ii")

# The file that holds the lines where a trigger has acted.
_ACTED_AT = "acted_at"

# Seconds until the process that forks has imported TensorFlow, on a busy machine.
_STARTS_WITHIN = 300.0

# A run may allocate this much more than the process that it is forked from: reading /dev/zero ends before the
# machine's memory does.
_MORE_MEMORY = 2 * 2**30


class Trigger(NamedTuple):
    """An action at a call.

    calls: "changes" for calls that change files, "reads" for those that read files or list directories, "threads" for
      the start of threads.
    below: only calls on paths that begin with this are counted; for threads, all are.
    number: the call before which the action happens, from 1.
    action: "stop" or "kill", or the errno that the call fails with.
    lasting: whether all later calls fail, too.
    """

    calls: str
    below: str
    number: int
    action: str | int
    lasting: bool = False


class Ended(NamedTuple):
    """The end of a run.

    status: its exit status; -n if it died of signal n; None if it hung and was killed.
    acted_at: the source lines of the last call that a trigger acted on; "" for none.
    """

    status: int | None
    stdout: str
    stderr: str
    seconds: float
    acted_at: str = ""


class Request(NamedTuple):
    """A run to start. limits: soft limits by their names in `resource`; for files, how many more than are open."""

    program: str
    flags: list[str]
    environment: dict[str, str]
    output: str
    trigger: list[Any] | None
    limits: dict[str, int]


class Victim:
    """A running program, in a new process group."""

    def __init__(self, reports: int, output: Path) -> None:
        """Take the descriptor of the pipe with its parent's reports, and the directory with its output."""
        self._reports = reports
        self._output = output
        self._began = time.monotonic()
        self._status: int | None = None
        what, self.pid = self._read(_STARTS_WITHIN)
        assert what == PID, "the process that forks the runs does not respond"

    def _read(self, seconds: float) -> tuple[int, int]:
        """Return the next report; (0, 0) after a timeout."""
        if not select.select([self._reports], [], [], max(0.0, seconds))[0]:
            return 0, 0
        text = os.read(self._reports, _REPORT.size)
        assert text, "the process that forks the runs has died"
        what, number = _REPORT.unpack(text)
        return what, number

    def wait(self, seconds: float) -> int:
        """Wait for STOPPED or ENDED, and return it; 0 after a timeout."""
        if self._status is not None:
            return ENDED
        what, number = self._read(seconds)
        if what == ENDED:
            self._status = number
        return what

    def resume(self) -> None:
        """Continue a stopped run; do nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def end(self, seconds: float) -> Ended:
        """Wait for the end; kill a run that does not end in time."""
        deadline = time.monotonic() + seconds
        hangs = False
        while self._status is None and not hangs:
            hangs = self.wait(deadline - time.monotonic()) == 0
        if hangs:
            os.killpg(self.pid, signal.SIGKILL)
            while self.wait(60.0) != ENDED:
                pass
        os.close(self._reports)
        stdout, stderr = ((self._output / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        where = self._output / _ACTED_AT
        acted_at = where.read_text() if where.exists() else ""
        return Ended(None if hangs else self._status, stdout, stderr, time.monotonic() - self._began, acted_at)


class Victims:
    """The process that forks the runs; it may be used from several threads."""

    def __init__(self) -> None:
        """Start it; the first run waits until it has imported TensorFlow."""
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.crash.victims", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=programs.ROOT)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._requests.close()
        self._process.wait()

    def start(
        self,
        program: str,
        flags: Sequence[str],
        output: Path,
        trigger: Trigger | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> Victim:
        """Start a run; its output goes to the files `stdout` and `stderr` in the directory `output`, which is made."""
        output.mkdir(parents=True, exist_ok=True)
        (output / _ACTED_AT).unlink(missing_ok=True)
        ours, reports = os.pipe()
        request = Request(
            program,
            ["--noreport", *flags],
            dict(os.environ),
            str(output),
            None if trigger is None else list(trigger),
            dict(limits or {}),
        )
        socket.send_fds(self._requests, [json.dumps(request._asdict()).encode()], [reports])
        os.close(reports)
        return Victim(ours, output)


def run_in_new_process(
    program: str, flags: Sequence[str], output: Path, environment: Mapping[str, str], seconds: float
) -> Ended:
    """Run a program in a process that imports TensorFlow itself, with additional environment variables."""
    output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (output / "stdout").open("wb") as stdout, (output / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            programs.command(program, *flags),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=programs.ROOT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = None
    texts = ((output / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    return Ended(status, *texts, time.monotonic() - began)


# ---- The other side: the process that forks --------------------------------------------------------------------------


def serve(requests: socket.socket) -> None:
    """Fork a parent and its run for each request, until the socket is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the forked parents are not waited for
    while True:
        text, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 1)
        if not text:
            return
        if os.fork() == 0:
            requests.close()
            _supervise(Request(**json.loads(text)), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _supervise(request: Request, reports: int) -> NoReturn:
    """Fork the run, and report its stops and its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(reports)
        _run(request)
    os.write(reports, _REPORT.pack(PID, child))
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            break
        os.write(reports, _REPORT.pack(STOPPED, os.WSTOPSIG(status)))
    os.write(reports, _REPORT.pack(ENDED, os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _run(request: Request) -> NoReturn:
    """Turn this process into the program."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request.environment)
    streams = [os.open(os.devnull, os.O_RDONLY)]
    to_append = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    streams += [os.open(Path(request.output) / name, to_append) for name in ("stdout", "stderr")]
    _limit("RLIMIT_AS", _address_space() + _MORE_MEMORY)
    for name, value in request.limits.items():
        _limit(
            name,
            value + (max(int(path.name) for path in Path("/proc/self/fd").iterdir()) if name == "RLIMIT_NOFILE" else 0),
        )
    if request.trigger is not None:
        trigger, where = Trigger(*request.trigger), Path(request.output) / _ACTED_AT
        if trigger.calls == "threads":
            _watch_threads(trigger, where)
        else:
            sys.addaudithook(_hook(trigger, where))
    become(request.program, request.flags, streams)


def _limit(name: str, value: int) -> None:
    number = getattr(resource, name)
    resource.setrlimit(number, (value, resource.getrlimit(number)[1]))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
_READS = {"os.listdir", "os.scandir"}


def _kind(event: str, arguments: tuple[Any, ...]) -> str:
    """Classify an audit event as "changes" or "reads"; "" for any other."""
    if event == "open":
        flags = arguments[2] or 0
        return "changes" if flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC) else "reads"
    return "changes" if event in _CHANGES else "reads" if event in _READS else ""


def _hook(trigger: Trigger, where: Path) -> Any:
    numbers = itertools.count(1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _kind(event, arguments) != trigger.calls:
            return
        paths = [os.fsdecode(each) for each in arguments[:2] if isinstance(each, str | bytes | os.PathLike)]
        if any(path.startswith(trigger.below) for path in paths) and _is_due(trigger, next(numbers)):
            _act(trigger, paths[0], where)

    return hook


def _watch_threads(trigger: Trigger, where: Path) -> None:
    """Act on the start of threads, for which Python 3.11 has no audit event."""
    numbers, start = itertools.count(1), threading._start_new_thread  # noqa: SLF001 - what Thread.start calls

    def start_or_act(*arguments: Any) -> Any:
        if _is_due(trigger, next(numbers)):
            _act(trigger, "", where)
        return start(*arguments)

    threading._start_new_thread = start_or_act  # noqa: SLF001


def _is_due(trigger: Trigger, number: int) -> bool:
    return number == trigger.number or (trigger.lasting and number > trigger.number)


def _act(trigger: Trigger, path: str, where: Path) -> None:
    """Act, and write the project's source lines that made the call to a file."""
    ours = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(programs.ROOT)]
    lines = [
        f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours if "tests" not in Path(frame.filename).parts
    ]
    where.write_text(" > ".join(lines[-4:]), encoding="utf-8")
    if trigger.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif trigger.action == "stop":
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    elif trigger.calls == "threads":
        raise RuntimeError("can't start new thread")  # the message that Python raises
    else:
        number = int(trigger.action)
        raise OSError(number, os.strerror(number), path)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from checkpointing.tf_import import tensorflow_import

    with tensorflow_import():
        from trainer import train  # noqa: F401 - for the runs: TensorFlow comes with it
    serve(socket.socket(fileno=int(sys.argv[1])))
