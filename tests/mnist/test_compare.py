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


def test_runs_lie_side_by_side(runs, capsys):
    """What each reached, and no setting that is the same for both."""
    assert main(runs) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines()[2:]}
    assert said.split()[:2] == runs
    assert (rows["seed"], rows["learning_rate"], rows["step"]) == (["1", "2"], ["0.5", "0.25"], ["40", "40"])
    assert "batch_size" not in rows
    results = [programs.result(Path(run)) for run in runs]
    assert rows["weights_sha256"] == [each["weights_sha256"][:12] for each in results]
    assert rows["test_accuracy"] == [f"{each['test_accuracy']:.4g}" for each in results]


def test_programs_get_all_of_it(runs, capsys):
    """As JSON, settings included, by the names that were given."""
    assert main([*runs, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == runs
    assert told[runs[0]]["settings"]["batch_size"] == 20
    assert told[runs[0]]["validation_accuracy"] == programs.result(Path(runs[0]))["validation_accuracy"]


@pytest.mark.parametrize("kind", ["FIFO", "device", "directory"])
def test_an_odd_result_is_named(runs, tmp_path, capsys, kind):
    """What lies in the place of a run's result is one sentence, and nothing waits for it."""
    copy = shutil.copytree(runs[0], tmp_path / "copy", ignore=shutil.ignore_patterns("saved_model"))
    path = odd_files.make(kind, copy / "result.json")
    with odd_files.no_hang():
        assert main([runs[0], str(copy)]) == 1
    assert re.fullmatch(rf"error: {re.escape(str(path))}: cannot be read .*\.\n", capsys.readouterr().err)


def test_what_is_no_run_is_told(runs, tmp_path, capsys):
    """In one sentence."""
    assert main([runs[0], str(tmp_path / "nothing")]) == 1
    assert re.fullmatch(r"error: .*nothing: no checkpoint found.*\.\n", capsys.readouterr().err)
