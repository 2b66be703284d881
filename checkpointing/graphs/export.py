"""Exports: SavedModels written beside their target, verified, and only then renamed to it.

    export.export_saved_model(target, prefix, build_signatures, Example(inputs, outputs))

Each export records the size and sha256 of its files in a manifest. They are computed once the files are written, and
compared before the export is renamed to its target and whenever a run finds an existing export.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from checkpointing.errors import LATER, CheckpointError, DamagedError, is_damage, listed, reason
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.graphs import saved_model, staged_export
from checkpointing.graphs.meta_graphs import Signature
from checkpointing.graphs.saved_model import TaggedGraph
from checkpointing.protocol import manifest, quarantine
from checkpointing.storage import durable, layout, staging
from checkpointing.storage.staging import TargetExistsError

Arrays = Mapping[str, np.ndarray[Any, Any]]
_RELATIVE_TOLERANCE = 1e-5
_ABSOLUTE_TOLERANCE = 1e-6

# Inside an export: its weights, and files that this program or its users add (TensorFlow reserves the folder for them).
_DATA = "variables/variables.data-"
_EXTRA = "assets.extra/"
_PARTS = ("saved_model.pb", "saved_model.pbtxt", "variables", "assets.extra")

_NOTHING_CHANGED = "nothing was changed; move it away, or export to another directory"

_log = logging.getLogger(__name__)


class Example(NamedTuple):
    """Inputs of the serving_default signature, and the outputs that the trained model gives for them."""

    inputs: Arrays
    outputs: Arrays


def export_saved_model(
    target: Path,
    prefix: Path,
    build_signatures: Callable[[], Mapping[str, Signature]],
    example: Example,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Export a SavedModel with the tag `serve`.

    Args:
      target: the directory to make; it must not exist. Its parents are made.
      prefix: the checkpoint with the weights.
      build_signatures: builds the model in the current graph and returns its signatures by name, including
        `serving_default`. Its variables have their names in the checkpoint.
      example: the exported model is published only if it gives these outputs.
      notes: texts to add to `assets.extra`, by file name.

    Raises:
      TargetExistsError: the target exists.
      CheckpointError: it cannot be written, or the exported model's outputs differ from the example.
    """
    with staged_export.unfinished_export(target) as unfinished:
        _write_and_verify(unfinished, prefix, build_signatures, example, notes)
        staged_export.publish(unfinished, target)


def ensure_exported(
    target: Path,
    prefix: Path,
    build_signatures: Callable[[], Mapping[str, Signature]],
    example: Example,
    notes: Mapping[str, str] = MappingProxyType({}),
    *,
    train_dir: Path,
    step: int,
) -> None:
    """Export a model with the tag `serve`, or keep an intact export of the same weights at the target.

    A damaged export of this run is moved to the train_dir's quarantine (to `<target>.damaged` if the target is outside
    the train_dir), and exported again. Nothing else at the target is moved or deleted.

    Args:
      target: the directory to make, or to check.
      prefix: the checkpoint with the weights.
      build_signatures: as for `export_saved_model`.
      example: the exported model must give these outputs.
      notes: texts to add to `assets.extra`, by file name.
      train_dir: the run's; the caller holds its lock.
      step: the checkpoint's.

    Raises:
      TargetExistsError: something else is at the target.
      CheckpointError: the export cannot be read or written.
    """
    is_own_place = layout.resolved(target) == layout.resolved(layout.export_path(train_dir, step))
    try:
        staging.sweep(target)
        if is_own_place:
            staging.sweep_old(target)
        if not staging.is_there(target):
            with suppress(TargetExistsError):  # another process exported first: the same model, or an error below
                export_saved_model(target, prefix, build_signatures, example, notes)
                return
        damage = staged_export.find_damage(target)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be read ({reason(error)})", hint=LATER) from error
    if damage is not None:
        with staged_export.unfinished_export(target) as unfinished:
            record = _write_and_verify(unfinished, prefix, build_signatures, example, notes)
            damage = staged_export.find_damage(target)  # again: another process may have replaced it in the meantime
            if damage is not None:
                if not _is_export_of(record, target, is_own_place=is_own_place):
                    message = f"{target}: expected nothing or an export of {prefix}, got something else ({damage})"
                    raise TargetExistsError(message, hint=_NOTHING_CHANGED)
                _set_aside(target, layout.export_quarantine_path(target, train_dir), damage)
                staged_export.publish(unfinished, target)
                return
    _check_is_export_of(target, prefix, example)
    _warn_of_extra_files(target)


def _set_aside(target: Path, place: Path, damage: str) -> None:
    try:
        quarantine.set_tree_aside(target, place, f"the export is damaged ({damage}); exporting it again")
    except OSError as error:
        message = f"{target}: the export is damaged ({damage}), and cannot be moved to {place} ({reason(error)})"
        raise CheckpointError(message, hint="move it away, and run the same command again") from error


