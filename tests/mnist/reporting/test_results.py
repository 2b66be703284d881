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
    """Programs read them: they are plain numbers."""
    seconds = results.seconds(Stopwatch())
    assert json.loads(json.dumps(seconds)) == seconds


def test_the_machine_is_named_by_what_speed_depends_on():
    """The processor comes first, then its cores and the system."""
    processor, cores, system = results.machine().rsplit(", ", 2)
    assert processor
    assert cores == f"{os.cpu_count()} cores"
    assert system == f"{platform.system()} {platform.machine()}"


def test_the_summary_tells_a_person_what_came_out():
    """Accuracies have four digits, speeds have thousands, places are spelled out."""
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


def test_what_was_not_measured_is_not_told():
    """Without validation images or without a step to make, the summary has no such line."""
    summary = results.summary(RECORD | {"validation_accuracy": None, "images_per_second": None})
    assert "validation" not in summary
    assert "images/s" not in summary
    assert "None" not in summary


def test_an_accuracy_of_zero_is_told():
    """Zero is a result; only None is none."""
    assert "validation accuracy  0.0000" in results.summary(RECORD | {"validation_accuracy": 0.0})


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"step', '{"step": 1}', "[" * 100_000])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    """The run itself is whole: asked again, it only evaluates."""
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=r"result\.json: expected .*; delete it, and run the same training command"):
        results.read(path)


@pytest.mark.parametrize("members", [{}, {"members": [{"seed": 0, "test_accuracy": 0.9, "weights_sha256": "00"}]}])
def test_a_whole_result_is_read(tmp_path, members):
    """Of a run, and of an ensemble."""
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
    """A result that was edited or damaged is refused with what is wrong in it; never with a bare exception."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE | {name: wrong}))
    with pytest.raises(ResultError, match=r"result\.json: expected [^\n]*, got [^\n]*; delete it"):
        results.read(path)


def test_every_part_of_a_result_has_a_type():
    """What a run writes is what is checked."""
    assert set(WRONG) == results.NAMES | {"members"}
    assert set(WHOLE) == results.NAMES


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "link to a FIFO", "directory"])
def test_what_is_no_file_is_named_at_once(tmp_path, kind):
    """Nothing waits for a FIFO or reads an endless device."""
    path = odd_files.make(kind, tmp_path / "result.json")
    with odd_files.no_hang(), pytest.raises(ResultError, match=r"result\.json: cannot be read"):
        results.read(path)


def test_a_huge_file_is_not_read(tmp_path):
    """A result has some hundred bytes; a sparse terabyte is refused by its size."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE))
    os.truncate(path, 1 << 40)
    with pytest.raises(ResultError, match="expected at most"):
        results.read(path)


def test_a_shortage_is_no_damage(tmp_path):
    """Where no file can be opened just now, nobody is sent to delete the result."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE))
    with odd_files.no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        results.read(path)


def test_any_flipped_bit_is_refused_or_read_with_its_types(tmp_path):
    """Damage anywhere gives a ResultError, or a record that can be shown."""
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
