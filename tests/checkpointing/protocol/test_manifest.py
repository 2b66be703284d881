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
    """A manifest of step 100 with this content."""
    path = layout.manifest_path(layout.prefix(directory, 100))
    path.write_bytes(content)
    return path


def resealed(**fields):
    """The bytes of a manifest with other fields, as whoever wrote it with these would have written it."""
    record = json.loads(MANIFEST.to_json()) | fields
    record.pop("sha256")
    return json.dumps(record | {"sha256": manifest._sha256(record)}).encode()  # noqa: SLF001


def complaint(path):
    """What is wrong with a damaged manifest: the beginning of a sentence, for whoever knows what is done about it."""
    with pytest.raises(DamagedError) as refused:
        Manifest.read(path)
    told = str(refused.value)
    assert told.startswith(f"{path.name}: ")
    assert "\n" not in told
    return told


def test_a_manifest_comes_back_as_it_was(tmp_path):
    """What was written is what is read, to the last digit."""
    assert Manifest.read(write(tmp_path, MANIFEST.to_json())) == MANIFEST


def test_a_manifest_is_json_for_everybody(tmp_path):
    """Any program can read it: no letter but ASCII, an object whose format is told."""
    record = json.loads(write(tmp_path, MANIFEST.to_json()).read_text(encoding="ascii"))
    assert record["step"] == 100
    assert record["format"] == manifest.FORMAT == 4


@pytest.mark.parametrize("rewrite", [json.dumps, lambda record: json.dumps(record, indent=7, sort_keys=True)])
def test_what_counts_is_what_a_manifest_says(tmp_path, rewrite):
    """Written anew by another program, with other spaces and in another order, it is the same."""
    content = rewrite(json.loads(MANIFEST.to_json())).encode()
    assert content != MANIFEST.to_json()
    assert Manifest.read(write(tmp_path, content)) == MANIFEST


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 500, b"\xff\xfe", b"{}", b"[]", b"null", b"7", b'"text"', MANIFEST.to_json()[:-10], b"\n", b"{" * 9],
    ids=["empty", "zeros", "no text", "no fields", "list", "null", "number", "string", "cut", "blank", "braces"],
)
def test_a_damaged_manifest_is_refused(tmp_path, content):
    """Whatever a power cut can leave of it is damage."""
    assert "cannot be read as a manifest" in complaint(write(tmp_path, content))


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path):
    """A directory under its name is none."""
    path = layout.manifest_path(layout.prefix(tmp_path, 100))
    path.mkdir()
    assert "Is a directory" in complaint(path)


@pytest.mark.parametrize("field", [*json.loads(MANIFEST.to_json())])
def test_a_manifest_that_lacks_a_field_is_refused(tmp_path, field):
    """No field is made up; nor is the hash that protects them."""
    record = json.loads(MANIFEST.to_json())
    del record[field]
    complaint(write(tmp_path, json.dumps(record).encode()))


@pytest.mark.parametrize("field", [*json.loads(MANIFEST.to_json())])
def test_a_manifest_in_which_a_field_has_changed_is_refused(tmp_path, field):
    """Whatever it says, it says with its hash."""
    record = json.loads(MANIFEST.to_json()) | {field: "another"}
    assert "its own sha256" in complaint(write(tmp_path, json.dumps(record).encode()))


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    """With any bit of it flipped, a manifest is damaged, or says what it said: never anything else."""
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


def test_a_manifest_cut_anywhere_is_refused(tmp_path):
    """Only the line's end may be missing."""
    content = MANIFEST.to_json()
    for length in range(len(content) - 1):
        complaint(write(tmp_path, content[:length]))


@pytest.mark.parametrize(("number", "absent"), [(2, ["retention", "environment"]), (3, ["environment"])])
def test_the_formats_before_are_read(tmp_path, number, absent):
    """What they did not record is None; all else is as now."""
    record = json.loads(resealed(format=number))
    for name in [*absent, "sha256"]:
        del record[name]
    sealed = record | {"sha256": manifest._sha256(record)}  # noqa: SLF001
    found = Manifest.read(write(tmp_path, json.dumps(sealed).encode()))
    assert (found.format, found.retention, found.environment, found.settings) == (number, None, None, MANIFEST.settings)


