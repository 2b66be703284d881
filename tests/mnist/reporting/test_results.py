import json
import os
import platform

import pytest

from mnist.errors import ResultError
from mnist.reporting import results
from mnist.training.stopwatch import Stopwatch
from tests import odd_files

RECORD = {
    "step": 1000,
    "validation_accuracy": 0.92468,
    "test_accuracy": 0.91834,
    "images_per_second": 1234567.8,
    "weights_sha256": "0123abcd",
    "checkpoint": "/runs/model.ckpt-1000",
    "export_dir": "/runs/saved_model/1000",
}


WHOLE = RECORD | {
    "config": "cnn",
    "seed": 0,
    "train_images": 55000,
    "resumed_from": None,
    "seconds": {"train": 1.5, "total": 2},
    "steps_redone": 0,
    "restarts": 0,
    "versions": {"tensorflow": "2"},
    "machine": "a machine",
}


class Clock:
    """A clock that tests advance."""

    now = 50.0

    def __call__(self):
        """Return the seconds."""
        return self.now


def test_every_part_of_a_run_has_its_seconds():
    """Parts that did not happen have 0 seconds; the total is measured on its own."""
    stopwatch = Stopwatch(clock := Clock())
    with stopwatch("train"):
        clock.now += 1.23456
    clock.now += 1
    assert results.seconds(stopwatch) == {
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
    """The seconds are plain numbers."""
    seconds = results.seconds(Stopwatch())
    assert json.loads(json.dumps(seconds)) == seconds


def test_the_machine_is_named_by_what_speed_depends_on():
    """The order is processor, cores, system."""
    processor, cores, system = results.machine().rsplit(", ", 2)
    assert processor
    assert cores == f"{os.cpu_count()} cores"
    assert system == f"{platform.system()} {platform.machine()}"


def test_the_summary_has_a_line_for_each_result():
    """Accuracies have four digits, speeds have thousands separators, paths are complete."""
    lines = dict(line.split("  ", 1) for line in results.summary(RECORD).splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        "step": "1000",
        "validation accuracy": "0.9247",
        "test accuracy": "0.9183",
        "images/s": "1,234,568",
        "weights sha256": "0123abcd",
        "checkpoint": "/runs/model.ckpt-1000",
        "exported model": "/runs/saved_model/1000",
    }


def test_the_summary_omits_what_was_not_measured():
    """Without validation images or training steps there are no such lines."""
    summary = results.summary(RECORD | {"validation_accuracy": None, "images_per_second": None})
    assert "validation" not in summary
    assert "images/s" not in summary
    assert "None" not in summary


def test_an_accuracy_of_zero_is_in_the_summary():
    """Zero is a result; only None is left out."""
    assert "validation accuracy  0.0000" in results.summary(RECORD | {"validation_accuracy": 0.0})


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"step', '{"step": 1}', "[" * 100_000])
def test_a_damaged_file_is_an_error_with_a_hint(tmp_path, content):
    """The checkpoints are complete: the same command only evaluates."""
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=r"result\.json: expected ") as error:
        results.read(path)
    assert error.value.hint.startswith("delete it and run the same training command again")


@pytest.mark.parametrize("members", [{}, {"members": [{"seed": 0, "test_accuracy": 0.9, "weights_sha256": "00"}]}])
def test_a_complete_result_is_read(tmp_path, members):
    """Results of a run and of an ensemble come back unchanged."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE | members))
    assert results.read(path) == WHOLE | members


INFINITE, NAN = float("inf"), float("nan")
WRONG = {
    **dict.fromkeys(("config", "weights_sha256", "checkpoint", "export_dir", "machine"), (7, None, True, ["x"])),
    **dict.fromkeys(("seed", "step", "train_images", "steps_redone", "restarts"), ("7", None, True, 1.5, 10**30)),
    **dict.fromkeys(("validation_accuracy", "images_per_second"), ("7", True, INFINITE, NAN, [0.5])),
    "test_accuracy": ["7", None, True, -INFINITE, NAN, {}],
    "resumed_from": [7, True, ["x"]],
    "seconds": [[], 7, {}, {"total": "7"}, {"total": NAN}, {"total": 1, "train": None}],
    "versions": [[], "7", None],
    "members": [{}, "7", None, [7], [{}], [{"seed": "0", "test_accuracy": 0.9, "weights_sha256": "00"}]],
}


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, values in WRONG.items() for wrong in values])
def test_a_value_of_another_type_is_refused(tmp_path, name, wrong):
    """The error says which value is wrong; no other exception is raised."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE | {name: wrong}))
    with pytest.raises(ResultError, match=r"(?m)result\.json: expected [^\n]*, got [^\n]*$") as error:
        results.read(path)
    assert error.value.hint.startswith("delete it")


def test_every_part_of_a_result_has_a_type():
    """All keys that a run writes are checked."""
    assert set(WRONG) == results.NAMES | {"members"}
    assert set(WHOLE) == results.NAMES


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "link to a FIFO", "directory"])
def test_special_files_are_errors(tmp_path, kind):
    """Reading never blocks on a FIFO or reads an endless device."""
    path = odd_files.make(kind, tmp_path / "result.json")
    with odd_files.no_hang(), pytest.raises(ResultError, match=r"result\.json: cannot be read"):
        results.read(path)


def test_a_huge_file_is_not_read(tmp_path):
    """A sparse terabyte is an error because of its size."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE))
    os.truncate(path, 1 << 40)
    with pytest.raises(ResultError, match="expected at most"):
        results.read(path)


def test_a_shortage_of_descriptors_is_not_damage(tmp_path):
    """If no file can be opened now, no hint says to delete the result."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE))
    with odd_files.no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        results.read(path)


def test_any_flipped_bit_is_an_error_or_keeps_the_types(tmp_path):
    """Damage anywhere raises ResultError or leaves a record that can be summarized."""
    path = tmp_path / "result.json"
    content = (json.dumps(WHOLE, indent=2) + "\n").encode()
    for bit in range(0, 8 * len(content), 5):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            results.summary(results.read(path))
        except ResultError as error:
            assert str(error).startswith(f"{path}: expected ")  # noqa: PT017 - refused, or read
