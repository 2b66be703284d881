"""What can go wrong with checkpoints, told so that a person can act on it."""

import re

# TensorFlow tells where in the graph an error came up before it tells what came up, and where in the code afterwards.
_BEFORE_THE_REASON = re.compile(r"Graph execution error:.*?^Node: '[^\n]*'\n", re.DOTALL | re.MULTILINE)


class CheckpointError(Exception):
    """A checkpoint cannot be made, found or used. The message says what was found, what was wanted, what to do."""


class DamagedError(CheckpointError):
    """A checkpoint's files are not what its manifest says."""


class NotSavedError(CheckpointError):
    """A checkpoint could not be made for now: the disk refused. All complete ones are as they were."""


class NonFiniteError(CheckpointError):
    """The state holds values that are no finite numbers, and was not saved."""


def reason(error: BaseException) -> str:
    """What an exception says in its first line, without TensorFlow's account of where in the graph it happened."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = _BEFORE_THE_REASON.sub("", str(error)).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