@pytest.mark.parametrize("found", [1, 5])
def test_a_manifest_of_another_version_is_no_damage(tmp_path, found):
    """The one of format 1, which had no hash, and one of a later format are told as such, with what to do."""
    record = json.loads(resealed(format=found))
    if found == 1:
        del record["sha256"]
    path = write(tmp_path, json.dumps(record).encode())
    with pytest.raises(CheckpointError) as refused:
        Manifest.read(path)
    assert not isinstance(refused.value, DamagedError)
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}: format {found} found, 4 wanted")
    assert sentence.endswith(f"--restore_from={layout.prefix(tmp_path, 100)}.")


def test_a_later_format_is_believed_only_with_its_hash(tmp_path):
    """A number that has changed is damage."""
    record = json.loads(MANIFEST.to_json()) | {"format": 5}
    assert "its own sha256" in complaint(write(tmp_path, json.dumps(record).encode()))


@pytest.mark.parametrize("step", [900, 10, 100.5, "100", None])
def test_a_manifest_of_another_step_is_refused(tmp_path, step):
    """The step inside and the step in the name are the same, or somebody has renamed it."""
    assert re.search(r"step: expected (100|0 or a positive)", complaint(write(tmp_path, resealed(step=step))))


FILE = {"bytes": 5, "sha256": "00ff"}
NOT_SOUND = {
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


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in NOT_SOUND.items() for value in values]
)
def test_a_field_of_another_kind_is_damage_though_the_hash_is_right(tmp_path, field, value):
    """A program that seals nonsense gets a sentence that names the field, never an exception of Python's."""
    sentence = complaint(write(tmp_path, resealed(**{field: value})))
    assert "cannot be read as a manifest" in sentence
    assert field in sentence


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
def test_names_that_no_checkpoint_has_are_damage(tmp_path, name):
    """One of them alone, or beside those that a checkpoint has."""
    for files in ({name: FILE}, {"model.ckpt-100.index": FILE, name: FILE}, {}):
        assert "files: expected" in complaint(write(tmp_path, resealed(files=files)))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_without_an_order_is_unknown(tmp_path, score):
    """Release 0.6.4 recorded what it was given; the checkpoint is as good as any."""
    assert Manifest.read(write(tmp_path, resealed(score=score))).score is None


def test_another_formats_number_is_not_damage(tmp_path):
    """A newer version may have written it."""
    with pytest.raises(CheckpointError, match="format 99 found") as refused:
        Manifest.read(write(tmp_path, resealed(format=99)))
    assert not isinstance(refused.value, DamagedError)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_a_deeply_nested_manifest_is_refused(tmp_path, depth):
    """It exhausts nothing."""
    assert "cannot be read as a manifest" in complaint(write(tmp_path, b'{"a":' * depth + b"1" + b"}" * depth))


def test_a_manifest_larger_than_any_is_not_read(tmp_path):
    """A sparse file of a terabyte takes no memory."""
    path = write(tmp_path, MANIFEST.to_json())
    os.truncate(path, 10**12)
    assert "at most" in complaint(path)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES]
)
@pytest.mark.parametrize("read", [Manifest.read, lambda path: manifest.read_sealed(path, {})])
def test_what_cannot_be_read_just_now_is_not_damage(tmp_path, monkeypatch, read, number):
    """A shortage or the network says nothing about the bytes."""
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
    really_open = os.open

    def refuse(path, *args):
        if str(path).endswith(".meta"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return really_open(path, *args)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match=r"model.ckpt-7.meta: cannot be read"):
        manifest.check_files(prefix, found)


def test_without_a_thread_to_be_had_nothing_is_damaged(tmp_path, monkeypatch):
    """Files that are hashed in several threads are as they were where no thread can be started."""
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
def test_what_is_no_file_is_damage_and_is_not_read(tmp_path, put):
    """A FIFO in a data file's place is not waited for, and of an endless device nothing is read."""
    prefix = make_checkpoint(tmp_path, 7)
    found = Manifest.read(layout.manifest_path(prefix))
    layout.index_path(prefix).unlink()
    put(layout.index_path(prefix))
    with pytest.raises(DamagedError, match="no file found"):
        manifest.check_files(prefix, found)


def test_a_manifest_with_a_field_that_nobody_knows_is_refused(tmp_path):
    """It was written by something else."""
    complaint(write(tmp_path, resealed(colour="blue")))


