"""The exceptions of the task. Each message names the file or value first, then what was expected."""

from checkpointing.errors import UserError


class DataError(UserError):
    """The data is not what it should be. The message names the file, what was found, and what was wanted."""


class ImageError(UserError):
    """A picture cannot be read. The message names the file, and says what was found in it."""


class NonFiniteLossError(UserError):
    """Training cannot go on, for the loss is no finite number. The message names the step."""


class ResultError(UserError):
    """A run's result.json cannot be read. The message names the file, and says what to do."""


class SignatureError(UserError):
    """A graph cannot be asked what it sees. The message says what was found in it, and what was wanted."""


class MachineError(UserError):
    """This machine cannot compute what was asked for. The message says what it lacks."""
