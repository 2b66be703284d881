import dataclasses
import json
import sys
from pathlib import Path

import pytest

import configs
from configs import flags
from configs.flags import UsageError, WarmStart

ROOT = Path(__file__).parent.parent.parent
OPTIONS = [
    *("config", "data_dir", "download", "train_dir", "export_dir", "restore_from", "max_restarts"),
    *("dry_run", "quiet", "debug"),
    *("warm_start_from", "warm_start_vars", "warm_start_renames"),
]
OTHER_VALUES = {
    "train_steps": 7,
    "batch_size": 8,
    "optimizer": "momentum",
    "learning_rate": 0.125,
    "learning_rate_schedule": "one_cycle",
    "momentum": 0.5,
    "beta1": 0.75,
    "beta2": 0.75,
    "label_smoothing": 0.25,
    "l2": 0.5,
    "clip_gradient_norm": 1.5,
    "ema_decay": 0.875,
    "augment_rotation": 1.25,
    "augment_zoom": 0.25,
    "augment_shear": 0.375,
    "augment_shift": 1.75,
    "precision": "bfloat16",
    "instruction_set": "avx2",
    "recheck_every_steps": 7,
    "architecture": "small",
    "seed": 9,
    "validation_size": 0,
    "log_every_steps": 11,
    "evaluate_every_steps": 12,
    "save_every_steps": 13,
    "save_every_seconds": 14.5,
    "mean_seconds_between_failures": 3600.0,
    "save_in_background": False,
    "max_failed_saves": 3,
    "max_to_keep": 0,
    "keep_best": 2,
    "keep_checkpoint_every_n_hours": 0.5,
    "save_relative_paths": False,
    "report": False,
    "sharded": True,
    "on_nonfinite": "rollback",
    "threads": 2,
    "dropout_rate": 0.25,
    "crops": 5,
    "members": 3,
}


def parse(*arguments, program="cnn"):
    """Parse a command line."""
    return flags.parse(program, ["train.py", *arguments])


def error_message(*flags, program="cnn"):
    """The error message for a command line."""
    with pytest.raises(UsageError) as refused:
        parse(*flags, program=program)
    return str(refused.value)


def test_without_flags_the_recipe_is_used():
    """Defaults: the program's own recipe, the bundled data, a train_dir named after the recipe, no debugging."""
    command = parse()
    assert command.config == "cnn"
    assert command.settings == configs.load("cnn")
    assert command.train_dir == Path("runs/cnn")
    assert (command.data_dir, command.export_dir, command.restore_from) == (None, None, None)
    assert (command.download, command.debug, command.max_restarts) == (False, False, 0)


@pytest.mark.parametrize("field", dataclasses.fields(configs.load("cnn")), ids=lambda field: field.name)
def test_every_setting_is_a_flag_of_its_own_name(field):
    """A flag overrides this one setting of the recipe, and no other."""
    recipe, value = configs.load("cnn"), OTHER_VALUES[field.name]
    assert getattr(recipe, field.name) != value
    settings = parse(f"--{field.name}={value}").settings
    assert settings == dataclasses.replace(recipe, **{field.name: value})
    assert type(getattr(settings, field.name)) is type(value)


@pytest.fixture
def another_recipe(tmp_path, monkeypatch):
    """The settings of a second recipe of the program, `cnn_other`."""
    settings = dataclasses.replace(configs.load("cnn"), **OTHER_VALUES)
    (tmp_path / "cnn_other.py").write_text(f"from configs.settings import CnnSettings\n\nSETTINGS = {settings}\n")
    monkeypatch.setattr(configs, "__path__", [*configs.__path__, str(tmp_path)])
    yield settings
    sys.modules.pop("configs.cnn_other", None)


def test_config_selects_another_recipe(another_recipe):
    """Defaults of flags that are not on the command line do not replace its values."""
    command = parse("--config=cnn_other")
    assert command.config == "cnn_other"
    assert command.settings == another_recipe
    assert command.train_dir == Path("runs/cnn_other")


def test_flags_override_another_recipe(another_recipe):
    """Also if the flag's value is the default of the program's own recipe."""
    train_steps = configs.load("cnn").train_steps
    settings = parse("--config=cnn_other", f"--train_steps={train_steps}").settings
    assert settings == dataclasses.replace(another_recipe, train_steps=train_steps)


def test_save_every_seconds_is_a_number_or_auto():
    """`auto` stays a word, numbers become floats, and the last flag wins."""
    assert parse("--save_every_seconds=auto").settings.save_every_seconds == "auto"
    for values, seconds in ((["90"], 90.0), (["auto", "1.5"], 1.5), (["1.5", "auto"], "auto"), (["0"], 0.0)):
        settings = parse(*(f"--save_every_seconds={text}" for text in values)).settings
        assert settings.save_every_seconds == seconds
        assert type(settings.save_every_seconds) is type(seconds)


