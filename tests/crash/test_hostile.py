"""Random attacks on a run end in the weights of the undisturbed run or one clear error, and lose no file."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash import attacks, cases, judging, victims
from tests.crash.cases import Case, FaultError, Lab
from tests.crash.victims import Ended, Trigger

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the attacks use /dev, /proc and signals of Linux")

# Seeds of each kind, in the order of the kinds; quick ones. 102 sets the number of threads, which a model card names.
QUICK = [31, 28, 274, 102, 18, 39, 36, 40, 30, 5, 26, 0, 20]
MANY = range(500)


@pytest.fixture(scope="module")
def lab(memory_disk: Path, small_data: Path) -> Iterator[Lab]:
    """The Lab that the attacks share."""
    shared = Lab(memory_disk, small_data)
    yield shared
    shared.close()


def check(lab: Lab, seeds: list[int]) -> None:
    """Carry out the attacks, two at a time; the failure lists the faults, and the command that repeats them."""
    with ThreadPoolExecutor(min(2, len(os.sched_getaffinity(0)))) as pool:
        reports = list(pool.map(lambda seed: attacks.carry_out(lab, seed), seeds))
    wrong = [report for report in reports if report.fault]
    faults = "\n".join(map(str, wrong))
    again = f"python -m tests.crash.attacks --keep {' '.join(str(report.seed) for report in wrong)}"
    assert not wrong, f"{len(wrong)} of {len(reports)} attacks found faults:\n{faults}\nTo repeat them: {again}"


def test_random_attacks_end_well(lab):
    """An attack of each kind ends in the undisturbed weights, or in one clear error."""
    assert {attacks.kind_of(seed) for seed in QUICK} == set(attacks.KINDS)
    check(lab, QUICK)


@pytest.mark.slow
def test_five_hundred_random_attacks_end_well(lab):
    """The same for 500 random attacks."""
    check(lab, list(MANY))


# ---- The judge -------------------------------------------------------------------------------------------------------


@pytest.fixture
def case(lab: Lab) -> Iterator[Case]:
    """A finished run without an attack."""
    one = Case(lab, seed=-1)
    one.clean()
    one.lay_out(cases.FINISHED, program="softmax")
    rewrite_result(one, export_dir=str(one.train_dir / "saved_model" / "60"))
    yield one
    one.clean()


DONE = Ended(0, "", "12:00:00  a warning\n", 1.0)
REFUSED = Ended(1, "", "12:00:00  a warning\nerror: lock: expected a file, got a FIFO\n", 1.0)


def judged(case: Case, ended: Ended, then=lambda: None) -> str:
    """Return what the judge finds wrong with a run that ended like this after calling `then`."""

    def run() -> Ended:
        then()
        return ended

    case.run = lambda *_: DONE  # no further run
    try:
        case.attack(run)
    except FaultError as fault:
        return str(fault)
    return ""


def test_the_judge_accepts_a_good_end(case):
    """Status 0 with the undisturbed result; status 1 with an error, if the next run succeeds."""
    assert judged(case, DONE) == ""
    assert judged(case, REFUSED) == ""


@pytest.mark.parametrize(
    ("ended", "found"),
    [
        (DONE._replace(status=None), "hung"),
        (DONE._replace(status=-11), "exit status -11 (a signal)"),
        (DONE._replace(status=75), "exit status 75"),
        (DONE._replace(status=1), "0 error lines"),
        (REFUSED._replace(status=0), "1 error lines"),
        (REFUSED._replace(stderr=REFUSED.stderr * 2), "2 error lines"),
        (REFUSED._replace(stderr="error: KeyError: 'step'\n"), "a bare exception"),
        (REFUSED._replace(stderr="error: tensorflow.errors.DataLossError: x\n"), "a bare exception"),
        (REFUSED._replace(stderr="error: lock: busy (--debug shows where)\n"), "--debug shows where"),
        (REFUSED._replace(stderr="Traceback (most recent call last):\nerror: x\n"), "Traceback"),
        (REFUSED._replace(stderr="error: x\nhint: y\nhint: z\n"), "only a hint may follow"),
        (REFUSED._replace(stderr="hint: y\nerror: x\n"), "only a hint may follow"),
        (REFUSED._replace(stderr="error: x\nmore\n"), "only a hint may follow"),
        (DONE._replace(stderr="hint: y\n"), "only a hint may follow"),
    ],
)
def test_the_judge_rejects_a_wrong_end(ended, found):
    """A hang, a signal, another status; no error line or two, a traceback, a bare exception, other lines."""
    assert found in judging.wrong_ending(ended)


def test_the_judge_accepts_a_hint():
    """One `hint:` line may follow the error."""
    assert judging.wrong_ending(REFUSED._replace(stderr="error: x\nhint: give another --train_dir\n")) == ""


def test_the_judge_looks_at_the_end(case):
    """A run that dies of a signal is a fault, whatever its files are."""
    assert "exit status -11" in judged(case, DONE._replace(status=-11))


def rewrite_result(case: Case, **values: object) -> None:
    """Change the run's result.json."""
    path = case.train_dir / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