def test_files_are_described_by_size_and_digest(tmp_path):
    """As `ls -l` and `sha256sum` tell them."""
    (tmp_path / "abc").write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest.describe_files([tmp_path / "abc"]) == {"abc": {"bytes": 3, "sha256": sha256}}


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_files_hashed_side_by_side_are_described_the_same(tmp_path, threads):
    """How many threads hash them shows nowhere, not even in their order."""
    paths = [tmp_path / f"{number}" for number in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode() * 1_000_000)
    described = manifest.describe_files(paths, threads)
    assert list(described) == [path.name for path in paths]
    assert described == {name: each for path in paths for name, each in manifest.describe_files([path]).items()}


def test_a_file_that_is_gone_cannot_be_described(tmp_path):
    """Also where a thread misses it, whoever asked hears of it."""
    with pytest.raises(FileNotFoundError):
        manifest.describe_files([tmp_path / "absent"], 2)


@pytest.mark.parametrize("name", ["plain", "run[1]", "with spaces", "größe-数字"])
def test_a_whole_checkpoint_passes(tmp_path, name):
    """Wherever it lies, and also after it was moved, a checkpoint whose bytes are as they were is whole."""
    make_checkpoint(tmp_path / "made", 100)
    prefix = layout.prefix((tmp_path / "made").rename(tmp_path / name), 100)
    manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))


@pytest.mark.parametrize("damage", checkpoints.DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_refused(tmp_path, kind, damage):
    """Whichever of its files is not what it was is named, with what was found and what was wanted."""
    prefix = make_checkpoint(tmp_path, 100)
    path = tmp_path / f"model.ckpt-100.{kind}"
    size = path.stat().st_size
    damage(path)
    with pytest.raises(DamagedError) as refused:
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))
    told = str(refused.value)
    assert told.startswith(f"{path.name}: ")
    assert f"{size:,} " in told or "its sha256 is not the one in the manifest" in told
    assert "\n" not in told


def test_other_files_beside_a_checkpoint_do_not_damage_it(tmp_path):
    """A pin, a note, a mark: what the manifest does not list does not count."""
    prefix = make_checkpoint(tmp_path, 100)
    for name in ("model.ckpt-100.pinned", "model.ckpt-100.notes", "model.ckpt-100.incomplete"):
        (tmp_path / name).write_text("mine")
    manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))


def test_checkpoints_are_read_oldest_first(tmp_path):
    """All manifests of a directory come in order of steps, and nothing else is taken for one."""
    for step in (100, 9, 10):
        make_checkpoint(tmp_path, step)
    (tmp_path / "model.ckpt-11.manifest.json.tmp").touch()
    (tmp_path / "model.ckpt-12.index").touch()
    readable, damaged = manifest.read_all(tmp_path)
    assert [each.step for each in readable] == [9, 10, 100]
    assert damaged == {}


def test_a_directory_without_checkpoints_has_no_manifests(tmp_path):
    """There may be none."""
    assert manifest.read_all(tmp_path) == ([], {})


def test_one_damaged_manifest_is_not_passed_over(tmp_path):
    """A damaged manifest among whole ones hides none of them, and is told with what is wrong."""
    make_checkpoint(tmp_path, 50)
    make_checkpoint(tmp_path, 150)
    path = write(tmp_path, b"")
    readable, damaged = manifest.read_all(tmp_path)
    assert [each.step for each in readable] == [50, 150]
    assert list(damaged) == [100]
    assert str(damaged[100]).startswith(path.name)


def test_the_versions_are_those_that_compute():
    """Python, TensorFlow and NumPy are told as they are installed."""
    assert manifest.versions() == {
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "numpy": importlib.metadata.version("numpy"),
    }


def test_what_is_deleted_meanwhile_is_no_damage(tmp_path, monkeypatch):
    """A directory that vanishes between listing and reading holds nothing, and nothing to set aside."""
    make_checkpoint(tmp_path, 10)
    monkeypatch.setattr(layout, "steps_with", lambda *_: [10, 20])
    manifests, damaged = manifest.read_all(tmp_path)
    assert ([each.step for each in manifests], damaged) == ([10], {})


def test_a_file_that_goes_while_it_is_looked_at_is_missing(tmp_path, monkeypatch):
    """Whoever lists the directory of a run that deletes old checkpoints meets it."""
    prefix = make_checkpoint(tmp_path, 7)
    found = Manifest.read(layout.manifest_path(prefix))
    stat = type(prefix).stat

    def gone_at_once(path, **options):
        path.unlink(missing_ok=True)
        return stat(path, **options)

    monkeypatch.setattr(type(prefix), "stat", gone_at_once)
    with pytest.raises(DamagedError, match="nothing found"):
        manifest.check_sizes(prefix, found)
