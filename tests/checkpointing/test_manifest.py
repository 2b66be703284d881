import importlib.metadata
import json
import platform
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointing import layout, manifest
from checkpointing.errors import CheckpointError
from checkpointing.manifest import Manifest

KINDS = ["data-00000-of-00001", "index", "meta"]
MANIFEST = Manifest(
    step=100,
    files={"model.ckpt-100.index": {"bytes": 5, "sha256": "00ff"}},
    settings={"model": "counter", "learning_rate": 0.1, "note": "größe"},
    started_from=None,
    saved_at=1_700_000_000.25,
    training_seconds=12.5,
    versions={"python": "3.11"},
)


def make_checkpoint(directory, step):
    """A checkpoint of plain files; gives its prefix."""
    prefix = layout.prefix(directory, step)
    paths = [prefix.with_name(f"{prefix.name}.{kind}") for kind in KINDS]
    for path in paths:
        path.write_bytes(f"the content of {path.name}".encode())
    record = Manifest(**json.loads(MANIFEST.to_json()) | {"step": step, "files": manifest.describe_files(paths)})
    layout.manifest_path(prefix).write_bytes(record.to_json())
    return prefix


def write(directory, content):
    """A manifest of step 100 with this content."""
    path = layout.manifest_path(layout.prefix(directory, 100))
    path.write_bytes(content)
    return path


def complaint(path):
    """The one sentence with which a manifest is refused."""
    with pytest.raises(CheckpointError) as refused:
        Manifest.read(path)
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_a_manifest_comes_back_as_it_was(tmp_path):
    """What was written is what is read, to the last digit."""
    assert Manifest.read(write(tmp_path, MANIFEST.to_json())) == MANIFEST


def test_a_manifest_is_json_for_everybody(tmp_path):
    """Any program can read it: no letter but ASCII, an object whose format is told."""
    record = json.loads(write(tmp_path, MANIFEST.to_json()).read_text(encoding="ascii"))
    assert record["step"] == 100
    assert record["format"] == manifest.FORMAT


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 500, b"\xff\xfe", b"{}", b"[]", b"null", b"7", b'"text"', MANIFEST.to_json()[:-10], b"\n"],
    ids=["empty", "zeros", "no text", "no fields", "list", "null", "number", "string", "cut", "blank"],
)
def test_a_damaged_manifest_is_refused(tmp_path, content):
    """Whatever a power cut can leave of it is one sentence that says what to do."""
    sentence = complaint(write(tmp_path, content))
    assert "damaged" in sentence
    assert "model.ckpt-100.*" in sentence


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path):
    """A directory under its name is none."""
    path = layout.manifest_path(layout.prefix(tmp_path, 100))
    path.mkdir()
    assert "Is a directory" in complaint(path)


@pytest.mark.parametrize("field", ["step", "files", "settings", "started_from", "training_seconds", "versions"])
def test_a_manifest_that_lacks_a_field_is_refused(tmp_path, field):
    """No field is made up."""
    record = json.loads(MANIFEST.to_json())
    del record[field]
    assert field in complaint(write(tmp_path, json.dumps(record).encode()))


def test_a_manifest_of_another_version_is_refused(tmp_path):
    """A later format is told as such, not as damage."""
    record = json.loads(MANIFEST.to_json()) | {"format": 2}
    assert "format 2 found, 1 wanted" in complaint(write(tmp_path, json.dumps(record).encode()))


def read_or_refuse(path):
    """The manifest that comes out of a file, or the sentence with which it is refused."""
    try:
        return Manifest.read(path)
    except CheckpointError as error:
        return str(error)


@given(position=st.integers(0, len(MANIFEST.to_json()) - 1), bit=st.integers(0, 7))
@settings(deadline=None)
def test_a_flipped_bit_gives_no_other_error(tmp_path_factory, position, bit):
    """With any bit of it flipped, a manifest is read or refused in one sentence; nothing else can happen."""
    content = bytearray(MANIFEST.to_json())
    content[position] ^= 1 << bit
    path = write(tmp_path_factory.getbasetemp(), content)
    outcome = read_or_refuse(path)
    assert isinstance(outcome, Manifest) or outcome.startswith(f"{path}: ")


@pytest.mark.parametrize("step", [900, 10, 100.5])
def test_a_manifest_of_another_step_is_refused(tmp_path, step):
    """The step inside and the step in the name are the same, or one bit is wrong and whole checkpoints are at stake."""
    record = json.loads(MANIFEST.to_json()) | {"step": step}
    write(tmp_path, json.dumps(record).encode())
    with pytest.raises(CheckpointError, match=r"model\.ckpt-100\.manifest\.json"):
        manifest.read_all(tmp_path)


def test_files_are_described_by_size_and_digest(tmp_path):
    """As `ls -l` and `sha256sum` tell them."""
    (tmp_path / "abc").write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest.describe_files([tmp_path / "abc"]) == {"abc": {"bytes": 3, "sha256": sha256}}


@pytest.mark.parametrize("name", ["plain", "run[1]", "with spaces", "größe-数字"])
def test_a_whole_checkpoint_passes(tmp_path, name):
    """Wherever it lies, and also after it was moved, a checkpoint whose bytes are as they were is whole."""
    (tmp_path / "made").mkdir()
    make_checkpoint(tmp_path / "made", 100)
    prefix = layout.prefix((tmp_path / "made").rename(tmp_path / name), 100)
    manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))


def flip_a_bit(path):
    """Damages the content."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    """Breaks the file off."""
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    """Adds to it what TensorFlow would not notice."""
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    """Leaves a name without content, as a power cut does."""
    path.write_bytes(b"")


def turn_into_directory(path):
    """Puts a directory in its place."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, lengthen, empty, Path.unlink, turn_into_directory])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_refused(tmp_path, kind, damage):
    """Whichever of its files is not what it was is named, with what was found, what was wanted and what to do."""
    prefix = make_checkpoint(tmp_path, 100)
    path = tmp_path / f"model.ckpt-100.{kind}"
    damage(path)
    with pytest.raises(CheckpointError) as refused:
        manifest.check_files(prefix, Manifest.read(layout.manifest_path(prefix)))
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}: ")
    assert "found" in sentence
    assert "wanted" in sentence
    assert "model.ckpt-100.*" in sentence
    assert "\n" not in sentence


def test_checkpoints_are_read_oldest_first(tmp_path):
    """All manifests of a directory come in order of steps, and nothing else is taken for one."""
    for step in (100, 9, 10):
        make_checkpoint(tmp_path, step)
    (tmp_path / "model.ckpt-11.manifest.json.tmp").touch()
    (tmp_path / "model.ckpt-12.index").touch()
    assert [each.step for each in manifest.read_all(tmp_path)] == [9, 10, 100]


def test_a_directory_without_checkpoints_has_no_manifests(tmp_path):
    """There may be none."""
    assert manifest.read_all(tmp_path) == []


def test_one_damaged_manifest_is_not_passed_over(tmp_path):
    """A damaged manifest among whole ones is an error: no checkpoint is forgotten in silence."""
    make_checkpoint(tmp_path, 50)
    write(tmp_path, b"")
    with pytest.raises(CheckpointError, match="damaged"):
        manifest.read_all(tmp_path)


def test_the_versions_are_those_that_compute():
    """Python, TensorFlow and NumPy are told as they are installed."""
    assert manifest.versions() == {
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "numpy": importlib.metadata.version("numpy"),
    }
