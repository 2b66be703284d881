import signal
import subprocess
import sys

import pytest

from tests.programs import ROOT

# Runs a program as __main__; sends a signal at the first import of a module, or N imports after starting.py.
AT_IMPORT = """
import os, runpy, sys
import checkpointing, mnist  # as `python -m` imports the package first
when, number, program, *flags = sys.argv[1:]
seen = None
def hook(event, arguments):
    global seen
    if event == "import":
        if seen is not None:
            seen += 1
        elif arguments[0] == "checkpointing.runs.starting":
            seen = 0
        if when in (arguments[0], str(seen)):
            os.kill(os.getpid(), int(number))
sys.addaudithook(hook)
sys.argv = [program, *flags]
sys.path.insert(0, "")
if program.endswith(".py"):
    runpy.run_path(program, run_name="__main__")
else:
    runpy.run_module(program, run_name="__main__", alter_sys=True)
"""


def interrupted(when, number, program, *flags):
    """Send a signal to a program at an import; return its exit status and its standard error."""
    command = [sys.executable, "-c", AT_IMPORT, str(when), str(int(number)), program, *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stderr


def stopped(number):
    """Return the line of a run that is stopped during its imports."""
    return f"stopped by {number.name}: nothing to save\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("program", "module"),
    [("train_softmax.py", "absl"), ("train_cnn.py", "trainer.members"), ("train_cnn.py", "concurrent.futures.thread")],
)
def test_a_run_stopped_during_its_imports_ends_with_status_75(number, program, module):
    """One line says so, without a traceback; with --help, too."""
    assert interrupted(module, number, program, "--help") == (75, stopped(number))


@pytest.mark.parametrize(
    ("program", "flag"), [("train_softmax.py", "--max_restarts=2"), ("train_cnn.py", "--members=2")]
)
def test_a_parent_stopped_during_its_imports_ends_with_status_75(tmp_path, program, flag):
    """A parent only starts other processes."""
    ended = interrupted("configs", signal.SIGTERM, program, flag, f"--train_dir={tmp_path}/run")
    assert ended == (75, stopped(signal.SIGTERM))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("flags", "module"), [(["train_softmax.py"], "tensorflow"), (["train_cnn.py", "--members=2"], "numpy")]
)
def test_a_run_stopped_while_it_loads_ends_with_status_75(tmp_path, number, flags, module):
    """No signal is lost when `listen_for_stop` takes over, or while data and TensorFlow are loaded."""
    status, stderr = interrupted(module, number, *flags, f"--train_dir={tmp_path}/run")
    assert status == 75
    (line,) = [line for line in stderr.splitlines() if "stopped" in line]
    assert line.endswith(stopped(number).strip())
    assert "Traceback" not in stderr


def test_a_signal_at_any_import_ends_the_run_with_status_75(tmp_path):
    """At moments spread over all imports."""
    moments = [1, 2, 5, 30, 80, 150, 250, 400]
    for moment, number in zip(moments, [signal.SIGTERM, signal.SIGINT] * 4, strict=True):
        status, stderr = interrupted(moment, number, "train_softmax.py", f"--train_dir={tmp_path}/{moment}")
        assert status == 75, (moment, stderr)
        assert "Traceback" not in stderr


def test_importing_a_program_changes_no_signal():
    """Only a program that is run as __main__ installs handlers."""
    code = (
        "import signal, train_cnn, train_softmax\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(2, signal.default_int_handler)\n" + code],
        cwd=ROOT,
        check=True,
    )


def test_a_signal_needs_no_standard_error():
    """If it is closed, the status is 75, too."""
    code = (
        "import os, signal; os.close(2)\n"
        "from checkpointing.runs import starting; starting.exit_on_signal(); os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 75


def test_importing_starting_imports_nothing_else():
    """So signals are handled almost as soon as the interpreter has started."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from checkpointing.runs import starting\n"
        "new = set(sys.modules) - before\n"
        "assert new == {'checkpointing', 'checkpointing.runs', 'checkpointing.runs.starting'}, new"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("tool", "module"),
    [(["checkpointing", "list", "."], "checkpointing.tools.inspection"), (["checkpointing"], "argparse")],
)
def test_ctrl_c_ends_a_tool_without_a_traceback(tool, module):
    """It dies of the signal, as a shell's loop expects, and prints nothing."""
    assert interrupted(module, signal.SIGINT, *tool) == (-signal.SIGINT, "")
