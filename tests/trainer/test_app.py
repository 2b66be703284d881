"""The command line: exit statuses, error messages, standard streams."""

import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from checkpointing.errors import CheckpointError, OddFileError
from checkpointing.runs.preemption import StopRequested
from configs import flags as flags_module
from mnist.errors import DataError, NonFiniteLossError
from tests import programs
from tests.programs import ROOT
from trainer import app


@pytest.fixture(autouse=True)
def restored_log_level():
    """A program silences TensorFlow's logger for the whole process; undo that for the tests after it."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def restored_handlers():
    """A program ignores signals when it ends; undo that for the tests after it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs a program with another `main` and returns its exit status."""

    def run_main(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["train_cnn.py", *arguments])
        monkeypatch.setattr(app, "main", lambda options, *_: main(options))
        with pytest.raises(SystemExit) as ended:
            app.run(make_no_model, program="cnn", synopsis="Train something.")
        return ended.value.code

    return run_main


def make_no_model(_):
    """Not called: `main` is replaced."""
    raise AssertionError


def fail_with(error):
    """Return a `main` that fails."""

    def main(_):
        raise error

    return main


@pytest.mark.parametrize("status", [0, 75])
def test_the_exit_status_is_what_main_returns(run, capsys, status):
    """And nothing is printed."""
    assert run(lambda _: status) == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_a_stopped_run_is_no_error(run, capsys, flags):
    """Stopped before there is anything to save, a program prints nothing and exits with status 75."""
    assert run(fail_with(StopRequested("SIGTERM")), *flags) == 75
    assert capsys.readouterr().err == ""


def test_main_gets_the_options(run):
    """Flags reach main as settings and paths."""
    commands = []
    run(lambda options: commands.append(options) or 0, "--train_steps=7", "--train_dir=there")
    assert commands == [flags_module.parse("cnn", ["train.py", "--train_steps=7", "--train_dir=there"])]


@pytest.mark.parametrize("kind", [DataError, NonFiniteLossError, CheckpointError])
def test_an_error_of_this_project_is_one_line(run, capsys, monkeypatch, kind):
    """Exit status 1, the message on one line of standard error, no traceback."""
    monkeypatch.setattr(app.hints, "add_hint", lambda _: None)
    assert run(fail_with(kind("run[1]: expected 4,\n  got 3"))) == 1
    assert capsys.readouterr() == ("", "error: run[1]: expected 4, got 3\n")


def test_an_error_gets_the_hint_of_its_class(run, capsys, monkeypatch):
    """The trainer adds hints that name flags; they are printed on a line of their own."""

    def add_hint(error):
        error.hint = f"a flag for {type(error).__name__}"

    monkeypatch.setattr(app.hints, "add_hint", add_hint)
    assert run(fail_with(CheckpointError("run: no"))) == 1
    assert capsys.readouterr().err == "error: run: no\nhint: a flag for CheckpointError\n"


@pytest.mark.parametrize("error", [KeyError("a name"), OSError("no number"), RuntimeError("a\nb")])
def test_an_unexpected_error_is_two_lines(run, capsys, error):
    """The class and message, then how to see the traceback."""
    assert run(fail_with(error)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {type(error).__name__}: ")
    assert err.endswith("\nhint: this is a bug; --debug shows where\n")
    assert err.count("\n") == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(24, "Too many open files", "metrics.jsonl"),
            "metrics.jsonl: Too many open files",
        ),
        (OSError(116, "Stale file handle"), "Stale file handle"),
        (
            OddFileError(Path("lock"), "expected a file, got a FIFO"),
            "lock: expected a file, got a FIFO",
        ),
        (
            ImportError("libx.so: failed to map segment from shared object"),
            "not enough memory (libx.so: failed to map segment from shared object)",
        ),
        (
            RuntimeError("can't start new thread"),
            "no thread can be started (can't start new thread)",
        ),
        (MemoryError(), "not enough memory"),
        (MemoryError("Unable to allocate 8 GiB"), "not enough memory (Unable to allocate 8 GiB)"),
    ],
)
def test_an_error_of_the_operating_system_names_file_and_reason(run, capsys, error, message):
    """Without Python's class names; the hint says to run the same command again."""
    assert run(fail_with(error)) == 1
    assert capsys.readouterr().err == f"error: {message}\nhint: fix the cause and run the same command again\n"


