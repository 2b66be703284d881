"""Which variables of a graph are in a checkpoint: all of them, or as many as fit (a warm start).

    match = matching.match(prefix, variables, "layer[12]/")
    print(match.told())
    with graph.as_default():
        matching.restore(session, prefix, match)

A warm start takes some variables from a checkpoint of another run or model, and leaves the others as they are.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from checkpointing.errors import CheckpointError, reason
from checkpointing.format import tensor_io
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.format.tensor_index import Entry
from checkpointing.storage import tf_path


class Match(NamedTuple):
    """What a checkpoint has for the variables of a graph, each of them by its name.

    taken: the variables to restore, by the names of their tensors in the checkpoint.
    mismatched: those whose tensor is of another shape or dtype, with found and wanted.
    left: those that are not wanted, or not in the checkpoint.
    unused: the checkpoint's tensors that nobody takes.
    """

    taken: dict[str, tf.Variable]
    mismatched: dict[str, str]
    left: list[str]
    unused: list[str]

    def told(self) -> str:
        """The report, a line each for what there is to tell."""
        lines = {
            "taken": [_renamed(tensor, variable) for tensor, variable in self.taken.items()],
            "not taken, for they do not fit": [f"{name} ({problem})" for name, problem in self.mismatched.items()],
            "left at their start": self.left,
            "in the checkpoint, but not taken": self.unused,
        }
        return "\n".join(f"{what}: {', '.join(names)}" for what, names in lines.items() if names)


def _renamed(tensor: str, variable: tf.Variable) -> str:
    return tensor if tensor == variable.op.name else f"{tensor} as {variable.op.name}"


def match(
    prefix: Path,
    variables: Iterable[tf.Variable],
    pattern: str = "",
    *,
    renames: Mapping[str, str] | None = None,
    reshape: bool = False,
) -> Match:
    """Looks for variables in a checkpoint, whoever made it; restores nothing.

    Args:
      prefix: the checkpoint.
      variables: those that may be taken.
      pattern: a regular expression that a variable's name must match from its beginning on; empty for all.
      renames: names in the checkpoint, of tensors or scopes, to those in the graph, as `tensors.renamed` takes them.
      reshape: whether the shape may differ as long as the number of elements does not, as Saver's option.

    Raises:
      CheckpointError: nothing can be taken, or the renames make no sense; the message says what is there.
    """
    entries = Bundle(prefix).entries
    try:
        entry_of = tensor_io.renamed(entries, renames or {})
    except CheckpointError as error:
        raise CheckpointError(f"{prefix}: {error}") from error
    found = Match({}, {}, [], [])
    for variable in variables:
        name = variable.op.name
        entry = entry_of.get(name)
        if entry is None or not re.match(pattern, name):
            found.left.append(name)
        elif _fits(entry, variable, reshape=reshape):
            found.taken[entry.name] = variable
        else:
            found.mismatched[name] = f"{_told(entry)} found, {_wanted(variable)} wanted"
    found.unused.extend(tensor for tensor in entries if tensor not in found.taken)
    if not found.taken:
        told = "; ".join(found.told().splitlines())
        raise CheckpointError(f"{prefix}: none of the variables wanted can be taken from it: {told}.")
    return found


def restore(session: tf.compat.v1.Session, prefix: Path, found: Match, *, reshape: bool = False) -> None:
    """Puts the variables that match at their values in the checkpoint; the graph must be the current one."""
    saver = tf.compat.v1.train.Saver(found.taken, reshape=reshape)
    try:
        with tf_path.without_pattern(prefix) as plain:
            saver.restore(session, str(plain))
    except (tf.errors.OpError, ValueError) as error:
        raise CheckpointError(f"{prefix}: cannot be restored ({reason(error)}).") from error


def check_variables(
    prefix: Path, entries: Mapping[str, Entry], variables: Mapping[str, tf.Variable], *, reshape: bool = False
) -> None:
    """Checks that a checkpoint has all of these variables, by their names in it.

    Raises:
      CheckpointError: names the first that it has not, or not in this shape and dtype, with found and wanted.
    """
    for name, variable in variables.items():
        if name not in entries or not _fits(entries[name], variable, reshape=reshape):
            found = _told(entries[name]) if name in entries else "no such variable"
            message = (
                f"{prefix}: variable {name}: {found} found, {_wanted(variable)} wanted: "
                f"it is a checkpoint of another model or optimizer; it holds {', '.join(entries)}."
            )
            raise CheckpointError(message)


def _fits(entry: Entry, variable: tf.Variable, *, reshape: bool) -> bool:
    shape, wanted = tf.TensorShape(entry.shape), variable.shape  # of which not everything need be known
    same = wanted.is_compatible_with(shape) or (reshape and shape.num_elements() == wanted.num_elements())
    return entry.dtype == variable.dtype.base_dtype.name and same


def _told(entry: Entry) -> str:
    return f"{entry.dtype} {list(entry.shape)}"


def _wanted(variable: tf.Variable) -> str:
    shape = "of any shape" if variable.shape.rank is None else variable.shape.as_list()
    return f"{variable.dtype.base_dtype.name} {shape}"
