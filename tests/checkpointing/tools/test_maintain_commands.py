import os
import re
from unittest import mock

import pytest

from checkpointing.storage import durable, layout
from checkpointing.storage.lock import Lock
from tests.checkpoints import AWKWARD, flip_a_bit, full_disk, make_checkpoint, make_files, mark, tree
from tests.writers import WRITERS, make_foreign, plain_saver

RETENTION = {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 10_000.0, "keep_best": 0}


@pytest.fixture
def work(tmp_path):
    """A directory that needs every kind of repair."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, retention=RETENTION)
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 20)))
    mark(make_files(tmp_path, 40, ["index"]))
    (tmp_path / "model-5.index.tempstate123").touch()
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def checkpoint(directory, step):
    """A manifest, which makes a checkpoint exist."""
    directory.mkdir(exist_ok=True)
    prefix = layout.prefix(directory, step)
    layout.manifest_path(prefix).write_text("{}")
    return prefix


def test_a_dry_run_names_every_file_and_changes_nothing(work, run_command):
    """With each action and its reason."""
    before = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    status, text = run_command("repair", work, "--dry_run")
    assert status == 0
    assert {path.name: path.stat().st_mtime_ns for path in work.iterdir()} == before
    shown = re.sub(" {2,}", "  ", text)
    for line in (
        "delete  model.ckpt-40.incomplete  left by an interrupted save or deletion",
        "write  checkpoint  list what stays, model.ckpt-30 as the newest",
        "move to quarantine  model-5.index.tempstate123  TensorFlow was killed while it wrote this",
        "move to quarantine  model.ckpt-20.data-00000-of-00001  model.ckpt-20.index: some of its bytes have changed",
    ):
        assert line in shown
    assert "notes.txt" not in text
    assert text.endswith("\nnothing was changed: --dry_run\n")


def test_a_repair_does_what_its_dry_run_lists(work, run_command):
    """The same actions; afterwards there is nothing to do."""
    _, planned = run_command("repair", work, "--dry_run", "--json")
    _, done = run_command("repair", work, "--json")
    assert (planned["done"], done["done"]) == (False, True)
    assert planned["actions"] == done["actions"]
    assert layout.steps_with(work, "manifest.json") == [10, 30]
    assert (work / "quarantine" / "model.ckpt-20" / "reason.txt").exists()
    assert run_command("repair", work) == (0, "nothing to do\n")
    assert run_command("repair", work, "--json") == (0, {"done": False, "actions": []})
    assert run_command("list", work)[0] == run_command("verify", work, "--all")[0] == 0


def test_a_pruning_does_what_its_dry_run_lists(tmp_path, run_command):
    """It names each file that is deleted."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, retention=RETENTION)
    before = tree(tmp_path)
    status, text = run_command("prune", tmp_path, "--dry_run")
    assert (status, tree(tmp_path)) == (0, before)
    assert all(path.name in text for path in layout.files_of(layout.prefix(tmp_path, 10)))
    assert "model.ckpt-20" not in text
    planned = run_command("prune", tmp_path, "--dry_run", "--json")[1]["actions"]
    assert run_command("prune", tmp_path, "--json") == (0, {"done": True, "actions": planned})
    assert layout.steps_with(tmp_path, "manifest.json") == [20, 30]
    assert run_command("prune", tmp_path) == (0, "nothing to do: the policy keeps every checkpoint\n")


