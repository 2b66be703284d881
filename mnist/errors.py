"""Exceptions of this package. Each message names the file or value first: "PATH: expected X, got Y"."""

from checkpointing.errors import UserError


class DataError(UserError):
    """Training data cannot be read, or is not in MNIST's form."""


class ImageError(UserError):
    """An image file cannot be read."""


class NonFiniteLossError(UserError):
    """The loss is NaN or infinite."""


class RecheckError(UserError):
    """Steps that were computed twice gave two results, or the training data in memory have changed.

    step: the step at which the fault was found.
    trusted_step: the newest step before it whose state is good as far as is known.
    data_changed: whether the training data have changed.
    """

    def __init__(self, message: str, *, step: int, trusted_step: int, data_changed: bool) -> None:
        """Create an error."""
        super().__init__(message)
        self.step = step
        self.trusted_step = trusted_step
        self.data_changed = data_changed


class ResultError(UserError):
    """A result.json cannot be read."""


class SignatureError(UserError):
    """A graph has no input for images or no output with predictions."""


class MachineError(UserError):
    """The processor lacks an instruction set that a setting needs."""
