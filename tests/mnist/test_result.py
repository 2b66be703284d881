import json
import os
import platform

import pytest

from mnist import result
from mnist.errors import ResultError
from mnist.stopwatch import Stopwatch

RECORD = {
    "step": 1000,
    "validation_accuracy": 0.92468,
    "test_accuracy": 0.91834,
    "images_per_second": 1234567.8,
    "weights_sha256": "0123abcd",
    "checkpoint": "/runs/model.ckpt-1000",
    "export_dir": "/runs/saved_model/1000",
}


class Clock:
    """A clock that tests set."""

    now = 50.0

    def __call__(self):
        """Seconds since whenever."""
        return self.now


def test_every_part_of_a_run_has_its_seconds():
    """What took time tells how long, what never happened tells 0, and the total stands beside them."""
    stopwatch = Stopwatch(clock := Clock())
    with stopwatch("train"):
        clock.now += 1.23456
    clock.now += 1
    assert result.seconds(stopwatch) == {
        "import": 0,
        "data": 0,
        "restore": 0,
        "train": 1.2346,
        "save_stall": 0,
        "evaluate": 0,
        "export": 0,
        "total": 2.2346,
    }


def test_the_seconds_can_be_written_as_json():
    """Programs read them: they are plain numbers."""
    seconds = result.seconds(Stopwatch())
    assert json.loads(json.dumps(seconds)) == seconds


def test_the_machine_is_named_by_what_speed_depends_on():
    """The processor comes first, then its cores and the system."""
    processor, cores, system = result.machine().rsplit(", ", 2)
    assert processor
    assert cores == f"{os.cpu_count()} cores"
    assert system == f"{platform.system()} {platform.machine()}"


def test_the_summary_tells_a_person_what_came_out():
    """Accuracies have four digits, speeds have thousands, places are spelled out."""
    lines = dict(line.split("  ", 1) for line in result.summary(RECORD).splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        "step": "1000",
        "validation accuracy": "0.9247",
        "test accuracy": "0.9183",
        "images/s": "1,234,568",
        "weights sha256": "0123abcd",
        "checkpoint": "/runs/model.ckpt-1000",
        "exported model": "/runs/saved_model/1000",
    }


def test_what_was_not_measured_is_not_told():
    """Without validation images or without a step to make, the summary has no such line."""
    summary = result.summary(RECORD | {"validation_accuracy": None, "images_per_second": None})
    assert "validation" not in summary
    assert "images/s" not in summary
    assert "None" not in summary


def test_an_accuracy_of_zero_is_told():
    """Zero is a result; only None is none."""
    assert "validation accuracy  0.0000" in result.summary(RECORD | {"validation_accuracy": 0.0})


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"step', '{"step": 1}', "[" * 100_000])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    """The run itself is whole: asked again, it only evaluates."""
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=r"result\.json: no .* found.*; delete it, and run the same training command"):
        result.read(path)
