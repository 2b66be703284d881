"""Checks that run before a directory is changed: a run's lock registers one, and `durable` calls it."""

from collections.abc import Callable
from pathlib import Path

_guards: list[tuple[Path, Callable[[], None]]] = []


def add(directory: Path, raise_if_forbidden: Callable[[], None]) -> Callable[[], None]:
    """Register a check for everything below a directory; if it raises, nothing is written, renamed or deleted.

    Returns:
      A function that removes the check.
    """
    guard = (directory, raise_if_forbidden)
    _guards.append(guard)

    def remove() -> None:
        if guard in _guards:
            _guards.remove(guard)

    return remove


def remove_all(directory: Path) -> None:
    """Remove all checks of a directory."""
    _guards[:] = [guard for guard in _guards if guard[0] != directory]


def check(path: Path) -> None:
    """Run the checks of all directories above a path. Called before TensorFlow writes there, too."""
    for directory, raise_if_forbidden in tuple(_guards):
        if path.is_relative_to(directory):
            raise_if_forbidden()
