"""Read MNIST as CSV tables: the label, then 784 pixels in each row."""

import gzip
import time

import numpy as np
import pytest

from mnist.input import csv_tables, dataset
from tests import odd_files
from tests.datasets import ARRAYS, assert_is, data_dir, error_message, some_images

TRAIN, TEST = csv_tables.PAIRS[0]
HEADER = ",".join(["label", *(f"pixel{each}" for each in range(784))])


def lines_of(split, header=HEADER):
    """The lines of the table of a split; header=None for none."""
    rows = np.column_stack([ARRAYS[f"{split} labels"], ARRAYS[f"{split} images"].reshape(-1, 784)])
    return [*([header] if header else []), *(",".join(map(str, row)) for row in rows.tolist())]


def write(directory, train=None, test=None, names=(TRAIN, TEST), end="\n"):
    """Write two tables; `train=` and `test=` replace their lines; return the directory."""
    directory.mkdir(exist_ok=True)
    for name, lines in zip(names, (train or lines_of("train"), test or lines_of("test")), strict=True):
        (directory / name).write_bytes("".join(f"{line}{end}" for line in lines).encode())
    return directory


@pytest.mark.parametrize("names", csv_tables.PAIRS)
@pytest.mark.parametrize("header", [HEADER, None, '"label"' + HEADER[5:]], ids=["header", "no header", "quoted"])
def test_the_tables_are_read(tmp_path, names, header):
    """With and without a header, under the names that Kaggle's data sets have."""
    write(tmp_path, lines_of("train", header), lines_of("test", header), names)
    assert_is(dataset.load(tmp_path, validation_size=5))


def test_the_fingerprint_is_that_of_the_idx_files(tmp_path):
    """So a run can be resumed with either."""
    one = dataset.load(data_dir(tmp_path / "idx"), validation_size=5)
    assert dataset.load(write(tmp_path / "csv"), validation_size=5).fingerprint == one.fingerprint


def test_idx_files_take_precedence(tmp_path):
    """Tables beside them do not change which data are read."""
    write(data_dir(tmp_path), test=[HEADER, "damaged"])
    assert_is(dataset.load(tmp_path, validation_size=5))


@pytest.mark.parametrize("end", ["\r\n", " \n", "\n\n", " \r\n\r\n"])
def test_line_ends_and_blank_lines_do_not_matter(tmp_path, end):
    """As Windows writes them; also with a byte order mark, and spaces around numbers."""
    train = lines_of("train", "\ufeff" + HEADER)
    train[1] = train[1].replace(",", " , ")
    assert_is(dataset.load(write(tmp_path, train, end=end), validation_size=5))


def test_the_last_line_needs_no_end(tmp_path):
    """If it is complete."""
    path = write(tmp_path) / TEST
    path.write_bytes(path.read_bytes().rstrip())
    assert_is(dataset.load(tmp_path, validation_size=5))


def test_two_complete_tables_are_preferred(tmp_path):
    """Half of another pair beside them is not used."""
    write(tmp_path, names=csv_tables.PAIRS[2])
    (tmp_path / TEST).write_text("")
    assert_is(dataset.load(tmp_path, validation_size=5))


@pytest.mark.parametrize("pair", csv_tables.PAIRS)
@pytest.mark.parametrize("number", [0, 1])
def test_tables_of_two_pairs_are_not_combined(tmp_path, pair, number):
    """Kaggle's train.csv holds images that others have for the test; the missing table is named."""
    (write(tmp_path, names=pair) / pair[number]).unlink()
    expected = f"{tmp_path / pair[number]}: not found; expected the tables of both splits, got {pair[1 - number]} only"
    assert error_message(tmp_path).startswith(expected)


@pytest.mark.parametrize("kind", ["FIFO", "directory"])
def test_only_regular_files_are_tables(tmp_path, kind):
    """A FIFO is not waited for."""
    odd_files.make(kind, write(tmp_path) / TEST)
    with odd_files.no_hang():
        assert error_message(tmp_path).startswith(f"{tmp_path / TEST}: not found")


def test_the_table_without_labels_of_kaggles_digit_recognizer_is_named(tmp_path):
    """Its test.csv has pixels only, with a header or without."""
    for skipped in (0, 1):
        test = [line.partition(",")[2] for line in lines_of("test")][skipped:]
        message = error_message(write(tmp_path, test=test, names=csv_tables.PAIRS[2]))
        assert message.startswith(
            f"{tmp_path / 'test.csv'}: expected a label and 784 pixels in each row, got 784 pixels"
        )
        assert "without labels, as in the test.csv of Kaggle's digit recognizer" in message
        assert "hint: give tables with labels, such as mnist_train.csv and mnist_test.csv" in message


