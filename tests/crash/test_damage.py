"""Whichever file of a checkpoint is damaged, a run resumes from the checkpoint before it, never from wrong weights."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from checkpointing.errors import CheckpointError
from checkpointing.protocol import manifest, resume
from checkpointing.protocol.manager import CheckpointManager
from checkpointing.protocol.manifest import Manifest
from checkpointing.storage import layout
from tests import programs

KINDS = ("data-00000-of-00001", "index", "meta", "manifest.json")
STEPS = (20, 40, 60)
PAGE = 4096


@pytest.fixture(scope="module")
def trained(memory_disk: Path, small_data: Path) -> Path:
    """The train_dir of a run with three checkpoints."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=60", "--save_every_steps=20"]
    programs.train("softmax", memory_disk / "trained", *flags, "--evaluate_every_steps=20")
    assert layout.steps_with(memory_disk / "trained", "manifest.json") == list(STEPS)
    return memory_disk / "trained"


def file_of(directory: Path, step: int, kind: str) -> Path:
    """Return the path of a file of a checkpoint."""
    return directory / f"model.ckpt-{step}.{kind}"


def copy_of(trained: Path) -> Path:
    """Return the path of the copy that `resume_after` makes."""
    return trained.with_name("copy")


def resume_after(trained: Path, damage: Callable[[Path], None]) -> tuple[int | None, bool]:
    """Damage a copy; return the step that a run resumes from, and whether step 60 was moved to quarantine.

    The step is None if opening the copy raises CheckpointError. The files of that step must be those of the original,
    byte for byte.
    """
    copy = copy_of(trained)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("saved_model"))
    damage(copy)
    settings = Manifest.read(file_of(trained, 20, "manifest.json")).settings
    try:
        start = resume.open_train_dir(copy, settings)
    except CheckpointError:
        return None, False
    start.close()
    assert start.newest is not None, "expected a checkpoint, got a fresh start"
    step = start.newest.step
    for kind in KINDS:
        assert_same(file_of(copy, step, kind), file_of(trained, step, kind))
    return step, layout.quarantine_path(copy).joinpath("model.ckpt-60", layout.REASON).exists()


def assert_same(one: Path, other: Path) -> None:
    """Files are equal; manifests have equal fields, because a missing final newline is no damage."""
    if one.suffix == ".json":
        assert Manifest.read(one) == Manifest.read(other)
    else:
        assert one.read_bytes() == other.read_bytes()


