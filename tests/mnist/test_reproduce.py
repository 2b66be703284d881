import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest

import configs
from configs.expected import ExpectedResult
from mnist import reproduce
from mnist.tools import reproduction, result_tables
from tests import programs

RECIPES = [(program, name) for program in reproduction.PROGRAMS for name in configs.names(program)]


# A complete result.json.
WHOLE = {
    **dict.fromkeys(("config", "weights_sha256", "checkpoint", "export_dir", "machine"), "x"),
    **dict.fromkeys(("seed", "train_images", "steps_redone", "restarts"), 0),
    "step": 7,
    "test_accuracy": 0.9,
    "validation_accuracy": None,
    "images_per_second": None,
    "resumed_from": None,
    "seconds": {"total": 1.0},
    "versions": {},
}


def result(accuracy, rate=1000.0):
    """Return the keys of result.json that are read."""
    seconds = {"train": 2.0, "total": 5.0}
    return {
        "test_accuracy": accuracy,
        "images_per_second": rate,
        "seconds": seconds,
        "weights_sha256": "0",
        "machine": "m",
        "versions": {"python": "3"},
    }


@pytest.fixture
def recipe(monkeypatch):
    """Return a recipe and its stated result, which tests may change."""
    stated = {"goal": 0.90, "mean": 0.91, "standard_deviation": 0.001, "seeds": 5, "seconds": 3.0, "machine": "m"}
    monkeypatch.setattr(configs, "expected_result", lambda _name: ExpectedResult(**stated))
    return reproduction.Recipe("softmax", "softmax"), stated


def verdict(recipe, accuracies):
    """Return whether these accuracies are as stated, and the verdict."""
    row = reproduction.summarize(recipe, [result(each) for each in accuracies])
    return row["as_stated"], row["verdict"].partition(":")[0]


def test_a_recipe_that_reaches_what_it_states_is_as_stated(recipe):
    """The mean is at least the goal, and near the stated mean."""
    assert verdict(recipe[0], [0.909, 0.910, 0.911]) == (True, "as stated")


@pytest.mark.parametrize("accuracies", [[0.905] * 5, [0.915] * 5])
def test_a_better_result_is_not_as_stated_either(recipe, accuracies):
    """A mean outside the tolerance differs from the stated result, whether lower or higher."""
    assert verdict(recipe[0], accuracies) == (False, "differs from the stated result")


def test_a_missed_goal_is_not_as_stated(recipe):
    """The goal is missed even if the mean is the stated one."""
    recipe[1]["goal"] = 0.92
    assert verdict(recipe[0], [0.910] * 5) == (False, "goal missed")


@pytest.mark.parametrize(
    ("instruction_set", "stated", "bits"),
    [
        ("avx2", ("0", "0", "0"), "; weights bit for bit as stated (2 of 2 seeds are stated)"),
        ("avx2", ("0",), "; weights bit for bit as stated (1 of 2 seeds are stated)"),
        ("avx2", ("0", "1"), "; weights differ from the stated ones: seed 1"),
        ("avx2", (), ""),
        ("native", ("0", "1"), ""),
    ],
)
def test_weights_are_compared_with_the_stated_ones_under_avx2(recipe, instruction_set, stated, bits):
    """Seed by seed; the accuracy alone decides whether the recipe is as stated."""
    recipe[1]["weights_sha256"] = stated
    row = reproduction.summarize(recipe[0]._replace(instruction_set=instruction_set), [result(0.91), result(0.91)])
    assert row["as_stated"]
    assert row["instruction_set"] == instruction_set
    assert row["verdict"].endswith(f"goal 0.9000{bits}")


def test_few_seeds_may_be_further_from_the_stated_mean(recipe):
    """The tolerance of one seed is wider than that of five."""
    assert verdict(recipe[0], [0.9075])[0]
    assert not verdict(recipe[0], [0.9075] * 5)[0]


def test_a_row_has_mean_spread_and_medians(recipe):
    """They are computed from all seeds; the speed is not taken from runs that only evaluated."""
    row = reproduction.summarize(recipe[0], [result(0.90), result(0.91, rate=None), result(0.92)])
    assert row["mean"] == pytest.approx(0.91)
    assert row["standard_deviation"] == pytest.approx(0.01)
    assert (row["lowest"], row["highest"], row["seeds"]) == (0.90, 0.92, 3)
    assert row["images_per_second"] == 1000
    assert "0.91000" in result_tables.markdown([row])


@pytest.mark.parametrize(("program", "name"), RECIPES)
def test_every_recipe_states_its_result(program, name):
    """The stated result has several seeds (or networks), a goal below its mean, seconds and a machine."""
    stated = configs.expected_result(name)
    assert 0.5 < stated.goal <= stated.mean < 1
    assert stated.seeds > 1 or configs.load(name).members > 1
    assert 0 < stated.standard_deviation < 0.01
    assert stated.seconds > 0
    assert "cores" in stated.machine
    assert program in name