def test_flags_replace_the_recorded_policy(tmp_path, run_command):
    """Flags that are not set leave the recorded values."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, retention=RETENTION, score=-step)
    run_command("prune", tmp_path, "--keep_best=1")
    assert layout.steps_with(tmp_path, "manifest.json") == [10, 20, 30]
    run_command("prune", tmp_path, "--max_to_keep=1")
    assert layout.steps_with(tmp_path, "manifest.json") == [30]


@pytest.mark.parametrize(
    "flag",
    [
        "--max_to_keep=-1",
        "--keep_best=-1",
        "--keep_checkpoint_every_n_hours=0",
        "--keep_checkpoint_every_n_hours=-1",
        "--keep_checkpoint_every_n_hours=nan",
    ],
)
def test_an_invalid_number_deletes_nothing(tmp_path, run_command, flag):
    """It is an error that names the flag."""
    make_checkpoint(tmp_path, 10, retention=RETENTION)
    before = tree(tmp_path)
    status, text = run_command("prune", tmp_path, flag)
    assert status == 1
    name, value = flag.split("=")
    expected = "more than 0" if "hours" in name else "0 or more"
    assert re.fullmatch(rf"error: {name}: expected {expected}, got {value}(\.0)?\n", text)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("writer", ["ours", "plain_saver", "sharded_saver", "object_based", "keras"])
def test_checkpoints_of_every_writer_can_be_repaired_and_pruned(tmp_path, run_command, writer):
    """The state file is rebuilt; complete checkpoints are unchanged."""
    WRITERS[writer](tmp_path / "run")
    (tmp_path / "run" / "checkpoint").unlink(missing_ok=True)
    before = tree(tmp_path / "run")
    assert run_command("repair", tmp_path / "run")[0] == 0
    assert run_command("prune", tmp_path / "run", "--max_to_keep=1")[1].startswith("nothing to do")
    after = tree(tmp_path / "run")
    assert after.keys() - before.keys() == {"checkpoint"}
    assert before.items() <= after.items()


@pytest.mark.parametrize("name", AWKWARD)
def test_a_plain_savers_directory_is_repaired_and_pruned(tmp_path, run_command, name):
    """The state file lists what is left, for any directory name."""
    plain_saver(tmp_path / name, range(5))
    flip_a_bit(tmp_path / name / "model-4.data-00000-of-00001")
    assert run_command("repair", tmp_path / name)[0] == 0
    assert run_command("prune", tmp_path / name, "--max_to_keep=2")[0] == 0
    left = {path.stem for path in (tmp_path / name).glob("*.index")}
    assert left == {"model-2", "model-3"}
    assert '"model-3"' in (tmp_path / name / "checkpoint").read_text().splitlines()[0]


def test_nothing_is_pruned_while_a_checkpoint_is_damaged(work, run_command):
    """After its repair, the policy may keep another one."""
    before = tree(work)
    status, text = run_command("prune", work)
    assert (status, tree(work)) == (1, before)
    assert "model.ckpt-20.index: some of its bytes have changed" in text
    assert f"hint: run `python -m checkpointing repair {work}` first" in text


@pytest.mark.parametrize("command", ["repair", "prune"])
def test_if_all_are_damaged_nothing_changes(tmp_path, run_command, command):
    """With status 1."""
    flip_a_bit(layout.index_path(make_checkpoint(tmp_path, 10)))
    before = tree(tmp_path)
    assert run_command(command, tmp_path)[0] == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", ["repair", "prune"])
@pytest.mark.parametrize("dry_run", [[], ["--dry_run"]])
def test_a_directory_in_use_is_refused(work, run_command, command, dry_run):
    """The run could change files while they are planned."""
    lock, before = Lock(work), tree(work)
    status, text = run_command(command, work, *dry_run)
    lock.release()
    assert (status, tree(work)) == (1, before)
    assert f"error: {work}: in use by process {os.getpid()}" in text


def test_a_full_disk_is_an_error(work, run_command):
    """Nothing is lost."""
    Lock(work).release()
    before = tree(work)
    with full_disk():
        status, text = run_command("repair", work)
    assert (status, tree(work)) == (1, before)
    assert "No space left on device" in text


def test_an_error_lists_what_was_done_before(work, run_command):
    """Every file that is gone has been named."""
    with mock.patch.object(durable, "move", side_effect=OSError(5, "Input/output error")):
        status, text = run_command("repair", work)
    assert status == 1
    assert text == (
        "error: model-5.index.tempstate123: cannot be moved to quarantine (Input/output error); done before: "
        "model.ckpt-40.incomplete, model.ckpt-40.index, checkpoint\n"
        "hint: fix the cause and run the same command again\n"
    )
    assert run_command("repair", work)[0] == 0


def test_checkpoints_are_pinned_and_unpinned(tmp_path, run_command):
    """By a mark next to the checkpoint."""
    prefixes = [checkpoint(tmp_path, step) for step in (50, 100)]
    assert run_command("pin", *prefixes) == (0, "".join(f"pinned {prefix}\n" for prefix in prefixes))
    assert layout.steps_with(tmp_path, "pinned") == [50, 100]
    assert run_command("unpin", prefixes[0], "--json") == (0, {"unpinned": [str(prefixes[0])]})
    assert layout.steps_with(tmp_path, "pinned") == [100]
    assert run_command("unpin", prefixes[0])[0] == 0


@pytest.mark.parametrize("name", ["model.ckpt-7", "other", "model.ckpt-50.index"])
def test_only_checkpoints_can_be_pinned(tmp_path, run_command, name):
    """The error lists the existing ones."""
    checkpoint(tmp_path, 50)
    status, text = run_command("pin", tmp_path / name)
    assert status == 1
    assert text.endswith("there are model.ckpt-50\n")
    assert layout.steps_with(tmp_path, "pinned") == []


def test_a_checkpoint_that_is_being_deleted_cannot_be_pinned(tmp_path, run_command):
    """It has its mark and still has its manifest."""
    mark(checkpoint(tmp_path, 50))
    assert run_command("pin", tmp_path / "model.ckpt-50")[0] == 1
    assert layout.steps_with(tmp_path, "pinned") == []


def test_a_plain_savers_checkpoint_cannot_be_pinned(tmp_path, run_command):
    """Retention does not apply to it."""
    assert run_command("pin", make_foreign(tmp_path, "model-7"))[0] == 1