FALLS_BACK = (40, True)  # step 40; step 60 is in quarantine
UNDAMAGED = (60, False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_found(trained, kind):
    """Cut to 0 bytes, to each multiple of 4 KB, or by one byte."""
    size = file_of(trained, 60, kind).stat().st_size
    for length in (*range(0, size, PAGE), size - 1):
        content = file_of(trained, 60, kind).read_bytes()[:length]
        found = resume_after(trained, lambda copy, content=content: file_of(copy, 60, kind).write_bytes(content))
        # A missing final newline is no damage to a manifest.
        assert found == FALLS_BACK or (kind == "manifest.json" and length == size - 1)


def flip(path: Path, bit: int) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def check_flips(trained: Path, kind: str, count: int) -> None:
    """Flip `count` random bits of a file, one at a time; each is found, unless the manifest has the same meaning.

    The 17th digit of a number in it can change without another double (`resume_after` compares the fields).
    """
    bits = file_of(trained, 60, kind).stat().st_size * 8
    places = random.Random(kind).sample(range(bits), min(count, bits))  # noqa: S311 - places, no secrets
    for bit in places:
        found = resume_after(trained, lambda copy, bit=bit: flip(file_of(copy, 60, kind), bit))
        assert found == FALLS_BACK or (kind == "manifest.json" and found == UNDAMAGED), f"bit {bit} of {kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found(trained, kind):
    """100 random bits of each file."""
    check_flips(trained, kind, 100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_flipped_bits_are_found(trained, kind):
    """1,000 random bits of each file."""
    check_flips(trained, kind, 1000)


def swap(one: Path, other: Path) -> None:
    """Swap the contents of two files."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [20, 40])
def test_files_swapped_between_steps_are_found(trained, kind, other):
    """Both checkpoints are damaged, and the run resumes from the third. The `.meta` files are equal: no damage."""

    def damage(copy: Path) -> None:
        swap(file_of(copy, 60, kind), file_of(copy, other, kind))

    same = file_of(trained, 60, kind).read_bytes() == file_of(trained, other, kind).read_bytes()
    assert resume_after(trained, damage) == ((60, False) if same else ({20: 40, 40: 20}[other], True))
    assert same == (kind == "meta")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_zeros_is_found(trained, kind):
    """Some file systems leave zeros, in the right length, after a power cut."""

    def damage(copy: Path) -> None:
        path = file_of(copy, 60, kind)
        path.write_bytes(bytes(path.stat().st_size))

    assert resume_after(trained, damage) == FALLS_BACK


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_file", [True, False])
def test_a_directory_in_place_of_a_file_is_found(trained, kind, with_file):
    """The directory is moved to quarantine with its content."""

    def damage(copy: Path) -> None:
        path = file_of(copy, 60, kind)
        path.unlink()
        path.mkdir()
        if with_file:
            (path / "mine").write_text("must be kept")

    assert resume_after(trained, damage) == FALLS_BACK
    kept = list(layout.quarantine_path(copy_of(trained)).glob("*/*/mine"))
    assert len(kept) == with_file


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_found(trained, kind):
    """Any file, including the manifest."""
    assert resume_after(trained, lambda copy: file_of(copy, 60, kind).unlink()) == FALLS_BACK


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 500, b"garbage", b"\xff\xfe", b'model_checkpoint_path: "../../elsewhere/model.ckpt-9"']
)
def test_the_state_file_does_not_decide(trained, content):
    """A run resumes from the newest complete manifest, with any content of TensorFlow's state file."""
    assert resume_after(trained, lambda copy: (copy / layout.STATE_FILE).write_bytes(content)) == (60, False)


@pytest.mark.parametrize("kind", KINDS)
def test_only_damaged_checkpoints_raise_and_stay(trained, kind):
    """Nothing is moved or deleted, and the second attempt raises the same error."""

    def damage(copy: Path) -> None:
        for step in STEPS:
            file_of(copy, step, kind).write_bytes(b"damaged")

    assert resume_after(trained, damage) == (None, False)
    copy = copy_of(trained)
    assert all(file_of(copy, step, kind).read_bytes() == b"damaged" for step in STEPS)
    assert not layout.quarantine_path(copy).exists()
    with pytest.raises(CheckpointError, match=r"(?m)only damaged checkpoints found \(.*\); they stay where they are$"):
        resume.open_train_dir(copy, {})


def restored(train_dir: Path, settings: dict[str, object]) -> np.ndarray:
    """Return the weights after a restore."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        reader = tf.train.load_checkpoint(str(layout.prefix(train_dir, 40)))
        shapes = reader.get_variable_to_shape_map()
        zeros = tf.compat.v1.zeros_initializer()
        variables = {
            name: tf.compat.v1.get_variable(
                name, shapes[name], tf.int64 if name == "global_step" else tf.float32, initializer=zeros
            )
            for name in sorted(shapes)
        }
        start = resume.open_train_dir(train_dir, settings)
        with CheckpointManager(
            graph, start, variables=list(variables.values()), step=variables["global_step"]
        ) as manager:
            manager.restore(session)
            return np.asarray(session.run(variables["layer1/weights"]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_restored_weights_are_those_of_the_step_before(trained, kind):
    """The session's weights are those of the checkpoint before the damaged one, bit for bit."""
    resume_after(trained, lambda copy: flip(file_of(copy, 60, kind), 801))
    settings = Manifest.read(file_of(trained, 20, "manifest.json")).settings
    expected = tf.train.load_checkpoint(str(layout.prefix(trained, 40))).get_tensor("layer1/weights")
    assert np.array_equal(restored(copy_of(trained), settings), expected)
    manifest.check_files(layout.prefix(trained, 60), Manifest.read(file_of(trained, 60, "manifest.json")))