def test_a_recipe_may_set_auto(another_recipe, tmp_path):
    """A number on the command line overrides auto in the recipe, and the other way round."""
    assert another_recipe.save_every_seconds == 14.5
    assert parse("--config=cnn_other", "--save_every_seconds=auto").settings.save_every_seconds == "auto"
    settings = dataclasses.replace(another_recipe, save_every_seconds="auto")
    (tmp_path / "cnn_auto.py").write_text(f"from configs.settings import CnnSettings\n\nSETTINGS = {settings}\n")
    assert parse("--config=cnn_auto").settings.save_every_seconds == "auto"
    assert parse("--config=cnn_auto", "--save_every_seconds=7").settings.save_every_seconds == 7.0
    sys.modules.pop("configs.cnn_auto")


def test_warm_start_flags():
    """By default there is no warm start; with one, all variables keep their names unless flags say otherwise."""
    assert parse().warm_start is None
    assert parse("--warm_start_from=a/model.ckpt-7").warm_start == WarmStart(Path("a/model.ckpt-7"), "", {})
    command = parse("--warm_start_from=a", "--warm_start_vars=layer[12]/", "--warm_start_renames=old=new,a/b=c=d")
    assert command.warm_start == WarmStart(Path("a"), "layer[12]/", {"old": "new", "a/b": "c=d"})


def test_a_warm_start_is_part_of_the_run_identity():
    """A run is resumed with the same warm start only; without one, the identity has no such entry."""
    assert parse().run_identity() == parse().settings.run_identity()
    settings = parse("--warm_start_from=a", "--warm_start_renames=x=y").run_identity()
    assert settings.pop("warm_start") == {"prefix": "a", "pattern": "", "renames": {"x": "y"}}
    assert settings == parse().settings.run_identity()
    assert json.loads(json.dumps(parse("--warm_start_from=a").run_identity())) == {
        **settings,
        "warm_start": {"prefix": "a", "pattern": "", "renames": {}},
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--warm_start_from=a", "--restore_from=b"],
            "--restore_from and --warm_start_from: expected one of them, got both",
        ),
        (["--warm_start_vars=a"], "--warm_start_vars: expected --warm_start_from"),
        (["--warm_start_renames=a=b"], "--warm_start_renames: expected --warm_start_from"),
        (
            ["--warm_start_from=a", "--warm_start_vars=layer("],
            "--warm_start_vars=layer(: expected a regular expression",
        ),
        (["--warm_start_from=a", "--warm_start_renames=layer"], "--warm_start_renames=layer: expected OLD=NEW"),
        (["--warm_start_from=a", "--warm_start_renames=a=b,=c"], "--warm_start_renames==c: expected OLD=NEW"),
        (
            ["--warm_start_from=a", "--warm_start_renames=a=b,a=c"],
            "--warm_start_renames: expected one new name for a, got two",
        ),
        (["--warm_start_from="], "--warm_start_from=: expected a path, got nothing"),
    ],
)
def test_invalid_warm_starts_are_usage_errors(flags, message):
    """Each is a usage error that names the flag."""
    assert message in error_message(*flags)


def test_max_restarts_is_not_a_setting():
    """It is an option of the run: the settings are those of the recipe."""
    command = parse("--max_restarts=5")
    assert command.max_restarts == 5
    assert command.settings == configs.load("cnn")


@pytest.mark.parametrize(
    "flags", [["--train_steps=7"], ["--train_steps", "7"], ["-train_steps=7"], ["--train_steps=9", "--train_steps=7"]]
)
def test_flag_syntax(flags):
    """With = or without, with one dash or two; the last of several wins."""
    assert parse(*flags).settings.train_steps == 7


def test_boolean_flags_have_a_no_form():
    """As in absl: --noNAME is false, --NAME is true."""
    assert parse("--nosave_relative_paths").settings.save_relative_paths is False
    assert parse("--nosave_in_background").settings.save_in_background is False
    assert parse("--sharded", "--debug").settings.sharded is True


def test_directory_flags_are_paths():
    """Brackets, spaces and non-ASCII letters have no special meaning."""
    command = parse(
        "--data_dir=run[1]", "--train_dir=with spaces", "--export_dir=größe", "--restore_from=a/model.ckpt-7"
    )
    assert command.data_dir == Path("run[1]")
    assert command.train_dir == Path("with spaces")
    assert command.export_dir == Path("größe")
    assert command.restore_from == Path("a/model.ckpt-7")


def test_a_tilde_in_a_warm_start_is_the_home_directory(monkeypatch):
    """As in any other path."""
    monkeypatch.setenv("HOME", "/somewhere/home")
    assert parse("--warm_start_from=~/run").warm_start.prefix == Path("/somewhere/home/run")


