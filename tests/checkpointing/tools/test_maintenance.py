import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpointing.errors import CheckpointError
from checkpointing.protocol import checkpoint_state, cleanup
from checkpointing.protocol.retention import RetentionPolicy
from checkpointing.storage import layout
from checkpointing.storage.lock import Lock
from checkpointing.tools import inspection, maintenance
from tests import checkpoints
from tests.checkpoints import DAMAGES, every_kill, flip_a_bit, full_disk, make_checkpoint, make_files, mark, tree
from tests.writers import make_foreign

RETENTION = {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 10_000.0, "keep_best": 0}
HEX = 8 * "0a1b"


def repair(directory):
    """Does what is to be done; gives the plan."""
    with maintenance.held(directory):
        return carry_out(maintenance.plan_repair(directory))


def prune(directory, **said):
    """The same of what is not worth keeping."""
    with maintenance.held(directory):
        return carry_out(maintenance.plan_prune(directory, said))


def carry_out(actions):
    """Each in turn."""
    for each in actions:
        each.do()
    return actions


def complaint(function, *arguments, **said):
    """The sentence that refuses this."""
    with pytest.raises(CheckpointError) as refused:
        function(*arguments, **said)
    return str(refused.value)


def names(actions, *verbs):
    """What a plan changes."""
    return [name for each in actions if each.verb in verbs or not verbs for name in each.names]


def there(directory):
    """What lies in a directory, but for the lock."""
    return {path.name for path in directory.iterdir()} - {"lock"}


def whole(directory):
    """The prefixes of those that are complete."""
    return [each.prefix.name for each in inspection.list_checkpoints(directory) if each.problem is None]


def contents(directory):
    """What is in the files, but for the reasons and the state file."""
    return sorted(content for name, content in tree(directory).items() if name != "checkpoint" and "reason" not in name)


def ours(directory, number, damage):
    """A checkpoint of ours, damaged or not."""
    prefix = make_checkpoint(directory, number, retention=RETENTION)
    if damage:
        damage(layout.index_path(prefix))


def without_manifest(directory, number, damage):
    """One whose manifest makes no sense."""
    ours(directory, number, damage)
    layout.manifest_path(layout.prefix(directory, number)).write_bytes(b"{}")


def unfinished(directory, number, _):
    """What an interrupted save left."""
    mark(make_files(directory, number, checkpoints.KINDS[: number % 4]))
    layout.prefix(directory, number).with_name(f"model.ckpt-{number}.index.tempstate77").touch()


def marked(directory, number, damage):
    """A committed one whose mark has not been deleted."""
    ours(directory, number, damage)
    mark(layout.prefix(directory, number))


def pinned(directory, number, damage):
    """One that somebody wants kept."""
    ours(directory, number, damage)
    layout.pinned_path(layout.prefix(directory, number)).touch()


def foreign(directory, number, damage):
    """A plain Saver's."""
    prefix = make_foreign(directory, f"best-{number}")
    if damage:
        damage(prefix.with_name(f"{prefix.name}.data-00000-of-00001"))


def foreign_among_ours(directory, number, _):
    """A plain Saver's that is called like ours."""
    make_foreign(directory, f"model.ckpt-{number}")


def leftover(directory, number, _):
    """What TensorFlow was writing when it was killed."""
    (directory / f"other-{number}.index.tempstate123").write_text("half")
    (directory / f"checkpoint.tmp{HEX}").write_text("half")
    (directory / f"other-{number}_temp").mkdir()
    (directory / f"other-{number}_temp" / "part-00000-of-00001.index").write_text("half")


USERS = [
    "notes.txt",
    "notes_temp",
    "words.index",
    "app.manifest.json",
    "data.tmp20261123",
    "todo.pinned",
    "film.incomplete",
]


def of_a_user(directory, number, _):
    """What is nobody's business."""
    (directory / USERS[number % len(USERS)]).write_text("mine")
    (directory / "my_temp").mkdir(exist_ok=True)
    (directory / "my_temp" / "thesis.tex").write_text("mine")
    (directory / "results_temp").mkdir(exist_ok=True)
    (directory / "results_temp" / "part-00000.csv").write_text("mine")


def state(directory, _, damage):
    """A state file that is about nothing."""
    (directory / "checkpoint").write_text('all_model_checkpoint_paths: "gone-1"\n' if damage else "")


