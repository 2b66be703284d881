import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from checkpointing.errors import CheckpointError
from checkpointing.runs import preemption
from checkpointing.runs.preemption import STOPPED
from checkpointing.runs.supervisor import run_each, supervise

ROOT = Path(__file__).parents[3]
SIGNALS = [signal.SIGTERM, signal.SIGINT]

# Ends as its next argument says: with an exit status, or of a signal. The file's length is the number of earlier runs.
ENDING = """
import os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with open(sys.argv[1], "ab") as runs:
    ending = sys.argv[2 + runs.tell()]
    runs.write(b"x")
if ending.isdigit():
    os._exit(int(ending))
os.kill(os.getpid(), getattr(signal, ending))
"""

# Supervises the code in its argument, without checkpoints.
PARENT = """
import logging, sys
from checkpointing.runs.preemption import STOPPED
from checkpointing.runs.supervisor import run_each, supervise
logging.basicConfig(format="%(message)s", stream=sys.stdout)
command = [sys.executable, "-c", sys.argv[1]]
sys.exit(supervise(command, max_restarts=5, newest_step=lambda: None, step_back=lambda reason: None))
"""

# Handles both signals, prints "ready", waits for the first one, and continues with the code appended to this.
HANDLING = """
import os, signal, sys, time
signal.alarm(20)  # ends it if a test fails
received = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: received.append(number))
print("ready", os.getpid(), flush=True)
while not received: time.sleep(0.005)
"""


