"""What a replay needs of a run's record: its settings, and in what this process differs from the one that trained."""

import dataclasses
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import configs
from checkpointing import kernel_environment
from checkpointing.errors import CheckpointError, listed
from checkpointing.kernel_environment import THREADS
from checkpointing.protocol import manifest, run_identity
from checkpointing.protocol.manifest import Manifest
from checkpointing.protocol.run_identity import NOT_RECORDED, Difference
from configs.flags import WarmStart
from configs.settings import Settings
from mnist.tools.reproduction import PROGRAMS

# Parts of a run identity that are not fields of the settings.
_OTHER_PARTS = {"model", "data", "warm_start"}

_HASH_DIGITS = 12  # of a hash in a message


class Here(NamedTuple):
    """The conditions of this process.

    data: fingerprint of the data. code: hash of the code. environment: record of choose_kernels.
    """

    data: str
    code: str
    environment: dict[str, str]


def program_of(saved: Manifest) -> str:
    """Return the program that saved a checkpoint, "softmax" or "cnn".

    Raises:
      CheckpointError: it was none of them.
    """
    program = saved.settings.get("model")
    if program not in PROGRAMS:
        message = (
            f"model.ckpt-{saved.step}: expected a checkpoint of {' or '.join(PROGRAMS)}, got model {program!r:.50}"
        )
        raise CheckpointError(message, hint="give the train_dir of train_softmax.py or train_cnn.py")
    return str(program)


def defaults_of(saved: Manifest) -> dict[str, Any]:
    """Return the defaults of the settings that a checkpoint may lack."""
    return configs.load(program_of(saved)).identity_defaults()


def settings_of(saved: Manifest) -> Settings:
    """Return the settings that a checkpoint was trained with, apart from those that do not change the weights.

    A setting that the record lacks has its default, as when a run is resumed.

    Raises:
      CheckpointError: a value is missing or invalid.
    """
    recipe = configs.load(program_of(saved))
    fields = {field.name: field for field in dataclasses.fields(recipe) if field.metadata["changes_weights"]}
    values = {name: saved.settings[name] for name in fields if name in saved.settings}
    missing = [name for name, field in fields.items() if name not in values and field.default is dataclasses.MISSING]
    problems = [f"{name}: expected a value, got none" for name in missing]
    for name, value in values.items():
        kind = fields[name].type
        if type(value) is not kind and (type(value), kind) != (int, float):
            problems.append(f"{name}: expected a value of type {getattr(kind, '__name__', kind)}, got {value!r:.50}")
    if not problems:
        try:
            return type(recipe)(**values, save_every_steps=0, threads=recipe.threads)
        except ValueError as error:
            problems.append(str(error).removeprefix("--"))
    raise CheckpointError(f"model.ckpt-{saved.step}: its manifest's settings cannot be used: {listed(problems, '; ')}")


def warm_start_of(saved: Manifest) -> WarmStart | None:
    """Return which weights a run took from another one's checkpoint; None if it took none.

    Raises:
      CheckpointError: the record is invalid.
    """
    record = saved.settings.get("warm_start")
    if record is None:
        return None
    try:
        choice = WarmStart(**record)
        re.compile(choice.pattern)
        is_valid = all(isinstance(each, str) for pair in choice.renames.items() for each in pair)
    except (TypeError, AttributeError, re.error):
        is_valid = False
    if not is_valid:
        raise CheckpointError(f"model.ckpt-{saved.step}: its manifest's warm_start cannot be used: {record!r:.200}")
    return choice


def use_recorded_threads(saved: Manifest) -> None:
    """Let oneDNN split its sums into as many parts as in the run, unless the user has set another number."""
    parts = (saved.environment or {}).get(THREADS, "")
    if parts.isdecimal() and parts.isascii():
        os.environ.setdefault(THREADS, parts)


def differences(saved: Iterable[Manifest], here: Here) -> list[Difference]:
    """Return in what this process differs from those that saved some checkpoints; each difference once.

    The processor's name is not compared: its instruction set is.
    """
    found = [difference for each in saved for difference in _differences(each, here)]
    return list({str(difference): difference for difference in found}.values())


def _differences(saved: Manifest, here: Here) -> list[Difference]:
    recorded = {"data": _short(saved.settings.get("data")), "code": _short(saved.code), **saved.versions}
    current = {"data": _short(here.data), "code": _short(here.code), **manifest.versions()}
    return [*_unknown_settings(saved), *run_identity.diff(recorded, current), *_other_kernels(saved, here)]


def _unknown_settings(saved: Manifest) -> list[Difference]:
    """Return the recorded settings that this code does not know; those that were removed count unless at a default."""
    recipe = configs.load(program_of(saved))
    known = {field.name for field in dataclasses.fields(recipe)} | _OTHER_PARTS
    defaults = recipe.identity_defaults()
    unknown = {name: value for name, value in saved.settings.items() if name not in known}
    return [
        Difference(f"setting {name}", value, "unknown to this code")
        for name, value in sorted(unknown.items())
        if not (name in defaults and defaults[name] == value)
    ]


def _other_kernels(saved: Manifest, here: Here) -> list[Difference]:
    if saved.environment is None:
        return [Difference("environment", NOT_RECORDED, kernel_environment.summary(here.environment))]
    return run_identity.kernel_differences(saved.environment, here.environment)


def _short(sha256: object) -> str:
    return sha256[:_HASH_DIGITS] if isinstance(sha256, str) else NOT_RECORDED


def changes_within(start: Manifest | None, end: Manifest) -> list[str]:
    """Return what changed between two checkpoints of a run that was resumed under other conditions."""
    if start is None:
        return []
    pairs = {
        "train_steps": (start.settings.get("train_steps"), end.settings.get("train_steps")),
        "code": (start.code, end.code),
        "versions": (start.versions, end.versions),
        "environment": (start.environment, end.environment),
    }
    return [name for name, (before, after) in pairs.items() if before != after]
