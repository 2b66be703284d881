import json
import os
import re
import shutil

import pytest
from PIL import Image

from mnist.input import dataset
from tests import programs
from tests.fork import Fork

ENCODINGS = ("ascii", "latin-1", "utf-8:strict")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the train_dir of a softmax run."""
    train_dir = tmp_path_factory.mktemp("text") / "run"
    programs.train("softmax", train_dir, "--train_steps=20", "--validation_size=0")
    return train_dir


@pytest.fixture(scope="module")
def odd_run(run):
    """Return a copy of it whose name is not UTF-8."""
    return shutil.copytree(run, odd(run.parent, b"odd\xff"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a directory of three images; the name of the second is not UTF-8."""
    directory = tmp_path_factory.mktemp("pictures")
    for name, image in zip((b"a.png", b"b\xff.png", b"c.png"), dataset.load(None, 0).test.images, strict=False):
        with odd(directory, name).open("wb") as file:
            Image.fromarray(image).save(file, "PNG")
    return directory


def odd(directory, name):
    """Return a path from a name of any bytes."""
    return directory / os.fsdecode(name)


def ended(monkeypatch, encoding, program, *arguments):
    """Run a program whose output has an encoding; return status, output and error."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    process = Fork(program, *map(str, arguments))
    process.stdout.reconfigure(encoding=encoding.partition(":")[0])
    process.stderr.reconfigure(encoding=encoding.partition(":")[0])
    stdout, stderr = process.communicate()
    stderr = "".join(
        line for line in stderr.splitlines(keepends=True) if not re.match(r"[EI]0000 |\n", line)
    )  # TensorFlow's
    assert "Traceback" not in stderr
    assert "codec" not in stderr
    return process.returncode, stdout, stderr


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_predict_shows_all_pictures_in_any_encoding(encoding, run, pictures, monkeypatch):
    """The name is escaped, the input is drawn with characters that the encoding has."""
    status, output, _ = ended(monkeypatch, encoding, "mnist.predict", pictures, f"--train_dir={run}", "--show")
    assert status == 0
    assert re.findall(r"^.*/(.+): \d", output, re.MULTILINE) == ["a.png", r"b\xff.png", "c.png"]
    assert ("█" in output) == encoding.startswith("utf-8")
    assert "##" in output or "██" in output
    assert r"\u" not in output


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_valid_in_any_encoding(encoding, run, odd_run, pictures, monkeypatch):
    """The names in it are the files'."""
    arguments = [pictures, f"--train_dir={run}", "--show", "--json"]
    status, output, drawn = ended(monkeypatch, encoding, "mnist.predict", *arguments)
    assert status == 0
    assert [json.loads(line)["file"] for line in output.splitlines()] == [
        str(each) for each in sorted(pictures.iterdir())
    ]
    assert "##" in drawn or "██" in drawn
    status, output, _ = ended(monkeypatch, encoding, "mnist.compare", run, odd_run, "--json")
    assert list(json.loads(output)) == [str(run), str(odd_run)]
    status, output, _ = ended(monkeypatch, encoding, "checkpointing", "list", odd_run, "--json")
    assert json.loads(output)


# A command line, and its exit status.
COMMANDS = [
    ("mnist.compare {run} {odd}", 0),
    ("mnist.compare {odd}/absent", 1),
    ("checkpointing list {odd}/absent", 1),
    ("mnist.evaluate --train_dir={odd}", 1),
    ("mnist.report --train_dir={odd}", 1),
    ("mnist.predict {odd}/absent.png --train_dir={run}", 1),
    ("mnist.convert --saved_model={odd} model.onnx", 1),
    ("softmax --train_dir={odd}", 2),
    ("cnn --restore_from={odd}", 2),
]


@pytest.mark.parametrize("encoding", ["ascii", *(pytest.param(each, marks=pytest.mark.slow) for each in ENCODINGS[1:])])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0].partition(" ")[0])
def test_every_program_prints_a_name_that_is_not_utf_8(encoding, command, run, odd_run, monkeypatch):
    """A result or an error, and never a traceback; the name is escaped."""
    words, expected = command
    status, output, error = ended(monkeypatch, encoding, *words.format(run=run, odd=odd_run).split())
    assert status == expected, error
    assert bool(error) == bool(expected)
    assert re.search(r"odd\\(xff|udcff)", output + error)


def test_reproduce_prints_a_name_that_is_not_utf_8(tmp_path, monkeypatch):
    """The program that it runs refuses the name, and prints it escaped, too."""
    directory = odd(tmp_path, b"\xff")
    status, output, error = ended(
        monkeypatch, "ascii", "mnist.reproduce", f"--directory={directory}", "--configs=softmax", "--seeds=1"
    )
    assert status == 1
    assert rf"{tmp_path}/\xff/softmax" in output
    assert "expected a path in UTF-8" in error


def test_show_to_a_closed_pipe_is_no_error(run, pictures):
    """As for `| head`."""
    process = Fork("mnist.predict", str(pictures), f"--train_dir={run}", "--show")
    process.stdout.close()
    assert process.wait() == 0
    assert "rror" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.parametrize("program", ["softmax", pytest.param("mnist.report", marks=pytest.mark.slow)])
def test_a_report_without_a_home_directory_prints_no_messages_of_other_libraries(program, run, tmp_path, monkeypatch):
    """Matplotlib makes a temporary directory, and a list of fonts in it, without a word."""
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/missing")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    train_dir = shutil.copytree(run, tmp_path / "run")
    settings = ["--train_steps=20", "--validation_size=0"] if program == "softmax" else []
    status, output, error = ended(monkeypatch, "utf-8", program, f"--train_dir={train_dir}", *settings)
    printed = (output + error).replace(str(tmp_path), "")
    assert status == 0
    assert "/run/report.html\n" in printed
    assert not re.search("matplotlib|font|mkdir", printed, re.IGNORECASE)