MAKERS = [ours, without_manifest, unfinished, marked, pinned, foreign, foreign_among_ours, leftover, of_a_user, state]
DIRECTORIES = st.dictionaries(st.integers(0, 12), st.tuples(st.sampled_from(MAKERS), st.sampled_from([None, *DAMAGES])))
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def made(content):
    """A directory of these."""
    with tempfile.TemporaryDirectory() as directory:
        for number, (maker, damage) in content.items():
            maker(Path(directory), number, damage)
        yield Path(directory)


def check_that_the_plan_was_all(before, actions, directory):
    """What went is what was named, and the rest has every byte."""
    went = set(names(actions, "delete", "move to quarantine"))
    after = tree(directory)
    for name, content in before.items():
        top = name.split("/")[0]
        if top in went:
            assert name not in after
        elif top not in names(actions):
            assert after[name] == content
    assert len(went) == len(names(actions, "delete", "move to quarantine"))
    moved = {name for name in before if name.split("/")[0] in names(actions, "move to quarantine")}
    in_quarantine = [
        after[name] for name in after if name.startswith("quarantine/") and not name.endswith("reason.txt")
    ]
    assert sorted(in_quarantine) == sorted(before[name] for name in moved)


@MANY
@given(DIRECTORIES)
def test_a_repair_does_what_it_names_and_no_more(content):
    """Whatever lies there: only what carries our mark is deleted, what is damaged is moved, the rest stays."""
    with made(content) as directory:
        before, complete = tree(directory), set(whole(directory))
        try:
            actions = repair(directory)
        except CheckpointError:
            assert tree(directory) == before
            return
        check_that_the_plan_was_all(before, actions, directory)
        for name in names(actions, "delete"):
            assert layout.incomplete_path(layout.prefix(directory, layout.step_of(name))).name in before
        left = whole(directory)
        assert left == [each.prefix.name for each in inspection.list_checkpoints(directory)]
        assert set(left) <= complete
        if left:
            assert set() != {path.name for path in checkpoint_state.read(directory)} <= set(left)
            assert repair(directory) == []


@MANY
@given(DIRECTORIES, st.integers(0, 4))
def test_a_pruning_does_what_it_names_and_no_more(content, max_to_keep):
    """Whatever lies there: the newest of each name stays, and each that is not named has every byte."""
    with made(content) as directory:
        before, complete = tree(directory), whole(directory)
        try:
            actions = prune(directory, max_to_keep=max_to_keep)
        except CheckpointError:
            assert tree(directory) == before
            return
        check_that_the_plan_was_all(before, actions, directory)
        assert names(actions, "move to quarantine") == []
        left = whole(directory)
        for family in ("best", "model.ckpt"):
            steps = [int(name.split("-")[1]) for name in complete if name.startswith(family)]
            assert {f"{family}-{step}" for step in sorted(steps)[-max_to_keep:]} <= set(left)
        if left:
            assert prune(directory, max_to_keep=max_to_keep) == []


def test_only_damaged_ones_stay_where_they_are(tmp_path):
    """The sentence names each; what is unfinished stays, too."""
    for step in (10, 20):
        flip_a_bit(layout.index_path(make_checkpoint(tmp_path, step)))
    mark(make_files(tmp_path, 30))
    before = tree(tmp_path)
    sentence = complaint(repair, tmp_path)
    assert "only damaged checkpoints found (model.ckpt-10.index: " in sentence
    assert "; model.ckpt-20.index: " in sentence
    assert tree(tmp_path) == before


