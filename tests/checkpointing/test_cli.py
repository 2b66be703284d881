import signal
import subprocess
import sys

import pytest

from checkpointing import cli
from tests.programs import ROOT


def ended(code, number=signal.SIGINT):
    """Run code in which `come()` sends the signal; return status, standard output and standard error."""
    head = (
        "import os, signal, sys\n"
        f"signal.signal(signal.SIGINT, signal.default_int_handler)\ndef come(): os.kill(os.getpid(), {number:d})\n"
    )
    process = subprocess.run([sys.executable, "-c", head + code], cwd=ROOT, capture_output=True, text=True, check=False)
    return process.returncode, process.stdout, process.stderr


def test_ctrl_c_unwinds_a_tool_and_ends_it_by_the_signal():
    """No traceback; a loop in a shell ends, too."""
    code = (
        "from checkpointing import cli\n"
        "def act():\n"
        "    try: come()\n"
        "    finally: print('cleaned up', flush=True)\n"
        "sys.exit(cli.run_tool(act))\n"
    )
    assert ended(code) == (-signal.SIGINT, "cleaned up\n", "")


@pytest.mark.parametrize("name", ["compare", "evaluate", "predict"])
def test_ctrl_c_while_a_tool_is_imported_ends_it_without_a_traceback(name):
    """`python -m` imports the package first, with "-m" in the program's place."""
    code = (
        "import runpy\n"
        "sys.argv[0] = '-m'\n"
        "import mnist\n"
        "def hook(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'argparse': come()\n"
        "sys.addaudithook(hook)\n"
        f"runpy.run_module('mnist.{name}', run_name='__main__', alter_sys=True)\n"
    )
    assert ended(code) == (-signal.SIGINT, "", "")


def test_importing_the_package_changes_no_signal():
    """Only `python -m mnist.NAME` does."""
    code = "import mnist\nassert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    assert ended(code) == (0, "", "")


def test_ignored_interrupts_stay_ignored():
    """Shells start background jobs with SIGINT ignored."""
    code = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from checkpointing import cli\n"
        "sys.exit(cli.run_tool(lambda: come() or 0))\n"
    )
    assert ended(code) == (0, "", "")


def test_a_lack_of_memory_is_an_error_without_a_traceback(capsys):
    """With status 1 and a hint."""

    def act():
        raise MemoryError

    assert cli.run_tool(act) == 1
    assert capsys.readouterr().err == "error: not enough memory\nhint: fix the cause and run the same command again\n"


PRINT = "import sys; from checkpointing import cli; sys.exit(cli.run_tool(lambda: cli.print_result('x' * 10_000) or 0))"


@pytest.mark.parametrize(
    ("redirection", "status", "error"),
    [
        ("| true", 0, ""),
        (
            "> /dev/full",
            1,
            "error: standard output: No space left on device\nhint: fix the cause and run the same command again\n",
        ),
    ],
)
def test_a_result_that_cannot_be_written_is_an_error_unless_the_reader_has_left(redirection, status, error):
    """A file that misses part of a result is not left behind with status 0; `| head` is not an error."""
    command = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirection}', sys.executable, PRINT]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (status, error)