@pytest.mark.parametrize("flags", [["--configs=tree"], ["--seeds=0"], ["--configs="]])
def test_usage_errors(flags, capsys):
    """Exit status 2, and what was expected."""
    with pytest.raises(SystemExit) as ended:
        reproduce.main(flags)
    assert ended.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_softmax_is_reproduced_killed_or_not(tmp_path, monkeypatch, capsys):
    """A real run has the stated accuracy, and a killed run ends with the same weights."""
    flags = ["--configs=softmax", "--seeds=1", f"--directory={tmp_path}", "--killed"]
    assert reproduce.main(flags) == 0
    [row] = json.loads((tmp_path / "results.json").read_text())["recipes"]
    assert row["killed_and_resumed"]
    assert row["seeds"] == 1
    monkeypatch.setattr(reproduction.supervisor, "run_each", pytest.fail)  # all runs are finished: results are read
    assert reproduce.main(flags) == 0
    # Runs of the former recipe are an error.
    changed = dataclasses.replace(configs.load("softmax"), learning_rate=0.25)
    monkeypatch.setattr(configs, "load", lambda _: changed)
    assert reproduce.main(flags) == 1
    directory = tmp_path / "softmax" / "seed-0"
    message = (
        f"{directory}: softmax has changed since the run: learning_rate 0.5 (now 0.25)\nhint: delete the directory"
    )
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [(json.dumps(WHOLE), "result.json names model.ckpt-7, which does not exist"), ("{", "expected JSON")],
)
def test_a_result_without_its_checkpoint_is_an_error(content, message, tmp_path, capsys):
    """So is a damaged result: exit status 1, and nothing is run."""
    train_dir = tmp_path / "softmax" / "seed-0"
    train_dir.mkdir(parents=True)
    (train_dir / "result.json").write_text(content)
    assert reproduce.main(["--configs=softmax", f"--directory={tmp_path}"]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["result.json"]


def test_an_ensemble_is_made_of_the_runs_of_its_members_recipe(tmp_path, small_data, monkeypatch):
    """The runs of the members' recipe are used where they are, and not changed."""
    member = dataclasses.replace(
        configs.load("cnn"),
        train_steps=10,
        save_every_steps=0,
        validation_size=200,
        batch_size=20,
        report=False,
    )
    recipes = {"cnn": member, "cnn_ensemble": dataclasses.replace(member, members=2)}
    monkeypatch.setattr(configs, "load", lambda name: recipes[name])
    monkeypatch.setattr(configs, "names", lambda program: list(recipes) if program == "cnn" else [])
    stated = ExpectedResult(goal=0.0, mean=0.1, standard_deviation=0.5, seeds=2, seconds=1, machine="m")
    monkeypatch.setattr(configs, "expected_result", lambda _name: stated)

    def command(recipe, seed, train_dir):
        flags = [f"--{name}={value}" for name, value in dataclasses.asdict(recipes[recipe.name]).items()]
        flags += [f"--seed={seed}", f"--train_dir={train_dir}", f"--data_dir={small_data}"]
        flags += [f"--instruction_set={recipe.instruction_set}"]
        return [sys.executable, str(programs.ROOT / "train_cnn.py"), *flags]

    monkeypatch.setattr(reproduction, "_command", command)
    assert reproduction.Recipe("cnn_ensemble", "cnn").member_recipe == "cnn"
    assert reproduction.Recipe("cnn", "cnn").member_recipe is None
    flags = ["--configs=cnn,cnn_ensemble", f"--directory={tmp_path}"]
    assert reproduce.main(flags) == 0
    single, ensemble = json.loads((tmp_path / "results.json").read_text())["recipes"]
    assert (single["seeds"], ensemble["seeds"]) == (2, 1)
    assert ensemble["train_seconds"] > single["train_seconds"] > 0
    members = [programs.result(tmp_path / "cnn" / f"seed-{seed}") for seed in range(2)]
    assert [each["weights_sha256"] for each in members] == single["weights_sha256"]
    assert all(each["images_per_second"] for each in members)


def test_sigterm_stops_the_run_with_its_state_saved(tmp_path):
    """The exit status is 75."""
    command = [sys.executable, "-m", "mnist.reproduce", "--configs=cnn", "--seeds=1", f"--directory={tmp_path}"]
    with subprocess.Popen(command, cwd=programs.ROOT, stdout=subprocess.PIPE, text=True) as process:
        metrics = tmp_path / "cnn" / "seed-0" / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output = process.communicate()[0]
    assert process.returncode == 75
    assert "run the same command again" in output
    assert list((tmp_path / "cnn" / "seed-0").glob("model.ckpt-*.manifest.json"))


def test_the_readme_has_the_table_of_results_json():
    """So has docs/results.md."""
    rows = json.loads((programs.ROOT / "docs" / "results.json").read_text())["recipes"]
    table = result_tables.markdown(rows)
    assert table in (programs.ROOT / "README.md").read_text()
    assert table in (programs.ROOT / "docs" / "results.md").read_text()
    for row in rows:
        assert row["config"] in [name for _, name in RECIPES]
