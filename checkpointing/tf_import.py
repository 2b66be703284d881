"""Import TensorFlow without its start-up messages and without Keras.

    with tensorflow_import():
        import tensorflow as tf

TensorFlow's import writes five lines about the machine to standard error, from C++, before any setting is read. Keras
takes a quarter of the import's seconds (docs/benchmarks.md), and this project does not use it.
"""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from checkpointing.errors import UserError, reason
from checkpointing.kernel_environment import choose_kernels

# The part of Keras that TensorFlow imports, if it is installed, for the optimizers of Keras models; it imports SciPy
# and Matplotlib.
_KERAS = "keras.src.optimizers"


@contextmanager
def tensorflow_import(*, debug: bool = False) -> Iterator[None]:
    """Choose kernels, then run a block that imports TensorFlow; with `debug`, its standard error is shown.

    Raises:
      UserError: there is no temporary directory.
    """
    _check_temporary_directory()
    choose_kernels()
    first = "tensorflow" not in sys.modules
    with _without_keras(), nullcontext() if debug else silenced():
        yield
    if first and "tensorflow" in sys.modules:
        gc.freeze()  # otherwise Python visits every object of these modules when it exits: half a second


def _check_temporary_directory() -> None:
    """Check that files can be written to a temporary directory, as TensorFlow's import and its autograph do."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        message = f"TMPDIR: expected a directory for TensorFlow's temporary files, got none ({reason(error)})"
        raise UserError(message, hint="set TMPDIR to a directory that can be written to") from error


def import_tensorflow() -> None:
    """Import TensorFlow in a `tensorflow_import` block; later imports find it in sys.modules."""
    with tensorflow_import():
        import tensorflow  # noqa: F401, ICN001, PLC0415 - the import is the point


@contextmanager
def silenced(*, shown_if_raised: bool = True) -> Iterator[None]:
    """Discard what the block, C code included, writes to standard error; if it raises, write it after all."""
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except Exception:
            held_back.seek(0)
            os.write(standard_error, held_back.read() if shown_if_raised else b"")
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


@contextmanager
def _without_keras() -> Iterator[None]:
    """Hide Keras from TensorFlow's import, which does without it. After the block it can be imported.

    A module that is None in sys.modules cannot be imported (source: Python's language reference, "The module cache").
    """
    if _KERAS in sys.modules:
        yield
        return
    sys.modules[_KERAS] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_KERAS]