def replaced(line, column, value):
    """A line with another value in a column, from 1."""
    values = line.split(",")
    values[column - 1] = value
    return ",".join(values)


@pytest.mark.parametrize("value", ["256", "-1", "1.0", "1e2", "", "nan", "x", "0x1", "1_0", "³", "9" * 5000])
@pytest.mark.parametrize("row", [1, 30])
def test_other_values_raise(tmp_path, value, row):
    """The message has file, line and column."""
    train = lines_of("train")
    train[row] = replaced(train[row], 100, value)
    message = error_message(write(tmp_path, train))
    place = f"{tmp_path / TRAIN}, line {row + 1}, column 100"
    assert message.startswith(f"{place}: expected a whole number from 0 to 255, got {ascii(value[:1])[:-1]}")
    assert len(message) < 250


def test_blank_lines_count_in_the_line_of_an_error(tmp_path):
    """So an editor finds it."""
    train = lines_of("train")
    train[20] = replaced(train[20], 5, "300")
    assert f"{TRAIN}, line 41, column 5: " in error_message(write(tmp_path, train, end="\n\n"))


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_above_nine_raises(tmp_path, label):
    """The message has the file, the label and its position."""
    test = lines_of("test")
    test[8] = replaced(test[8], 1, str(label))
    message = error_message(write(tmp_path, test=test))
    assert message.startswith(f"{tmp_path / TEST}: expected labels 0 to 9, got {label} at position 7")


@pytest.mark.parametrize("row", [1, 2, 12])
@pytest.mark.parametrize("columns", [784, 786, 1])
def test_rows_of_another_length_raise(tmp_path, row, columns):
    """The message has file and line, and both numbers."""
    test = lines_of("test")
    test[row] = ",".join(["0"] * columns)
    message = error_message(write(tmp_path, test=test))
    assert message.startswith(f"{tmp_path / TEST}, line {row + 1}: expected 785 columns, got {columns}")


def test_a_truncated_table_raises(tmp_path):
    """The line that was cut is named."""
    path = write(tmp_path) / TEST
    path.write_bytes(path.read_bytes()[:-100])
    assert error_message(tmp_path).startswith(f"{path}, line 13: expected 785 columns, got 7")


HEADERS = {
    "label last": ("pixel1," * 784 + "class", "line 1: expected 785 columns, the label first, got 785, 'pixel1' first"),
    "other pixels": ("label," + "p," * 1023 + "p", "line 1: expected 785 columns, the label first, got 1025"),
    "web page": ("<!DOCTYPE html>", "expected a CSV table, got a web page (HTML)"),
    "LFS": ("version https://git-lfs.github.com/spec/v1", "expected a CSV table, got a Git LFS pointer"),
    "semicolons": (HEADER.replace(",", ";"), "expected a CSV table, got the first bytes"),
}


@pytest.mark.parametrize(("line", "problem"), HEADERS.values(), ids=HEADERS)
def test_other_tables_raise(tmp_path, line, problem):
    """The message says what the file holds, or what its first line lacks."""
    assert problem in error_message(write(tmp_path, train=[line]))


def test_a_gzip_file_under_the_name_is_named(tmp_path):
    """Tables are not unpacked."""
    path = write(tmp_path) / TRAIN
    path.write_bytes(gzip.compress(path.read_bytes()))
    message = error_message(tmp_path)
    assert "expected a CSV table, got gzip data" in message
    assert "gunzip" in message


@pytest.mark.parametrize("content", [b"", HEADER.encode(), b"\n\n"], ids=["empty", "header", "blank"])
def test_a_table_without_rows_raises(tmp_path, content):
    """The message names the file."""
    (write(tmp_path) / TEST).write_bytes(content)
    assert error_message(tmp_path).startswith(f"{tmp_path / TEST}: expected ")


def test_an_endless_line_is_not_read(tmp_path):
    """A line of a gigabyte, in a sparse file, takes neither time nor memory."""
    for begin in (b"", f"{HEADER}\n".encode()):
        path = write(tmp_path) / TRAIN
        with path.open("wb") as file:
            file.write(begin)
            file.truncate(1 << 30)
        with odd_files.little_memory(256 << 20), odd_files.no_hang():
            assert error_message(tmp_path).startswith(str(path))


def test_sixty_thousand_rows_are_read_in_seconds(tmp_path):
    """5,000 rows take at most a second of the processor."""
    rows = [f"7,{','.join(map(str, image.ravel().tolist()))}" for image in some_images(500)] * 10
    write(tmp_path, rows, rows[:1])
    started = time.process_time()
    assert len(dataset.load(tmp_path, validation_size=0).train.labels) == 5000
    assert time.process_time() - started < 1
