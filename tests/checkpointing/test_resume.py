import logging
from pathlib import Path

import pytest

from checkpointing import layout, manifest, resume
from checkpointing.errors import CheckpointError
from checkpointing.fingerprint import file_sha256
from checkpointing.manifest import Manifest
from checkpointing.resume import Start

SETTINGS = {"model": "counter", "seed": 0, "learning_rate": 0.1, "train_steps": 100}
KINDS = ["data-00000-of-00001", "index", "meta"]
AWKWARD = ["plain", "run[1]", "with spaces", "größe-数字", "star*?", "model.ckpt-7"]


def make_files(directory, step, kinds=KINDS, content="this run's"):
    """Files of a checkpoint, without a manifest; gives its prefix."""
    directory.mkdir(parents=True, exist_ok=True)
    prefix = layout.prefix(directory, step)
    for kind in kinds:
        prefix.with_name(f"{prefix.name}.{kind}").write_text(f"{content} {kind} at step {step}")
    return prefix


def make_checkpoint(directory, step, *, settings=None, started_from=None, versions=None, content="this run's"):
    """A whole checkpoint of plain files; gives its prefix."""
    prefix = make_files(directory, step, content=content)
    record = Manifest(
        step=step,
        files=manifest.describe_files(layout.files_of(prefix)),
        settings=settings or SETTINGS,
        started_from=started_from,
        saved_at=1_700_000_000.0,
        training_seconds=float(step),
        versions=versions or manifest.versions(),
    )
    layout.manifest_path(prefix).write_bytes(record.to_json())
    return prefix


def mark(prefix):
    """Leaves a checkpoint marked as unfinished."""
    layout.incomplete_path(prefix).touch()
    return prefix


def find_start(directory, *, restore_from=None, **settings):
    """Where a run with these settings goes on."""
    return resume.find_start(directory, SETTINGS | settings, restore_from=restore_from, may_grow=("train_steps",))


