"""Tensors by name: read from a checkpoint, written as one, kept in other formats, renamed, averaged.

    state = tensors.read(prefix)
    tensors.write(other_prefix, tensors.renamed(state, {"layer1": "hidden"}))

A checkpoint written here is one as a plain Saver writes it, without a graph unless one is given; it appears whole or
not at all: killed between the two last renames, its data may be left, which nobody takes for a checkpoint.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy

from checkpointing.errors import CheckpointError, reason
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.storage import durable, layout, staging

Array = np.ndarray[Any, Any]
State = dict[str, Array]
_T = TypeVar("_T")

_MOST_META_BYTES = 2**31  # protocol buffers are smaller

# A member of an archive that would unpack into more than both is refused: no weights are packed so well.
_ANY_RATIO_BYTES = 256 << 20
_MOST_RATIO = 100

ARCHIVES = (".npz", ".safetensors")


def read(prefix: Path) -> State:
    """All tensors of a checkpoint, by name in sorted order; their bytes stay on the disk until they are used.

    Raises:
      DamagedError: the first file that is not as TensorFlow wrote it.
      CheckpointError: a tensor is of a kind that is no array: the state of a data set's iterator.
    """
    bundle = Bundle(prefix)
    bundle.check()
    for entry in bundle.entries.values():
        if entry.dtype in {"variant", "resource"}:
            message = f"{prefix}: tensor {entry.name} is a {entry.dtype}, an array wanted: restore it with TensorFlow."
            raise CheckpointError(message)
    return {name: bundle.tensor(name) for name in bundle.entries}


def write(prefix: Path, state: Mapping[str, Array], meta: Path | None = None) -> None:
    """Writes a checkpoint, so that no crash leaves half of it.

    Args:
      prefix: must not be there.
      state: arrays by name; strings as arrays of bytes objects.
      meta: the graph to put beside it, if it has one.

    Raises:
      CheckpointError: something is there, a run would take it for its own, or the disk refuses.
    """
    import tensorflow as tf  # noqa: PLC0415 - who only reads does not wait for it

    _check_is_free(prefix)
    directory = layout.shards_directory(prefix)
    try:
        durable.delete_tree(directory)  # a killed attempt left it
        durable.make_directory(directory)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            fed = {tf.compat.v1.placeholder(array.dtype, array.shape): array for array in state.values()}
            names = {"tensor_names": list(state), "shape_and_slices": [""] * len(state)}
            session.run(tf.raw_ops.SaveV2(prefix=str(directory / prefix.name), tensors=list(fed), **names), fed)
        if meta is not None:
            durable.write(layout.meta_path(directory / prefix.name), durable.read(meta, _MOST_META_BYTES))
        # The index last: with it the checkpoint exists.
        paths = sorted(layout.files_of(directory / prefix.name), key=lambda path: path.suffix == ".index")
        for path in paths:
            durable.fsync(path)
        durable.move(paths, prefix.parent)
    except (OSError, ValueError, TypeError, tf.errors.OpError) as error:  # ValueError, TypeError: a dtype that it lacks
        raise CheckpointError(f"{prefix}: could not be written ({reason(error)}).") from error
    finally:
        with suppress(OSError):  # what raised it has been said
            durable.delete_tree(directory)


def _check_is_free(prefix: Path) -> None:
    if layout.step_of(f"{prefix.name}.index") is not None:
        message = (
            f"{prefix}: the name of a run's own checkpoint found, another one wanted, for a run would take it for its "
            f"own: as in {prefix.with_name('averaged')}."
        )
        raise CheckpointError(message)
    directory = layout.shards_directory(prefix)
    left = set(directory.iterdir()) if directory.is_dir() else set()
    somebody_elses = left.difference(layout.files_of(directory / prefix.name) if left else [])
    if somebody_elses or (prefix.parent.is_dir() and layout.contents_of(prefix)):
        raise CheckpointError(f"{prefix}: exists already, and no checkpoint is overwritten: give another name.")


def renamed(state: Mapping[str, _T], names: Mapping[str, str]) -> dict[str, _T]:
    """The same tensors under other names.

    Args:
      state: arrays, or what is known of them, by name.
      names: old name to new one, each of a tensor or of a scope: `layer1` to `hidden` also turns `layer1/weights` into
        `hidden/weights`. The longest that fits counts.

    Raises:
      CheckpointError: there is nothing of an old name, or two tensors would get the same new one.
    """
    for old in names:
        if not any(_is_within(name, old) for name in state):
            raise CheckpointError(f"tensor or scope {old} wanted; there are {', '.join(state)}.")
    found: dict[str, _T] = {}
    for name, array in state.items():
        new = _new_name(name, names)
        if new in found:
            raise CheckpointError(f"two tensors would be called {new}: give each another name.")
        found[new] = array
    return dict(sorted(found.items()))


def _new_name(name: str, names: Mapping[str, str]) -> str:
    fitting = max((old for old in names if _is_within(name, old)), key=len, default=None)
    return name if fitting is None else names[fitting] + name[len(fitting) :]


def _is_within(name: str, scope: str) -> bool:
    return name == scope or name.startswith(f"{scope}/")


def averaged(states: Sequence[Mapping[str, Array]]) -> State:
    """The mean of each floating-point tensor, taken in double precision; of the last state whatever is not such.

    Raises:
      CheckpointError: they do not hold the same tensors; the first that differs is named.
    """
    *before, last = states
    for state in before:
        _check_alike(state, last)
    return {name: _mean([state[name] for state in states]) for name in last}


def _check_alike(state: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    for name in sorted({*state, *wanted}):
        found, of_last = (
            f"{each[name].dtype.name} {list(each[name].shape)}" if name in each else "no such tensor"
            for each in (state, wanted)
        )
        if found != of_last:
            raise CheckpointError(f"tensor {name}: {found} found, {of_last} wanted as in the last checkpoint.")


def _mean(arrays: Sequence[Array]) -> Array:
    last = arrays[-1]
    if "float" not in last.dtype.name and last.dtype.kind != "c":
        return last
    wide = np.complex128 if last.dtype.kind == "c" else np.float64
    total = arrays[0].astype(wide)  # not from zero on, which would turn -0 into 0
    for array in arrays[1:]:
        total += array.astype(wide)
    return (total / len(arrays)).astype(last.dtype)


def read_archive(path: Path) -> State:
    """The arrays of a `.npz` or `.safetensors` file, by name in sorted order.

    Raises:
      CheckpointError: it cannot be read.
    """
    try:
        durable.open_to_read(path).close()  # neither library looks whether it is a FIFO
        if path.suffix == ".safetensors":
            return dict(sorted(safetensors.numpy.load_file(path).items()))
        return _read_npz(path)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read as {path.suffix} ({reason(error)}).") from error


def write_archive(path: Path, state: Mapping[str, Array]) -> None:
    """Writes arrays as a `.npz` or `.safetensors` file, by its ending; it appears whole or not at all.

    Raises:
      CheckpointError: the format has no such dtype, the file is there, or the disk refuses.
    """
    if path.exists():
        raise CheckpointError(f"{path}: exists already, and is not overwritten: give another name.")
    for name, array in state.items():
        _check_can_be_in(path, name, array.dtype)
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in state.items()}
    try:
        durable.make_directory(path.parent)
        staging.replace_by(path, partial(_write_npz if path.suffix == ".npz" else safetensors.numpy.save_file, arrays))
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: could not be written ({reason(error)}).") from error


def _check_can_be_in(path: Path, name: str, dtype: np.dtype[Any]) -> None:
    """Refuses what would come back as something else, or not at all."""
    if path.suffix == ".safetensors" and name == "__metadata__":
        raise CheckpointError(f"{path}: tensor {name} has the one name that {path.suffix} keeps for itself: rename it.")
    if not _takes(path.suffix, dtype):
        others = "".join(f": use {ending}" for ending in ARCHIVES if _takes(ending, dtype))
        raise CheckpointError(f"{path}: tensor {name} is {dtype.name}, which {path.suffix} lacks{others}.")


def _takes(ending: str, dtype: np.dtype[Any]) -> bool:
    plain = dtype.isbuiltin == 1 and dtype.kind != "O"  # bfloat16, float8 and their like come from elsewhere
    if ending == ".npz":
        return plain
    return (
        plain and dtype.name != "complex128"
    ) or dtype.name == "bfloat16"  # float8 could be written, but not read again


# What zipfile, numpy and safetensors raise at files that are not theirs, or damaged, or made in a way that they lack.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, safetensors.SafetensorError),
)


def _read_npz(path: Path) -> State:
    """As numpy.load, which leaves the file open where it is none, and takes `x.npy` for the name of `x`."""
    state = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > max(_ANY_RATIO_BYTES, _MOST_RATIO * entry.compress_size):
                problem = f"expected at most {_MOST_RATIO} times its {entry.compress_size:,} bytes in the archive"
                raise ValueError(f"{entry.filename}: {problem}, got {entry.file_size:,}")
        for name in sorted(archive.namelist()):
            with archive.open(name) as file:
                state[name.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return dict(sorted(state.items()))


def _write_npz(arrays: Mapping[str, Array], path: Path) -> None:
    """As numpy.savez, which takes no tensor that is called `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