@pytest.fixture(autouse=True)
def spared():
    """Fail a test whose signal no supervisor handles, instead of ending the test process."""
    before = {number: signal.signal(number, lambda *_: pytest.fail("the signal was not handled")) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Supervised:
    """A supervised command: each run ends with the next of `endings`, and the next of `steps` as newest step."""

    def __init__(self, directory, *endings, steps=None, back=None, max_restarts=9):
        """Start nothing yet. back: what step_back returns."""
        self.runs = directory / "runs"
        self.command = [sys.executable, "-S", "-c", ENDING, str(self.runs), *map(str, endings)]
        self.steps = iter(steps) if steps else itertools.count()  # by default each run makes progress
        self.back = back
        self.max_restarts = max_restarts
        self.slept = []
        self.reasons = []

    def run(self):
        """Supervise it; return the status."""
        return supervise(
            self.command,
            max_restarts=self.max_restarts,
            newest_step=lambda: next(self.steps),
            step_back=self.step_back,
            sleep=self.slept.append,
        )

    def diagnosis(self):
        """Supervise it; return the error's message and hint."""
        with pytest.raises(CheckpointError) as caught:
            self.run()
        return str(caught.value), caught.value.hint

    def step_back(self, reason):
        """Record the reason."""
        self.reasons.append(reason)
        return self.back

    @property
    def starts(self):
        """How often it was started."""
        return self.runs.stat().st_size


@contextlib.contextmanager
def parent_of(code, **options):
    """Start a process that supervises this code."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, code], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process):
    """Wait until the code handles signals; return its process id."""
    word, pid = process.stdout.readline().split()
    assert word == "ready"
    return int(pid)


@pytest.mark.parametrize("status", [0, 1, 2, 75])
def test_final_statuses_are_passed_on(tmp_path, status):
    """Done, an error, a usage error, stopped on request: a restart would not help."""
    supervised = Supervised(tmp_path, status)
    assert supervised.run() == status
    assert supervised.starts == 1
    assert supervised.slept == []


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGTERM", 3, 134, 255])
def test_a_crash_is_followed_by_a_restart(tmp_path, ending):
    """For any signal and any other status, and for a SIGTERM that the parent did not forward."""
    supervised = Supervised(tmp_path, ending, 0)
    assert supervised.run() == 0
    assert supervised.starts == 2


def test_crashes_with_progress_end_in_success(tmp_path):
    """Up to max_restarts, and no checkpoint is moved."""
    supervised = Supervised(tmp_path, *["SIGKILL"] * 5, 0, max_restarts=5)
    assert supervised.run() == 0
    assert supervised.starts == 6
    assert supervised.reasons == []


def test_the_wait_doubles_and_progress_resets_it(tmp_path):
    """One second, two if the crash before left no newer checkpoint, one again after progress."""
    supervised = Supervised(tmp_path, 3, 3, 3, 3, 0, steps=[None, None, 100, 100])
    assert supervised.run() == 0
    assert sum(supervised.slept) == pytest.approx(1 + 2 + 1 + 2)
    assert max(supervised.slept) <= 0.1, "a signal would be noticed late"


def test_each_restart_is_logged_in_one_line(tmp_path, caplog):
    """The cause, which restart of how many, the wait, and the step to resume from."""
    caplog.set_level(logging.INFO)
    Supervised(tmp_path, "SIGABRT", 3, 0, steps=[200, 200], back=100, max_restarts=4).run()
    assert caplog.messages == [
        (
            "the run crashed (killed by SIGABRT: a library aborted; see its last lines): "
            "restart 1 of 4 in 1 s, from step 200"
        ),
        "the run crashed (exit status 3): restart 2 of 4 in 2 s, from step 100",
    ]


def test_two_crashes_at_the_same_step_step_back_once(tmp_path):
    """The reason says why; after progress the count starts again."""
    supervised = Supervised(tmp_path, 3, "SIGSEGV", 3, 0, steps=[200, 200, 300], back=100)
    assert supervised.run() == 0
    assert supervised.reasons == [
        "the run crashed twice after it; last crash: killed by SIGSEGV: a fault in a library or in the machine's memory"
    ]


def test_a_later_checkpoint_can_be_moved_too(tmp_path):
    """After it has crashed twice."""
    supervised = Supervised(tmp_path, 3, 3, 3, 3, 0, steps=[200, 200, 300, 300], back=100)
    assert supervised.run() == 0
    assert len(supervised.reasons) == 2


@pytest.mark.parametrize("last", [100, 150, 200])
def test_a_third_crash_without_progress_is_an_error(tmp_path, last):
    """At the earlier step, in between, or at the same step again."""
    supervised = Supervised(tmp_path, 3, 3, "SIGKILL", steps=[200, 200, last], back=100)
    message, hint = supervised.diagnosis()
    assert message == (
        "the run crashed 3 times in a row without a newer checkpoint; last crash: killed by SIGKILL: often the "
        f"kernel's out-of-memory killer; newest checkpoint: step {last}"
    )
    assert hint == "see dmesg; free memory, use a machine with more, or train with a smaller batch in a new directory"
    assert supervised.starts == 3
    assert len(supervised.reasons) == 1


def test_without_any_checkpoint_the_third_crash_is_an_error_too(tmp_path):
    """There is none to step back to."""
    supervised = Supervised(tmp_path, 3, 3, 3, steps=[None] * 3)
    message, _ = supervised.diagnosis()
    assert message == (
        "the run crashed 3 times in a row without a newer checkpoint; last crash: exit status 3; no checkpoint"
    )


def test_step_0_is_a_checkpoint(tmp_path, caplog):
    """0 is not None."""
    caplog.set_level(logging.INFO)
    Supervised(tmp_path, 3, 3, 3, 3, 0, steps=[None, 0, 100, 100], back=0).run()
    origins = [line.rpartition(", ")[2] for line in caplog.messages]
    assert origins == ["from its start", "from step 0", "from step 100", "from step 0"]


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("SIGSEGV", ["killed by SIGSEGV: a fault in", "PYTHONFAULTHANDLER", "machine"]),
        ("SIGBUS", ["killed by SIGBUS: ", "full disk"]),
        ("SIGILL", ["killed by SIGILL: ", "processor"]),
        ("SIGABRT", ["killed by SIGABRT: ", "last lines"]),
        ("SIGRTMIN", ["killed by SIGRTMIN; newest checkpoint: step 2"]),
        ("SIGUSR1", ["killed by SIGUSR1; newest checkpoint: step 2"]),
        (77, ["; last crash: exit status 77; ", "PYTHONFAULTHANDLER"]),
    ],
)
def test_used_up_restarts_are_an_error(tmp_path, ending, words):
    """With the number of restarts, the last cause, the newest checkpoint, and a hint."""
    supervised = Supervised(tmp_path, 3, 3, ending, max_restarts=2)
    message, hint = supervised.diagnosis()
    assert message.startswith("the run crashed, and all 2 restarts are used up; last crash: ")
    assert all(word in f"{message} {hint}" for word in words), (message, hint)


def test_a_signal_without_a_name_is_reported_by_its_number(tmp_path):
    """Real-time signals have none."""
    number = signal.SIGRTMIN + 3
    code = f"import os; os.kill(os.getpid(), {number:d})"
    supervised = Supervised(tmp_path, max_restarts=0)
    supervised.command = [sys.executable, "-S", "-c", code]
    assert f"killed by signal {number:d}; " in supervised.diagnosis()[0]


@pytest.mark.parametrize(("mode", "reason"), [(None, "No such file or directory"), (0o644, "Permission denied")])
def test_a_command_that_cannot_be_started_is_an_error(tmp_path, mode, reason):
    """A restart would not help."""
    program = tmp_path / "program"
    if mode:
        program.touch(mode)
    supervised = Supervised(tmp_path)
    supervised.command = [str(program)]
    assert supervised.diagnosis() == (f"{program}: cannot be started ({reason})", None)


@pytest.mark.parametrize("endings", [[0], [3, 3, 3], [3, 3, 0]])
def test_the_handlers_are_restored(tmp_path, endings):
    """After success and after an error."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with contextlib.suppress(CheckpointError):
        Supervised(tmp_path, *endings, steps=[1, 1, 1]).run()
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_forwarded(number):
    """The run saves and ends, and its exit status is the parent's."""
    with parent_of(HANDLING + "print(received); sys.exit(75)") as process:
        ready(process)
        process.send_signal(number)
        assert process.stdout.read() == f"[{number:d}]\n"
        assert process.wait() == 75


@pytest.mark.parametrize("status", [0, 3])
def test_after_a_stop_request_nothing_is_restarted(status):
    """For any exit status."""
    with parent_of(HANDLING + f"sys.exit({status})") as process:
        ready(process)
        process.terminate()
        assert process.wait() == status


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_is_forwarded_too(second):
    """It ends the run at once; the parent's status is that of a shell."""
    code = HANDLING + f"signal.signal({second:d}, signal.SIG_DFL); print('saving', flush=True); time.sleep(30)"
    with parent_of(code) as process:
        ready(process)
        process.terminate()
        assert process.stdout.readline() == "saving\n"
        process.send_signal(second)
        assert process.wait() == 128 + second


def test_a_run_killed_while_it_saves_is_not_restarted():
    """After a stop request, another process kills it."""
    with parent_of(HANDLING + "print('saving', flush=True); time.sleep(30)") as process:
        child = ready(process)
        process.terminate()
        assert process.stdout.readline() == "saving\n"
        os.kill(child, signal.SIGKILL)
        assert process.wait() == 128 + signal.SIGKILL


def test_ctrl_c_reaches_the_run_once():
    """A terminal sends it to the whole process group; a second one would end the run without saving."""
    code = HANDLING + "time.sleep(0.1); print(received); sys.exit(75)"
    with parent_of(code, start_new_session=True) as process:
        ready(process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == f"[{signal.SIGINT:d}]\n"
        assert process.wait() == 75


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_wait_at_once(number):
    """No process is running: the status is 75."""
    with parent_of("raise SystemExit(3)") as process:
        assert "restart 1 of 5 in 1 s" in process.stdout.readline()
        sent = time.monotonic()
        process.send_signal(number)
        assert process.wait() == 75
        assert time.monotonic() - sent < 0.9


def test_a_signal_while_the_run_is_being_started_is_not_lost(tmp_path, monkeypatch):
    """The process exists, but Popen has not returned."""
    start = subprocess.Popen

    def interrupted_start(*arguments, **options):
        process = start(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted_start)
    supervised = Supervised(tmp_path)
    supervised.command = [sys.executable, "-S", "-c", "import time; time.sleep(30)"]
    assert supervised.run() == STOPPED


def test_a_signal_while_a_run_is_restarted_is_not_lost(tmp_path, monkeypatch):
    """Nor is it sent to the process before."""
    starts = iter([subprocess.Popen, None])
    start = subprocess.Popen

    def interrupted_restart(*arguments, **options):
        if next(starts) is None:
            signal.raise_signal(signal.SIGTERM)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", interrupted_restart)
    supervised = Supervised(tmp_path)
    code = "import os, sys, time; os.path.exists(sys.argv[1]) and time.sleep(30); open(sys.argv[1], 'w'); sys.exit(3)"
    supervised.command = [sys.executable, "-S", "-c", code, str(supervised.runs)]
    assert supervised.run() == STOPPED


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_that_does_not_handle_signals_yet_is_stopped(number):
    """In its first moments it dies of the signal: it has nothing to save, and the status is 75."""
    code = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    code += "print('ready', os.getpid(), flush=True); signal.alarm(20); signal.pause()"
    with parent_of(code) as process:
        ready(process)
        process.send_signal(number)
        assert process.wait() == 75


def test_a_signal_before_the_first_start_starts_nothing(tmp_path):
    """The status is 75 at once."""
    supervised = Supervised(tmp_path, 0)
    handle_signals = preemption.handle_signals

    @contextlib.contextmanager
    def handle_and_raise(handler):
        with handle_signals(handler):
            signal.raise_signal(signal.SIGTERM)
            yield

    with mock.patch.object(preemption, "handle_signals", handle_and_raise):
        assert supervised.run() == STOPPED
    assert not supervised.runs.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_run_whose_parent_is_killed_gets_sigterm():
    """It does not continue unnoticed."""
    with parent_of(HANDLING + "print('saved', received)") as process:
        ready(process)
        process.kill()
        assert process.stdout.read() == f"saved [{signal.SIGTERM:d}]\n"


def test_the_supervisor_imports_no_tensorflow():
    """Nor NumPy: the parent is small, and has one thread when it forks."""
    code = (
        "import sys, checkpointing.runs.supervisor\n"
        "sys.exit(bool({'tensorflow', 'numpy', 'absl'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def appending(path, end):
    """Return a command that appends to a file, and then ends with this code."""
    return [sys.executable, "-S", "-c", f"import os; open({str(path)!r}, 'a').write('x'); {end}"]


@pytest.mark.parametrize(
    ("end", "status"), [("os._exit(1)", 1), ("os._exit(75)", 75), ("os.kill(os.getpid(), 9)", 128 + signal.SIGKILL)]
)
def test_run_each_ends_with_the_first_failure(tmp_path, end, status):
    """It returns that command's status; for death by a signal, that of a shell."""
    note = tmp_path / "note"
    assert run_each(appending(note, each) for each in ("pass", end, "pass")) == status
    assert note.read_text() == "xx"


def test_run_each_returns_0_if_all_succeed(tmp_path):
    """The commands run one after the other."""
    assert run_each([appending(tmp_path / "note", "pass")] * 3) == 0
    assert (tmp_path / "note").read_text() == "xxx"


@pytest.mark.parametrize("end", ["pass", "import time; time.sleep(30)"])
def test_run_each_starts_nothing_after_a_stop_request(tmp_path, end):
    """If the current command had ended, or did not handle signals."""
    note = tmp_path / "note"

    def commands():
        yield appending(note, "pass")
        os.kill(os.getpid(), signal.SIGTERM)
        yield appending(note, end)
        yield appending(note, "pass")

    assert run_each(commands()) == STOPPED
    assert len(note.read_text()) <= 2


def test_a_stop_request_after_the_last_command_gives_status_75(tmp_path):
    """So the caller stops, too."""

    def commands():
        yield appending(tmp_path / "note", "pass")
        os.kill(os.getpid(), signal.SIGTERM)

    assert run_each(commands()) == STOPPED
