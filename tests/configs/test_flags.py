import dataclasses
import json
import sys
from pathlib import Path

import pytest

import configs
from configs import flags
from configs.flags import UsageError, WarmStart

ROOT = Path(__file__).parent.parent.parent
PLACES = [
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
    "augment_elastic": 0.625,
    "augment_cutout": 5,
    "precision": "bfloat16",
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
    """What a command line says."""
    return flags.parse(program, ["train.py", *arguments])


def complaint(*flags, program="cnn"):
    """The message with which a command line is refused."""
    with pytest.raises(UsageError) as refused:
        parse(*flags, program=program)
    return str(refused.value)


def test_without_flags_it_is_the_recipe():
    """The program's own recipe, the bundled data, a train_dir named after the recipe, and no debugging."""
    command = parse()
    assert command.config == "cnn"
    assert command.settings == configs.load("cnn")
    assert command.train_dir == Path("runs/cnn")
    assert (command.data_dir, command.export_dir, command.restore_from) == (None, None, None)
    assert (command.download, command.debug, command.max_restarts) == (False, False, 0)


@pytest.mark.parametrize("field", dataclasses.fields(configs.load("cnn")), ids=lambda field: field.name)
def test_every_setting_is_a_flag_of_its_own_name(field):
    """A flag overrides the recipe in this one setting, and in no other."""
    recipe, value = configs.load("cnn"), OTHER_VALUES[field.name]
    assert getattr(recipe, field.name) != value
    settings = parse(f"--{field.name}={value}").settings
    assert settings == dataclasses.replace(recipe, **{field.name: value})
    assert type(getattr(settings, field.name)) is type(value)


@pytest.fixture
def another_recipe(tmp_path, monkeypatch):
    """A recipe beside the program's own, as anybody may add one; gives its settings."""
    settings = dataclasses.replace(configs.load("cnn"), **OTHER_VALUES)
    (tmp_path / "cnn_other.py").write_text(f"from configs.settings import CnnSettings\n\nSETTINGS = {settings}\n")
    monkeypatch.setattr(configs, "__path__", [*configs.__path__, str(tmp_path)])
    yield settings
    sys.modules.pop("configs.cnn_other", None)


def test_another_recipe_is_taken_as_it_is(another_recipe):
    """None of its values is replaced by the default of a flag that nobody gave."""
    command = parse("--config=cnn_other")
    assert command.config == "cnn_other"
    assert command.settings == another_recipe
    assert command.train_dir == Path("runs/cnn_other")


def test_flags_go_before_another_recipe(another_recipe):
    """Also where a flag says what the program's own recipe says."""
    train_steps = configs.load("cnn").train_steps
    settings = parse("--config=cnn_other", f"--train_steps={train_steps}").settings
    assert settings == dataclasses.replace(another_recipe, train_steps=train_steps)


def test_where_a_number_is_wanted_a_word_may_be():
    """Auto leaves it to the program how often to save; a number is one all the same, and the last flag counts."""
    assert parse("--save_every_seconds=auto").settings.save_every_seconds == "auto"
    for given, seconds in ((["90"], 90.0), (["auto", "1.5"], 1.5), (["1.5", "auto"], "auto"), (["0"], 0.0)):
        settings = parse(*(f"--save_every_seconds={text}" for text in given)).settings
        assert settings.save_every_seconds == seconds
        assert type(settings.save_every_seconds) is type(seconds)


def test_a_word_in_a_recipe_is_its_default(another_recipe, tmp_path):
    """A recipe may say auto, and a flag a number, or the recipe a number, and the flag auto."""
    assert another_recipe.save_every_seconds == 14.5
    assert parse("--config=cnn_other", "--save_every_seconds=auto").settings.save_every_seconds == "auto"
    settings = dataclasses.replace(another_recipe, save_every_seconds="auto")
    (tmp_path / "cnn_auto.py").write_text(f"from configs.settings import CnnSettings\n\nSETTINGS = {settings}\n")
    assert parse("--config=cnn_auto").settings.save_every_seconds == "auto"
    assert parse("--config=cnn_auto", "--save_every_seconds=7").settings.save_every_seconds == 7.0
    sys.modules.pop("configs.cnn_auto")


def test_a_warm_start_says_from_where_what_and_under_which_names():
    """Without it there is none; all variables under their own names unless something else is said."""
    assert parse().warm_start is None
    assert parse("--warm_start_from=a/model.ckpt-7").warm_start == WarmStart(Path("a/model.ckpt-7"), "", {})
    command = parse("--warm_start_from=a", "--warm_start_vars=layer[12]/", "--warm_start_renames=old=new,a/b=c=d")
    assert command.warm_start == WarmStart(Path("a"), "layer[12]/", {"old": "new", "a/b": "c=d"})


def test_the_weights_are_a_function_of_a_warm_start():
    """So a run goes on with the same one only; without one, it is none of their settings."""
    assert parse().run_identity() == parse().settings.run_identity()
    settings = parse("--warm_start_from=a", "--warm_start_renames=x=y").run_identity()
    assert settings.pop("warm_start") == {"prefix": "a", "pattern": "", "renames": {"x": "y"}}
    assert settings == parse().settings.run_identity()
    assert json.loads(json.dumps(parse("--warm_start_from=a").run_identity())) == {
        **settings,
        "warm_start": {"prefix": "a", "pattern": "", "renames": {}},
    }


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--warm_start_from=a", "--restore_from=b"], "--restore_from and --warm_start_from found, one of them wanted"),
        (["--warm_start_vars=a"], "--warm_start_vars found without --warm_start_from"),
        (["--warm_start_renames=a=b"], "--warm_start_renames found without --warm_start_from"),
        (["--warm_start_from=a", "--warm_start_vars=layer("], "--warm_start_vars=layer(: a regular expression wanted"),
        (["--warm_start_from=a", "--warm_start_renames=layer"], "--warm_start_renames=layer: OLD=NEW wanted"),
        (["--warm_start_from=a", "--warm_start_renames=a=b,=c"], "--warm_start_renames==c: OLD=NEW wanted"),
        (["--warm_start_from="], "--warm_start_from= found, a path wanted"),
    ],
)
def test_a_warm_start_that_makes_no_sense_is_refused(flags, told):
    """As wrong usage, with status 2, before anything is run."""
    assert told in complaint(*flags)


