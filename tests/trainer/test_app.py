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


def run(monkeypatch, main, *arguments):
    """Runs a program with these flags; gives its exit status."""
    monkeypatch.setattr(sys, "argv", ["train_cnn.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.run(main, program="cnn", synopsis="Trains something.")
    return ended.value.code


@pytest.fixture(autouse=True)
def kept_log_levels():
    """A program quiets TensorFlow's log for good; the tests that follow hear it as before."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def kept_handlers():
    """A program that ends ignores signals; the tests that follow do not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fail_with(error):
    """A program that fails."""

    def main(_):
        raise error

    return main


@pytest.mark.parametrize("status", [0, 75])
def test_the_exit_status_is_the_programs(monkeypatch, capsys, status):
    """What main returns is what the shell sees."""
    assert run(monkeypatch, lambda _: status) == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_a_run_that_was_stopped_is_no_error(monkeypatch, capsys, flags):
    """Asked to stop before it had anything to save, a program ends in silence, with the status that says try again."""
    assert run(monkeypatch, fail_with(StopRequested("SIGTERM")), *flags) == 75
    assert capsys.readouterr().err == ""


def test_a_program_gets_its_command(monkeypatch):
    """Flags reach main as settings and places."""
    commands = []
    run(monkeypatch, lambda command: commands.append(command) or 0, "--train_steps=7", "--train_dir=there")
    assert commands == [flags_module.parse("cnn", ["train.py", "--train_steps=7", "--train_dir=there"])]


@pytest.mark.parametrize("kind", [DataError, NonFiniteLossError, CheckpointError])
def test_our_errors_are_one_sentence(monkeypatch, capsys, kind):
    """On standard error, with exit status 1, without a traceback, and without a line break."""
    assert run(monkeypatch, fail_with(kind("run[1]: 3 found,\n  4 wanted."))) == 1
    assert capsys.readouterr() == ("", "error: run[1]: 3 found, 4 wanted.\n")


@pytest.mark.parametrize("error", [KeyError("a name"), OSError("no number"), RuntimeError("a\nb")])
def test_any_other_error_is_one_line(monkeypatch, capsys, error):
    """It begins with its kind, for what it says may be no sentence, and tells where to learn more."""
    assert run(monkeypatch, fail_with(error)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {type(error).__name__}: ")
    assert err.endswith("\nhint: this is a bug; --debug shows where\n")
    assert err.count("\n") == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "said"),
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
def test_what_the_system_refuses_is_a_sentence(monkeypatch, capsys, error, said):
    """With the file's name where the system says it, and without Python's words for it."""
    assert run(monkeypatch, fail_with(error)) == 1
    assert capsys.readouterr().err == f"error: {said}\nhint: fix the cause and run the same command again\n"


@pytest.mark.parametrize("error", [DataError("damaged."), RuntimeError("unforeseen")])
def test_debugging_shows_the_traceback(monkeypatch, error):
    """With --debug the error comes through as it was raised."""
    monkeypatch.setattr(sys, "argv", ["train_cnn.py", "--debug"])
    with pytest.raises(type(error), match=str(error)):
        app.run(fail_with(error), program="cnn", synopsis="Trains something.")


@pytest.mark.parametrize("flag", ["--train_step=7", "--train_steps=0", "--learning_rate=nan", "data", "--download"])
def test_wrong_usage_is_exit_status_two(monkeypatch, capsys, flag):
    """One line on standard error says what is wrong and how to learn more; nothing is run."""
    assert run(monkeypatch, fail_with(AssertionError("main was run")), flag) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith("\nhint: --help lists the flags\n")
    assert err.count("\n") == 2


def test_help_lists_every_flag(monkeypatch, capsys):
    """Exit status 0, and on standard output what the program does and all that can be set."""
    assert run(monkeypatch, fail_with(AssertionError("main was run")), "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("Trains something.")
    for name in set(flags_module.define_flags("cnn")) - {"h", "?", "helpshort", "helpfull", "helpxml"}:
        assert f"--{name}:" in out or f"--[no]{name}:" in out


def test_tensorflow_is_quiet_unless_debugging(monkeypatch):
    """Its own log is for whoever debugs; what the environment says goes before."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    run(monkeypatch, lambda _: 0, "--debug")
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    run(monkeypatch, lambda _: 0)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    run(monkeypatch, lambda _: 0)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("flags", [[], ["--help"], ["--nonsense"]])
def test_a_signal_while_the_process_ends_does_not_change_its_status(tmp_path, number, flags):
    """What is done is done: no death by a signal, and no traceback."""
    program = tmp_path / "program.py"
    program.write_text(
        "import atexit, os\n"
        "from trainer import app\n"
        f"atexit.register(lambda: os.kill(os.getpid(), {number:d}))\n"
        "app.run(lambda command: 0, program='softmax', synopsis='')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), *flags]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == (2 if "--nonsense" in flags else 0), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full", "| true"])
def test_nobody_has_to_listen(tmp_path, redirection):
    """With standard streams closed, full or broken, what has succeeded has succeeded."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from checkpointing import cli\n"
        "from pathlib import Path\n"
        "from trainer import app\n"
        "def main(command):\n"
        "    Path(sys.argv[0]).with_name('ran').touch()\n"
        "    for _ in range(1000):\n"
        "        cli.print_line('a line that nobody may read \\udcff ' * 10)\n"
        "    return 0\n"
        "app.run(main, program='softmax', synopsis='')\n"
    )
    command = f"set -o pipefail; exec 3>&1; '{sys.executable}' '{program}' {redirection}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(("flags", "status"), [(["--data_dir=absent"], 1), (["--absent"], 2)])
def test_an_error_that_cannot_be_written_has_its_status(tmp_path, flags, status):
    """Where the disk takes not a byte of the output, the exit status says what there is to say."""
    command = [sys.executable, str(programs.ROOT / "train_softmax.py"), f"--train_dir={tmp_path / 'run'}", *flags]
    with (tmp_path / "output").open("w") as output:

        def no_file_may_grow():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

        ended = subprocess.run(command, stdout=output, stderr=output, check=False, preexec_fn=no_file_may_grow)
    assert ended.returncode == status
