import json
import os
import re
from unittest import mock

import pytest

from checkpointing import __main__
from checkpointing.storage import durable, layout
from checkpointing.storage.lock import Lock
from tests.checkpoints import AWKWARD, flip_a_bit, full_disk, make_checkpoint, make_files, mark, tree
from tests.writers import WRITERS, make_foreign, plain_saver

RETENTION = {"max_to_keep": 2, "keep_checkpoint_every_n_hours": 10_000.0, "keep_best": 0}


@pytest.fixture
def ask(capsys):
    """Gives a command's status and what it prints; with `--json`, the record."""

    def asked(*arguments):
        status = __main__.main([*map(str, arguments)])
        said = capsys.readouterr()
        if said.err:
            assert said.err.startswith("error: ")
            assert not said.out
        text = said.out + said.err
        return status, json.loads(text) if "--json" in arguments and not said.err else text

    return asked


@pytest.fixture
def work(tmp_path):
    """A directory in which there is something of everything to do."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, retention=RETENTION)
    flip_a_bit(layout.index_path(layout.prefix(tmp_path, 20)))
    mark(make_files(tmp_path, 40, ["index"]))
    (tmp_path / "model-5.index.tempstate123").touch()
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def checkpoint(directory, step):
    """Something with a manifest."""
    directory.mkdir(exist_ok=True)
    prefix = layout.prefix(directory, step)
    layout.manifest_path(prefix).write_text("{}")
    return prefix


def test_a_dry_run_names_all_and_changes_nothing(work, ask):
    """Every file, what would become of it, and why."""
    before = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    status, text = ask("repair", work, "--dry_run")
    assert status == 0
    assert {path.name: path.stat().st_mtime_ns for path in work.iterdir()} == before
    told = re.sub(" {2,}", "  ", text)
    for line in (
        "delete  model.ckpt-40.incomplete  what an interrupted save or deletion left",
        "write  checkpoint  to list what stays, model.ckpt-30 as the newest",
        "move to quarantine  model-5.index.tempstate123  TensorFlow was killed while it wrote this",
        "move to quarantine  model.ckpt-20.data-00000-of-00001  model.ckpt-20.index: some of its bytes have changed",
    ):
        assert line in told
    assert "notes.txt" not in text
    assert text.endswith("\nnothing was changed: --dry_run\n")


def test_a_repair_is_what_its_dry_run_says(work, ask):
    """Line by line; then there is nothing to do."""
    _, planned = ask("repair", work, "--dry_run", "--json")
    _, done = ask("repair", work, "--json")
    assert (planned["done"], done["done"]) == (False, True)
    assert planned["actions"] == done["actions"]
    assert layout.steps_with(work, "manifest.json") == [10, 30]
    assert (work / "quarantine" / "model.ckpt-20" / "reason.txt").exists()
    assert ask("repair", work) == (0, "nothing to do\n")
    assert ask("repair", work, "--json") == (0, {"done": False, "actions": []})
    assert ask("list", work)[0] == ask("verify", work, "--all")[0] == 0


def test_a_pruning_is_what_its_dry_run_says(tmp_path, ask):
    """It names each file that goes."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, retention=RETENTION)
    before = tree(tmp_path)
    status, text = ask("prune", tmp_path, "--dry_run")
    assert (status, tree(tmp_path)) == (0, before)
    assert all(path.name in text for path in layout.files_of(layout.prefix(tmp_path, 10)))
    assert "model.ckpt-20" not in text
    planned = ask("prune", tmp_path, "--dry_run", "--json")[1]["actions"]
    assert ask("prune", tmp_path, "--json") == (0, {"done": True, "actions": planned})
    assert layout.steps_with(tmp_path, "manifest.json") == [20, 30]
    assert ask("prune", tmp_path) == (0, "nothing to do: each is worth keeping\n")


def test_what_is_said_goes_before_what_the_run_was_told(tmp_path, ask):
    """And what is not said is as the run was told."""
    for step in (10, 20, 30):
        make_checkpoint(tmp_path, step, retention=RETENTION, score=-step)
    ask("prune", tmp_path, "--keep_best=1")
    assert layout.steps_with(tmp_path, "manifest.json") == [10, 20, 30]
    ask("prune", tmp_path, "--max_to_keep=1")
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
def test_a_number_that_makes_no_sense_deletes_nothing(tmp_path, ask, flag):
    """It is told."""
    make_checkpoint(tmp_path, 10, retention=RETENTION)
    before = tree(tmp_path)
    status, text = ask("prune", tmp_path, flag)
    assert status == 1
    assert text.startswith(f"error: {flag.split('=')[0]}: ")
    assert text.endswith("wanted.\n")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("writer", ["ours", "plain_saver", "sharded_saver", "object_based", "keras"])
