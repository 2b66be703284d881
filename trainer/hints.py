"""What to do about an error, in terms of the trainer's flags. The library's own hints name none of these."""

from checkpointing.errors import (
    LockedError,
    NonFiniteError,
    OccupiedNameError,
    OnlyDamagedError,
    OtherSourceError,
    OtherVersionError,
    SettingsDifferError,
    SourceError,
    UnwritableError,
    UserError,
)
from checkpointing.kernel_environment import ProcessorError
from checkpointing.storage.staging import TargetExistsError
from mnist.errors import NonFiniteLossError

LOWER_RATE = "try a lower --learning_rate in a new --train_dir"
OTHER_MACHINE = "run the same command on another machine; the processor or the memory of this one is faulty"

_HINTS: dict[type[UserError], str] = {
    LockedError: "wait until that process ends, stop it (SIGTERM saves first), or give another --train_dir",
    NonFiniteError: LOWER_RATE,
    NonFiniteLossError: LOWER_RATE,
    OccupiedNameError: "move it away, or give another --train_dir",
    OnlyDamagedError: "put a good copy back, or give a new --train_dir to start from the beginning",
    OtherSourceError: (
        "give a new --train_dir to start from that checkpoint, or leave out --restore_from and --warm_start_from"
        " to resume"
    ),
    OtherVersionError: "give a new --train_dir, and this checkpoint's prefix as --restore_from",
    ProcessorError: "leave out --instruction_set",
    SettingsDifferError: "give the recorded settings, or a new --train_dir",
    SourceError: "put the same checkpoint back, or give another one and a new --train_dir",
    TargetExistsError: "give another --export_dir",
    UnwritableError: "make it writable, run as its owner, or give another --train_dir",
}


def add_hint(error: UserError) -> None:
    """Replace the hint of an error whose class has one that names a flag."""
    for kind in type(error).__mro__:
        if kind in _HINTS:
            error.hint = _HINTS[kind]
            return
