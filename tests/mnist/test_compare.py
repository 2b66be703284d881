import json
import re
import shutil
from pathlib import Path

import pytest

from mnist.compare import main
from tests import odd_files, programs

FLAGS = ["--validation_size=200", "--batch_size=20", "--train_steps=40", "--save_every_steps=20"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_data):
    """Two train_dirs that differ in seed and rate."""
    directory = tmp_path_factory.mktemp("runs")
    for name, flags in {"one": ["--seed=1"], "two": ["--seed=2", "--learning_rate=0.25"]}.items():
        programs.train("softmax", directory / name, f"--data_dir={small_data}", *FLAGS, *flags)
    return [str(directory / name) for name in ("one", "two")]


def test_runs_are_compared_in_columns(runs, capsys):
    """The table has the results and the settings that differ, but no equal settings."""
    assert main(runs) == 0
    table = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[2:]}
    assert table.split()[:2] == runs
    assert (rows["seed"], rows["learning_rate"], rows["step"]) == (["1", "2"], ["0.5", "0.25"], ["40", "40"])
    assert "batch_size" not in rows
    results = [programs.result(Path(run)) for run in runs]
    assert rows["weights_sha256"] == [each["weights_sha256"][:12] for each in results]
    assert rows["test_accuracy"] == [f"{each['test_accuracy']:.4g}" for each in results]


def test_json_has_all_settings(runs, capsys):
    """The keys are the train_dirs as on the command line."""
    assert main([*runs, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert list(record) == runs
    assert record[runs[0]]["settings"]["batch_size"] == 20
    assert record[runs[0]]["validation_accuracy"] == programs.result(Path(runs[0]))["validation_accuracy"]


@pytest.mark.parametrize("kind", ["FIFO", "device", "directory"])
def test_a_special_file_as_result_is_an_error(runs, tmp_path, capsys, kind):
    """A special file in place of result.json is one error, and reading does not block."""
    copy = shutil.copytree(runs[0], tmp_path / "copy", ignore=shutil.ignore_patterns("saved_model"))
    path = odd_files.make(kind, copy / "result.json")
    with odd_files.no_hang():
        assert main([runs[0], str(copy)]) == 1
    expected = rf"error: {re.escape(str(path))}: cannot be read .*\nhint: delete it .*\n"
    assert re.fullmatch(expected, capsys.readouterr().err)


def test_a_directory_without_a_run_is_an_error(runs, tmp_path, capsys):
    """The error names the directory."""
    assert main([runs[0], str(tmp_path / "nothing")]) == 1
    assert re.fullmatch(r"error: .*nothing: no checkpoint found.*\n(hint: .*\n)?", capsys.readouterr().err)
