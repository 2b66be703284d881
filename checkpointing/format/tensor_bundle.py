"""Read TensorFlow's checkpoint files (format V2, "tensor bundle") without TensorFlow.

    bundle = Bundle(prefix)
    bundle.check()
    weights = bundle.tensor("layer1/weights")

PREFIX.index (see `tensor_index`) has dtype, shape, offset and crc32c of each tensor. PREFIX.data-00000-of-00001 has the
tensors' bytes, one after another.
"""

import math
import stat
from collections import defaultdict
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from checkpointing.errors import CheckpointError, DamagedError, OddFileError, reason
from checkpointing.format import tensor_index
from checkpointing.format.protobuf_wire import read_exactly, read_varint, unmask_crc
from checkpointing.format.tensor_index import Entry
from checkpointing.storage import layout, regular_file, tf_path

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 20
_MAX_INDEX_BYTES = 1 << 30  # an entry has about fifty


class Bundle:
    """The files of a checkpoint.

    Attributes:
      prefix: of the files' names.
      num_shards: number of data files.
      entries: tensors by name, sorted.
    """

    def __init__(self, prefix: Path) -> None:
        """Read the index, and check each byte of it.

        Raises:
          DamagedError: the index is missing or damaged.
          CheckpointError: only TensorFlow can read it.
        """
        self.prefix = prefix
        path = layout.index_path(prefix)
        try:
            index = tensor_index.parse(regular_file.read(path, _MAX_INDEX_BYTES))
        except FileNotFoundError as error:
            raise DamagedError(f"{path.name}: expected an index, got no file") from error
        except OddFileError as error:
            raise DamagedError(f"{path.name}: {reason(error)}") from error
        except ValueError as error:
            raise DamagedError(f"{path.name}: {error}") from error
        except NotImplementedError as error:
            raise CheckpointError(f"{path}: {error}", hint="read it with tf.train.load_checkpoint") from error
        self.num_shards, self.entries, self._slices = index

    def data_path(self, shard_id: int) -> Path:
        """Return the path of a data file."""
        return layout.data_path(self.prefix, shard_id, self.num_shards)

    def check(self) -> None:
        """Compare every byte of every data file with the index; needs a megabyte of memory.

        Raises:
          DamagedError: names the first file and tensor that differ.
        """
        stored = self._stored()
        for shard_id in range(self.num_shards):
            expected = max((entry.offset + entry.size for entry in stored[shard_id]), default=0)
            path, found = self._data_file(shard_id, expected)
            # TensorFlow's readers ignore bytes after the last tensor.
            if found != expected:
                raise DamagedError(f"{path.name}: expected {expected:,} bytes, got {found:,}")
            for entry in stored[shard_id]:
                self._check_tensor(entry)

    def _stored(self) -> defaultdict[int, list[Entry]]:
        """Return the entries with bytes by data file, in the order of their offsets; they must not overlap."""
        shards: defaultdict[int, list[Entry]] = defaultdict(list)
        in_one_piece = [entry for entry in self.entries.values() if not entry.slices]
        in_slices = [entry for slices in self._slices.values() for entry in slices]
        for entry in sorted(in_one_piece + in_slices, key=attrgetter("offset", "size")):
            previous = shards[entry.shard_id][-1:]
            if previous and entry.offset < previous[0].offset + previous[0].size:
                problem = f"tensor {entry.name}: overlaps tensor {previous[0].name} at byte {entry.offset:,}"
                raise DamagedError(f"{layout.index_path(self.prefix).name}: {problem}")
            shards[entry.shard_id].append(entry)
        return shards

    def tensor(self, name: str) -> Array:
        """Return a tensor's value, read-only.

        The array is a memory map of the file: bytes are read when they are used, and are not compared with the index.
        Only strings and partitioned variables are copied, and are compared first.

        Raises:
          DamagedError: the bytes are missing or, if they are copied, have changed.
          KeyError: there is no such tensor.
        """
        entry = self.entries[name]
        dtype = tensor_index.numpy_dtype(entry.dtype)
        if dtype and not entry.slices:
            return self._view(entry, dtype)
        for stored in self._slices[name] if entry.slices else [entry]:
            self._check_tensor(stored)
        return self._strings(entry) if entry.dtype == "string" and not entry.slices else self._through_tensorflow(name)

    def _view(self, entry: Entry, dtype: np.dtype[Any]) -> Array:
        path, _ = self._data_file(entry.shard_id, entry.offset + entry.size)
        if not entry.size:  # zero bytes cannot be mapped
            return _frozen(np.empty(entry.shape, dtype))
        return np.memmap(path, dtype, "r", entry.offset, entry.shape)

    def _strings(self, entry: Entry) -> Array:
        array = np.empty(math.prod(entry.shape), object)
        with self.data_path(entry.shard_id).open("rb") as file:
            file.seek(entry.offset)
            lengths = [read_varint(file) for _ in array]
            read_exactly(file, 4)  # the crc32c of the lengths
            array[:] = [read_exactly(file, length) for length in lengths]
        return _frozen(array.reshape(entry.shape))

    def _through_tensorflow(self, name: str) -> Array:
        import tensorflow as tf  # noqa: PLC0415 - takes seconds, and is seldom needed

        with tf_path.without_pattern(self.prefix) as prefix:
            return _frozen(np.asarray(tf.train.load_checkpoint(str(prefix)).get_tensor(name)))

    def _check_tensor(self, entry: Entry) -> None:
        path, _ = self._data_file(entry.shard_id, entry.offset + entry.size)
        with path.open("rb") as file:
            file.seek(entry.offset)
            try:
                _compare(_HASHES.get(entry.dtype, _hash_numbers)(file, entry), entry.crc32c)
            except ValueError as error:
                raise DamagedError(f"{path.name}: tensor {entry.name}: {error}") from error

    def _data_file(self, shard_id: int, min_size: int) -> tuple[Path, int]:
        """Return the path and size of a data file, which must have at least `min_size` bytes."""
        path = self.data_path(shard_id)
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise DamagedError(f"{path.name}: expected {min_size:,} bytes, got no file") from error
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(f"{path.name}: expected a regular file of {min_size:,} bytes, got none")
        if status.st_size < min_size:
            raise DamagedError(f"{path.name}: expected {min_size:,} bytes, got {status.st_size:,}")
        return path, status.st_size


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _hash_numbers(file: BinaryIO, entry: Entry) -> int:
    return _extend(0, file, entry.size)


