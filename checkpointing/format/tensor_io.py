"""Read and write tensors by name: checkpoints, `.npz` and `.safetensors` files; rename and average them.

    state = tensor_io.read(prefix)
    tensor_io.write(other_prefix, tensor_io.renamed(state, {"layer1": "hidden"}))

Checkpoints are written as by a plain Saver. A kill leaves a complete checkpoint or none; at most a data file without an
index is left, which is not a checkpoint.
"""

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy

from checkpointing.errors import CheckpointError, listed, reason
from checkpointing.format import tensor_index
from checkpointing.format.tensor_bundle import Bundle
from checkpointing.format.tensor_index import dtype_name
from checkpointing.storage import durable, layout, regular_file, staging

Array = np.ndarray[Any, Any]
State = dict[str, Array]
_T = TypeVar("_T")

_MAX_META_BYTES = 2**31  # the limit of protocol buffers

# A member of an archive that exceeds both when decompressed is refused: weights do not compress so well.
_ANY_RATIO_BYTES = 256 << 20
_MAX_RATIO = 100

ARCHIVES = (".npz", ".safetensors")

_OTHER_NAME = "use another name"


def read(prefix: Path) -> State:
    """Read all tensors of a checkpoint by name, sorted; most are memory maps, whose bytes are read when they are used.

    Quantized tensors have TensorFlow's NumPy dtypes: `[("qint8", "i1")]` for qint8.

    Raises:
      DamagedError: names the first damaged file; every byte is checked first.
      CheckpointError: a tensor is not an array, but for example the state of a dataset's iterator.
    """
    bundle = Bundle(prefix)
    bundle.check()
    for entry in bundle.entries.values():
        if entry.dtype in {"variant", "resource"}:
            problem = f"tensor {entry.name}: expected an array, got a {entry.dtype}"
            raise CheckpointError(f"{prefix}: {problem}", hint="restore it with TensorFlow")
    return {name: _typed(bundle.tensor(name), entry.dtype) for name, entry in bundle.entries.items()}


def _typed(array: Array, dtype: str) -> Array:
    """Return an array with a dtype that `write` stores as the same dtype of TensorFlow."""
    quantized = tensor_index.quantized_dtype(dtype)
    return array if quantized is None else array.view(quantized)


def check_names(names: Iterable[str]) -> None:
    """Check that TensorFlow can store tensors under these names.

    Raises:
      CheckpointError: it cannot; some names would end the process.
    """
    for name in names:
        problem = tensor_index.name_problem(name)
        if problem:
            raise CheckpointError(problem)


def write(prefix: Path, state: Mapping[str, Array], meta: Path | None = None) -> None:
    """Write a checkpoint; a crash leaves all of it or none.

    Args:
      prefix: of a checkpoint that does not exist.
      state: arrays by name; strings as arrays of bytes objects.
      meta: MetaGraphDef file to copy to the checkpoint's `.meta`, if any.

    Raises:
      CheckpointError: the checkpoint exists, has the name of a run's own, or cannot be written; or TensorFlow cannot
        store a tensor.
    """
    import tensorflow as tf  # noqa: PLC0415 - readers do not wait for it

    _check_is_free(prefix)
    _check_content(prefix, state)
    for name, array in state.items():
        try:
            tf.as_dtype(array.dtype)
        except TypeError as error:
            problem = f"tensor {name} is {array.dtype}, which TensorFlow cannot store"
            raise CheckpointError(f"{prefix}: {problem}") from error
    directory = layout.shards_directory(prefix)
    try:
        durable.delete_tree(directory)  # left by a killed attempt
        durable.make_directory(directory)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            feeds = {tf.compat.v1.placeholder(array.dtype, array.shape): array for array in state.values()}
            names = {"tensor_names": list(state), "shape_and_slices": [""] * len(state)}
            session.run(tf.raw_ops.SaveV2(prefix=str(directory / prefix.name), tensors=list(feeds), **names), feeds)
        if meta is not None:
            durable.write(layout.meta_path(directory / prefix.name), regular_file.read(meta, _MAX_META_BYTES))
        # The index last: the checkpoint exists once it does.
        paths = sorted(layout.files_of(directory / prefix.name), key=lambda path: path.suffix == ".index")
        for path in paths:
            durable.fsync(path)
        durable.move(paths, prefix.parent)
    except (OSError, ValueError, TypeError, tf.errors.OpError) as error:  # ValueError, TypeError: an odd value
        raise CheckpointError(f"{prefix}: could not be written ({reason(error)})") from error
    finally:
        with suppress(OSError):  # the first error has been reported
            durable.delete_tree(directory)