def complaint(directory, **options):
    """The one sentence with which a train_dir is refused; nothing in it has changed."""
    before = tree(directory)
    with pytest.raises(CheckpointError) as refused:
        find_start(directory, **options)
    sentence = str(refused.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert tree(directory) == before
    return sentence


def tree(directory):
    """All files below a directory, by name."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", AWKWARD)
def test_a_new_train_dir_starts_from_the_beginning(tmp_path, name):
    """It is made with its parents, whatever its name; again it starts there, for nothing was saved."""
    directory = tmp_path / name / "cnn"
    for _ in range(2):
        assert find_start(directory) == Start(None, None, None)
        assert directory.is_dir()


@pytest.mark.parametrize("name", AWKWARD)
def test_the_newest_checkpoint_is_where_a_run_goes_on(tmp_path, name):
    """Newest by its step, not by its name or its age, and whatever the train_dir is called."""
    directory = tmp_path / name
    for step in (100, 20, 9):
        make_checkpoint(directory, step)
    start = find_start(directory)
    assert start.prefix == layout.prefix(directory, 100)
    assert start.newest.step == 100
    assert start.newest.settings == SETTINGS


def test_other_files_in_a_train_dir_do_not_matter(tmp_path):
    """State file, metrics, results, notes: none decides where a run goes on, and none is touched."""
    make_checkpoint(tmp_path, 50)
    for name in ("checkpoint", "metrics.jsonl", "result.json", "notes.txt", "model.ckpt-60.txt"):
        (tmp_path / name).write_text("garbage that names model.ckpt-999")
    before = tree(tmp_path)
    assert find_start(tmp_path).prefix == layout.prefix(tmp_path, 50)
    assert tree(tmp_path) == before


def test_a_relative_train_dir_will_do(tmp_path, monkeypatch):
    """A path without a beginning is one below the current directory."""
    make_checkpoint(tmp_path / "runs", 50)
    monkeypatch.chdir(tmp_path)
    assert find_start(Path("runs")).prefix == Path("runs/model.ckpt-50")


def test_all_other_settings_are_listed_at_once(tmp_path):
    """Who has to change three flags reads of three, with what each was and is."""
    make_checkpoint(tmp_path, 50)
    sentence = complaint(tmp_path, seed=1, learning_rate=0.2, model="adder")
    assert sentence.startswith(f"{tmp_path}: ")
    assert "learning_rate 0.1 (now 0.2), model counter (now adder), seed 0 (now 1)" in sentence
    assert "train_steps" not in sentence


def test_a_setting_that_is_new_is_a_difference(tmp_path):
    """What a checkpoint was made without is not taken for granted."""
    make_checkpoint(tmp_path, 50)
    assert "dropout_rate None (now 0.5)" in complaint(tmp_path, dropout_rate=0.5)


def test_a_setting_that_is_gone_is_a_difference(tmp_path):
    """Nor is what it was made with forgotten."""
    make_checkpoint(tmp_path, 50, settings=SETTINGS | {"dropout_rate": 0.5})
    assert "dropout_rate 0.5 (now None)" in complaint(tmp_path)


def test_the_newest_checkpoint_tells_the_settings(tmp_path):
    """A run that was prolonged once may not be shortened to what it was before."""
    make_checkpoint(tmp_path, 50)
    make_checkpoint(tmp_path, 150, settings=SETTINGS | {"train_steps": 200})
    assert "train_steps 200 (now 100)" in complaint(tmp_path)
    assert find_start(tmp_path, train_steps=200).newest.step == 150


def test_a_run_may_be_prolonged(tmp_path):
    """More train_steps than before are fine."""
    prefix = make_checkpoint(tmp_path, 100)
    assert find_start(tmp_path, train_steps=101).prefix == prefix


def test_a_run_may_not_be_shortened(tmp_path):
    """Fewer are not: the schedule of what is trained already was another."""
    make_checkpoint(tmp_path, 50)
    assert "train_steps 100 (now 99)" in complaint(tmp_path, train_steps=99)


def test_other_versions_are_warned_of(tmp_path, caplog):
    """Another TensorFlow may give other last bits: the run goes on, and says so with both versions."""
    make_checkpoint(tmp_path, 50, versions=manifest.versions() | {"tensorflow": "1.15.5"})
    assert find_start(tmp_path).newest.step == 50
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "1.15.5" in record.getMessage()
    assert manifest.versions()["tensorflow"] in record.getMessage()


def test_the_same_versions_are_not_warned_of(tmp_path, caplog):
    """Where nothing differs, nothing is said."""
    make_checkpoint(tmp_path, 50)
    find_start(tmp_path)
    assert caplog.records == []


@pytest.mark.parametrize("name", AWKWARD)
def test_what_an_interrupted_save_left_is_deleted(tmp_path, name):
    """Marked files without a manifest go, TensorFlow's temporary ones too, and the run goes on from before."""
    directory = tmp_path / name
    make_checkpoint(directory, 50)
    whole = tree(directory)
    mark(make_files(directory, 100, [*KINDS, "index.tempstate12", "manifest.json.tmp"]))
    (directory / "model.ckpt-100_temp").mkdir()
    (directory / "model.ckpt-100_temp" / "part-00000-of-00001.data-00000-of-00001").touch()
    assert find_start(directory).newest.step == 50
    assert tree(directory) == whole
    assert not (directory / "model.ckpt-100_temp").exists()


def test_an_interrupted_first_save_starts_anew(tmp_path):
    """Where the only save was interrupted, the run starts from the beginning."""
    mark(make_files(tmp_path, 10, ["index"]))
    assert find_start(tmp_path) == Start(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_mark_alone_is_deleted(tmp_path):
    """An interrupted deletion's last trace goes."""
    tmp_path.mkdir(exist_ok=True)
    mark(layout.prefix(tmp_path, 10))
    resume.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_committed_checkpoint_loses_but_its_mark(tmp_path):
    """A kill between the commit and the removal of the mark costs nothing."""
    prefix = make_checkpoint(tmp_path, 50)
    whole = tree(tmp_path)
    mark(prefix)
    assert find_start(tmp_path).prefix == prefix
    assert tree(tmp_path) == whole


def test_one_step_is_not_taken_for_another(tmp_path):
    """Sweeping step 1 leaves steps 10 and 11 alone."""
    make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, 11)
    whole = tree(tmp_path)
    mark(make_files(tmp_path, 1))
    resume.sweep(tmp_path)
    assert tree(tmp_path) == whole


def test_sweeping_is_told(tmp_path, caplog):
    """Nothing is deleted in silence."""
    caplog.set_level(logging.INFO)
    prefix = mark(make_files(tmp_path, 100))
    resume.sweep(tmp_path)
    assert [str(prefix) in record.getMessage() for record in caplog.records] == [True]


def test_a_sweep_that_was_killed_is_finished(tmp_path):
    """The mark goes last: whatever was deleted before it, the next run deletes the rest."""
    for count in range(len(KINDS) + 1):
        mark(make_files(tmp_path, 100, KINDS[:count]))
        resume.sweep(tmp_path)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [0, 50, 200])
