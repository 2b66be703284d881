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
from checkpointing.tools.prune import plan_prune
from checkpointing.tools.repair import plan_repair
from tests import checkpoints
from tests.checkpoints import DAMAGES, every_kill, flip_a_bit, full_disk, make_checkpoint, make_files, mark, tree
from tests.writers import make_foreign

RETENTION = {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 10_000.0, "keep_best": 0}
HEX = 8 * "0a1b"


def repair(directory):
    """Plan a repair and carry it out; return the plan."""
    with maintenance.held(directory):
        return carry_out(plan_repair(directory))


def prune(directory, **options):
    """Plan a pruning and carry it out; return the plan."""
    with maintenance.held(directory):
        return carry_out(plan_prune(directory, options))


def carry_out(actions):
    """Carry out each action; return them."""
    for each in actions:
        each.do()
    return actions


def complaint(function, *arguments, **options):
    """The message and the hint of the error that a call raises."""
    with pytest.raises(CheckpointError) as refused:
        function(*arguments, **options)
    return f"{refused.value}; {refused.value.hint}"


def names(actions, *verbs):
    """The files that a plan changes."""
    return [name for each in actions if each.verb in verbs or not verbs for name in each.names]


def there(directory):
    """The names in a directory, without the lock."""
    return {path.name for path in directory.iterdir()} - {"lock"}


def whole(directory):
    """The names of the complete checkpoints."""
    return [each.prefix.name for each in inspection.list_checkpoints(directory) if each.problem is None]


def contents(directory):
    """The contents of all files except reasons and the state file."""
    return sorted(content for name, content in tree(directory).items() if name != "checkpoint" and "reason" not in name)


def ours(directory, number, damage):
    """A checkpoint with a manifest, damaged or not."""
    prefix = make_checkpoint(directory, number, retention=RETENTION)
    if damage:
        damage(layout.index_path(prefix))


def without_manifest(directory, number, damage):
    """One whose manifest is invalid."""
    ours(directory, number, damage)
    layout.manifest_path(layout.prefix(directory, number)).write_bytes(b"{}")


def unfinished(directory, number, _):
    """Leftovers of an interrupted save."""
    mark(make_files(directory, number, checkpoints.KINDS[: number % 4]))
    layout.prefix(directory, number).with_name(f"model.ckpt-{number}.index.tempstate77").touch()


def marked(directory, number, damage):
    """A committed one that still has its mark."""
    ours(directory, number, damage)
    mark(layout.prefix(directory, number))


def pinned(directory, number, damage):
    """A pinned one."""
    ours(directory, number, damage)
    layout.pinned_path(layout.prefix(directory, number)).touch()


def foreign(directory, number, damage):
    """A plain Saver's checkpoint."""
    prefix = make_foreign(directory, f"best-{number}")
    if damage:
        damage(prefix.with_name(f"{prefix.name}.data-00000-of-00001"))


def foreign_among_ours(directory, number, _):
    """A plain Saver's checkpoint with a name like ours."""
    make_foreign(directory, f"model.ckpt-{number}")


def leftover(directory, number, _):
    """Files that TensorFlow was writing when it was killed."""
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
    """A user's files, some with names like a checkpoint's."""
    (directory / USERS[number % len(USERS)]).write_text("mine")
    (directory / "my_temp").mkdir(exist_ok=True)
    (directory / "my_temp" / "thesis.tex").write_text("mine")
    (directory / "results_temp").mkdir(exist_ok=True)
    (directory / "results_temp" / "part-00000.csv").write_text("mine")


def state(directory, _, damage):
    """A state file that lists nothing, or a missing checkpoint."""
    (directory / "checkpoint").write_text('all_model_checkpoint_paths: "gone-1"\n' if damage else "")


