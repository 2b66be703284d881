"""Flags: from argv to settings and run options.

options = flags.parse("cnn", sys.argv)
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
    """Weights to take over from another run or model.

    prefix: the checkpoint. pattern: what a variable's name must match from its beginning on. renames: names in the
    checkpoint, of tensors or scopes, to those here.
    """

    prefix: Path
    pattern: str
    renames: dict[str, str]


class RunOptions(NamedTuple):
    """What the command line said.

    config: the recipe's name. settings: the recipe, with the flags that were given in place of its own values.
    data_dir: None for the bundled MNIST. export_dir: None for the train_dir's own place. The rest: see the flags' help.
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
        """The checkpoint to take weights from."""
        return self.warm_start.prefix if self.warm_start else None

    def run_identity(self) -> dict[str, Any]:
        """What of it the weights are a function of: with another one, a run cannot go on."""
        settings = self.settings.run_identity()
        if self.warm_start is None:
            return settings
        return {**settings, "warm_start": {**self.warm_start._asdict(), "prefix": str(self.warm_start.prefix)}}


def define_flags(program: str) -> flags.FlagValues:
    """All flags of a program: where things lie, and one for each field of its settings."""
    values = flags.FlagValues()  # type: ignore[no-untyped-call]
    place: dict[str, Any] = {"flag_values": values, "module_name": "places"}
    flags.DEFINE_enum("config", program, configs.names(program), "the recipe to start from", **place)
    flags.DEFINE_string("data_dir", None, "IDX files or a TFDS directory; unset: the bundled MNIST", **place)
    flags.DEFINE_boolean("download", default=False, help="have TFDS prepare MNIST in an empty --data_dir", **place)
    flags.DEFINE_string("train_dir", None, "all that a run writes; unset: runs/<config>", **place)
    flags.DEFINE_string("export_dir", None, "the SavedModel; unset: <train_dir>/saved_model/<step>", **place)
    flags.DEFINE_string("restore_from", None, "prefix of the checkpoint to start from", **place)
    flags.DEFINE_string("warm_start_from", None, "prefix of a checkpoint to take weights from, to train anew", **place)
    flags.DEFINE_string("warm_start_vars", "", "of those whose name matches this regular expression", **place)
    flags.DEFINE_list("warm_start_renames", [], "OLD=NEW, ...: what is called otherwise there", **place)
    flags.DEFINE_integer("max_restarts", 0, "restart a crashed run so often", lower_bound=0, **place)
    flags.DEFINE_boolean(
        "dry_run", default=False, help="train for a second, tell time and disk, write nothing", **place
    )
    flags.DEFINE_boolean("quiet", default=False, help="tell nothing on the way but warnings", **place)
    flags.DEFINE_boolean("debug", default=False, help="show tracebacks and TensorFlow's own log", **place)
    flags.DEFINE_boolean("help", default=False, help="show this help", short_name="h", allow_hide_cpp=True, **place)
    defaults = configs.load(program)
    for field in dataclasses.fields(defaults):
        _define_setting(field, getattr(defaults, field.name), values)
    return values


def _define_setting(field: dataclasses.Field[Any], default: Any, values: flags.FlagValues) -> None:  # noqa: ANN401 - a value of the field
    bounds = field.metadata
    common: dict[str, Any] = {"help": bounds["meaning"], "flag_values": values, "module_name": "settings"}
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
    """Reads a number within bounds, or one word."""

    def __init__(self, word: str, **bounds: float | None) -> None:
        super().__init__(**bounds)
        self._word = word

    def parse(self, argument: str | float) -> Any:  # noqa: ANN401 - wider than its base class allows
        if argument == self._word:
            return argument
        try:
            return super().parse(argument)
        except ValueError as error:
            raise ValueError(f"a number or {self._word} wanted ({error})") from error


def parse(program: str, argv: Sequence[str]) -> RunOptions | None:
    """Reads a command line; None where only help was asked for.

    Raises:
      UsageError: it cannot be understood; the message says why.
    """
    values = define_flags(program)
    try:
        rest = values(argv)[1:]
    except flags.Error as error:
        raise UsageError(str(error)) from error
    if values.help:
        return None
    if rest:
        message = f"'{rest[0]}' found, only flags wanted (--name=value)."
        raise UsageError(message)
    if values.download and values.data_dir is None:
        message = "--download found without --data_dir: say where the data should go."
        raise UsageError(message)
    recipe = configs.load(values.config)
    given: dict[str, Any] = {
        field.name: values[field.name].value for field in dataclasses.fields(recipe) if values[field.name].present
    }
    try:
        settings = dataclasses.replace(recipe, **given)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return RunOptions(
        config=values.config,
        settings=settings,
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


def _warm_start(values: flags.FlagValues) -> WarmStart | None:
    prefix = _path("warm_start_from", values)
    if prefix is None:
        for name in ("warm_start_vars", "warm_start_renames"):
            if values[name].present:
                raise UsageError(f"--{name} found without --warm_start_from: say which checkpoint.")
        return None
    if values.restore_from is not None:
        raise UsageError("--restore_from and --warm_start_from found, one of them wanted: all of a state, or weights.")
    try:
        re.compile(values.warm_start_vars)
    except re.error as error:
        message = f"--warm_start_vars={values.warm_start_vars}: a regular expression wanted ({error})."
        raise UsageError(message) from error
    renames: dict[str, str] = {}
    for old, new in map(_pair, values.warm_start_renames):
        if old in renames:
            raise UsageError(f"--warm_start_renames: {old} found twice, one new name wanted.")
        renames[old] = new
    return WarmStart(prefix, values.warm_start_vars, renames)


def _pair(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise UsageError(f"--warm_start_renames={text}: OLD=NEW wanted.")
    return old, new


def _path(name: str, values: flags.FlagValues) -> Path | None:
    text = values[name].value
    if text is None:
        return None
    if not text:
        message = f"--{name}= found, a path wanted: leave the flag out for its default."
        raise UsageError(message)
    try:
        text.encode()  # TensorFlow takes UTF-8 only
        return Path(text).expanduser()
    except UnicodeEncodeError as error:
        message = f"--{name}={text!a} found, a path in UTF-8 wanted."
        raise UsageError(message) from error
    except RuntimeError as error:
        message = f"--{name}={text} found, a path wanted: there is no such user's home."
        raise UsageError(message) from error