def test_checkpoints_of_somebody_else_are_refused_and_kept(tmp_path, step):
    """Files without mark and without manifest are a plain Saver's: not ours to go on from, nor to delete."""
    make_checkpoint(tmp_path, 100)
    make_files(tmp_path, step, content="somebody else's")
    sentence = complaint(tmp_path)
    assert f"model.ckpt-{step} found without a manifest" in sentence
    assert f"--restore_from={tmp_path / 'model.ckpt-'}{step}" in sentence


def test_what_the_refusal_advises_works(tmp_path):
    """From somebody else's checkpoint a run starts in a train_dir of its own, as the sentence says."""
    prefix = make_files(tmp_path / "theirs", 200)
    assert f"--restore_from={prefix}" in complaint(tmp_path / "theirs")
    assert find_start(tmp_path / "ours", restore_from=prefix).prefix == prefix


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 300], ids=["empty", "cut", "zeros"])
def test_a_damaged_manifest_is_told_with_what_to_do(tmp_path, content):
    """It is never passed over; moved elsewhere as the sentence says, the run goes on from the one before."""
    make_checkpoint(tmp_path / "run", 50)
    path = layout.manifest_path(make_checkpoint(tmp_path / "run", 100))
    path.write_bytes(content)
    sentence = complaint(tmp_path / "run")
    assert str(path) in sentence
    assert "model.ckpt-100.*" in sentence
    for each in (tmp_path / "run").glob("model.ckpt-100.*"):
        each.rename(tmp_path / each.name)
    assert find_start(tmp_path / "run").newest.step == 50


@pytest.mark.parametrize("below", [".", "cnn"])
def test_a_file_in_the_way_is_told_and_kept(tmp_path, below):
    """A train_dir whose name a file has, or whose parent's, is one sentence."""
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be made a directory") as refused:
        find_start(tmp_path / "runs" / below)
    assert str(refused.value).startswith(f"{tmp_path / 'runs' / below}: ")
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize("name", AWKWARD)
def test_a_run_can_start_from_a_checkpoint_elsewhere(tmp_path, name):
    """In a new train_dir, restore_from is where it starts; what it started from is known by its index file."""
    theirs = make_checkpoint(tmp_path / name, 70, settings={"model": "another"})
    start = find_start(tmp_path / "run", restore_from=theirs)
    assert start == Start(theirs, None, file_sha256(layout.index_path(theirs)))


