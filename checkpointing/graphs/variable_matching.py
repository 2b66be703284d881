"""Warm starts: match the variables of a graph with the tensors of a checkpoint, and restore those that match.

    match = variable_matching.match(prefix, variables, "layer[12]/")
    print(match.summary())
    with graph.as_default():
        variable_matching.restore(session, prefix, match)

The checkpoint may be another program's.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from checkpointing.errors import CheckpointError, listed
from checkpointing.format import tensor_io
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.format.tensor_index import Entry
from checkpointing.graphs import meta_graphs


class Match(NamedTuple):
    """Which variables of a graph a checkpoint can restore.

    restored: the variables that match, by the names of their tensors in the checkpoint.
    mismatched: by variable name, how the tensor's dtype or shape differs.
    missing: names of variables that the checkpoint lacks, or that the pattern excludes.
    unexpected: names of tensors in the checkpoint that no variable takes.
    """

    restored: dict[str, tf.Variable]
    mismatched: dict[str, str]
    missing: list[str]
    unexpected: list[str]

    def summary(self) -> str:
        """Return a report, one line for each field that is not empty."""
        lines = {
            "restored": [_pair(tensor, variable) for tensor, variable in self.restored.items()],
            "not restored, shape or dtype differs": [
                f"{name} ({problem})" for name, problem in self.mismatched.items()
            ],
            "not restored, missing or excluded": self.missing,
            "unexpected in the checkpoint": self.unexpected,
        }
        return "\n".join(f"{kind}: {listed(names)}" for kind, names in lines.items() if names)


def _pair(tensor: str, variable: tf.Variable) -> str:
    return tensor if tensor == variable.op.name else f"{tensor} as {variable.op.name}"


def match(
    prefix: Path,
    variables: Iterable[tf.Variable],
    pattern: str = "",
    *,
    renames: Mapping[str, str] | None = None,
    reshape: bool = False,
) -> Match:
    """Match variables with the tensors of a checkpoint; nothing is restored.

    Args:
      prefix: the checkpoint, which any program may have written.
      variables: those that may be restored.
      pattern: a regular expression that must match the beginning of a variable's name; empty for all.
      renames: names of tensors or scopes in the checkpoint to those in the graph, as in `tensor_io.renamed`.
      reshape: whether the shape may differ if the number of elements is the same, as Saver's option.

    Raises:
      CheckpointError: no variable matches (the message holds the report), or the renames are not valid.
    """
    entries = Bundle(prefix).entries
    try:
        entry_of = tensor_io.renamed(entries, renames or {})
    except CheckpointError as error:
        raise CheckpointError(f"{prefix}: {error}", hint=error.hint) from error
    found = Match({}, {}, [], [])
    for variable in variables:
        name = variable.op.name
        entry = entry_of.get(name)
        if entry is None or not re.match(pattern, name):
            found.missing.append(name)
        elif _fits(entry, variable, reshape=reshape):
            found.restored[entry.name] = variable
        else:
            found.mismatched[name] = f"expected {_describe_variable(variable)}, got {_describe_entry(entry)}"
    found.unexpected.extend(tensor for tensor in entries if tensor not in found.restored)
    if not found.restored:
        report = "; ".join(found.summary().splitlines())
        raise CheckpointError(f"{prefix}: no variable of the model can be restored from it: {report}")
    return found


def restore(session: tf.compat.v1.Session, prefix: Path, found: Match, *, reshape: bool = False) -> None:
    """Restore the variables that match; the graph must be the current one."""
    meta_graphs.restore_variables(session, tf.compat.v1.train.Saver(found.restored, reshape=reshape), prefix)


def check_variables(
    prefix: Path, entries: Mapping[str, Entry], variables: Mapping[str, tf.Variable], *, reshape: bool = False
) -> None:
    """Check that a checkpoint has all of these variables, by their names in it.

    Raises:
      CheckpointError: names the first variable that is missing or of another dtype or shape.
    """
    for name, variable in variables.items():
        if name not in entries or not _fits(entries[name], variable, reshape=reshape):
            found = _describe_entry(entries[name]) if name in entries else "no such variable"
            message = (
                f"{prefix}: variable {name}: expected {_describe_variable(variable)}, got {found}; "
                f"it holds {listed(entries)}"
            )
            raise CheckpointError(message, hint="use a checkpoint of the same model and optimizer")


def _fits(entry: Entry, variable: tf.Variable, *, reshape: bool) -> bool:
    shape, expected = tf.TensorShape(entry.shape), variable.shape  # parts of the expected shape may be unknown
    same = expected.is_compatible_with(shape) or (reshape and shape.num_elements() == expected.num_elements())
    return entry.dtype == variable.dtype.base_dtype.name and same


def _describe_entry(entry: Entry) -> str:
    return f"{entry.dtype} {list(entry.shape)}"


def _describe_variable(variable: tf.Variable) -> str:
    shape = "of any shape" if variable.shape.rank is None else variable.shape.as_list()
    return f"{variable.dtype.base_dtype.name} {shape}"
