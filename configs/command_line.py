"""From argv to settings, and from errors to exit statuses.

    def main(command: command_line.Command) -> int: ...

    if __name__ == "__main__":
        command_line.run(main, program="cnn", synopsis=__doc__)

Exit status: what main returns; 1 for an error, told in one sentence on standard error; 2 for wrong usage.
"""

import dataclasses
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from absl import flags

import configs
from configs.settings import Settings

# What the linker says where a library does not fit into memory.
_NO_MEMORY = re.compile("failed to map segment|[Cc]annot allocate memory")

ERROR = 1
USAGE_ERROR = 2


class WarmStart(NamedTuple):
    """Weights to take over from another run or model.

    prefix: the checkpoint. pattern: what a variable's name must match from its beginning on. renames: names in the
    checkpoint, of tensors or scopes, to those here.
    """

    prefix: Path
    pattern: str
    renames: dict[str, str]


class Command(NamedTuple):
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

    def changing_weights(self) -> dict[str, Any]:
        """What of it the weights are a function of: with another one, a run cannot go on."""
        settings = self.settings.changing_weights()
        if self.warm_start is None:
            return settings
        return {**settings, "warm_start": {**self.warm_start._asdict(), "prefix": str(self.warm_start.prefix)}}


class UsageError(Exception):
    """The command line cannot be understood."""


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


def parse(program: str, argv: Sequence[str]) -> Command | None:
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
    return Command(
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


def run(main: Callable[[Command], int], *, program: str, synopsis: str) -> NoReturn:
    """Runs a program and ends the process with its exit status."""
    _open_standard_streams()
    try:
        sys.exit(_status(main, program, synopsis))
    finally:
        # The status is known: a signal while Python and TensorFlow end does not change it any more, nor does output
        # that a full disk has refused.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def tell(text: str) -> None:
    """Prints for the person who ran the program; that nobody reads it any more is no failure of the run."""
    try:
        print(text, flush=True)
    except OSError:  # a closed pipe, a full disk: what programs read is in result.json
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_standard_streams() -> None:
    """Makes sure that descriptors 0 to 2 exist, and that any text can be written to them.

    A daemon may start us with some closed; the next file opened would take their place, and messages would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "wt", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "wt", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _status(main: Callable[[Command], int], program: str, synopsis: str) -> int:
    try:
        command = parse(program, sys.argv)
    except UsageError as error:
        _complain(f"{error} (--help lists the flags)")
        return USAGE_ERROR
    if command is None:
        tell(f"{synopsis}\n{define_flags(program).get_help()}")
        return 0
    level = logging.WARNING if command.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    if not command.debug:
        # TensorFlow tells of its build, of missing GPUs and of its own plans; its errors reach us as exceptions.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        return main(command)
    except UsageError as error:
        _complain(str(error))
        return USAGE_ERROR
    except Exception as error:  # the last stop: any error becomes one sentence, none is swallowed
        if command.debug:
            raise
        _complain(_sentence(error))
        return ERROR


def _complain(sentence: str) -> None:
    """Prints an error; where even that is refused, the exit status must do."""
    with suppress(OSError):
        print(f"error: {sentence}", file=sys.stderr)


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
        return f"{where}{error.strerror}; see to it, and run the same command again."
    # Our own errors are sentences; any other begins with its kind, and --debug shows the rest.
    if type(error).__module__.startswith(("mnist", "checkpointing")):
        return text
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and _NO_MEMORY.search(text)):
        return f"not enough memory{f' ({text})' if text else ''}; free some, and run the same command again."
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return f"no thread can be started ({text}); see to it, and run the same command again."
    return f"{type(error).__name__}: {text} (--debug shows where)"
