"""Exceptions of this package. Each message names the file or value first: "PATH: expected X, got Y"."""

from checkpointing.errors import UserError


class DataError(UserError):
    """Training data cannot be read, or is not in MNIST's form."""


class ImageError(UserError):
    """An image file cannot be read."""


class NonFiniteLossError(UserError):
    """The loss is NaN or infinite."""


class ResultError(UserError):
    """A result.json cannot be read."""


class SignatureError(UserError):
    """A graph has no input for images or no output with predictions."""


class MachineError(UserError):
    """The processor lacks an instruction set that a setting needs."""