@pytest.mark.parametrize("flag", ["data_dir", "train_dir", "export_dir", "restore_from"])
def test_a_tilde_is_the_home_directory(flag, monkeypatch):
    """Also after =, where the shell does not expand it."""
    monkeypatch.setenv("HOME", "/somewhere/home")
    assert getattr(parse(f"--{flag}=~/run"), flag) == Path("/somewhere/home/run")


def test_the_home_of_an_unknown_user_is_a_usage_error():
    """The message contains the path."""
    assert "nobody-of-this-name" in error_message("--train_dir=~nobody-of-this-name/run")


@pytest.mark.parametrize("flag", ["--help", "-h", "-help"])
def test_help_returns_none(flag):
    """--help wins over all other flags, so that nothing is started."""
    assert parse(flag, "--train_steps=7") is None


@pytest.mark.parametrize(
    ("flag", "fragment"),
    [
        ("--train_steps=0", "train_steps"),
        ("--train_steps=ten", "train_steps"),
        ("--train_steps=1.5", "train_steps"),
        ("--train_steps=", "train_steps"),
        ("--train_steps", "train_steps"),
        ("--batch_size=60001", "60000"),
        ("--learning_rate=-0.1", "learning_rate"),
        ("--learning_rate=1001", "1000"),
        ("--learning_rate=inf", "learning_rate"),
        ("--seed=2147483648", "2147483647"),
        ("--momentum=1.5", "momentum"),
        ("--dropout_rate=1", "0.99"),
        ("--max_to_keep=-1", "max_to_keep"),
        ("--keep_checkpoint_every_n_hours=0", "0.001"),
        ("--optimizer=guess", "sgd|momentum|adam"),
        ("--learning_rate_schedule=guess", "constant|cosine|one_cycle"),
        ("--sharded=perhaps", "sharded"),
        ("--save_every_seconds=often", "save_every_seconds"),
        ("--save_every_seconds=Auto", "save_every_seconds"),
        ("--save_every_seconds=", "save_every_seconds"),
        ("--save_every_seconds=-1", "save_every_seconds"),
        ("--mean_seconds_between_failures=auto", "mean_seconds_between_failures"),
        ("--mean_seconds_between_failures=0.5", "mean_seconds_between_failures"),
        ("--save_every_steps=auto", "save_every_steps"),
        ("--max_failed_saves=-1", "max_failed_saves"),
        ("--keep_best=1000001", "1000000"),
        ("--on_nonfinite=hope", "stop|rollback"),
        ("--max_restarts=-1", "max_restarts"),
        ("--max_restarts=often", "max_restarts"),
    ],
)
def test_values_out_of_bounds_are_usage_errors(flag, fragment):
    """The message names the flag, and the bound or the choices."""
    assert fragment in error_message(flag)


@pytest.mark.parametrize(
    "name",
    [
        "learning_rate",
        "momentum",
        "dropout_rate",
        "save_every_seconds",
        "mean_seconds_between_failures",
        "keep_checkpoint_every_n_hours",
    ],
)
def test_numbers_must_be_finite(name):
    """NaN passes comparisons with bounds, so it is checked separately."""
    assert f"--{name}=nan: expected a finite number" in error_message(f"--{name}=nan")
    assert f"--{name}=" in error_message(f"--{name}=inf")


def test_a_wrong_word_is_answered_with_the_right_one():
    """The message lists `auto`."""
    assert "expected a number or auto" in error_message("--save_every_seconds=often")


def test_an_unknown_flag_is_a_usage_error_with_a_suggestion():
    """The message suggests the flag with the most similar name."""
    message = error_message("--train_step=7")
    assert "train_step" in message
    assert "Did you mean: train_steps" in message


def test_a_flag_of_the_other_program_is_a_usage_error():
    """The softmax has no dropout."""
    assert "dropout_rate" in error_message("--dropout_rate=0.5", program="softmax")


@pytest.mark.parametrize(("program", "other"), [("cnn", "softmax"), ("softmax", "cnn")])
def test_a_recipe_of_the_other_program_is_a_usage_error(program, other):
    """The message lists the recipes of this program."""
    message = error_message(f"--config={other}", program=program)
    assert other in message
    assert program in message.replace(f"--config={other}", "")


@pytest.mark.parametrize("flags", [["train_steps=7"], ["--", "--train_steps=7"], ["--seed=1", "data"], ["-"]])
def test_positional_arguments_are_usage_errors(flags):
    """So a forgotten dash does not start a run with default settings."""
    assert "expected only flags" in error_message(*flags)


def test_download_needs_a_data_dir():
    """--download without --data_dir is a usage error."""
    assert "--data_dir" in error_message("--download")
    assert parse("--download", "--data_dir=there").download is True


def test_a_path_that_is_not_utf8_is_a_usage_error():
    """The message shows the undecodable byte as an escape."""
    assert r"\udcff" in error_message("--train_dir=run\udcff")
