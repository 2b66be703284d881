"""TensorFlow's state file `checkpoint`: which checkpoints there are, as tf.train.latest_checkpoint and others read it.

It is a CheckpointState protocol buffer in text form. For this package it is a cache: the manifests decide.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from checkpointing.errors import is_damage
from checkpointing.protocol import quarantine
from checkpointing.storage import durable, layout, regular_file

_MOST_BYTES = 2**28  # a hundred a checkpoint

_LISTED = re.compile(rb'^all_model_checkpoint_paths: "((?:[^"\\]|\\.)*)"\s*$', re.MULTILINE)
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|.)")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def write(
    directory: Path, kept: Sequence[tuple[Path, float]], *, relative_paths: bool, name: str = layout.STATE_FILE
) -> None:
    """Lists these checkpoints, the last one as the newest; a file that does so already is left alone.

    Args:
      directory: where the file goes.
      kept: each one's prefix, and when it was saved in seconds since 1970; at least one.
      relative_paths: whether the file holds names or absolute paths.
      name: the file's; Saver can be told another one.
    """
    paths = [_quoted(prefix.name if relative_paths else str(prefix.absolute())) for prefix, _ in kept]
    lines = [
        f"model_checkpoint_path: {paths[-1]}",
        *(f"all_model_checkpoint_paths: {path}" for path in paths),
        *(f"all_model_checkpoint_timestamps: {saved_at!r}" for _, saved_at in kept),
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    state_file = directory / name
    if not state_file.is_symlink() and state_file.exists() and not state_file.is_file():
        durable.move([state_file], quarantine.place_for(directory, state_file.name))
    if _read(state_file) != content:
        durable.atomic_write(state_file, content)


def _read(path: Path) -> bytes:
    """What is in a state file; nothing where it is missing, or no file that could be one."""
    try:
        return regular_file.read(path, _MOST_BYTES)
    except OSError as error:
        if is_damage(error):
            return b""
        raise


def read(directory: Path, name: str = layout.STATE_FILE) -> list[Path]:
    """The prefixes that the file lists, the newest last; none where it is missing, or makes no sense."""
    try:
        return [directory / _unquoted(quoted) for quoted in _LISTED.findall(_read(directory / name))]
    except ValueError:
        return []


def _unquoted(quoted: bytes) -> str:
    """What protocol buffers mean by a quoted string; letters beyond ASCII may stand in it as they are."""

    def byte(match: re.Match[bytes]) -> bytes:
        escaped = match[1]
        return bytes([int(escaped, 8)]) if escaped.isdigit() else _LETTERS.get(escaped, escaped)

    return os.fsdecode(_ESCAPED.sub(byte, quoted))


def _quoted(text: str) -> str:
    """A string as protocol buffers write it: whatever is not plain ASCII as octal bytes."""
    plain = set(range(32, 127)) - set(b'"\\')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(text)) + '"'
