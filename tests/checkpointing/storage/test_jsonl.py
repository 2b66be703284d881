import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing.errors import OddFileError
from checkpointing.storage.jsonl import Journal

ROOT = Path(__file__).parents[3]
RECORDS = [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25}, {"step": 30, "note": 'größe "数字"\n'}]
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def journal_of(path, records=RECORDS):
    """Make a journal with these records."""
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for record in records:
        journal.append(record)
    return journal


def test_a_new_journal_is_empty(tmp_path):
    """Reading, rewinding and syncing do nothing before the first record, and make no file."""
    journal = Journal(tmp_path / "metrics.jsonl")
    assert journal.records() == []
    assert journal.rewind() is None
    journal.sync()
    assert not journal.path.exists()


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=3))
@settings(deadline=None)
def test_records_are_read_as_they_were_written(tmp_path_factory, records):
    """In the same order, with any content, line ends included."""
    assert journal_of(tmp_path_factory.getbasetemp() / "any.jsonl", records).records() == records


def test_a_record_is_a_line(tmp_path):
    """A file of three records has three lines."""
    journal = journal_of(tmp_path / "metrics.jsonl")
    assert len(journal.path.read_text().splitlines()) == len(RECORDS)


def test_a_journal_opened_again_is_appended_to(tmp_path):
    """Earlier records are kept."""
    journal_of(tmp_path / "metrics.jsonl", RECORDS[:2])
    Journal(tmp_path / "metrics.jsonl").append(RECORDS[2])
    assert Journal(tmp_path / "metrics.jsonl").records() == RECORDS


def test_a_record_survives_a_kill(tmp_path):
    """The process may be killed right after `append`."""
    code = (
        "import os, signal, sys; from pathlib import Path; from checkpointing.storage.jsonl import Journal\n"
        "Journal(Path(sys.argv[1])).append({'step': 10, 'loss': 0.5}); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "metrics.jsonl"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert Journal(path).records() == RECORDS[:1]


def test_rewinding_drops_records(tmp_path):
    """Those for which `keep` is false; the others stay in order, and the last of them is returned."""
    journal = journal_of(tmp_path / "metrics.jsonl")
    assert journal.rewind(lambda record: record["step"] <= 10) == RECORDS[0]
    assert journal.records() == RECORDS[:1]


def test_rewinding_to_nothing_leaves_an_empty_journal(tmp_path):
    """All records may be dropped."""
    journal = journal_of(tmp_path / "metrics.jsonl")
    assert journal.rewind(lambda _: False) is None
    assert journal.records() == []


def test_rewinding_without_a_change_writes_nothing(tmp_path):
    """The file keeps its inode and its time."""
    journal = journal_of(tmp_path / "metrics.jsonl")
    before = journal.path.stat()
    assert journal.rewind() == RECORDS[-1]
    after = journal.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_journal_can_be_cut_at_any_byte(tmp_path):
    """All records before the cut are kept, and the next record is complete."""
    content = journal_of(tmp_path / "metrics.jsonl").path.read_bytes()
    for length in range(len(content) + 1):
        journal = Journal(tmp_path / "metrics.jsonl")
        journal.path.write_bytes(content[:length])
        # A record without its line end is complete.
        complete = RECORDS[: (content[:length] + b"\n").replace(b"}\n", b"}\0").count(b"\0")]
        assert journal.records() == complete
        assert journal.rewind() == (complete or [None])[-1]
        journal.append({"step": 40})
        assert journal.records() == [*complete, {"step": 40}]


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 4096, b"\xff\xfe", b"[1, 2]\n", b"7\n", b"null\n", b'{"step": \n', b"\n\n", b'"text"\n'],
    ids=["zeros", "no text", "list", "number", "null", "half", "empty lines", "string"],
)
def test_garbage_at_the_end_is_dropped(tmp_path, garbage):
    """What a power cut can leave there, and JSON values that are not objects."""
    journal = journal_of(tmp_path / "metrics.jsonl")
    content = journal.path.read_bytes()
    journal.path.write_bytes(content + garbage)
    assert journal.records() == RECORDS
    assert journal.rewind() == RECORDS[-1]
    assert journal.path.read_bytes() == content


def test_a_damaged_line_is_skipped(tmp_path):
    """The records after it are read."""
    journal = journal_of(tmp_path / "metrics.jsonl")
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + b"\0\0\0\n" + lines[2])
    assert journal.records() == [RECORDS[0], RECORDS[2]]


