"""Archaic, literary and personifying words stay out of the product and its documentation.

CONTRIBUTING.md states the rules of plain language. Of these, this test checks single words and fixed phrases.
Checked are names, strings and comments of the product and the benchmarks, docstrings of the tests, and documents.
"""

import ast
import io
import json
import re
import subprocess
import tokenize
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

WORDS = (
    # Code is not a person: it returns, raises, reads, logs, checks.
    *("ask", "asks", "asked", "asking", "believe", "believes", "believed", "hear", "hears", "heard"),
    *("heed", "heeds", "heeded", "tell", "tells", "telling", "told", "wanted", "wants"),
    # Archaic or literary words.
    *("anew", "besides", "beside", "by no chance", "for want of", "lest", "notwithstanding", "of its own", "spoilt"),
    *("anybody", "nobody", "somebody", "whoever"),
    # The terms are "resume" and "continue".
    *("go on", "goes on", "going on", "gone on", "went on"),
)


class Allowed(NamedTuple):
    """A use of a word that is correct: where, in which text, and why."""

    files: str
    text: str
    reason: str


ALLOWED = (
    Allowed("*.py", r"\0tell\0\0", "Python's name for the position in a file"),
    Allowed("*", r"\bbeside (it|them|each other|one another)\b", "a place"),
    Allowed("*", r"\bbeside (the|a|an|each|its|their|our|Saver's) [\w`*.]+", "a place"),
    Allowed("CHANGELOG.md", r"(?s)\n## 0\.7\.0\n.*", "entries of earlier releases are history"),
)

PRODUCT = (
    "train_*.py",
    "configs/*.py",
    "trainer/*.py",
    "mnist/*.py",
    "checkpointing/*.py",
    "examples/*.py",
    "benchmarks/*.py",
)
TESTS = ("tests/*.py",)
DOCUMENTS = ("*.md", "*.html", "*.ipynb", "*.txt", "Makefile", "pyproject.toml", "CITATION.cff", ".ci/run", ".github/*")

_SPLIT = r"[\s\"']+"  # a phrase may continue on the next line, or in the next string
_PATTERN = re.compile(
    r"(?<![\w'-])("
    + "|".join(re.escape(word).replace(r"\ ", _SPLIT) for word in sorted(WORDS, reverse=True))
    + r")(?![\w-])",
    re.IGNORECASE,
)
_CHECKED_TOKENS = {
    tokenize.NAME,
    tokenize.STRING,
    tokenize.COMMENT,
    getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING),
}


def files_of(patterns):
    """Files of the repository that match one of the patterns, as paths relative to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns) and (ROOT / name).exists()]


def checked_text(name, content):
    """The part of a file that is checked; everything else is blank, so that line numbers stay the same."""
    if name.endswith(".ipynb"):
        return "\n".join(_cells(json.loads(content)))
    if not name.endswith(".py"):
        return content
    return _docstrings(content) if fnmatch(name, TESTS[0]) else _words_of_python(content)


def _cells(notebook):
    """The sources and the text output of a notebook's cells."""
    for cell in notebook["cells"]:
        yield "".join(cell["source"])
        yield from ("".join(output.get("text", "")) for output in cell.get("outputs", []))


def _docstrings(source):
    """The docstrings of a Python file."""
    lines = source.splitlines()
    checked = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            checked.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return "\n".join(line if number in checked else "" for number, line in enumerate(lines, start=1))


def _words_of_python(source):
    """Names, strings and comments of a Python file; a string's quotes and a comment's mark are spaces."""
    blank = [
        ["\n" if character == "\n" else "\0" if character.strip() else " " for character in line]
        for line in source.splitlines(keepends=True)
    ]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _CHECKED_TOKENS:
            continue
        (row, column), text = token.start, token.string
        if token.type == tokenize.COMMENT:
            text = text.replace("#", " ", 1)
        for line in text.splitlines():
            blank[row - 1][column : column + len(line)] = line.replace("_", " ")
            row, column = row + 1, 0
    return "".join("".join(line) for line in blank)


def found_in(name, content):
    """Each use of a word that is not allowed, as `file:line: word`."""
    text = checked_text(name, content)
    for allowed in ALLOWED:
        if fnmatch(name, allowed.files):
            text = re.sub(allowed.text, lambda match: re.sub(r"[^\n]", "\0", match[0]), text)
    for match in _PATTERN.finditer(text):
        yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {re.sub(_SPLIT, ' ', match[0])}"


@pytest.mark.parametrize("patterns", [PRODUCT, TESTS, DOCUMENTS], ids=["product", "tests", "documents"])
def test_the_language_is_plain(patterns):
    """No checked file uses a word of the list, except where a reason is stated."""
    names = files_of(patterns)
    assert names
    found = [each for name in names for each in found_in(name, (ROOT / name).read_text())]
    assert not found, "\n".join([f"{len(found)} words to replace:", *found])


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("mnist/planted.py", '"""Reads.\n\nRaises what it was told.\n"""\n', "3: told"),
        ("mnist/planted.py", "value = 1  # changed, lest it fails\n", "1: lest"),
        ("mnist/planted.py", 'raise ValueError(\n    f"{value}: int wanted"\n)\n', "2: wanted"),
        ("mnist/planted.py", 'text = (\n    "the run goes "\n    "on"\n)\n', "2: goes on"),
        ("mnist/planted.py", "# The run goes\n# on.\n", "1: goes on"),
        ("mnist/planted.py", "was_told = True\n", "1: told"),
        ("tests/planted.py", 'def test():\n    """Nobody waits."""\n', "2: Nobody"),
        ("docs/planted.md", "# Title\n\nThe graph is built\nanew.\n", "4: anew"),
        (
            "notebooks/planted.ipynb",
            json.dumps({"cells": [{"source": ["A process of\n", "its own."]}]}),
            "1: of its own",
        ),
    ],
)
def test_a_planted_word_is_found(name, content, line):
    """Docstrings, comments, messages, names and documents are all read, also across line breaks."""
    assert list(found_in(name, content)) == [f"{name}:{line}"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mnist/planted.py", "position = file.tell()\n"),
        ("mnist/planted.py", "# The manifest is written beside the data.\n"),
        ("mnist/planted.py", "forget, battle, retold = 1, 2, 3\n"),
        ("tests/planted.py", "told = 1  # a comment in a test\n"),
        ("CHANGELOG.md", "# Changes\n\n## 0.8.0\n\nPlain.\n\n## 0.7.0\n\nStarted anew.\n"),
    ],
)
def test_correct_uses_are_not_found(name, content):
    """Parts of other words, names of Python's own functions, places, and history are no findings."""
    assert not list(found_in(name, content))