def test_the_judge_rejects_another_model(case):
    """Other weights, another step, another export_dir in result.json, or no result.json."""
    assert "weights_sha256 00" in judged(case, DONE, lambda: rewrite_result(case, weights_sha256="00"))
    rewrite_result(case, weights_sha256=case.lab.reference("softmax").weights_sha256, step=40)
    assert "step 40" in judged(case, DONE)
    rewrite_result(case, step=60, export_dir="/elsewhere")
    assert "/elsewhere was exported" in judged(case, DONE)
    (case.train_dir / "result.json").unlink()
    assert "result.json cannot be read" in judged(case, DONE)


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.data-00000-of-00001", "assets.extra/MODEL_CARD.md"]
)
def test_the_judge_rejects_a_damaged_export(case, name):
    """A flipped bit in any of its files."""
    path = case.train_dir / "saved_model" / "60" / name
    assert f"export: {name}" in judged(
        case, DONE, lambda: path.write_bytes(attacks.flipped(path.read_bytes(), case.random))
    )


def test_the_judge_rejects_other_weights_in_the_export(case):
    """An intact export of another run."""
    other = case.lab.template("softmax", cases.FINISHED, *cases.OTHER) / "saved_model"
    shutil.rmtree(case.train_dir / "saved_model")
    shutil.copytree(other, case.train_dir / "saved_model")
    assert "other weights in" in judged(case, DONE)


def test_the_judge_rejects_other_metrics(case):
    """A lost record of a step."""
    path = case.train_dir / "metrics.jsonl"
    assert "metrics.jsonl holds" in judged(case, DONE, lambda: path.write_text(path.read_text().split("\n", 1)[1]))


@pytest.mark.parametrize("ended", [DONE, REFUSED])
@pytest.mark.parametrize(
    "change",
    [
        lambda precious: (precious / "file").write_text("other"),
        lambda precious: (precious / "file").chmod(0o600),
        lambda precious: (precious / "lock").unlink(),
        lambda precious: (precious / "new").symlink_to("file"),
        lambda precious: shutil.rmtree(precious / "directory" / "assets"),
        lambda precious: (precious / "other_run" / "model.ckpt-20.index").unlink(),
    ],
)
def test_the_judge_rejects_changes_outside(case, ended, change):
    """Content, mode, a deleted or a new file, for either exit status."""
    assert "changed outside the train_dir" in judged(case, ended, lambda: change(case.root / "precious"))


def to_quarantine(train_dir: Path, step: int) -> None:
    """Move a checkpoint as a run moves a damaged one."""
    place = train_dir / "quarantine" / f"model.ckpt-{step}"
    place.mkdir(parents=True)
    for path in train_dir.glob(f"model.ckpt-{step}.*"):
        path.rename(place / path.name)


@pytest.mark.parametrize("ended", [DONE, REFUSED])
def test_the_judge_rejects_a_lost_checkpoint(case, ended):
    """A good checkpoint that is deleted, changed, or moved to quarantine."""
    to_quarantine(case.train_dir, 40)
    assert "model.ckpt-40.index" in judged(case, ended)
    assert "moved to quarantine" in judged(case, ended)


def test_the_judge_rejects_a_good_checkpoint_in_quarantine(case):
    """Even if the run saves the same step again."""
    for path in case.train_dir.glob("model.ckpt-60.*"):
        shutil.copy(path, case.root)
    to_quarantine(case.train_dir, 60)
    for path in case.root.glob("model.ckpt-60.*"):
        path.rename(case.train_dir / path.name)
    assert "nothing was wrong with it" in judged(case, DONE)


def test_the_judge_lets_a_damaged_checkpoint_be_moved_but_not_deleted(case):
    """Its intact files must be kept."""
    path = case.train_dir / "model.ckpt-60.index"
    case.change(path, attacks.flipped(path.read_bytes(), case.random))
    to_quarantine(case.train_dir, 60)
    assert judged(case, DONE) == ""
    shutil.rmtree(case.train_dir / "quarantine")
    assert "model.ckpt-60.data-00000-of-00001 deleted, though intact" in judged(case, DONE)


def test_the_judge_rejects_the_loss_of_a_users_file(case):
    """A directory in a file's place must be moved with its files, or left alone."""
    path = case.train_dir / "attempt.json" / "mine.txt"
    path.parent.mkdir()
    path.write_text("mine")
    case.users_files = {path: b"mine"}
    assert judged(case, DONE) == ""
    assert "mine.txt" in judged(case, DONE, lambda: shutil.rmtree(path.parent))


def test_an_error_must_not_persist_without_its_cause(case):
    """After the cause has been removed, the command must succeed."""
    case.run = lambda *_: REFUSED
    with pytest.raises(FaultError, match="after the cause was removed: expected exit status 0"):
        case.attack(lambda: REFUSED)


def test_a_trigger_acts_on_its_call(lab, case):
    """A stopped run continues and succeeds; one killed before its first change has changed nothing."""
    before = judging.snapshot(case.train_dir)
    assert case.run(Trigger("changes", str(case.train_dir), 1, "kill")).status == -9
    assert judging.snapshot(case.train_dir) == before
    victim = case.start(Trigger("reads", str(case.train_dir), 3, "stop"))
    assert victim.wait(lab.seconds) == victims.STOPPED
    victim.resume()
    assert victim.end(lab.seconds).status == 0
