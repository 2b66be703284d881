import dataclasses
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import configs
from checkpointing.errors import CheckpointError, OddFileError
from checkpointing.interruption import Interrupted
from configs import command_line
from configs.command_line import UsageError, WarmStart
from mnist.errors import DataError, NonFiniteLossError
from tests import programs

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


def parse(*flags, program="cnn"):
    """What a command line says."""
    return command_line.parse(program, ["train.py", *flags])


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
    for flags, seconds in ((["90"], 90.0), (["auto", "1.5"], 1.5), (["1.5", "auto"], "auto"), (["0"], 0.0)):
        settings = parse(*(f"--save_every_seconds={text}" for text in flags)).settings
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
    assert parse().changing_weights() == parse().settings.changing_weights()
    settings = parse("--warm_start_from=a", "--warm_start_renames=x=y").changing_weights()
    assert settings.pop("warm_start") == {"prefix": "a", "pattern": "", "renames": {"x": "y"}}
    assert settings == parse().settings.changing_weights()
    assert json.loads(json.dumps(parse("--warm_start_from=a").changing_weights())) == {
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
def test_a_warm_start_that_makes_no_sense_is_refused(monkeypatch, capsys, flags, told):
    """As wrong usage, with status 2, before anything is run."""
    assert told in complaint(*flags)
    assert run(monkeypatch, fail_with(AssertionError("main was run")), *flags) == 2
    assert told in capsys.readouterr().err


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


def run(monkeypatch, main, *flags):
    """Runs a program with these flags; gives its exit status."""
    monkeypatch.setattr(sys, "argv", ["train_cnn.py", *flags])
    with pytest.raises(SystemExit) as ended:
        command_line.run(main, program="cnn", synopsis="Trains something.")
    return ended.value.code


@pytest.fixture(autouse=True)
def kept_log_levels():
    """A program quiets TensorFlow's log for good; the tests that follow hear it as before."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def kept_handlers():
    """A program that ends ignores signals; the tests that follow do not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fail_with(error):
    """A program that fails."""

    def main(_):
        raise error

    return main


@pytest.mark.parametrize("status", [0, 75])
def test_the_exit_status_is_the_programs(monkeypatch, capsys, status):
    """What main returns is what the shell sees."""
    assert run(monkeypatch, lambda _: status) == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_a_run_that_was_stopped_is_no_error(monkeypatch, capsys, flags):
    """Asked to stop before it had anything to save, a program ends in silence, with the status that says try again."""
    assert run(monkeypatch, fail_with(Interrupted("SIGTERM")), *flags) == 75
    assert capsys.readouterr().err == ""


def test_a_program_gets_its_command(monkeypatch):
    """Flags reach main as settings and places."""
    commands = []
    run(monkeypatch, lambda command: commands.append(command) or 0, "--train_steps=7", "--train_dir=there")
    assert commands == [parse("--train_steps=7", "--train_dir=there")]


@pytest.mark.parametrize("kind", [DataError, NonFiniteLossError, CheckpointError])
def test_our_errors_are_one_sentence(monkeypatch, capsys, kind):
    """On standard error, with exit status 1, without a traceback, and without a line break."""
    assert run(monkeypatch, fail_with(kind("run[1]: 3 found,\n  4 wanted."))) == 1
    assert capsys.readouterr() == ("", "error: run[1]: 3 found, 4 wanted.\n")


@pytest.mark.parametrize("error", [KeyError("a name"), OSError("no number"), RuntimeError("a\nb")])
def test_any_other_error_is_one_line(monkeypatch, capsys, error):
    """It begins with its kind, for what it says may be no sentence, and tells where to learn more."""
    assert run(monkeypatch, fail_with(error)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {type(error).__name__}: ")
    assert err.count("\n") == 1
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(24, "Too many open files", "metrics.jsonl"), "metrics.jsonl: Too many open files; see to it, and run"),
        (OSError(116, "Stale file handle"), "Stale file handle; see to it, and run"),
        (OddFileError(Path("lock"), "expected a file, got a FIFO"), "lock: expected a file, got a FIFO; see to it"),
        (ImportError("libx.so: failed to map segment from shared object"), "not enough memory (libx.so: failed to map"),
        (
            RuntimeError("can't start new thread"),
            "no thread can be started (can't start new thread); see to it, and run",
        ),
        (MemoryError(), "not enough memory; free some, and run"),
        (MemoryError("Unable to allocate 8 GiB"), "not enough memory (Unable to allocate 8 GiB); free some, and run"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(monkeypatch, capsys, error, said):
    """With the file's name where the system says it, and without Python's words for it."""
    assert run(monkeypatch, fail_with(error)) == 1
    assert capsys.readouterr().err.startswith(f"error: {said}")


@pytest.mark.parametrize("error", [DataError("damaged."), RuntimeError("unforeseen")])
def test_debugging_shows_the_traceback(monkeypatch, error):
    """With --debug the error comes through as it was raised."""
    monkeypatch.setattr(sys, "argv", ["train_cnn.py", "--debug"])
    with pytest.raises(type(error), match=str(error)):
        command_line.run(fail_with(error), program="cnn", synopsis="Trains something.")


@pytest.mark.parametrize("flag", ["--train_step=7", "--train_steps=0", "--learning_rate=nan", "data", "--download"])
def test_wrong_usage_is_exit_status_two(monkeypatch, capsys, flag):
    """One line on standard error says what is wrong and how to learn more; nothing is run."""
    assert run(monkeypatch, fail_with(AssertionError("main was run")), flag) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "--help" in err


def test_help_lists_every_flag(monkeypatch, capsys):
    """Exit status 0, and on standard output what the program does and all that can be set."""
    assert run(monkeypatch, fail_with(AssertionError("main was run")), "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("Trains something.")
    for name in (*PLACES, *OTHER_VALUES):
        assert f"--{name}:" in out or f"--[no]{name}:" in out


def test_tensorflow_is_quiet_unless_debugging(monkeypatch):
    """Its own log is for whoever debugs; what the environment says goes before."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    run(monkeypatch, lambda _: 0, "--debug")
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    run(monkeypatch, lambda _: 0)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    run(monkeypatch, lambda _: 0)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("flags", [[], ["--help"], ["--nonsense"]])
def test_a_signal_while_the_process_ends_does_not_change_its_status(tmp_path, number, flags):
    """What is done is done: no death by a signal, and no traceback."""
    program = tmp_path / "program.py"
    program.write_text(
        "import atexit, os\n"
        "from configs import command_line\n"
        f"atexit.register(lambda: os.kill(os.getpid(), {number:d}))\n"
        "command_line.run(lambda command: 0, program='softmax', synopsis='')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), *flags]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == (2 if "--nonsense" in flags else 0), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full", "| true"])
def test_nobody_has_to_listen(tmp_path, redirection):
    """With standard streams closed, full or broken, what has succeeded has succeeded."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from configs import command_line\n"
        "def main(command):\n"
        "    Path(sys.argv[0]).with_name('ran').touch()\n"
        "    for _ in range(1000):\n"
        "        command_line.tell('a line that nobody may read \\udcff ' * 10)\n"
        "    return 0\n"
        "command_line.run(main, program='softmax', synopsis='')\n"
    )
    command = f"set -o pipefail; exec 3>&1; '{sys.executable}' '{program}' {redirection}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "ran").exists()


def test_a_path_beyond_utf8_is_refused():
    """TensorFlow could not write to it; the sentence can be read all the same."""
    assert r"\udcff" in complaint("--train_dir=run\udcff")


@pytest.mark.parametrize(("flags", "status"), [(["--data_dir=absent"], 1), (["--absent"], 2)])
def test_an_error_that_cannot_be_written_has_its_status(tmp_path, flags, status):
    """Where the disk takes not a byte of the output, the exit status says what there is to say."""
    command = [sys.executable, str(programs.ROOT / "train_softmax.py"), f"--train_dir={tmp_path / 'run'}", *flags]
    with (tmp_path / "output").open("w") as output:

        def no_file_may_grow():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

        ended = subprocess.run(command, stdout=output, stderr=output, check=False, preexec_fn=no_file_may_grow)
    assert ended.returncode == status