MAKERS = [ours, without_manifest, unfinished, marked, pinned, foreign, foreign_among_ours, leftover, of_a_user, state]
DIRECTORIES = st.dictionaries(st.integers(0, 12), st.tuples(st.sampled_from(MAKERS), st.sampled_from([None, *DAMAGES])))
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def made(content):
    """A directory in which these makers have run."""
    with tempfile.TemporaryDirectory() as directory:
        for number, (maker, damage) in content.items():
            maker(Path(directory), number, damage)
        yield Path(directory)


def check_that_only_named_files_changed(before, actions, directory):
    """The files that are gone were named in the plan; all others have the same bytes."""
    gone = set(names(actions, "delete", "move to quarantine"))
    after = tree(directory)
    for name, content in before.items():
        top = name.split("/")[0]
        if top in gone:
            assert name not in after
        elif top not in names(actions):
            assert after[name] == content
    assert len(gone) == len(names(actions, "delete", "move to quarantine"))
    moved = {name for name in before if name.split("/")[0] in names(actions, "move to quarantine")}
    in_quarantine = [
        after[name] for name in after if name.startswith("quarantine/") and not name.endswith("reason.txt")
    ]
    assert sorted(in_quarantine) == sorted(before[name] for name in moved)


@MANY
@given(DIRECTORIES)
def test_a_repair_does_what_it_names_and_no_more(content):
    """Only files with our mark are deleted, damaged checkpoints are moved, everything else stays."""
    with made(content) as directory:
        before, complete = tree(directory), set(whole(directory))
        try:
            actions = repair(directory)
        except CheckpointError:
            assert tree(directory) == before
            return
        check_that_only_named_files_changed(before, actions, directory)
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
    """The newest of each family stays, and files that are not named keep every byte."""
    with made(content) as directory:
        before, complete = tree(directory), whole(directory)
        try:
            actions = prune(directory, max_to_keep=max_to_keep)
        except CheckpointError:
            assert tree(directory) == before
            return
        check_that_only_named_files_changed(before, actions, directory)
        assert names(actions, "move to quarantine") == []
        left = whole(directory)
        for family in ("best", "model.ckpt"):
            steps = [int(name.split("-")[1]) for name in complete if name.startswith(family)]
            assert {f"{family}-{step}" for step in sorted(steps)[-max_to_keep:]} <= set(left)
        if left:
            assert prune(directory, max_to_keep=max_to_keep) == []


def test_if_all_are_damaged_nothing_is_moved(tmp_path):
    """The error names each; unfinished ones stay, too."""
    for step in (10, 20):
        flip_a_bit(layout.index_path(make_checkpoint(tmp_path, step)))
    mark(make_files(tmp_path, 30))
    before = tree(tmp_path)
    error = complaint(repair, tmp_path)
    assert "only damaged checkpoints found (model.ckpt-10.index: " in error
    assert "; model.ckpt-20.index: " in error
    assert tree(tmp_path) == before