def _hash_strings(file: BinaryIO, entry: Entry) -> int:
    """Return the crc32c of strings: of their lengths as integers, the stored crc32c of the lengths, their bytes.

    The file holds the lengths as varints, the masked crc32c of the lengths, and the bytes.
    """
    crc = total = 0
    for _ in range(math.prod(entry.shape)):
        length = read_varint(file)
        total += length
        crc = google_crc32c.extend(crc, length.to_bytes(4 if length < 2**32 else 8, "little"))
    crc = _extend_by_stored_crc(crc, file)
    remaining = entry.offset + entry.size - file.tell()
    if total != remaining:
        raise ValueError(f"expected strings of {remaining:,} bytes, got {total:,}")
    return _extend(crc, file, total)


def _hash_variants(file: BinaryIO, entry: Entry) -> int:
    """Return the crc32c of variants. The file holds of each its length, its bytes, and the masked crc32c so far."""
    crc = 0
    for _ in range(math.prod(entry.shape)):
        length = read_varint(file)
        crc = _extend(google_crc32c.extend(crc, length.to_bytes(8, "little")), file, length)
        crc = _extend_by_stored_crc(crc, file)
    found = file.tell() - entry.offset
    if found != entry.size:
        raise ValueError(f"expected variants of {entry.size:,} bytes, got {found:,}")
    return crc


_HASHES = {"string": _hash_strings, "variant": _hash_variants}


def _extend(crc: int, file: BinaryIO, count: int) -> int:
    """Extend a crc32c by the next bytes of a file."""
    # Read, not mapped: a disk error under a memory map is a signal, not an exception.
    while count:
        chunk = read_exactly(file, min(count, _CHUNK))
        crc = google_crc32c.extend(crc, chunk)
        count -= len(chunk)
    return crc


def _extend_by_stored_crc(crc: int, file: BinaryIO) -> int:
    """Compare a crc32c with the masked one that comes next in a file, and extend it by those bytes."""
    masked = read_exactly(file, 4)
    _compare(crc, unmask_crc(int.from_bytes(masked, "little")))
    extended: int = google_crc32c.extend(crc, masked)
    return extended


def _compare(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"its bytes have changed: expected crc32c {expected:08x}, got {found:08x}")
