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
from checkpointing.runs import supervisor
from checkpointing.runs.preemption import STOPPED
from checkpointing.runs.supervisor import run_each, supervise

ROOT = Path(__file__).parents[3]
SIGNALS = [signal.SIGTERM, signal.SIGINT]

# Ends as its next argument says: with an exit status, or of a signal. The file's length says which is the next.
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

# Supervises the code of its argument, which has no checkpoint.
PARENT = """
import logging, sys
from checkpointing.runs.preemption import STOPPED
from checkpointing.runs.supervisor import run_each, supervise
logging.basicConfig(format="%(message)s", stream=sys.stdout)
command = [sys.executable, "-c", sys.argv[1]]
sys.exit(supervise(command, max_restarts=5, newest_step=lambda: None, step_back=lambda reason: None))
"""

# Hears both signals, says so, and does with the first what comes after this.
HEARING = """
import os, signal, sys, time
signal.alarm(20)  # nobody has to end it if a test fails
heard = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: heard.append(number))
print("ready", os.getpid(), flush=True)
while not heard: time.sleep(0.005)
"""


@pytest.fixture(autouse=True)
def spared():
    """A signal that no supervisor hears fails a test, and does not end them all."""
    before = {number: signal.signal(number, lambda *_: pytest.fail("nobody heard the signal")) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Supervised:
    """A command that ends as planned, each time with the next of these steps as the newest checkpoint's."""

    def __init__(self, directory, *endings, steps=None, back=None, max_restarts=9):
        """Plans it."""
        self.runs = directory / "runs"
        self.command = [sys.executable, "-S", "-c", ENDING, str(self.runs), *map(str, endings)]
        self.steps = iter(steps) if steps else itertools.count()  # by default each run gets on
        self.back = back
        self.max_restarts = max_restarts
        self.slept = []
        self.reasons = []

    def run(self):
        """Supervises it; gives the status."""
        return supervise(
            self.command,
            max_restarts=self.max_restarts,
            newest_step=lambda: next(self.steps),
            step_back=self.step_back,
            sleep=self.slept.append,
        )

    def diagnosis(self):
        """Supervises it; gives what the error says."""
        with pytest.raises(CheckpointError) as caught:
            self.run()
        return str(caught.value)

    def step_back(self, reason):
        """Notes why."""
        self.reasons.append(reason)
        return self.back

    @property
    def starts(self):
        """How often it was started."""
        return self.runs.stat().st_size


@contextlib.contextmanager
def parent_of(code, **options):
    """A process that supervises this code."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, code], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process):
    """Waits until the code hears signals; gives its process id."""
    word, pid = process.stdout.readline().split()
    assert word == "ready"
    return int(pid)


@pytest.mark.parametrize("status", [0, 1, 2, 75])
def test_final_statuses_are_passed_on(tmp_path, status):
    """Done, an error, wrong usage, stopped on request: no restart helps."""
    supervised = Supervised(tmp_path, status)
    assert supervised.run() == status
    assert supervised.starts == 1
    assert supervised.slept == []


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGTERM", 3, 134, 255])
def test_a_crash_is_followed_by_a_restart(tmp_path, ending):
    """Whatever signal it died of, and whatever other status it gave; also a SIGTERM that did not come through us."""
    supervised = Supervised(tmp_path, ending, 0)
    assert supervised.run() == 0
    assert supervised.starts == 2


def test_crashes_that_get_on_end_in_success(tmp_path):
    """As many as may be, and nothing is set aside."""
    supervised = Supervised(tmp_path, *["SIGKILL"] * 5, 0, max_restarts=5)
    assert supervised.run() == 0
    assert supervised.starts == 6
    assert supervised.reasons == []


def test_the_wait_doubles_and_progress_resets_it(tmp_path):
    """One second, two where the crash before left no newer checkpoint, one again after progress."""
    supervised = Supervised(tmp_path, 3, 3, 3, 3, 0, steps=[None, None, 100, 100])
    assert supervised.run() == 0
    assert sum(supervised.slept) == pytest.approx(1 + 2 + 1 + 2)
    assert max(supervised.slept) <= 0.1, "a signal would be heard late"


def test_each_restart_is_logged_in_one_line(tmp_path, caplog):
    """Why, which of how many, how long it waits, and from where it goes on."""
    caplog.set_level(logging.INFO)
    Supervised(tmp_path, "SIGABRT", 3, 0, steps=[200, 200], back=100, max_restarts=4).run()
    assert caplog.messages == [
        "the run died of SIGABRT (a library gave up, its last lines say why): restart 1 of 4 in 1 s, from step 200",
        "the run died with exit status 3: restart 2 of 4 in 2 s, from step 100",
    ]


def test_the_same_step_twice_goes_back_once(tmp_path):
    """The second crash sets the checkpoint aside, and says why; getting beyond it ends the matter."""
    supervised = Supervised(tmp_path, 3, "SIGSEGV", 3, 0, steps=[200, 200, 300], back=100)
    assert supervised.run() == 0
    assert supervised.reasons == [
        "the run died twice after it, the last time of SIGSEGV (a fault in a library or in the machine's memory)"
    ]


def test_a_later_checkpoint_can_be_set_aside_too(tmp_path):
    """Each has its own two crashes."""
    supervised = Supervised(tmp_path, 3, 3, 3, 3, 0, steps=[200, 200, 300, 300], back=100)
    assert supervised.run() == 0
    assert len(supervised.reasons) == 2


@pytest.mark.parametrize("last", [100, 150, 200])
def test_a_third_crash_without_getting_beyond_ends_it(tmp_path, last):
    """Back at the earlier step, on the way, or at the same step again."""
    supervised = Supervised(tmp_path, 3, 3, "SIGKILL", steps=[200, 200, last], back=100)
    assert supervised.diagnosis() == (
        "the run died 3 times in a row without a newer checkpoint, the last time of SIGKILL (often the kernel's "
        f"out-of-memory killer), saved up to step {last}: dmesg tells; free memory, take a machine with more, "
        "or a smaller --batch_size in a new --train_dir."
    )
    assert supervised.starts == 3
    assert len(supervised.reasons) == 1


def test_without_any_checkpoint_the_third_crash_ends_it_too(tmp_path):
    """There is nothing to go back to."""
    supervised = Supervised(tmp_path, 3, 3, 3, steps=[None] * 3)
    assert "3 times in a row without a newer checkpoint, the last time with exit status 3, nothing saved: " in (
        supervised.diagnosis()
    )


def test_step_0_is_a_checkpoint(tmp_path, caplog):
    """No number is taken for none."""
    caplog.set_level(logging.INFO)
    Supervised(tmp_path, 3, 3, 3, 3, 0, steps=[None, 0, 100, 100], back=0).run()
    origins = [line.rpartition(", ")[2] for line in caplog.messages]
    assert origins == ["from its start", "from step 0", "from step 100", "from step 0"]


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("SIGSEGV", ["of SIGSEGV (a fault in", "--debug", "machine"]),
        ("SIGBUS", ["of SIGBUS (", "full disk"]),
        ("SIGILL", ["of SIGILL (", "processor"]),
        ("SIGABRT", ["of SIGABRT (", "last lines"]),
        ("SIGRTMIN", ["of SIGRTMIN, saved up to step 2: "]),
        ("SIGUSR1", ["of SIGUSR1, saved up to step 2: "]),
        (77, ["with exit status 77, ", "--debug"]),
    ],
)
def test_when_the_restarts_are_used_up_one_sentence_says_so(tmp_path, ending, words):
    """How often, of what it last died, what was last saved, and what to try."""
    supervised = Supervised(tmp_path, 3, 3, ending, max_restarts=2)
    diagnosis = supervised.diagnosis()
    assert diagnosis.startswith("the run died with its 2 restarts used up, the last time ")
    assert diagnosis.endswith(".")
    assert all(word in diagnosis for word in words), diagnosis


def test_a_signal_without_a_name_is_told_by_its_number(tmp_path):
    """Real-time signals have none."""
    number = signal.SIGRTMIN + 3
    code = f"import os; os.kill(os.getpid(), {number:d})"
    supervised = Supervised(tmp_path, max_restarts=0)
    supervised.command = [sys.executable, "-S", "-c", code]
    assert f"of signal {number:d}, " in supervised.diagnosis()


@pytest.mark.parametrize(("mode", "reason"), [(None, "No such file or directory"), (0o644, "Permission denied")])
def test_a_command_that_cannot_be_started_is_one_sentence(tmp_path, mode, reason):
    """No restart would make it appear."""
    program = tmp_path / "program"
    if mode:
        program.touch(mode)
    supervised = Supervised(tmp_path)
    supervised.command = [str(program)]
    assert supervised.diagnosis() == f"{program}: cannot be started ({reason})."


@pytest.mark.parametrize("endings", [[0], [3, 3, 3], [3, 3, 0]])
def test_afterwards_the_signals_do_what_they_did(tmp_path, endings):
    """Whether it ended well or with an error."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with contextlib.suppress(CheckpointError):
        Supervised(tmp_path, *endings, steps=[1, 1, 1]).run()
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_passed_on(number):
    """The run saves and ends in its own way, and its status is ours."""
    with parent_of(HEARING + "print(heard); sys.exit(75)") as process:
        ready(process)
        process.send_signal(number)
        assert process.stdout.read() == f"[{number:d}]\n"
        assert process.wait() == 75


@pytest.mark.parametrize("status", [0, 3])
def test_after_a_request_to_stop_nothing_is_restarted(status):
    """Whatever status it ends with."""
    with parent_of(HEARING + f"sys.exit({status})") as process:
        ready(process)
        process.terminate()
        assert process.wait() == status


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_is_passed_on_too(second):
    """It ends the run at once, and us with the status that a shell gives for it."""
    code = HEARING + f"signal.signal({second:d}, signal.SIG_DFL); print('saving', flush=True); time.sleep(30)"
    with parent_of(code) as process:
        ready(process)
        process.terminate()
        assert process.stdout.readline() == "saving\n"
        process.send_signal(second)
        assert process.wait() == 128 + second


def test_a_run_killed_while_it_saves_is_not_restarted():
    """Asked to stop, then killed by somebody who would not wait."""
    with parent_of(HEARING + "print('saving', flush=True); time.sleep(30)") as process:
        child = ready(process)
        process.terminate()
        assert process.stdout.readline() == "saving\n"
        os.kill(child, signal.SIGKILL)
        assert process.wait() == 128 + signal.SIGKILL


def test_ctrl_c_reaches_the_run_once():
    """A terminal sends it to the whole process group; a second one would end the run without saving."""
    code = HEARING + "time.sleep(0.1); print(heard); sys.exit(75)"
    with parent_of(code, start_new_session=True) as process:
        ready(process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == f"[{signal.SIGINT:d}]\n"
        assert process.wait() == 75


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_waiting_at_once(number):
    """Nothing runs and all is on the disk: stopped on request."""
    with parent_of("raise SystemExit(3)") as process:
        assert "restart 1 of 5 in 1 s" in process.stdout.readline()
        asked = time.monotonic()
        process.send_signal(number)
        assert process.wait() == 75
        assert time.monotonic() - asked < 0.9


def test_a_signal_while_the_run_is_being_started_is_not_lost(tmp_path, monkeypatch):
    """The process is there, but we do not know it yet."""
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
    """Nor does it go to the run before."""
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
def test_a_run_that_cannot_listen_yet_is_stopped_all_the_same(number):
    """In its first moments the run dies of the signal: it has nothing to save, and the status is 75."""
    code = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    code += "print('ready', os.getpid(), flush=True); signal.alarm(20); signal.pause()"
    with parent_of(code) as process:
        ready(process)
        process.send_signal(number)
        assert process.wait() == 75


def test_a_signal_before_the_first_start_starts_nothing(tmp_path):
    """The status is 75 at once."""
    supervised = Supervised(tmp_path, 0)
    heard_by = supervisor._heard_by  # noqa: SLF001

    @contextlib.contextmanager
    def heard_at_once(relay):
        with heard_by(relay):
            signal.raise_signal(signal.SIGTERM)
            yield

    with mock.patch.object(supervisor, "_heard_by", heard_at_once):
        assert supervised.run() == STOPPED
    assert not supervised.runs.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for it")
def test_a_run_whose_parent_is_killed_is_asked_to_stop():
    """It does not train on unnoticed."""
    with parent_of(HEARING + "print('saved', heard)") as process:
        ready(process)
        process.kill()
        assert process.stdout.read() == f"saved [{signal.SIGTERM:d}]\n"


def test_it_needs_no_tensorflow():
    """Nor NumPy: the parent is small, and has one thread when it forks."""
    code = (
        "import sys, checkpointing.runs.supervisor\n"
        "sys.exit(bool({'tensorflow', 'numpy', 'absl'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def noting(path, end):
    """A command that leaves a line in the file, and then ends so."""
    return [sys.executable, "-S", "-c", f"import os; open({str(path)!r}, 'a').write('x'); {end}"]


@pytest.mark.parametrize(
    ("end", "status"), [("os._exit(1)", 1), ("os._exit(75)", 75), ("os.kill(os.getpid(), 9)", 128 + signal.SIGKILL)]
)
def test_of_several_the_first_that_fails_is_the_last(tmp_path, end, status):
    """Its status is the whole's; where it died of a signal, as a shell tells it."""
    note = tmp_path / "note"
    assert run_each(noting(note, each) for each in ("pass", end, "pass")) == status
    assert note.read_text() == "xx"


def test_where_each_of_several_succeeds_so_does_the_whole(tmp_path):
    """They run one after the other."""
    assert run_each([noting(tmp_path / "note", "pass")] * 3) == 0
    assert (tmp_path / "note").read_text() == "xxx"


@pytest.mark.parametrize("end", ["pass", "import time; time.sleep(30)"])
def test_asked_to_stop_none_of_several_follows(tmp_path, end):
    """Whether the one at work had ended when the request came, or could not listen."""
    note = tmp_path / "note"

    def commands():
        yield noting(note, "pass")
        os.kill(os.getpid(), signal.SIGTERM)
        yield noting(note, end)
        yield noting(note, "pass")

    assert run_each(commands()) == STOPPED
    assert len(note.read_text()) <= 2


def test_asked_to_stop_after_the_last_of_several_the_status_says_so(tmp_path):
    """What would follow them is not begun."""

    def commands():
        yield noting(tmp_path / "note", "pass")
        os.kill(os.getpid(), signal.SIGTERM)

    assert run_each(commands()) == STOPPED
