import errno
import importlib.metadata
import json
import os
import platform
import re
import threading

import pytest

from checkpointing.errors import CheckpointError, DamagedError
from checkpointing.protocol import manifest
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from tests import checkpoints
from tests.checkpoints import KINDS, make_checkpoint

MANIFEST = Manifest(
    step=100,
    files={"model.ckpt-100.index": {"bytes": 5, "sha256": "00ff"}},
    state_digest="abcdef0123456789",
    score=0.984,
    settings={"model": "counter", "learning_rate": 1e-05, "note": "größe", "nesterov": None},
    code=None,
    started_from=None,
    saved_at=1_700_000_000.25,
    training_seconds=12.5,
    versions={"python": "3.11"},
)


def write(directory, content):
    """Write a manifest of step 100 with this content; return its path."""
    path = layout.manifest_path(layout.prefix(directory, 100))
    path.write_bytes(content)
    return path


def resealed(**fields):
    """Return the bytes of a manifest with other fields and a matching hash."""
    record = json.loads(MANIFEST.to_json()) | fields
    record.pop("sha256")
    return json.dumps(record | {"sha256": manifest._sha256(record)}).encode()  # noqa: SLF001


def complaint(path):
    """Return the message of DamagedError: one line that begins with the file's name."""
    with pytest.raises(DamagedError) as refused:
        Manifest.read(path)
    message = str(refused.value)
    assert message.startswith(f"{path.name}: ")
    assert "\n" not in message
    return message


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    """Every digit is equal."""
    assert Manifest.read(write(tmp_path, MANIFEST.to_json())) == MANIFEST


def test_a_manifest_is_ascii_json(tmp_path):
    """Any program can read it: an object with a format number."""
    record = json.loads(write(tmp_path, MANIFEST.to_json()).read_text(encoding="ascii"))
    assert record["step"] == 100
    assert record["format"] == manifest.FORMAT == 4


@pytest.mark.parametrize("rewrite", [json.dumps, lambda record: json.dumps(record, indent=7, sort_keys=True)])
def test_the_hash_covers_values_not_spelling(tmp_path, rewrite):
    """Rewritten with other spaces and in another order, a manifest is equal."""
    content = rewrite(json.loads(MANIFEST.to_json())).encode()
    assert content != MANIFEST.to_json()
    assert Manifest.read(write(tmp_path, content)) == MANIFEST


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 500, b"\xff\xfe", b"{}", b"[]", b"null", b"7", b'"text"', MANIFEST.to_json()[:-10], b"\n", b"{" * 9],
    ids=["empty", "zeros", "no text", "no fields", "list", "null", "number", "string", "cut", "blank", "braces"],
)
def test_a_damaged_manifest_is_refused(tmp_path, content):
    """Anything that a power cut can leave is damage."""
    assert "cannot be read as a manifest" in complaint(write(tmp_path, content))


def test_a_directory_is_no_manifest(tmp_path):
    """A directory at its path is damage."""
    path = layout.manifest_path(layout.prefix(tmp_path, 100))
    path.mkdir()
    assert "Is a directory" in complaint(path)


@pytest.mark.parametrize("field", [*json.loads(MANIFEST.to_json())])
def test_a_manifest_that_lacks_a_field_is_refused(tmp_path, field):
    """No field has a default, nor has the hash."""
    record = json.loads(MANIFEST.to_json())
    del record[field]
    complaint(write(tmp_path, json.dumps(record).encode()))


@pytest.mark.parametrize("field", [*json.loads(MANIFEST.to_json())])
def test_a_manifest_in_which_a_field_has_changed_is_refused(tmp_path, field):
    """The hash covers every field."""
    record = json.loads(MANIFEST.to_json()) | {field: "another"}
    assert "its own sha256" in complaint(write(tmp_path, json.dumps(record).encode()))


