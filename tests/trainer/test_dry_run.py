"""--dry_run."""

import re

import pytest

from tests import programs


@pytest.mark.parametrize(
    ("program", "flags", "expected"),
    [
        ("softmax", [], ["parameters +7,850", "for 1,000 steps", "up to 5, 0\\.[2-9] MB"]),
        (
            "cnn",
            ["--config=cnn_small", "--train_steps=1000000"],
            ["parameters +7,578", r"\d+ h .* for 1,000,000 steps"],
        ),
        ("cnn", ["--architecture=small", "--members=2", "--max_restarts=3"], ["parameters +7,578", "2 members"]),
    ],
)
def test_a_dry_run_prints_time_and_disk_space_and_writes_nothing(program, flags, expected, small_data, tmp_path):
    """Not even the train_dir is made."""
    flags = [*flags, "--validation_size=200", f"--data_dir={small_data}", f"--train_dir={tmp_path / 'run'}"]
    ended = programs.run(program, "--dry_run", *flags)
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "run").exists()
    for each in expected:
        assert re.search(each, ended.stdout), ended.stdout


def test_a_dry_run_reports_missing_data(tmp_path):
    """As the run would."""
    ended = programs.run("softmax", "--dry_run", f"--data_dir={tmp_path}", f"--train_dir={tmp_path / 'run'}")
    assert ended.returncode == 1
    assert re.fullmatch(r"error: .*\n(hint: .*\n)?", ended.stderr)
