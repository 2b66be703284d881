"""Run the commands of a guide, and compare their output with the page.

    python -m tests.guide docs/saving-and-restoring.md    # runs the page, and writes the new output into it
    python -m tests.guide notebooks/tour.ipynb            # a notebook likewise

In a ```console block, a line that starts with `$ ` is a command. The lines below it are its output, including stderr,
and `[exit status N]` if the status is not 0. A ```pycon block is a Python session. All blocks of a guide run in order
in one new directory, in which this project's programs and packages can be run.
"""

import contextlib
import doctest
import io
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbclient
import nbformat

from tests.fork import Fork

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(?P<open>^```(?P<kind>console|pycon)\n)(?P<text>.*?)(?P<close>^```$)", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (?P<command>(?:[^\n]*\\\n)*[^\n]*)\n?(?P<output>(?:(?!\$ )[^\n]*\n?)*)", re.MULTILINE)
# A command that runs a program of this project, with no more shell syntax than a filter for its output.
_PYTHON = re.compile(
    r"python (train_(?P<program>\w+)\.py|-m (?P<module>[\w.]+))(?P<flags> [^|&;<>$*]*)?( 2>&1 \| (?P<filter>.*))?"
)

# Differs from run to run, or from machine to machine.
_CHANGING = [
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\b\d\d:\d\d(:\d\d)?\b"), "TIME"),
    (re.compile(r"\b\d+ (s|min|h|d) ago\b"), "AGO"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "HASH"),
    (re.compile(r"images/s +[\d,]+|images_per_second +\S+"), "SPEED"),
    (re.compile(r"[\d,.]+ s of training"), "TRAINED"),
    (re.compile(r"[\d.]+% of [\d,.]+ s was useful"), "USEFUL"),
    (re.compile(r"( +\d+\.\d\d){4} +"), " SECONDS "),  # the columns of history
    (re.compile(r"[^\s'\"]*/(?=runs/)"), ""),
    (re.compile(r"[-=]{2,}"), ""),
]
_NUMBER = re.compile(r"-?[\d,]*\d(\.\d+)?(e[-+]?\d+)?")


class Step(NamedTuple):
    """One command or one Python block, its expected output, and the output's position in the guide."""

    kind: str
    source: str
    expected: str
    begin: int
    end: int


def steps(guide: str) -> Iterator[Step]:
    """Yield the commands and Python blocks of a guide, in order."""
    for block in _BLOCK.finditer(guide):
        if block["kind"] == "pycon":
            yield Step("pycon", block["text"], block["text"], *block.span("text"))
            continue
        for match in _COMMAND.finditer(block["text"]):
            begin, end = (block.start("text") + place for place in match.span("output"))
            yield Step("console", match["command"], match["output"], begin, end)


class Session:
    """Run steps in one directory."""

    def __init__(self, directory: Path, *, fork: bool = False) -> None:
        """Make symlinks to the training programs in the directory.

        Args:
          directory: the working directory.
          fork: whether Python programs run in forks of a process that has imported TensorFlow, which saves minutes.
        """
        self._directory = directory
        self._fork = fork
        self._names: dict[str, object] = {"__name__": "__main__"}
        for program in ROOT.glob("train_*.py"):
            (directory / program.name).symlink_to(program)

    def run(self, step: Step) -> str:
        """Run a step; return its output, for Python with the prompts and the code."""
        with contextlib.chdir(self._directory):
            return self._python(step.source) if step.kind == "pycon" else self._command(step.source)

    def _command(self, command: str) -> str:
        forked = _PYTHON.fullmatch(command) if self._fork else None
        return self._forked(forked) if forked else self._shell(command)

    def _forked(self, command: re.Match[str]) -> str:
        words = shlex.split((command["flags"] or "").replace("\\\n", " "))
        program = command["program"] or command["module"]
        process = Fork(program, *words, directory=self._directory, stderr_to_stdout=True)
        output, _ = process.communicate()
        if command["filter"]:
            return self._shell(command["filter"], output)
        return _with_status(output, process.wait())

    def _shell(self, command: str, text: str | None = None) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
        ended = subprocess.run(
            ["bash", "-c", command],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            check=False,
        )
        return _with_status(ended.stdout, ended.returncode)

    def _python(self, text: str) -> str:
        parser, runner = doctest.DocTestParser(), _Runner()
        test = parser.get_doctest(text, self._names, "guide", "guide", 0)
        runner.run(test, out=io.StringIO().write, clear_globs=False)
        self._names = test.globs
        written = []
        for piece in parser.parse(text):
            if isinstance(piece, str):
                written.append(piece)
                continue
            first, *more = piece.source.rstrip("\n").split("\n")
            written += [f">>> {first}\n", *(f"... {line}\n" for line in more), runner.got.pop(0)]
        return "".join(written)


def _with_status(output: str, status: int) -> str:
    return output + (f"[exit status {status}]\n" if status else "")


class _Runner(doctest.DocTestRunner):
    """Keeps the output of each example, also if it is not the expected one."""

    def __init__(self) -> None:
        super().__init__(verbose=False)
        self.got: list[str] = []

    def report_success(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        del out, test, example
        self.got.append(_without_calls(got))

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        self.report_success(out, test, example, got)

    def report_unexpected_exception(
        self, out: Any, test: doctest.DocTest, example: doctest.Example, exc_info: Any
    ) -> None:
        self.report_success(out, test, example, "".join(traceback.format_exception(*exc_info)))


def _without_calls(got: str) -> str:
    """Remove the stack and the causes from a traceback."""
    got = got[got.rfind("Traceback (most recent call last):\n") :] if "Traceback (most" in got else got
    return re.sub(
        r"(?<=^Traceback \(most recent call last\):\n).*?^(?=\S)", "    ...\n", got, flags=re.DOTALL | re.MULTILINE
    )


def same(expected: str, got: str) -> bool:
    """Return whether two outputs are equal, apart from times, speeds, hashes, spaces and the last digits of numbers."""
    expected_words, words = _words(expected), _words(got)
    return len(expected_words) == len(words) and all(map(_same_word, expected_words, words))


def _words(text: str) -> list[str]:
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return text.split()


def _same_word(one: str, other: str) -> bool:
    if one == other:
        return True
    numbers = [[found[0] for found in _NUMBER.finditer(word)] for word in (one, other)]
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other) or len(numbers[0]) != len(numbers[1]):
        return False
    return all(map(_close, *numbers))


def _close(one: str, other: str) -> bool:
    """Return whether two numbers are within 2%; integers without commas must be equal."""
    if not set(".,e") & set(one + other):
        return one == other
    a, b = (float(number.replace(",", "")) for number in (one, other))
    return math.isclose(a, b, rel_tol=0.02, abs_tol=1e-6)


def rewritten(guide: str, directory: Path) -> str:
    """Run a guide; return it with the new output."""
    session, pieces, end = Session(directory), [], 0
    for step in steps(guide):
        print(f"{step.source.strip().splitlines()[0]}", flush=True)  # noqa: T201 - shows progress
        got = session.run(step).replace(f"{directory}/", ".../")
        pieces += [guide[end : step.begin], step.expected if same(step.expected, got) else got]
        end = step.end
    return "".join([*pieces, guide[end:]])


def run_notebook(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the new output, without times, which would differ in each cell."""
    return nbclient.execute(nbformat.read(path, as_version=4), cwd=str(ROOT), record_timing=False)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    if path.suffix == ".ipynb":
        nbformat.write(run_notebook(path), path)
    else:
        with tempfile.TemporaryDirectory() as place:
            path.write_text(rewritten(path.read_text(), Path(place)))
