import os
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format

from checkpointing.protocol import checkpoint_state


def test_every_byte_can_be_quoted():
    """A name may hold any character."""
    text = "".join(map(chr, range(1, 0x180))) + "\u2028\U0001f642"
    found = tf.compat.v1.train.generate_checkpoint_state_proto("/", "another")
    text_format.Merge(f"model_checkpoint_path: {checkpoint_state._quoted(text)}\n", found)  # noqa: SLF001
    assert found.model_checkpoint_path == text


@pytest.mark.parametrize("relative_paths", [True, False])
@pytest.mark.parametrize("name", ["run", "größe 数字", 'a"b\\c'])
def test_a_written_file_is_read(tmp_path, name, relative_paths):
    """By this package and by TensorFlow, in the same order."""
    directory = tmp_path / name
    directory.mkdir()
    prefixes = [directory / "model.ckpt-9", directory / "model.ckpt-10"]
    checkpoint_state.write(directory, [(prefix, 1.5) for prefix in prefixes], relative_paths=relative_paths)
    assert checkpoint_state.read(directory) == prefixes
    theirs = tf.train.get_checkpoint_state(str(directory))
    assert list(theirs.all_model_checkpoint_paths) == list(map(str, prefixes))


def test_a_file_of_tensorflow_is_read(tmp_path):
    """With relative paths, and characters that TensorFlow escapes in other ways."""
    names = ["a", "größe", "quote'\"", "back\\slash", "new\nline"]
    tf.compat.v1.train.update_checkpoint_state(str(tmp_path), names[-1], all_model_checkpoint_paths=names)
    assert checkpoint_state.read(tmp_path) == [tmp_path / name for name in names]


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 99, b"\xff\xfe", b'all_model_checkpoint_paths: "a', b"model_checkpoint_path: 1"]
)
def test_garbage_lists_nothing(tmp_path, content):
    """The state file is a cache; one that cannot be parsed is ignored."""
    (tmp_path / "checkpoint").write_bytes(content)
    assert checkpoint_state.read(tmp_path) == []


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_a_special_file_lists_nothing_and_is_moved(tmp_path, make):
    """It is not waited for, and no user's file is deleted."""
    make(tmp_path / "checkpoint")
    assert checkpoint_state.read(tmp_path) == []
    checkpoint_state.write(tmp_path, [(tmp_path / "model.ckpt-9", 1.5)], relative_paths=True)
    assert checkpoint_state.read(tmp_path) == [tmp_path / "model.ckpt-9"]
    assert os.path.lexists(tmp_path / "quarantine" / "checkpoint" / "checkpoint")


@pytest.mark.parametrize(
    "content",
    [
        'model_checkpoint_path: "m-2"\nall_model_checkpoint_paths: "m-1"\n',
        "# mine\n  model_checkpoint_path : 'm-2'  # was m-3",
        'all_model_checkpoint_paths: "model_checkpoint_path: m-9" model_checkpoint_path:"m-2"',
        'model_checkpoint_path: "m-1"\nmodel_checkpoint_path: "\\x6d\\055\\62"',
        '#model_checkpoint_path: "m-3"\nmodel_checkpoint_path: "m-2"',
    ],
)
def test_the_newest_is_read_as_users_write_it(tmp_path, content):
    """Comments, either quotes, spaces, several fields in a line: as TensorFlow's parser reads it."""
    (tmp_path / "checkpoint").write_text(content)
    assert checkpoint_state.read_newest(tmp_path) == "m-2"
    assert tf.train.get_checkpoint_state(str(tmp_path)).model_checkpoint_path == str(tmp_path / "m-2")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b'model_checkpoint_path: "a', b"model_checkpoint_path: 1", b'model_checkpoint_path: "\\0"'],
)
def test_a_file_without_a_newest_names_none(tmp_path, content):
    """So does a missing file."""
    assert checkpoint_state.read_newest(tmp_path) is None
    (tmp_path / "checkpoint").write_bytes(content)
    assert checkpoint_state.read_newest(tmp_path) is None