def _check_is_export_of(target: Path, prefix: Path, example: Example) -> None:
    """Check that an intact export holds the weights of a checkpoint and gives its model's outputs.

    Raises:
      TargetExistsError: it does not.
    """
    different = _different_variables(target / "variables" / "variables", prefix)
    if different:
        found = staged_export.read_record(target)["checkpoint"]
        message = (
            f"{target}: expected an export of {prefix}, got one of another run's {found} ({listed(different)} differ)"
        )
        raise TargetExistsError(message, hint=_NOTHING_CHANGED)
    try:
        check_outputs(target, example)
    except CheckpointError as error:
        raise TargetExistsError(str(error), hint=_NOTHING_CHANGED) from error


def _different_variables(exported: Path, prefix: Path) -> list[str]:
    """Return the names of an export's variables that a checkpoint lacks or holds with other bits, sorted."""
    if not layout.index_path(exported).exists():  # a model without variables
        return []
    found, expected = Bundle(exported), Bundle(prefix)

    def is_equal(name: str) -> bool:
        one, other = found.tensor(name), expected.tensor(name)
        return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()

    return [name for name in found.entries if name not in expected.entries or not is_equal(name)]


def _is_export_of(record: Mapping[str, Any], target: Path, *, is_own_place: bool) -> bool:
    """Whether a damaged directory is recognizably an export of the same weights as another export.

    Args:
      record: the manifest of that other export, which has just been written.
      target: the damaged directory.
      is_own_place: whether only this run exports to it.
    """
    distinctive = {name: file for name, file in record["files"].items() if name.startswith((_DATA, _EXTRA))}
    weights = {name: file for name, file in distinctive.items() if name.startswith(_DATA)}
    try:
        files = staged_export.read_record(target)["files"]
    except DamagedError:
        has_parts = any((target / name).exists() for name in _PARTS)
        return has_parts and (is_own_place or any(_is_file(target / name, each) for name, each in distinctive.items()))
    return all(files.get(name) == file for name, file in (weights or distinctive).items())


def _is_file(path: Path, file: Mapping[str, Any]) -> bool:
    """Whether a file has the size and sha256 that `describe_files` recorded for another one."""
    try:
        return list(manifest.describe_files([path]).values()) == [file]
    except OSError as error:
        if is_damage(error):
            return False
        raise manifest.unreadable(path, error) from error


def _warn_of_extra_files(target: Path) -> None:
    """Log files that were added to an export later, except in `assets.extra`, where users may add files."""
    recorded = set(staged_export.read_record(target)["files"])
    extra = sorted(
        name for name in staged_export.files_of(target) if name not in recorded and not name.startswith(_EXTRA)
    )
    if extra:
        _log.warning("%s: %s: not in its manifest; left unchanged", target, listed(extra))


def _write_and_verify(
    unfinished: Path,
    prefix: Path,
    build_signatures: Callable[[], Mapping[str, Signature]],
    example: Example,
    notes: Mapping[str, str],
) -> dict[str, Any]:
    """Write an export, seal it, load it and compare its outputs; return its manifest."""
    saved_model.write(unfinished, prefix, [TaggedGraph([tf.saved_model.SERVING], build_signatures)])
    for name, text in notes.items():
        path = layout.export_manifest_path(unfinished).with_name(name)
        durable.make_directory(path.parent)
        durable.write(path, text.encode())
    record = staged_export.seal(unfinished, prefix)
    check_outputs(unfinished, example)
    return record


def check_outputs(directory: Path, example: Example) -> None:
    """Load a SavedModel and compare the outputs of its serving_default signature with an example.

    Raises:
      CheckpointError: it cannot be loaded, or the outputs differ. Floats may differ by a relative 1e-5, because the
        exported graph is optimized differently; all else must be equal.
    """
    try:
        found = _run_serving_default(directory, example.inputs, example.outputs)
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        message = f"{directory}: cannot be run with the trained model's signature ({reason(error)})"
        raise CheckpointError(message) from error
    for name, expected in example.outputs.items():
        if np.issubdtype(expected.dtype, np.floating):
            equal = np.allclose(found[name], expected, rtol=_RELATIVE_TOLERANCE, atol=_ABSOLUTE_TOLERANCE)
        else:
            equal = np.array_equal(found[name], expected)
        if not equal:
            raise CheckpointError(f"{directory}: its {name} differ from the trained model's")


def _run_serving_default(directory: Path, inputs: Arrays, outputs: Arrays) -> dict[str, Any]:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = saved_model.load(session, directory, [tf.saved_model.SERVING])
        signature = meta_graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
        feed = {signature.inputs[name].name: array for name, array in inputs.items()}
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        found = dict(session.run(fetches, feed))
    return {name: found[name] for name in outputs}
