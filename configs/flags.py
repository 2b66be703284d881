"""Command-line flags: argv to a recipe's settings and the options of a run.

    options = flags.parse("cnn", sys.argv)

A flag on the command line overrides the recipe of `--config`.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

import configs
from checkpointing.errors import UsageError
from configs.settings import Settings


class WarmStart(NamedTuple):
    """Initial weights from a checkpoint of another run or model.

    prefix: the checkpoint's prefix.
    pattern: regular expression; variables whose names match it from the start are restored.
    renames: names or scopes in the checkpoint -> names or scopes in this model.
    """

    prefix: Path
    pattern: str
    renames: dict[str, str]


class RunOptions(NamedTuple):
    """A parsed command line.

    config: name of the recipe.
    settings: the recipe's settings, overridden by the flags.
    data_dir: None for the bundled MNIST.
    export_dir: None for <train_dir>/saved_model/<step>.
    The other fields are the flags of the same name.
    """

    config: str
    settings: Settings
    data_dir: Path | None
    download: bool
    train_dir: Path
    export_dir: Path | None
    restore_from: Path | None
    warm_start: WarmStart | None
    max_restarts: int
    dry_run: bool
    quiet: bool
    debug: bool

    @property
    def warm_start_from(self) -> Path | None:
        """The prefix of the checkpoint to take initial weights from."""
        return self.warm_start.prefix if self.warm_start else None

    def run_identity(self) -> dict[str, Any]:
        """Return the options that the trained weights depend on; a run cannot be resumed with other ones."""
        identity = self.settings.run_identity()
        if self.warm_start:
            identity["warm_start"] = {**self.warm_start._asdict(), "prefix": str(self.warm_start.prefix)}
        return identity


def define_flags(program: str) -> flags.FlagValues:
    """Define the flags of a program ("softmax" or "cnn"): the options of a run, and one flag per setting."""
    values = flags.FlagValues()  # type: ignore[no-untyped-call]
    _define_options(program, values)
    defaults = configs.load(program)
    for field in dataclasses.fields(defaults):
        _define_setting(field, getattr(defaults, field.name), values)
    return values


def _define_options(program: str, values: flags.FlagValues) -> None:
    common: dict[str, Any] = {"flag_values": values, "module_name": "run"}
    flags.DEFINE_enum("config", program, configs.names(program), "recipe: the defaults of all settings", **common)
    flags.DEFINE_string(
        "data_dir",
        None,
        "directory of IDX files, CSV tables or a TFDS dataset, or mnist.npz; unset = the bundled MNIST",
        **common,
    )
    flags.DEFINE_boolean(
        "download", default=False, help="download MNIST to --data_dir with tensorflow-datasets if it is empty", **common
    )
    flags.DEFINE_string(
        "train_dir", None, "directory of checkpoints, metrics and results; unset = runs/<config>", **common
    )
    flags.DEFINE_string(
        "export_dir", None, "directory to export the SavedModel to; unset = <train_dir>/saved_model/<step>", **common
    )
    flags.DEFINE_string(
        "restore_from", None, "checkpoint prefix to start from in place of step 0; restores the whole state", **common
    )
    flags.DEFINE_string(
        "warm_start_from", None, "checkpoint prefix to take initial weights from; training starts at step 0", **common
    )
    flags.DEFINE_string(
        "warm_start_vars",
        "",
        "regular expression: restore only variables whose names start with a match (--warm_start_from only)",
        **common,
    )
    flags.DEFINE_list(
        "warm_start_renames",
        [],
        "OLD=NEW: names or scopes in the checkpoint and their names in this model (--warm_start_from only)",
        **common,
    )
    flags.DEFINE_integer("max_restarts", 0, "number of times to restart a crashed run", lower_bound=0, **common)
    flags.DEFINE_boolean(
        "dry_run",
        default=False,
        help="train for a second, print time and disk space of the run, write nothing",
        **common,
    )
    flags.DEFINE_boolean("quiet", default=False, help="log warnings only", **common)
    flags.DEFINE_boolean("debug", default=False, help="show tracebacks and TensorFlow's own log", **common)
    flags.DEFINE_boolean("help", default=False, help="print this help", short_name="h", allow_hide_cpp=True, **common)


def _define_setting(field: dataclasses.Field[Any], default: Any, values: flags.FlagValues) -> None:  # noqa: ANN401 - a value of the field
    bounds = field.metadata
    common: dict[str, Any] = {"help": bounds["help"], "flag_values": values, "module_name": "settings"}
    range_: dict[str, Any] = {"lower_bound": bounds["at_least"], "upper_bound": bounds["at_most"]}
    if bounds["choices"]:
        flags.DEFINE_enum(field.name, default, bounds["choices"], **common)
    elif bounds["or_word"]:
        flags.DEFINE(_NumberOrWord(bounds["or_word"], **range_), field.name, default, **common)
    elif field.type is bool:
        flags.DEFINE_boolean(field.name, default, **common)
    elif field.type is int:
        flags.DEFINE_integer(field.name, default, **range_, **common)
    else:
        flags.DEFINE_float(field.name, default, **range_, **common)


class _NumberOrWord(flags.FloatParser):
    """Parse a number within bounds, or one word."""

    def __init__(self, word: str, **bounds: float | None) -> None:
        super().__init__(**bounds)
        self._word = word

    def parse(self, argument: str | float) -> Any:  # noqa: ANN401 - wider than its base class allows
        if argument == self._word:
            return argument
        try:
            return super().parse(argument)
        except ValueError as error:
            raise ValueError(f"expected a number or {self._word} ({error})") from error


def parse(program: str, argv: Sequence[str]) -> RunOptions | None:
    """Parse a command line; return None for --help.

    Args:
      program: "softmax" or "cnn".
      argv: the command line, the name of the program first.

    Raises:
      UsageError: a flag is unknown, or its value invalid.
    """
    values = define_flags(program)
    try:
        arguments = values(argv)[1:]
    except flags.Error as error:
        raise UsageError(str(error)) from error
    if values.help:
        return None
    if arguments:
        raise UsageError(f"'{arguments[0]}': expected only flags (--name=value)")
    if values.download and values.data_dir is None:
        raise UsageError("--download: expected --data_dir, the directory to download to")
    return RunOptions(
        config=values.config,
        settings=_settings(values),
        data_dir=_path("data_dir", values),
        download=values.download,
        train_dir=_path("train_dir", values) or Path("runs") / values.config,
        export_dir=_path("export_dir", values),
        restore_from=_path("restore_from", values),
        warm_start=_warm_start(values),
        max_restarts=values.max_restarts,
        dry_run=values.dry_run,
        quiet=values.quiet,
        debug=values.debug,
    )


def _settings(values: flags.FlagValues) -> Settings:
    """The recipe's settings, overridden by the flags on the command line."""
    recipe = configs.load(values.config)
    names = [field.name for field in dataclasses.fields(recipe)]
    overrides: dict[str, Any] = {name: values[name].value for name in names if values[name].present}
    try:
        return dataclasses.replace(recipe, **overrides)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _warm_start(values: flags.FlagValues) -> WarmStart | None:
    prefix = _path("warm_start_from", values)
    if prefix is None:
        for name in ("warm_start_vars", "warm_start_renames"):
            if values[name].present:
                raise UsageError(f"--{name}: expected --warm_start_from, the checkpoint to take weights from")
        return None
    if values.restore_from is not None:
        raise UsageError(
            "--restore_from and --warm_start_from: expected one of them, got both",
            hint="--restore_from restores the whole state, --warm_start_from only weights",
        )
    pattern = values.warm_start_vars
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--warm_start_vars={pattern}: expected a regular expression ({error})") from error
    renames: dict[str, str] = {}
    for old, new in map(_rename, values.warm_start_renames):
        if old in renames:
            raise UsageError(f"--warm_start_renames: expected one new name for {old}, got two")
        renames[old] = new
    return WarmStart(prefix, pattern, renames)


def _rename(text: str) -> tuple[str, str]:
    """Split OLD=NEW into its two names."""
    old, equals_sign, new = text.partition("=")
    if not (old and equals_sign and new):
        raise UsageError(f"--warm_start_renames={text}: expected OLD=NEW")
    return old, new


def _path(name: str, values: flags.FlagValues) -> Path | None:
    text = values[name].value
    if text is None:
        return None
    if not text:
        raise UsageError(f"--{name}=: expected a path, got nothing", hint="omit the flag to use its default")
    try:
        text.encode()  # TensorFlow accepts only paths in UTF-8
        return Path(text).expanduser()
    except UnicodeEncodeError as error:
        raise UsageError(f"--{name}={text!a}: expected a path in UTF-8") from error
    except RuntimeError as error:
        raise UsageError(f"--{name}={text}: expected a path, got the home directory of an unknown user") from error