def test_somebody_elses_whole_one_does_not_replace_ours(tmp_path):
    """A run would go on from it in silence."""
    flip_a_bit(layout.index_path(make_checkpoint(tmp_path, 10)))
    make_foreign(tmp_path, "best-3")
    before = tree(tmp_path)
    assert "only damaged checkpoints found" in complaint(repair, tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("act", [repair, prune])
def test_a_directory_without_checkpoints_is_told(tmp_path, act):
    """Rather than that all is well; a rest of TensorFlow's stays, for it is all that there is."""
    assert complaint(act, tmp_path).endswith(": no checkpoint found in it.")
    leftover(tmp_path, 7, None)
    before = tree(tmp_path)
    assert "no checkpoint found in it, but checkpoint.tmp" in complaint(act, tmp_path)
    assert tree(tmp_path) == before
    assert there(tmp_path) == {name.split("/")[0] for name in before}
    assert "no directory found there" in complaint(act, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("act", [repair, prune])
def test_a_directory_in_use_is_left_alone(tmp_path, act):
    """As any second run is refused."""
    make_checkpoint(tmp_path, 10)
    mark(make_files(tmp_path, 30))
    lock, before = Lock(tmp_path), tree(tmp_path)
    assert "in use by process" in complaint(act, tmp_path)
    assert tree(tmp_path) == before
    lock.release()


def test_a_lock_that_was_not_there_is_not_left(tmp_path):
    """One that was stays."""
    make_foreign(tmp_path, "model-3")
    repair(tmp_path)
    assert not (tmp_path / "lock").exists()
    Lock(tmp_path).release()
    repair(tmp_path)
    assert (tmp_path / "lock").exists()


def test_a_plan_changes_nothing(tmp_path):
    """Before it is carried out, also where all is to be done."""
    for number, maker in enumerate(MAKERS):
        maker(tmp_path, number, flip_a_bit if number == 0 else None)
    before = tree(tmp_path)
    assert names(maintenance.plan_repair(tmp_path))
    with pytest.raises(CheckpointError, match=r"nothing is pruned before `python -m checkpointing repair"):
        maintenance.plan_prune(tmp_path, {"max_to_keep": 1})
    assert tree(tmp_path) == before


@pytest.mark.parametrize("relative", [True, False])
def test_a_state_file_that_is_right_stays(tmp_path, monkeypatch, relative):
    """With names or with whole paths, however the directory is given."""
    directory = tmp_path / "run"
    prefixes = [make_checkpoint(directory, step) for step in (10, 20)]
    checkpoint_state.write(directory, [(prefix, 1.5) for prefix in prefixes], relative_paths=relative)
    monkeypatch.chdir(tmp_path)
    assert maintenance.plan_repair(Path("run")) == maintenance.plan_repair(directory) == []


def test_somebody_elses_state_file_may_list_fewer(tmp_path):
    """What a Saver has forgotten it would delete, if it were told of it again; another name's it would mistake."""
    for name in ("model-1", "model-2", "model-3", "best-9"):
        make_foreign(tmp_path, name)
    os.utime(tmp_path / "best-9.index", (2e9, 2e9))
    listed = [(tmp_path / f"model-{step}", 1.5) for step in (2, 3)]
    checkpoint_state.write(tmp_path, listed, relative_paths=True)
    assert repair(tmp_path) == []
    for path in layout.files_of(tmp_path / "model-3"):
        path.unlink()
    assert names(repair(tmp_path)) == ["checkpoint"]
    assert checkpoint_state.read(tmp_path) == [tmp_path / "model-1", tmp_path / "model-2"]


def test_without_a_state_file_the_newest_name_counts(tmp_path):
    """By its time; within a name by its step."""
    for name, time in (("best-9", 1e9), ("model-10", 2e9), ("model-9", 3e9)):
        for path in layout.files_of(make_foreign(tmp_path, name)):
            os.utime(path, (time, time))
    repair(tmp_path)
    assert checkpoint_state.read(tmp_path) == [tmp_path / "model-9", tmp_path / "model-10"]


def test_a_runs_state_file_lists_its_own(tmp_path):
    """Not what a plain Saver left beside them."""
    make_foreign(tmp_path, "model-99")
    ours_ = make_checkpoint(tmp_path, 10)
    repair(tmp_path)
    assert checkpoint_state.read(tmp_path) == [ours_]


def test_what_is_pruned_is_what_the_run_was_told(tmp_path):
    """By its newest manifest; what a plain Saver left stays whose it is, and a pin counts."""
    for step in (10, 20, 30, 40):
        make_checkpoint(tmp_path, step, retention=RETENTION, score=float(step == 10))
    layout.pinned_path(layout.prefix(tmp_path, 20)).touch()
    for step in (1, 2, 3):
        make_foreign(tmp_path, f"model-{step}")
    theirs = {"model-1", "model-2", "model-3"}
    assert set(whole(tmp_path)) - theirs == {f"model.ckpt-{step}" for step in (10, 20, 30, 40)}
    prune(tmp_path, keep_best=1)
    assert set(whole(tmp_path)) - theirs == {f"model.ckpt-{step}" for step in (10, 20, 30, 40)}
    prune(tmp_path)
    assert set(whole(tmp_path)) == theirs | {f"model.ckpt-{step}" for step in (20, 30, 40)}
    prune(tmp_path, max_to_keep=1)
    assert set(whole(tmp_path)) == {"model-3", "model.ckpt-20", "model.ckpt-40"}
    assert [path.name for path in checkpoint_state.read(tmp_path)] == ["model.ckpt-20", "model.ckpt-40"]


def test_those_of_different_names_are_counted_apart(tmp_path):
    """Those without a step are nobody's to count; those of the same step stay together."""
    for name in ("best-1", "best-2", "last-7", "last-8", "final", "last-08"):
        make_foreign(tmp_path, name)
    prune(tmp_path, max_to_keep=1)
    assert set(whole(tmp_path)) == {"best-2", "last-8", "last-08", "final"}


def test_one_for_the_hours_stays_one(tmp_path):
    """Also of somebody else's, by the time of day: pruning twice prunes no more than once."""
    for hour in range(8):
        for path in layout.files_of(make_foreign(tmp_path, f"model-{hour}")):
            os.utime(path, (3600 * (1000 + hour),) * 2)
    for _ in range(2):
        prune(tmp_path, max_to_keep=1, keep_checkpoint_every_n_hours=2)
        assert whole(tmp_path) == ["model-0", "model-2", "model-4", "model-6", "model-7"]
    prune(tmp_path, max_to_keep=1)
    assert whole(tmp_path) == ["model-7"]


def test_without_a_record_a_number_is_wanted(tmp_path):
    """The best alone say nothing of the others."""
    make_checkpoint(tmp_path, 10)
    before = tree(tmp_path)
    for said in ({}, {"keep_best": 1}):
        assert "nothing records how many checkpoints to keep: give --max_to_keep=N" in complaint(
            prune, tmp_path, **said
        )
    assert tree(tmp_path) == before


def make_work(directory):
    """What has everything to be done."""
    for number, maker in enumerate([leftover, of_a_user, unfinished, marked, ours, foreign, foreign, ours, pinned]):
        maker(directory, number, flip_a_bit if number in (4, 5) else None)
    state(directory, 0, flip_a_bit)


def make_too_many(directory):
    """Of ours, and of somebody else's under two names."""
    for step in (10, 20, 30):
        make_checkpoint(directory, step, retention=RETENTION)
        make_foreign(directory, f"best-{step}")
        make_foreign(directory, f"model.ckpt-{step + 5}")
    checkpoint_state.write(directory, [(layout.prefix(directory, 10), 1.5)], relative_paths=True)


@pytest.mark.parametrize(
    ("make", "act"), [(make_work, repair), (make_too_many, lambda directory: prune(directory, max_to_keep=1))]
)
def test_a_kill_in_the_middle_changes_nothing_about_the_end(tmp_path, make, act):
    """Wherever it comes: nothing is lost, the newest is there at any time, and the same command ends the work."""
    (tmp_path / "wanted").mkdir()
    make(tmp_path / "wanted")
    newest = whole(tmp_path / "wanted")[-1]
    act(tmp_path / "wanted")
    kept = contents(tmp_path / "wanted")
    for directory in every_kill(tmp_path, make, act):
        assert newest in whole(directory)
        act(directory)
        assert there(directory) == there(tmp_path / "wanted")
        assert contents(directory) == kept
        assert act(directory) == []


@pytest.mark.parametrize(
    ("make", "act"), [(make_work, repair), (make_too_many, lambda directory: prune(directory, max_to_keep=1))]
)
def test_a_full_disk_loses_nothing(tmp_path, make, act):
    """It is told, and the same command ends the work once there is room."""
    make(tmp_path)
    Lock(tmp_path).release()
    before, complete = tree(tmp_path), whole(tmp_path)
    with full_disk(), pytest.raises(OSError, match="No space left"):
        act(tmp_path)
    assert whole(tmp_path) == complete
    assert tree(tmp_path) == before
    act(tmp_path)
    assert whole(tmp_path)[-1] == complete[-1]


def test_planning_takes_no_more_than_in_proportion(tmp_path):
    """Four times as many checkpoints to keep are not more than about four times the work."""
    counts = []
    for number in (40, 160):
        directory = tmp_path / str(number)
        for step in range(number):
            make_checkpoint(directory, step, retention={**RETENTION, "max_to_keep": 0})
        counts.append(
            [
                checkpoints.calls(maintenance.plan_repair, directory),
                checkpoints.calls(maintenance.plan_prune, directory, {}),
            ]
        )
    for few, many in zip(*counts, strict=True):
        assert many < 5 * few


@pytest.mark.parametrize("fields", checkpoints.CONFUSED, ids=str)
def test_one_confused_manifest_stops_no_repair_and_no_pruning(tmp_path, fields):
    """A pruning leaves it where it is; a repair moves it to quarantine, with the reason."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, retention={**RETENTION, "max_to_keep": 1})
    checkpoints.confuse(layout.prefix(tmp_path, 10), **fields)
    untouched = {name: content for name, content in tree(tmp_path).items() if "ckpt-10" in name}
    prune(tmp_path)
    assert layout.steps_with(tmp_path, "manifest.json") == [10, 30]
    assert untouched.items() <= tree(tmp_path).items()
    assert [path.name for path in checkpoint_state.read(tmp_path)] == ["model.ckpt-30"]
    repair(tmp_path)
    assert layout.steps_with(tmp_path, "manifest.json") == [30]
    reason = (tmp_path / "quarantine" / "model.ckpt-10" / "reason.txt").read_text()
    assert reason.startswith("model.ckpt-10.manifest.json: ")


def test_another_versions_checkpoint_is_left_alone(tmp_path):
    """Neither counted, moved, deleted nor listed in the state file, whatever is repaired or pruned."""
    for step in (20, 30):
        make_checkpoint(tmp_path, step, retention={**RETENTION, "max_to_keep": 1})
    checkpoints.confuse(make_checkpoint(tmp_path, 40), format=99)
    untouched = {name: content for name, content in tree(tmp_path).items() if "ckpt-40" in name}
    for act in (repair, prune, repair):
        act(tmp_path)
        assert untouched.items() <= tree(tmp_path).items()
    assert layout.steps_with(tmp_path, "manifest.json") == [30, 40]
    assert [path.name for path in checkpoint_state.read(tmp_path)] == ["model.ckpt-30"]


def test_after_a_run_that_keeps_all_there_is_nothing_to_do(tmp_path):
    """Its state file lists the newest alone."""
    for step in (10, 20):
        make_checkpoint(tmp_path, step, retention={**RETENTION, "max_to_keep": 0})
    cleanup.Cleanup(tmp_path, RetentionPolicy(0), relative_paths=True).apply_retention()
    assert repair(tmp_path) == prune(tmp_path) == []


def test_names_need_not_be_text(tmp_path):
    """A foreign checkpoint whose name is no UTF-8 is repaired, pruned and listed as any other."""
    directory = tmp_path / os.fsdecode(b"run-\xff")
    for path in (directory, tmp_path / "made"):
        path.mkdir()
    for number in (1, 2, 3):
        made_prefix = make_foreign(tmp_path / "made", f"best-{number}")
        for path in layout.files_of(made_prefix):
            path.rename(directory / path.name.replace("best", os.fsdecode(b"b\xfft")))
    flip_a_bit(layout.index_path(directory / os.fsdecode(b"b\xfft-2")))
    assert set(names(repair(directory), "move to quarantine")) == {
        os.fsdecode(b"b\xfft-2") + ending for ending in (".data-00000-of-00001", ".index", ".meta")
    }
    assert repair(directory) == []
    prune(directory, max_to_keep=1)
    assert checkpoint_state.read(directory) == [directory / os.fsdecode(b"b\xfft-3")]


def test_a_file_called_quarantine_is_an_error(tmp_path):
    """What is damaged stays where it is, and so does the file."""
    for step in (10, 20):
        make_checkpoint(tmp_path, step)
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 10)))
    (tmp_path / "quarantine").write_text("mine")
    before = {name: content for name, content in tree(tmp_path).items() if name != "checkpoint"}
    with pytest.raises(OSError, match="expected a directory"):
        repair(tmp_path)
    assert before.items() <= tree(tmp_path).items()
