"""Every file of a checkpoint, damaged in every way: the run goes on from the one before, never from wrong weights."""

import random
import shutil
from collections.abc import Callable, Iterator
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

# A memory disk, for thousands of damaged copies; any other does as well.
SHM = Path("/dev/shm")  # noqa: S108 - only the parent of directories made with mkdtemp


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the copies go."""
    directory = tmp_path_factory.mktemp("damage")
    if SHM.is_dir():
        directory = SHM / directory.parent.name / directory.name
        directory.mkdir(parents=True)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def trained(scratch: Path, small_data: Path) -> Path:
    """The train_dir of a real run with three checkpoints."""
    flags = [f"--data_dir={small_data}", "--validation_size=200", "--train_steps=60", "--save_every_steps=20"]
    programs.train("softmax", scratch / "trained", *flags, "--evaluate_every_steps=20")
    assert layout.steps_with(scratch / "trained", "manifest.json") == list(STEPS)
    return scratch / "trained"


def file_of(directory: Path, step: int, kind: str) -> Path:
    """One file of a checkpoint."""
    return directory / f"model.ckpt-{step}.{kind}"


def after(trained: Path, damage: Callable[[Path], None]) -> tuple[int | None, bool]:
    """Damages a copy; gives the step that a run would go on from, and whether the newest went to quarantine.

    Whatever it goes on from has been looked at again here, byte by byte, in the undamaged original.
    """
    copy = trained.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("saved_model"))
    damage(copy)
    settings = Manifest.read(file_of(trained, 20, "manifest.json")).settings
    try:
        start = resume.open_train_dir(copy, settings)
    except CheckpointError:
        return None, False
    start.close()
    assert start.newest is not None, "never a fresh start"
    step = start.newest.step
    for kind in KINDS:
        # The manifest may be spelled otherwise, if it says the same.
        one, other = file_of(copy, step, kind), file_of(trained, step, kind)
        same = Manifest.read(one) == Manifest.read(other) if kind == "manifest.json" else False
        assert same or one.read_bytes() == other.read_bytes()
    return step, layout.quarantine_path(copy).joinpath("model.ckpt-60", layout.REASON).exists()


FALLS_BACK = (40, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_off_anywhere_is_found_out(trained, kind):
    """At nothing, at every 4 KB, and one byte short."""
    size = file_of(trained, 60, kind).stat().st_size
    for length in (*range(0, size, PAGE), size - 1):
        content = file_of(trained, 60, kind).read_bytes()[:length]
        found = after(trained, lambda copy, content=content: file_of(copy, 60, kind).write_bytes(content))
        # Without its final newline a manifest says the same.
        assert found == FALLS_BACK or (kind == "manifest.json" and length == size - 1)


def flip(path: Path, bit: int) -> None:
    """Turns one bit round."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def check_flips(trained: Path, kind: str, count: int) -> None:
    """One flipped bit at a time, in so many places."""
    bits = file_of(trained, 60, kind).stat().st_size * 8
    places = random.Random(kind).sample(range(bits), min(count, bits))  # noqa: S311 - places, no secrets
    for bit in places:
        found = after(trained, lambda copy, bit=bit: flip(file_of(copy, 60, kind), bit))
        assert found == FALLS_BACK, f"bit {bit} of {kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found_out(trained, kind):
    """In a hundred places of each file."""
    check_flips(trained, kind, 100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_flipped_in_each_of_a_thousand_places_is_found_out(trained, kind):
    """In a thousand places of each file."""
    check_flips(trained, kind, 1000)


def swap(one: Path, other: Path) -> None:
    """Puts each in the other's place."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [20, 40])
def test_files_swapped_between_steps_are_found_out(trained, kind, other):
    """Both checkpoints are damaged then; the third is taken. A graph's file is the same in all, so nothing is wrong."""

    def damage(copy: Path) -> None:
        swap(file_of(copy, 60, kind), file_of(copy, other, kind))

    same = file_of(trained, 60, kind).read_bytes() == file_of(trained, other, kind).read_bytes()
    assert after(trained, damage) == ((60, False) if same else ({20: 40, 40: 20}[other], True))
    assert same == (kind == "meta")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_zeros_is_found_out(trained, kind):
    """As a power cut leaves on some disks: the right length, and nothing in it."""

    def damage(copy: Path) -> None:
        path = file_of(copy, 60, kind)
        path.write_bytes(bytes(path.stat().st_size))

    assert after(trained, damage) == FALLS_BACK


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_file", [True, False])
def test_a_directory_in_a_files_place_is_found_out(trained, kind, with_file):
    """It goes to quarantine with all that is in it."""

    def damage(copy: Path) -> None:
        path = file_of(copy, 60, kind)
        path.unlink()
        path.mkdir()
        if with_file:
            (path / "mine").write_text("not to be lost")

    assert after(trained, damage) == FALLS_BACK
    kept = list(layout.quarantine_path(trained.parent / "copy").glob("*/*/mine"))
    assert len(kept) == with_file


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_found_out(trained, kind):
    """Whichever it is, the manifest included."""
    assert after(trained, lambda copy: file_of(copy, 60, kind).unlink()) == FALLS_BACK


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 500, b"garbage", b"\xff\xfe", b'model_checkpoint_path: "../../elsewhere/model.ckpt-9"']
)
def test_tensorflows_state_file_is_not_believed(trained, content):
    """Whatever it says, the manifests say where to go on."""
    assert after(trained, lambda copy: (copy / layout.STATE_FILE).write_bytes(content)) == (60, False)


@pytest.mark.parametrize("kind", KINDS)
def test_only_damaged_checkpoints_are_an_error_and_stay(trained, kind):
    """Nothing is moved or deleted, and the second try gives the same error."""

    def damage(copy: Path) -> None:
        for step in STEPS:
            file_of(copy, step, kind).write_bytes(b"damaged")

    assert after(trained, damage) == (None, False)
    copy = trained.parent / "copy"
    assert all(file_of(copy, step, kind).read_bytes() == b"damaged" for step in STEPS)
    assert not layout.quarantine_path(copy).exists()
    with pytest.raises(CheckpointError, match=r"only damaged checkpoints found .*: they stay where they are"):
        resume.open_train_dir(copy, {})


def restored(train_dir: Path, settings: dict[str, object]) -> np.ndarray:
    """The weights that a run would go on with."""
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
def test_the_weights_are_those_of_the_step_before(trained, kind):
    """TensorFlow restores just what the undamaged checkpoint holds."""
    after(trained, lambda copy: flip(file_of(copy, 60, kind), 801))
    settings = Manifest.read(file_of(trained, 20, "manifest.json")).settings
    wanted = tf.train.load_checkpoint(str(layout.prefix(trained, 40))).get_tensor("layer1/weights")
    assert np.array_equal(restored(trained.parent / "copy", settings), wanted)
    manifest.check_files(layout.prefix(trained, 60), Manifest.read(file_of(trained, 60, "manifest.json")))