def test_any_flipped_bit_is_found(tmp_path):
    """A manifest with a flipped bit is damaged or equal, never different."""
    content = MANIFEST.to_json()
    path = write(tmp_path, content)
    descriptor = os.open(path, os.O_WRONLY)
    harmless = []
    for position, byte in enumerate(content):
        for bit in range(8):
            os.pwrite(descriptor, bytes([byte ^ 1 << bit]), position)
            try:
                assert Manifest.read(path) == MANIFEST
                harmless.append(content[position : position + 1])
            except DamagedError:
                pass
        os.pwrite(descriptor, bytes([byte]), position)
    os.close(descriptor)
    assert set(harmless) == {b"d", b"e", b"f"}  # capital letters in 1e-05, \u00df and \u00f6


def test_a_truncated_manifest_is_refused(tmp_path):
    """Only the last newline may be missing."""
    content = MANIFEST.to_json()
    for length in range(len(content) - 1):
        complaint(write(tmp_path, content[:length]))


@pytest.mark.parametrize(("number", "absent"), [(2, ["retention", "environment"]), (3, ["environment"])])
def test_older_formats_are_read(tmp_path, number, absent):
    """Fields that they lack are None."""
    record = json.loads(resealed(format=number))
    for name in [*absent, "sha256"]:
        del record[name]
    sealed = record | {"sha256": manifest._sha256(record)}  # noqa: SLF001
    found = Manifest.read(write(tmp_path, json.dumps(sealed).encode()))
    assert (found.format, found.retention, found.environment, found.settings) == (number, None, None, MANIFEST.settings)


@pytest.mark.parametrize("found", [1, 5])
def test_another_format_is_not_damage(tmp_path, found):
    """Format 1, which had no hash, and later formats have an error of their own, with a hint."""
    record = json.loads(resealed(format=found))
    if found == 1:
        del record["sha256"]
    path = write(tmp_path, json.dumps(record).encode())
    with pytest.raises(CheckpointError) as refused:
        Manifest.read(path)
    assert not isinstance(refused.value, DamagedError)
    message = str(refused.value)
    assert message.startswith(f"{path}: expected format 4, got {found}")
    assert message.endswith(": another version wrote it")
    assert "--" not in (refused.value.hint or "--")


def test_a_later_format_needs_a_matching_hash(tmp_path):
    """A changed format number is damage."""
    record = json.loads(MANIFEST.to_json()) | {"format": 5}
    assert "its own sha256" in complaint(write(tmp_path, json.dumps(record).encode()))


@pytest.mark.parametrize("step", [900, 10, 100.5, "100", None])
def test_a_manifest_of_another_step_is_refused(tmp_path, step):
    """If the step differs from the file name's, the file was renamed."""
    assert re.search(r"step: expected (100|0 or a positive)", complaint(write(tmp_path, resealed(step=step))))


FILE = {"bytes": 5, "sha256": "00ff"}
INVALID = {
    "format": ["3", 3.0, True, None, [3]],
    "step": [True, 100.0, -1, 2**70],
    "files": [[], {"a": 1}, {"a": {"bytes": 1}}, {"/etc/passwd": FILE}, {"../a": FILE}, {"a/../../b": FILE}, {"": FILE}]
    + [{"a": FILE | {"bytes": bad}} for bad in (-1, True, 1.5, "1", None)],
    "state_digest": [7, None],
    "score": ["0.9", True],
    "settings": [[], None, "x"],
    "code": [7],
    "started_from": [7, {}],
    "saved_at": ["now", float("nan"), None, 10**400],
    "training_seconds": [float("nan"), -1, "1"],
    "versions": [[], {"python": 3}],
    "retention": [[], "5"],
    "environment": [[], "A=1", {"A": 1}, {"A": None}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in INVALID.items() for value in values])
def test_a_field_of_another_type_is_damage(tmp_path, field, value):
    """Also with a matching hash; the error names the field."""
    message = complaint(write(tmp_path, resealed(**{field: value})))
    assert "cannot be read as a manifest" in message
    assert field in message