def _check_content(path: Path, state: Mapping[str, Array]) -> None:
    """Check that there are tensors to write, and their names."""
    if not state:
        raise CheckpointError(f"{path}: expected at least one tensor to write, got none")
    try:
        check_names(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", hint="give the tensor another name") from error


def _check_is_free(prefix: Path) -> None:
    if layout.step_of(f"{prefix.name}.index") is not None:
        hint = f"use another name, as in {prefix.with_name('averaged')}: a run would resume from this one, or delete it"
        raise CheckpointError(f"{prefix}: the name of a run's own checkpoint cannot be used", hint=hint)
    directory = layout.shards_directory(prefix)
    found = set(directory.iterdir()) if directory.is_dir() else set()
    user_files = found.difference(layout.files_of(directory / prefix.name) if found else [])
    if user_files or (prefix.parent.is_dir() and layout.contents_of(prefix)):
        raise CheckpointError(f"{prefix}: exists already; checkpoints are not overwritten", hint=_OTHER_NAME)


def renamed(state: Mapping[str, _T], names: Mapping[str, str]) -> dict[str, _T]:
    """Return the same tensors under other names, sorted.

    Args:
      state: arrays, or index entries, by name.
      names: new name by old name, of tensors or scopes: {"layer1": "hidden"} also renames `layer1/weights` to
        `hidden/weights`. The longest match counts.

    Raises:
      CheckpointError: nothing has an old name, or two tensors would get the same new one.
    """
    for old in names:
        if not any(_is_within(name, old) for name in state):
            raise CheckpointError(f"no tensor or scope is called {old}; there are {listed(state)}")
    found: dict[str, _T] = {}
    for name, array in state.items():
        new = _new_name(name, names)
        if new in found:
            raise CheckpointError(f"two tensors would be called {new}", hint=_OTHER_NAME)
        found[new] = array
    return dict(sorted(found.items()))


def _new_name(name: str, names: Mapping[str, str]) -> str:
    match = max((old for old in names if _is_within(name, old)), key=len, default=None)
    return name if match is None else names[match] + name[len(match) :]


def _is_within(name: str, scope: str) -> bool:
    return name == scope or name.startswith(f"{scope}/")


def averaged(states: Sequence[Mapping[str, Array]]) -> State:
    """Average the floating-point and complex tensors in double precision; the others are the last state's.

    Raises:
      CheckpointError: names the first tensor that not all states have, with one dtype and shape.
    """
    *others, last = states
    for state in others:
        _check_same_tensors(state, last)
    return {name: _mean([state[name] for state in states]) for name in last}


def _check_same_tensors(state: Mapping[str, Array], last: Mapping[str, Array]) -> None:
    for name in sorted({*state, *last}):
        found, expected = (
            f"{dtype_name(each[name].dtype)} {list(each[name].shape)}" if name in each else "no such tensor"
            for each in (state, last)
        )
        if found != expected:
            raise CheckpointError(f"tensor {name}: expected {expected} as in the last checkpoint, got {found}")


def _mean(arrays: Sequence[Array]) -> Array:
    last = arrays[-1]
    if "float" not in last.dtype.name and last.dtype.kind != "c":
        return last
    wide = np.complex128 if last.dtype.kind == "c" else np.float64
    total = arrays[0].astype(wide)  # a sum that starts at 0 would turn -0 into 0
    for array in arrays[1:]:
        total += array.astype(wide)
    return (total / len(arrays)).astype(last.dtype)


def read_archive(path: Path) -> State:
    """Read the arrays of a `.npz` or `.safetensors` file by name, sorted.

    Raises:
      CheckpointError: it cannot be read.
    """
    try:
        regular_file.open_to_read(path).close()  # both libraries would wait for a FIFO
        if path.suffix == ".safetensors":
            return dict(sorted(safetensors.numpy.load_file(path).items()))
        return _read_npz(path)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read as {path.suffix} ({reason(error)})") from error


def write_archive(path: Path, state: Mapping[str, Array]) -> None:
    """Write arrays to a `.npz` or `.safetensors` file, by its suffix; a crash leaves all of it or none.

    Raises:
      CheckpointError: there is no array, the format cannot store one, the file exists, or it cannot be written.
    """
    staging.check_is_new_file(path)
    _check_content(path, state)
    for name, array in state.items():
        _check_can_store(path, name, array.dtype)
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in state.items()}
    try:
        durable.make_directory(path.parent)
        staging.replace_by(path, partial(_write_npz if path.suffix == ".npz" else safetensors.numpy.save_file, arrays))
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: could not be written ({reason(error)})") from error


def _check_can_store(path: Path, name: str, dtype: np.dtype[Any]) -> None:
    """Check that a tensor will be read as it was written."""
    if path.suffix == ".safetensors" and name == "__metadata__":
        raise CheckpointError(f"{path}: tensor {name} has a name that {path.suffix} reserves", hint="rename it")
    if not _can_store(path.suffix, dtype):
        hint = next((f"use {suffix}" for suffix in ARCHIVES if _can_store(suffix, dtype)), None)
        raise CheckpointError(
            f"{path}: tensor {name} is {dtype_name(dtype)}, which {path.suffix} cannot store", hint=hint
        )


def _can_store(suffix: str, dtype: np.dtype[Any]) -> bool:
    is_numpys = dtype.isbuiltin == 1 and dtype.kind != "O"  # bfloat16 and float8 are other packages' dtypes
    if suffix == ".npz":
        return is_numpys or tensor_index.is_quantized(dtype)
    # safetensors writes float8, but does not read it.
    return (is_numpys and dtype.name != "complex128") or dtype.name == "bfloat16"


# Raised by zipfile, NumPy and safetensors for files that are damaged, of another format, or have unsupported features.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, safetensors.SafetensorError),
)


def _read_npz(path: Path) -> State:
    """Read as numpy.load, which leaves the file open after an error, and confuses tensors called `x.npy` and `x`."""
    state = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > max(_ANY_RATIO_BYTES, _MAX_RATIO * entry.compress_size):
                problem = f"expected at most {_MAX_RATIO} times its {entry.compress_size:,} bytes in the archive"
                raise ValueError(f"{entry.filename}: {problem}, got {entry.file_size:,}")
        for name in sorted(archive.namelist()):
            with archive.open(name) as file:
                tensor = name.removesuffix(".npy")
                if tensor in state:
                    raise ValueError(f"expected one array for each name, got two called {tensor}")
                state[tensor] = np.lib.format.read_array(file, allow_pickle=False)
    return dict(sorted(state.items()))


def _write_npz(arrays: Mapping[str, Array], path: Path) -> None:
    """Write as numpy.savez, which cannot write a tensor called `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