def test_restarts_are_no_setting():
    """Who watches over a run is not what is run."""
    command = parse("--max_restarts=5")
    assert command.max_restarts == 5
    assert command.settings == configs.load("cnn")


@pytest.mark.parametrize(
    "flags", [["--train_steps=7"], ["--train_steps", "7"], ["-train_steps=7"], ["--train_steps=9", "--train_steps=7"]]
)
def test_flags_are_written_as_usual(flags):
    """With = or without, with one dash or two; of two the last one counts."""
    assert parse(*flags).settings.train_steps == 7


def test_yes_or_no_flags_can_be_denied():
    """As everywhere in absl, --no before the name means no."""
    assert parse("--nosave_relative_paths").settings.save_relative_paths is False
    assert parse("--nosave_in_background").settings.save_in_background is False
    assert parse("--sharded", "--debug").settings.sharded is True


def test_places_are_paths():
    """Brackets, spaces and letters of any script mean nothing but themselves."""
    command = parse(
        "--data_dir=run[1]", "--train_dir=with spaces", "--export_dir=größe", "--restore_from=a/model.ckpt-7"
    )
    assert command.data_dir == Path("run[1]")
    assert command.train_dir == Path("with spaces")
    assert command.export_dir == Path("größe")
    assert command.restore_from == Path("a/model.ckpt-7")


def test_a_tilde_is_the_home_directory_of_a_warm_start(monkeypatch):
    """As of any other path."""
    monkeypatch.setenv("HOME", "/somewhere/home")
    assert parse("--warm_start_from=~/run").warm_start.prefix == Path("/somewhere/home/run")


@pytest.mark.parametrize("flag", ["data_dir", "train_dir", "export_dir", "restore_from"])
def test_a_tilde_is_the_home_directory(flag, monkeypatch):
    """Also after =, where the shell leaves it as it is."""
    monkeypatch.setenv("HOME", "/somewhere/home")
    assert getattr(parse(f"--{flag}=~/run"), flag) == Path("/somewhere/home/run")


def test_the_home_of_nobody_is_refused():
    """A tilde with a name that no user has is wrong usage, like any other value that cannot be meant."""
    assert "nobody-of-this-name" in complaint("--train_dir=~nobody-of-this-name/run")


@pytest.mark.parametrize("flag", ["--help", "-h", "-help"])
def test_help_is_no_command(flag):
    """Who asks for help starts nothing, whatever else is on the line."""
    assert parse(flag, "--train_steps=7") is None


@pytest.mark.parametrize(
    ("flag", "told"),
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
def test_values_out_of_bounds_are_refused(flag, told):
    """The sentence names the flag, and the bound or the choices."""
    assert told in complaint(flag)


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
def test_what_is_no_number_is_refused(name):
    """NaN passes every comparison, but not this one; nothing is endless."""
    assert f"--{name}=nan: a finite number wanted" in complaint(f"--{name}=nan")
    assert f"--{name}=" in complaint(f"--{name}=inf")


def test_a_wrong_word_is_told_with_the_right_one():
    """Who means to leave it to the program reads how that is said."""
    assert "auto" in complaint("--save_every_seconds=often")


def test_an_unknown_flag_is_refused_with_a_suggestion():
    """A slip of the pen is told with what was probably meant."""
    message = complaint("--train_step=7")
    assert "train_step" in message
    assert "Did you mean: train_steps" in message


def test_a_flag_of_the_other_program_is_refused():
    """The softmax drops nothing out."""
    assert "dropout_rate" in complaint("--dropout_rate=0.5", program="softmax")


@pytest.mark.parametrize(("program", "other"), [("cnn", "softmax"), ("softmax", "cnn")])
def test_a_recipe_of_the_other_program_is_refused(program, other):
    """Each program has recipes of its own; the sentence lists them."""
    message = complaint(f"--config={other}", program=program)
    assert other in message
    assert program in message.replace(f"--config={other}", "")


@pytest.mark.parametrize("flags", [["train_steps=7"], ["--", "--train_steps=7"], ["--seed=1", "data"], ["-"]])
def test_what_is_no_flag_is_refused(flags):
    """A forgotten dash does not start a run with other settings."""
    assert "only flags wanted" in complaint(*flags)


def test_a_download_needs_a_place():
    """--download without --data_dir would go nowhere."""
    assert "--data_dir" in complaint("--download")
    assert parse("--download", "--data_dir=there").download is True


def test_a_path_beyond_utf8_is_refused():
    """TensorFlow could not write to it; the sentence can be read all the same."""
    assert r"\udcff" in complaint("--train_dir=run\udcff")
