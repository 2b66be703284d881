"""Save and restore the state of any TensorFlow graph so that it survives crashes. README.md in this directory says how.

    from checkpointing import CheckpointManager, RetentionPolicy, Saver, open_train_dir

These names are imported when they are first used, so that `python -m checkpointing` starts without TensorFlow.
"""

TYPE_CHECKING = False  # as typing.TYPE_CHECKING; `typing` would make runs.starting slower to import
if TYPE_CHECKING:
    from checkpointing.graphs.saver import Saver
    from checkpointing.protocol.manager import CheckpointManager
    from checkpointing.protocol.resume import open_train_dir
    from checkpointing.protocol.retention import RetentionPolicy

__all__ = ["CheckpointManager", "RetentionPolicy", "Saver", "open_train_dir"]

_MODULES = {
    "CheckpointManager": "checkpointing.protocol.manager",
    "RetentionPolicy": "checkpointing.protocol.retention",
    "Saver": "checkpointing.graphs.saver",
    "open_train_dir": "checkpointing.protocol.resume",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see TYPE_CHECKING

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
