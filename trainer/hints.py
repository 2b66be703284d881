"""Hints that name this program's flags, by class of error."""

from checkpointing.errors import UserError


def add_hint(error: UserError) -> None:
    """Set `error.hint` to what to do, naming the flag."""
    del error