def test_a_run_that_started_elsewhere_goes_on_from_its_own(tmp_path):
    """The same command again goes on from the run's newest checkpoint, and so does one without restore_from."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    lineage = find_start(tmp_path / "ours", restore_from=theirs).started_from
    ours = make_checkpoint(tmp_path / "ours", 80, started_from=lineage)
    for restore_from in (theirs, None):
        start = find_start(tmp_path / "ours", restore_from=restore_from)
        assert (start.prefix, start.started_from) == (ours, lineage)


def test_where_a_run_started_is_known_wherever_that_lies_now(tmp_path):
    """It is the checkpoint that counts, not its path."""
    theirs = make_checkpoint(tmp_path / "theirs", 70)
    ours = make_checkpoint(tmp_path / "ours", 80, started_from=file_sha256(layout.index_path(theirs)))
    (tmp_path / "theirs").rename(tmp_path / "moved")
    assert find_start(tmp_path / "ours", restore_from=tmp_path / "moved" / theirs.name).prefix == ours


@pytest.mark.parametrize("started_from", [None, "0" * 64], ids=["from the beginning", "from another"])
def test_a_run_does_not_change_where_it_came_from(tmp_path, started_from):
    """A run that did not start from a checkpoint is not continued as if it had."""
    theirs = make_checkpoint(tmp_path / "theirs", 70, content="somebody else's")
    make_checkpoint(tmp_path / "ours", 80, started_from=started_from)
    sentence = complaint(tmp_path / "ours", restore_from=theirs)
    assert sentence.startswith(f"{tmp_path / 'ours'}: checkpoints up to step 80 found")
    assert str(theirs) in sentence


def test_a_run_does_not_go_back(tmp_path):
    """An older checkpoint of its own starts no second run among its files; the sentence says what to do."""
    for step in (50, 100):
        make_checkpoint(tmp_path, step)
    sentence = complaint(tmp_path, restore_from=layout.prefix(tmp_path, 50))
    assert "give a new --train_dir to start from there" in sentence
    assert "leave out --restore_from to go on from step 100" in sentence


def test_its_newest_checkpoint_is_known_by_any_path(tmp_path, monkeypatch):
    """Relative, through a link or by way of .., it is the one that the run goes on from anyway."""
    for step in (50, 100):
        make_checkpoint(tmp_path / "run", step)
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    for directory in (Path("run"), tmp_path / "link", tmp_path / "run" / ".." / "run"):
        start = find_start(tmp_path / "run", restore_from=layout.prefix(directory, 100))
        assert start.prefix.resolve() == layout.prefix(tmp_path / "run", 100)


def test_a_named_checkpoint_does_not_excuse_other_settings(tmp_path):
    """Also from a checkpoint of its own that is named, a run goes on with its own settings only."""
    prefix = make_checkpoint(tmp_path, 50)
    assert "seed 0 (now 1)" in complaint(tmp_path, restore_from=prefix, seed=1)


def test_a_wrong_prefix_is_told_with_those_that_are_there(tmp_path):
    """Who mistypes a step reads which there are, and the train_dir is not even made."""
    for step in (50, 100):
        make_checkpoint(tmp_path / "theirs", step)
    wrong = layout.prefix(tmp_path / "theirs", 75)
    with pytest.raises(CheckpointError) as refused:
        find_start(tmp_path / "ours", restore_from=wrong)
    sentence = str(refused.value)
    assert sentence.startswith(f"{wrong}: no checkpoint found")
    assert "model.ckpt-50" in sentence
    assert "model.ckpt-100" in sentence
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("suffix", [".index", ".meta", ".data-00000-of-00001", ".manifest.json"])
def test_a_file_name_for_a_prefix_is_told(tmp_path, suffix):
    """Who gives the name of one of its files reads the prefix."""
    prefix = make_checkpoint(tmp_path, 50)
    sentence = complaint(tmp_path, restore_from=prefix.with_name(prefix.name + suffix))
    assert "no checkpoint found" in sentence
    assert sentence.endswith("model.ckpt-50.")


def test_a_train_dir_for_a_prefix_is_told(tmp_path):
    """Who gives the directory reads, in order of steps, which prefixes lie in it."""
    for step in (100, 50):
        make_checkpoint(tmp_path / "theirs", step)
    with pytest.raises(CheckpointError, match=r"model\.ckpt-50, model\.ckpt-100\.$"):
        find_start(tmp_path / "ours", restore_from=tmp_path / "theirs")


@pytest.mark.parametrize("name", ["absent/model.ckpt-1", "model.ckpt-1"])
def test_a_place_without_checkpoints_is_told(tmp_path, name):
    """Where there is nothing to restore from, the sentence says so."""
    sentence = complaint(tmp_path, restore_from=tmp_path / name)
    assert sentence.startswith(f"{tmp_path / name}: no checkpoint found")
    assert f"in {(tmp_path / name).parent} there are none" in sentence


@pytest.mark.parametrize("path", [".", "/"])
def test_a_directory_is_no_prefix(tmp_path, path):
    """The current directory or the root for a prefix is one sentence, too."""
    assert "no checkpoint found" in complaint(tmp_path, restore_from=Path(path))


@pytest.mark.parametrize("others", [[], [50]], ids=["alone", "beside a whole one"])
def test_what_is_being_swept_cannot_be_restored_from(tmp_path, others):
    """A checkpoint of the train_dir that an interrupted save left half-made is no place to start from."""
    for step in others:
        make_checkpoint(tmp_path, step)
    half = mark(make_files(tmp_path, 100))
    with pytest.raises(CheckpointError) as refused:
        find_start(tmp_path, restore_from=half)
    assert str(half) in str(refused.value)


def test_half_a_checkpoint_elsewhere_cannot_be_restored_from(tmp_path):
    """Nor is what an interrupted save left in another train_dir, and that is not touched."""
    make_checkpoint(tmp_path / "theirs", 50)
    half = mark(make_files(tmp_path / "theirs", 100))
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.ckpt-50\.$"):
        find_start(tmp_path / "ours", restore_from=half)
    assert tree(tmp_path) == before


def test_a_directory_beside_a_checkpoint_does_not_hide_it(tmp_path):
    """A folder that somebody called as the prefix is called takes nothing from the checkpoint."""
    prefix = make_checkpoint(tmp_path / "theirs", 50)
    prefix.mkdir()
    assert find_start(tmp_path / "ours", restore_from=prefix).prefix == prefix


def test_a_directory_is_no_index_file(tmp_path):
    """A folder called as an index file is called is no checkpoint."""
    (tmp_path / "theirs" / "model.ckpt-50.index").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        find_start(tmp_path / "ours", restore_from=layout.prefix(tmp_path / "theirs", 50))


def test_any_name_of_a_checkpoint_elsewhere_will_do(tmp_path):
    """Another program may have named its checkpoints otherwise."""
    prefix = tmp_path / "theirs" / "weights"
    prefix.parent.mkdir()
    layout.index_path(prefix).write_text("index")
    assert find_start(tmp_path / "ours", restore_from=prefix).prefix == prefix