ODD_NAMES = [
    "",
    "..",
    "/etc/passwd",
    "../a",
    "a/../../b",
    "a\0b",
    "\ud800",
    "x" * 256,
    "model.ckpt-99.index",
    "notes.txt",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_files_of_no_checkpoint_are_damage(tmp_path, name):
    """One of them alone, or together with a valid name."""
    for files in ({name: FILE}, {"model.ckpt-100.index": FILE, name: FILE}, {}):
        assert "files: expected" in complaint(write(tmp_path, resealed(files=files)))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_score_is_unknown(tmp_path, score):
    """Release 0.6.4 recorded such scores; the checkpoint is complete."""
    assert Manifest.read(write(tmp_path, resealed(score=score))).score is None


def test_a_much_later_format_is_not_damage(tmp_path):
    """A newer version may have written it."""
    with pytest.raises(CheckpointError, match="expected format 4, got 99") as refused:
        Manifest.read(write(tmp_path, resealed(format=99)))
    assert not isinstance(refused.value, DamagedError)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_a_deeply_nested_manifest_is_refused(tmp_path, depth):
    """It exhausts no stack."""
    assert "cannot be read as a manifest" in complaint(write(tmp_path, b'{"a":' * depth + b"1" + b"}" * depth))


def test_a_manifest_that_is_too_large_is_not_read(tmp_path):
    """A sparse file of a terabyte uses no memory."""
    path = write(tmp_path, MANIFEST.to_json())
    os.truncate(path, 10**12)
    assert "at most" in complaint(path)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES]
)
@pytest.mark.parametrize("read", [Manifest.read, lambda path: manifest.read_sealed(path, {})])
def test_a_manifest_that_cannot_be_read_now_is_not_damaged(tmp_path, monkeypatch, read, number):
    """A shortage or a network error says nothing about the bytes."""
    path = write(tmp_path, MANIFEST.to_json())

    def refuse(*_):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match=re.escape(os.strerror(number))) as refused:
        read(path)
    assert not isinstance(refused.value, DamagedError)
    assert str(path) in str(refused.value)


def test_the_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    """Not another one of the same checkpoint."""
    prefix = make_checkpoint(tmp_path, 7)
    found = Manifest.read(layout.manifest_path(prefix))
    real_open = os.open

    def refuse(path, *args):
        if str(path).endswith(".meta"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return real_open(path, *args)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match=r"model.ckpt-7.meta: cannot be read"):
        manifest.check_files(prefix, found)


def test_a_shortage_of_threads_is_not_damage(tmp_path, monkeypatch):
    """If no thread can be started to hash the files, they are not damaged."""
    prefix = make_checkpoint(tmp_path, 7)
    found = Manifest.read(layout.manifest_path(prefix))
    monkeypatch.setattr(manifest, "_WORTH_THREADS", 0)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(CheckpointError, match="can't start new thread") as refused:
        manifest.check_files(prefix, found)
    assert not isinstance(refused.value, DamagedError)


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_special_file_is_damage_and_is_not_read(tmp_path, put):
    """A FIFO is not waited for, and nothing is read from an endless device."""
    prefix = make_checkpoint(tmp_path, 7)
    found = Manifest.read(layout.manifest_path(prefix))
    layout.index_path(prefix).unlink()
    put(layout.index_path(prefix))
    with pytest.raises(DamagedError, match="got something other than a regular file"):
        manifest.check_files(prefix, found)


def test_an_unknown_field_is_damage(tmp_path):
    """Another program wrote it."""
    complaint(write(tmp_path, resealed(colour="blue")))


def test_files_are_described_by_size_and_sha256(tmp_path):
    """As by `ls -l` and `sha256sum`."""
    (tmp_path / "abc").write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest.describe_files([tmp_path / "abc"]) == {"abc": {"bytes": 3, "sha256": sha256}}


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_number_of_threads_does_not_change_the_result(tmp_path, threads):
    """Nor the order of the files."""
    paths = [tmp_path / f"{number}" for number in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode() * 1_000_000)
    described = manifest.describe_files(paths, threads)
    assert list(described) == [path.name for path in paths]
    assert described == {name: each for path in paths for name, each in manifest.describe_files([path]).items()}