@pytest.mark.parametrize("error", [DataError("damaged"), RuntimeError("unforeseen")])
def test_debug_raises_the_error(monkeypatch, error):
    """With --debug the exception is raised as it was, with its traceback."""
    monkeypatch.setattr(sys, "argv", ["train_cnn.py", "--debug"])
    monkeypatch.setattr(app, "main", lambda *_: fail_with(error)(None))
    with pytest.raises(type(error), match=str(error)):
        app.run(make_no_model, program="cnn", synopsis="Train something.")


@pytest.mark.parametrize("flag", ["--train_step=7", "--train_steps=0", "--learning_rate=nan", "data", "--download"])
def test_a_usage_error_is_exit_status_two(run, capsys, flag):
    """Two lines on standard error: the error, and how to list the flags. `main` is not called."""
    assert run(fail_with(AssertionError("main was called")), flag) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\nhint: ") == 1
    assert err.count("\n") == 2


def test_help_lists_every_flag(run, capsys):
    """Exit status 0; synopsis and flags on standard output."""
    assert run(fail_with(AssertionError("main was called")), "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("Train something.")
    for name in set(flags_module.define_flags("cnn")) - {"h", "?", "helpshort", "helpfull", "helpxml"}:
        assert f"--{name}:" in out or f"--[no]{name}:" in out


def test_tensorflow_logs_only_with_debug(run, monkeypatch):
    """Unless the environment variable is set already."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    run(lambda _: 0, "--debug")
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    run(lambda _: 0)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    run(lambda _: 0)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("flags", [[], ["--help"], ["--nonsense"]])
def test_a_signal_at_exit_does_not_change_the_status(tmp_path, number, flags):
    """Neither a death by the signal nor a traceback."""
    program = tmp_path / "program.py"
    program.write_text(
        "import atexit, os\n"
        "from trainer import app\n"
        f"atexit.register(lambda: os.kill(os.getpid(), {number:d}))\n"
        "app.main = lambda *_: 0\n"
        "app.run(None, program='softmax', synopsis='')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), *flags]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == (2 if "--nonsense" in flags else 0), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full", "| true"])
def test_output_that_cannot_be_written_is_no_error(tmp_path, redirection):
    """Closed, full or broken standard streams do not change the exit status 0."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from checkpointing import cli\n"
        "from pathlib import Path\n"
        "from trainer import app\n"
        "def main(*_):\n"
        "    Path(sys.argv[0]).with_name('ran').touch()\n"
        "    for _ in range(1000):\n"
        "        cli.print_line('a line that is not read \\udcff ' * 10)\n"
        "    return 0\n"
        "app.main = main\n"
        "app.run(None, program='softmax', synopsis='')\n"
    )
    command = f"set -o pipefail; exec 3>&1; '{sys.executable}' '{program}' {redirection}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(("flags", "status"), [(["--data_dir=absent"], 1), (["--absent"], 2)])
def test_an_error_that_cannot_be_written_keeps_its_status(tmp_path, flags, status):
    """Standard output and error are a file that may not grow."""
    command = [sys.executable, str(programs.ROOT / "train_softmax.py"), f"--train_dir={tmp_path / 'run'}", *flags]
    with (tmp_path / "output").open("w") as output:

        def limit_file_size():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

        ended = subprocess.run(command, stdout=output, stderr=output, check=False, preexec_fn=limit_file_size)
    assert ended.returncode == status