def test_what_anybody_wrote_can_be_put_in_order(tmp_path, ask, writer):
    """The state file is rebuilt; a checkpoint that is whole stays as it is."""
    WRITERS[writer](tmp_path / "run")
    (tmp_path / "run" / "checkpoint").unlink(missing_ok=True)
    before = tree(tmp_path / "run")
    assert ask("repair", tmp_path / "run")[0] == 0
    assert ask("prune", tmp_path / "run", "--max_to_keep=1")[1].startswith("nothing to do")
    after = tree(tmp_path / "run")
    assert after.keys() - before.keys() == {"checkpoint"}
    assert before.items() <= after.items()


@pytest.mark.parametrize("name", AWKWARD)
def test_a_plain_savers_directory_is_repaired_and_pruned(tmp_path, ask, name):
    """TensorFlow's own tools find what is left, wherever it lies."""
    plain_saver(tmp_path / name, range(5))
    flip_a_bit(tmp_path / name / "model-4.data-00000-of-00001")
    assert ask("repair", tmp_path / name)[0] == 0
    assert ask("prune", tmp_path / name, "--max_to_keep=2")[0] == 0
    left = {path.stem for path in (tmp_path / name).glob("*.index")}
    assert left == {"model-2", "model-3"}
    assert '"model-3"' in (tmp_path / name / "checkpoint").read_text().splitlines()[0]


def test_damage_is_repaired_before_anything_is_pruned(work, ask):
    """The damaged one may be why another is worth keeping."""
    before = tree(work)
    status, text = ask("prune", work)
    assert (status, tree(work)) == (1, before)
    assert "model.ckpt-20.index: some of its bytes have changed" in text
    assert f"before `python -m checkpointing repair {work}`" in text


@pytest.mark.parametrize("command", ["repair", "prune"])
def test_only_damaged_ones_are_left_alone(tmp_path, ask, command):
    """With status 1."""
    flip_a_bit(layout.index_path(make_checkpoint(tmp_path, 10)))
    before = tree(tmp_path)
    assert ask(command, tmp_path)[0] == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", ["repair", "prune"])
@pytest.mark.parametrize("dry_run", [[], ["--dry_run"]])
def test_a_directory_in_use_is_refused(work, ask, command, dry_run):
    """A plan of what a run is about to change would be none."""
    lock, before = Lock(work), tree(work)
    status, text = ask(command, work, *dry_run)
    lock.release()
    assert (status, tree(work)) == (1, before)
    assert f"error: {work}: in use by process {os.getpid()}" in text


def test_a_full_disk_is_told(work, ask):
    """In a sentence, and nothing is lost."""
    Lock(work).release()
    before = tree(work)
    with full_disk():
        status, text = ask("repair", work)
    assert (status, tree(work)) == (1, before)
    assert "No space left on device" in text


def test_what_was_done_before_the_disk_failed_is_told(work, ask):
    """Nothing goes without being named."""
    with mock.patch.object(durable, "move", side_effect=OSError(5, "Input/output error")):
        status, text = ask("repair", work)
    assert status == 1
    assert text == (
        "error: model-5.index.tempstate123: cannot be moved to quarantine (Input/output error); done before: "
        "model.ckpt-40.incomplete, model.ckpt-40.index, checkpoint. See to it, and give the same command again.\n"
    )
    assert ask("repair", work)[0] == 0


def test_pins_come_and_go(tmp_path, ask):
    """As a mark beside the checkpoint."""
    prefixes = [checkpoint(tmp_path, step) for step in (50, 100)]
    assert ask("pin", *prefixes) == (0, "".join(f"pinned {prefix}\n" for prefix in prefixes))
    assert layout.steps_with(tmp_path, "pinned") == [50, 100]
    assert ask("unpin", prefixes[0], "--json") == (0, {"unpinned": [str(prefixes[0])]})
    assert layout.steps_with(tmp_path, "pinned") == [100]
    assert ask("unpin", prefixes[0])[0] == 0


@pytest.mark.parametrize("name", ["model.ckpt-7", "other", "model.ckpt-50.index"])
def test_what_is_no_checkpoint_cannot_be_pinned(tmp_path, ask, name):
    """The sentence lists those that are there."""
    checkpoint(tmp_path, 50)
    status, text = ask("pin", tmp_path / name)
    assert status == 1
    assert text.endswith("there are model.ckpt-50.\n")
    assert layout.steps_with(tmp_path, "pinned") == []


def test_one_that_is_being_deleted_cannot_be_pinned(tmp_path, ask):
    """Its mark is there already."""
    mark(checkpoint(tmp_path, 50))
    assert ask("pin", tmp_path / "model.ckpt-50")[0] == 1
    assert layout.steps_with(tmp_path, "pinned") == []


def test_somebody_elses_cannot_be_pinned(tmp_path, ask):
    """Rotation does not touch it anyway."""
    assert ask("pin", make_foreign(tmp_path, "model-7"))[0] == 1
