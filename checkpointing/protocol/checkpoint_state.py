"""Read and write TensorFlow's state file `checkpoint`, which tf.train.latest_checkpoint reads.

It is a CheckpointState protocol buffer in text format. In a run's directory it is a cache of the manifests. In other
directories it decides which checkpoint is the newest, and users edit it to go back.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from checkpointing.errors import is_damage
from checkpointing.protocol import quarantine
from checkpointing.storage import durable, layout, regular_file

_MAX_BYTES = 2**28  # about 100 per checkpoint

# Comments, strings in either quotes, and the rest of the text format that the file uses.
_TOKEN = re.compile(rb"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\w+|:""", re.ASCII)
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|.)")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def write(
    directory: Path, kept: Sequence[tuple[Path, float]], *, relative_paths: bool, name: str = layout.STATE_FILE
) -> None:
    """Write a state file that lists some checkpoints, the last one as the newest. An equal file is not written again.

    Args:
      directory: directory of the file.
      kept: prefix and time of each checkpoint, in seconds since 1970; at least one.
      relative_paths: whether the file holds names or absolute paths.
      name: name of the file; Saver's `latest_filename`.
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
    """Return the content of a state file; b"" if it is missing, too large or not a regular file."""
    try:
        return regular_file.read(path, _MAX_BYTES)
    except OSError as error:
        if is_damage(error):
            return b""
        raise


def read(directory: Path, name: str = layout.STATE_FILE) -> list[Path]:
    """Return the prefixes that a state file lists, the newest last; none if it is missing or cannot be parsed."""
    return [directory / path for path in _values(_read(directory / name), b"all_model_checkpoint_paths")]


def read_newest(directory: Path, name: str = layout.STATE_FILE) -> str | None:
    """Return the path that a state file gives for the newest checkpoint; None if it is missing or cannot be parsed."""
    found = _values(_read(directory / name), b"model_checkpoint_path")
    return found[-1] if found else None  # TensorFlow's parser takes the last one, too


def _values(content: bytes, field: bytes) -> list[str]:
    """Return the values of a field of strings; none if one cannot be parsed."""
    tokens = [token for token in _TOKEN.findall(content) if not token.startswith(b"#")]
    quoted = [
        value
        for name, colon, value in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if name == field and colon == b":" and value.startswith((b'"', b"'"))
    ]
    try:
        paths = [_unquoted(value[1:-1]) for value in quoted]
    except ValueError:
        return []
    return [] if any("\0" in path for path in paths) else paths


def _unquoted(quoted: bytes) -> str:
    """Return the value of a string in a protocol buffer's text format. It may hold unescaped UTF-8."""

    def byte(match: re.Match[bytes]) -> bytes:
        escaped = match[1]
        if escaped[:1] in b"xX" and len(escaped) > 1:
            return bytes([int(escaped[1:], 16)])
        return bytes([int(escaped, 8)]) if escaped.isdigit() else _LETTERS.get(escaped, escaped)

    return os.fsdecode(_ESCAPED.sub(byte, quoted))


def _quoted(text: str) -> str:
    """Return a string in protocol buffers' text format: everything but plain ASCII as octal bytes."""
    plain = set(range(32, 127)) - set(b'"\\')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(text)) + '"'