def test_a_plain_savers_checkpoint_does_not_replace_ours(tmp_path):
    """A run would silently resume from it."""
    flip_a_bit(layout.index_path(make_checkpoint(tmp_path, 10)))
    make_foreign(tmp_path, "best-3")
    before = tree(tmp_path)
    assert "only damaged checkpoints found" in complaint(repair, tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("act", [repair, prune])
def test_a_directory_without_checkpoints_is_an_error(tmp_path, act):
    """TensorFlow's leftovers stay if there is nothing else."""
    assert "no checkpoint found" in complaint(act, tmp_path)
    leftover(tmp_path, 7, None)
    before = tree(tmp_path)
    error = complaint(act, tmp_path)
    assert "no checkpoint found" in error
    assert "; checkpoint.tmp" in error
    assert tree(tmp_path) == before
    assert there(tmp_path) == {name.split("/")[0] for name in before}
    assert "absent: no such directory" in complaint(act, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("act", [repair, prune])
def test_a_directory_in_use_is_left_alone(tmp_path, act):
    """As by a second run."""
    make_checkpoint(tmp_path, 10)
    mark(make_files(tmp_path, 30))
    lock, before = Lock(tmp_path), tree(tmp_path)
    assert "in use by process" in complaint(act, tmp_path)
    assert tree(tmp_path) == before
    lock.release()


def test_a_lock_that_was_not_there_is_not_left(tmp_path):
    """An existing one is kept."""
    make_foreign(tmp_path, "model-3")
    repair(tmp_path)
    assert not (tmp_path / "lock").exists()
    Lock(tmp_path).release()
    repair(tmp_path)
    assert (tmp_path / "lock").exists()


def test_a_plan_changes_nothing(tmp_path):
    """Not even if everything needs repair."""
    for number, maker in enumerate(MAKERS):
        maker(tmp_path, number, flip_a_bit if number == 0 else None)
    before = tree(tmp_path)
    assert names(plan_repair(tmp_path))
    with pytest.raises(CheckpointError, match=r"(?m); nothing was deleted$"):
        plan_prune(tmp_path, {"max_to_keep": 1})
    assert tree(tmp_path) == before


@pytest.mark.parametrize("relative", [True, False])
def test_a_state_file_that_is_right_stays(tmp_path, monkeypatch, relative):
    """With relative or absolute paths in it, and a relative or absolute directory."""
    directory = tmp_path / "run"
    prefixes = [make_checkpoint(directory, step) for step in (10, 20)]
    checkpoint_state.write(directory, [(prefix, 1.5) for prefix in prefixes], relative_paths=relative)
    monkeypatch.chdir(tmp_path)
    assert plan_repair(Path("run")) == plan_repair(directory) == []


def test_a_plain_savers_state_file_may_list_fewer(tmp_path):
    """A Saver deletes the oldest that the file lists, so it must not list checkpoints that the Saver had dropped."""
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


def named_by_hand(directory, step, listed=()):
    """Write a state file as a user edits it."""
    lines = [
        f'model_checkpoint_path: "model-{step}"',
        *(f'all_model_checkpoint_paths: "model-{each}"' for each in listed),
    ]
    (directory / "checkpoint").write_text("\n".join(lines))


@pytest.mark.parametrize("listed", [(), (1, 2), (1, 2, 9)])
def test_the_newest_in_a_plain_savers_state_file_stays(tmp_path, listed):
    """Neither is the file rewritten to a higher step, nor is the checkpoint pruned."""
    for step in (1, 2, 9):
        make_foreign(tmp_path, f"model-{step}")
    named_by_hand(tmp_path, 2, listed)
    assert repair(tmp_path) == []
    prune(tmp_path, max_to_keep=1)
    assert whole(tmp_path) == ["model-2", "model-9"]
    assert checkpoint_state.read_newest(tmp_path) == "model-2"
    assert set(checkpoint_state.read(tmp_path)) <= {tmp_path / "model-2", tmp_path / "model-9"}


def test_a_damaged_newest_is_replaced_by_the_one_before_in_the_state_file(tmp_path):
    """Not by a higher step, of an earlier run."""
    for step in (1, 2, 9):
        make_foreign(tmp_path, f"model-{step}")
    named_by_hand(tmp_path, 2, (1, 2))
    flip_a_bit(layout.index_path(tmp_path / "model-2"))
    repair(tmp_path)
    assert checkpoint_state.read_newest(tmp_path) == "model-1"
    assert checkpoint_state.read(tmp_path) == [tmp_path / "model-1"]
    assert repair(tmp_path) == []


def test_without_a_state_file_the_newest_family_is_listed(tmp_path):
    """The family by time, its checkpoints by step."""
    for name, time in (("best-9", 1e9), ("model-10", 2e9), ("model-9", 3e9)):
        for path in layout.files_of(make_foreign(tmp_path, name)):
            os.utime(path, (time, time))
    repair(tmp_path)
    assert checkpoint_state.read(tmp_path) == [tmp_path / "model-9", tmp_path / "model-10"]


def test_a_runs_state_file_lists_its_own(tmp_path):
    """Not a plain Saver's in the same directory."""
    make_foreign(tmp_path, "model-99")
    ours_ = make_checkpoint(tmp_path, 10)
    repair(tmp_path)
    assert checkpoint_state.read(tmp_path) == [ours_]


def test_pruning_follows_the_recorded_policy(tmp_path):
    """That of the newest manifest. A plain Saver's checkpoints stay unless --max_to_keep is set; pins count."""
    for step in (10, 20, 30, 40):
        make_checkpoint(tmp_path, step, retention=RETENTION, score=float(step == 10))
    layout.pinned_path(layout.prefix(tmp_path, 20)).touch()
    for step in (1, 2, 3):
        make_foreign(tmp_path, f"model-{step}")
    foreign_names = {"model-1", "model-2", "model-3"}
    assert set(whole(tmp_path)) - foreign_names == {f"model.ckpt-{step}" for step in (10, 20, 30, 40)}
    prune(tmp_path, keep_best=1)
    assert set(whole(tmp_path)) - foreign_names == {f"model.ckpt-{step}" for step in (10, 20, 30, 40)}
    prune(tmp_path)
    assert set(whole(tmp_path)) == foreign_names | {f"model.ckpt-{step}" for step in (20, 30, 40)}
    prune(tmp_path, max_to_keep=1)
    assert set(whole(tmp_path)) == {"model-3", "model.ckpt-20", "model.ckpt-40"}
    assert [path.name for path in checkpoint_state.read(tmp_path)] == ["model.ckpt-20", "model.ckpt-40"]


def test_families_are_counted_apart(tmp_path):
    """Checkpoints without a step are kept; those of the same step are kept together."""
    for name in ("best-1", "best-2", "last-7", "last-8", "final", "last-08"):
        make_foreign(tmp_path, name)
    prune(tmp_path, max_to_keep=1)
    assert set(whole(tmp_path)) == {"best-2", "last-8", "last-08", "final"}


def test_pruning_by_hours_twice_deletes_no_more(tmp_path):
    """A checkpoint without a manifest counts by its time of day."""
    for hour in range(8):
        for path in layout.files_of(make_foreign(tmp_path, f"model-{hour}")):
            os.utime(path, (3600 * (1000 + hour),) * 2)
    for _ in range(2):
        prune(tmp_path, max_to_keep=1, keep_checkpoint_every_n_hours=2)
        assert whole(tmp_path) == ["model-0", "model-2", "model-4", "model-6", "model-7"]
    prune(tmp_path, max_to_keep=1)
    assert whole(tmp_path) == ["model-7"]


def test_without_a_recorded_policy_max_to_keep_is_required(tmp_path):
    """keep_best alone does not limit the others."""
    make_checkpoint(tmp_path, 10)
    before = tree(tmp_path)
    for options in ({}, {"keep_best": 1}):
        assert "no manifest records how many checkpoints to keep; use --max_to_keep=N" in complaint(
            prune, tmp_path, **options
        )
    assert tree(tmp_path) == before


def make_work(directory):
    """Make a directory that needs every kind of repair."""
    for number, maker in enumerate([leftover, of_a_user, unfinished, marked, ours, foreign, foreign, ours, pinned]):
        maker(directory, number, flip_a_bit if number in (4, 5) else None)
    state(directory, 0, flip_a_bit)


def make_too_many(directory):
    """Make too many checkpoints: ours, and a plain Saver's of two families."""
    for step in (10, 20, 30):
        make_checkpoint(directory, step, retention=RETENTION)
        make_foreign(directory, f"best-{step}")
        make_foreign(directory, f"model.ckpt-{step + 5}")
    checkpoint_state.write(directory, [(layout.prefix(directory, 10), 1.5)], relative_paths=True)


@pytest.mark.parametrize(
    ("make", "act"), [(make_work, repair), (make_too_many, lambda directory: prune(directory, max_to_keep=1))]
)
def test_a_killed_command_can_be_repeated(tmp_path, make, act):
    """Killed before any change: the newest checkpoint is complete, and the same command ends in the same state."""
    (tmp_path / "undisturbed").mkdir()
    make(tmp_path / "undisturbed")
    newest = whole(tmp_path / "undisturbed")[-1]
    act(tmp_path / "undisturbed")
    kept = contents(tmp_path / "undisturbed")
    for directory in every_kill(tmp_path, make, act):
        assert newest in whole(directory)
        act(directory)
        assert there(directory) == there(tmp_path / "undisturbed")
        assert contents(directory) == kept
        assert act(directory) == []


@pytest.mark.parametrize(
    ("make", "act"), [(make_work, repair), (make_too_many, lambda directory: prune(directory, max_to_keep=1))]
)
def test_a_full_disk_loses_nothing(tmp_path, make, act):
    """The error is raised; once there is space, the same command completes the work."""
    make(tmp_path)
    Lock(tmp_path).release()
    before, complete = tree(tmp_path), whole(tmp_path)
    with full_disk(), pytest.raises(OSError, match="No space left"):
        act(tmp_path)
    assert whole(tmp_path) == complete
    assert tree(tmp_path) == before
    act(tmp_path)
    assert whole(tmp_path)[-1] == complete[-1]


def test_planning_takes_linear_time(tmp_path):
    """Four times as many checkpoints take about four times as many calls."""
    counts = []
    for number in (40, 160):
        directory = tmp_path / str(number)
        for step in range(number):
            make_checkpoint(directory, step, retention={**RETENTION, "max_to_keep": 0})
        counts.append(
            [
                checkpoints.calls(plan_repair, directory),
                checkpoints.calls(plan_prune, directory, {}),
            ]
        )
    for few, many in zip(*counts, strict=True):
        assert many < 5 * few


@pytest.mark.parametrize("fields", checkpoints.CONFUSED, ids=str)
def test_one_invalid_manifest_stops_neither_repair_nor_pruning(tmp_path, fields):
    """Pruning leaves it; repair moves it to quarantine, with the reason."""
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
    """Repair and prune neither count, move, delete nor list it."""
    for step in (20, 30):
        make_checkpoint(tmp_path, step, retention={**RETENTION, "max_to_keep": 1})
    checkpoints.confuse(make_checkpoint(tmp_path, 40), format=99)
    untouched = {name: content for name, content in tree(tmp_path).items() if "ckpt-40" in name}
    for act in (repair, prune, repair):
        act(tmp_path)
        assert untouched.items() <= tree(tmp_path).items()
    assert layout.steps_with(tmp_path, "manifest.json") == [30, 40]
    assert [path.name for path in checkpoint_state.read(tmp_path)] == ["model.ckpt-30"]


def test_a_run_that_keeps_all_needs_no_repair(tmp_path):
    """Its state file lists the newest only, like Saver's."""
    for step in (10, 20):
        make_checkpoint(tmp_path, step, retention={**RETENTION, "max_to_keep": 0})
    cleanup.Cleanup(tmp_path, RetentionPolicy(0), relative_paths=True).apply_retention()
    assert repair(tmp_path) == prune(tmp_path) == []


def test_names_need_not_be_text(tmp_path):
    """A plain Saver's checkpoint whose name is not UTF-8 is repaired, pruned and listed like others."""
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
    """The damaged checkpoint and the file stay."""
    for step in (10, 20):
        make_checkpoint(tmp_path, step)
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 10)))
    (tmp_path / "quarantine").write_text("mine")
    before = {name: content for name, content in tree(tmp_path).items() if name != "checkpoint"}
    with pytest.raises(OSError, match="expected a directory"):
        repair(tmp_path)
    assert before.items() <= tree(tmp_path).items()