def test_a_missing_file_cannot_be_described(tmp_path):
    """An error in a thread is raised by the call."""
    with pytest.raises(FileNotFoundError):
        manifest.describe_files([tmp_path / "absent"], 2)


@pytest.mark.parametrize("name", ["plain", "run[1]", "with spaces", "größe-数字"])
def test_a_complete_checkpoint_passes(tmp_path, name):
    """In any directory, and after it was moved."""
    make_checkpoint(tmp_path / "made", 100)
    prefix = layout.prefix((tmp_path / "made").rename(tmp_path / name), 100)
    manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))


@pytest.mark.parametrize("damage", checkpoints.DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_refused(tmp_path, kind, damage):
    """The error names the file, and what was expected and found."""
    prefix = make_checkpoint(tmp_path, 100)
    path = tmp_path / f"model.ckpt-100.{kind}"
    size = path.stat().st_size
    damage(path)
    with pytest.raises(DamagedError) as refused:
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))
    message = str(refused.value)
    assert message.startswith(f"{path.name}: ")
    assert f"{size:,} " in message or "its sha256 is not the manifest's" in message
    assert "\n" not in message


def test_other_files_do_not_damage_a_checkpoint(tmp_path):
    """Only the files in the manifest count."""
    prefix = make_checkpoint(tmp_path, 100)
    for name in ("model.ckpt-100.pinned", "model.ckpt-100.notes", "model.ckpt-100.incomplete"):
        (tmp_path / name).write_text("mine")
    manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))


def test_manifests_are_read_oldest_first(tmp_path):
    """Other files are no manifests."""
    for step in (100, 9, 10):
        make_checkpoint(tmp_path, step)
    (tmp_path / "model.ckpt-11.manifest.json.tmp").touch()
    (tmp_path / "model.ckpt-12.index").touch()
    readable, damaged = manifest.read_all(tmp_path)
    assert [each.step for each in readable] == [9, 10, 100]
    assert damaged == {}


def test_a_directory_without_checkpoints_has_no_manifests(tmp_path):
    """The result is empty."""
    assert manifest.read_all(tmp_path) == ([], {})


def test_a_damaged_manifest_hides_no_other(tmp_path):
    """It is returned with its error."""
    make_checkpoint(tmp_path, 50)
    make_checkpoint(tmp_path, 150)
    path = write(tmp_path, b"")
    readable, damaged = manifest.read_all(tmp_path)
    assert [each.step for each in readable] == [50, 150]
    assert list(damaged) == [100]
    assert str(damaged[100]).startswith(path.name)


def test_versions_are_those_installed():
    """Of Python, TensorFlow and NumPy."""
    assert manifest.versions() == {
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "numpy": importlib.metadata.version("numpy"),
    }


def test_a_manifest_deleted_meanwhile_is_not_damage(tmp_path, monkeypatch):
    """A manifest that vanishes between listing and reading is skipped."""
    make_checkpoint(tmp_path, 10)
    monkeypatch.setattr(layout, "steps_with", lambda *_: [10, 20])
    manifests, damaged = manifest.read_all(tmp_path)
    assert ([each.step for each in manifests], damaged) == ([10], {})


def test_a_file_that_is_deleted_between_two_calls_is_missing(tmp_path, monkeypatch):
    """This happens in the directory of a run that deletes old checkpoints."""
    prefix = make_checkpoint(tmp_path, 7)
    found = Manifest.read(layout.manifest_path(prefix))
    stat = type(prefix).stat

    def delete_first(path, **options):
        if path.parent == tmp_path:  # and no other: pytest calls this for source files, too
            path.unlink(missing_ok=True)
        return stat(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(type(prefix), "stat", delete_first)
        with pytest.raises(DamagedError, match="got no file"):
            manifest.check_sizes(prefix, found)