def test_a_failed_rewind_changes_nothing(tmp_path, monkeypatch):
    """If the disk refuses, all records are still there."""
    journal = journal_of(tmp_path / "metrics.jsonl")

    def refuse(_):
        raise OSError("the disk refuses")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="the disk refuses"):
        journal.rewind(lambda _: False)
    assert journal.records() == RECORDS


def test_a_failed_sync_is_an_error(tmp_path, monkeypatch):
    """`sync` raises what fsync raises."""
    journal = journal_of(tmp_path / "metrics.jsonl")

    def refuse(_):
        raise OSError("the disk refuses")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="the disk refuses"):
        journal.sync()


def test_an_invalid_object_is_dropped(tmp_path):
    """The journal's `is_valid` decides which objects are records."""
    (tmp_path / "file").write_text('{"step": 1}\n{"stfp": 2}\n{"step": 3}\n')
    journal = Journal(tmp_path / "file", lambda record: "step" in record)
    assert [record["step"] for record in journal.records()] == [1, 3]
    journal.rewind()
    assert (tmp_path / "file").read_text() == '{"step": 1}\n{"step": 3}\n'


def many(path, count):
    """Make a journal of many records."""
    path.write_text("".join(f'{{"step": {step}, "loss": {1 / (step + 1)}}}\n' for step in range(count)))
    return Journal(path)


def test_memory_does_not_grow_with_the_journal(tmp_path):
    """Whether records are read, kept or dropped."""
    journal = many(tmp_path / "metrics.jsonl", 60_000)
    size = journal.path.stat().st_size
    tracemalloc.start()
    try:
        assert sum(1 for _ in journal) == 60_000
        assert journal.rewind() == journal.last() == {"step": 59_999, "loss": 1 / 60_000}
        assert journal.rewind(lambda record: record["step"] % 2 == 0)["step"] == 59_998
        assert journal.rewind(lambda record: record["step"] < 1000)["step"] == 998
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 2 * 10**6 > peak / 2
    assert [record["step"] for record in journal] == list(range(0, 1000, 2))


def test_a_very_long_line_is_skipped(tmp_path):
    """It is not read into memory, and the other records are read."""
    path = journal_of(tmp_path / "metrics.jsonl", RECORDS[:1]).path
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.truncate(file.tell() + 200 * 2**20)  # a sparse file
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"step": 20, "loss": 0.25}\n')
    journal = Journal(path)
    tracemalloc.start()
    try:
        assert journal.records() == RECORDS[:2]
        assert journal.last() == RECORDS[1]
        assert journal.rewind() == RECORDS[1]
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert journal.records() == RECORDS[:2]


LINES = st.lists(
    st.sampled_from([b'{"step": 1}', b'{"step": 22}', b"", b"garbage", b"\0" * 70_000, b'{"st']), max_size=6
)


@given(LINES, st.booleans())
@settings(deadline=None)
def test_last_is_the_last_of_all_records(tmp_path_factory, lines, ended):
    """With any garbage between and after the records."""
    path = tmp_path_factory.getbasetemp() / "last.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" * ended)
    assert Journal(path).last() == (Journal(path).records() or [None])[-1]


def test_damaged_lines_are_dropped_with_a_warning(tmp_path, caplog):
    """An incomplete last line is not counted as damaged."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"stXp\n{"step": 2}\n{"st')
    assert Journal(path).rewind() == {"step": 2}
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert f"{path}: 1 damaged line dropped" in caplog.text


def test_records_can_be_added_without_a_file(tmp_path):
    """As to an empty file."""
    journal = Journal(tmp_path / "metrics.jsonl")
    assert journal.rewind(add=RECORDS) is None
    assert journal.records() == RECORDS


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_a_regular_file_is_read(tmp_path, make):
    """A FIFO, directory or device is an error at once, and is not replaced."""
    path = tmp_path / "metrics.jsonl"
    make(path)
    for act in (Journal(path).records, Journal(path).last, Journal(path).rewind):
        with pytest.raises(OSError, match=str(path)):
            act()
    assert os.path.lexists(path)


def test_a_huge_file_is_not_read(tmp_path):
    """A sparse file of terabytes is an error."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("{}\n")
    os.truncate(path, 8 * 10**12)
    for read in (Journal(path).records, Journal(path).last, Journal(path).rewind):
        with pytest.raises(OddFileError, match="at most"):
            read()
