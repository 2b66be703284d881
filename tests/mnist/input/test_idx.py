import errno
import gzip
import hashlib
import os
import re
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist.errors import DataError
from mnist.input import idx
from tests import odd_files

SHAPE = (None, 3, 2)
ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)


def idx_file(array, sizes=None):
    """The bytes of the IDX file of an array; `sizes` replaces the dimensions in the header."""
    sizes = array.shape if sizes is None else sizes
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + array.tobytes()


PLAIN = idx_file(ARRAY)
COMPRESSED = gzip.compress(PLAIN, mtime=0)
PACK = {"plain": bytes, "gzip": gzip.compress}


def write(directory, content, name="images"):
    """Write a file; return its path."""
    path = directory / name
    path.write_bytes(content)
    return path


def error_message(path, shape=SHAPE):
    """The message and the hint of the error for a file, as two lines; the message begins with the file."""
    with pytest.raises(DataError) as raised:
        idx.read(path, shape)
    message, hint = str(raised.value), raised.value.hint or ""
    assert message.startswith(f"{path}: ")
    for line in (message, hint):
        assert not line.endswith(".")
        assert "\n" not in line
    return f"{message}\nhint: {hint}"


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_gzip_is_detected_by_content(tmp_path, pack, name):
    """A plain file may be named .gz, and a gzip file need not be."""
    np.testing.assert_array_equal(idx.read(write(tmp_path, pack(PLAIN), name), SHAPE), ARRAY, strict=True)


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4), data=st.data())
@settings(deadline=None)
def test_every_array_is_read_as_it_was_written(tmp_path_factory, sizes, data):
    """For any number of dimensions of any size, 0 included."""
    size = int(np.prod(sizes))
    array = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8).reshape(sizes)
    path = write(tmp_path_factory.getbasetemp(), idx_file(array), "any_array")
    np.testing.assert_array_equal(idx.read(path, (None,) * len(sizes)), array, strict=True)


def test_arrays_are_read_only(tmp_path):
    """So the data that were checked are the data that are trained on."""
    array = idx.read(write(tmp_path, PLAIN), SHAPE)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0, 0] = 1


@pytest.mark.parametrize("array", [ARRAY, ARRAY[::2], np.asfortranarray(ARRAY)], ids=["whole", "stepped", "columns"])
def test_sha256_is_that_of_the_plain_file(array):
    """The digest does not depend on the memory layout of the array."""
    assert idx.sha256(array) == hashlib.sha256(idx_file(array)).hexdigest()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\0", "the first bytes [00]"),
        (b"\0\0\x08", "the first bytes [00 00 08]"),
        (b"\0\0\x0d\x03" + PLAIN[4:], "an IDX file of 32-bit floats with 3 dimensions (4 x 3 x 2)"),
        (b"\0\0\x08\x01" + PLAIN[4:], "an IDX file of unsigned bytes with 1 dimension (4)"),
        (b"\x03\x08\0\0" + PLAIN[4:], "the first bytes [03 08 00 00]"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"<!DOCTYPE html>", "a web page (HTML)"),
    ],
    ids=["empty", "one byte", "three bytes", "floats", "one dimension", "swapped", "picture", "web page"],
)
@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_other_files_raise(tmp_path, pack, content, found):
    """The message says what is expected and what the file holds."""
    message = error_message(write(tmp_path, pack(content)))
    packed = ", packed with gzip" if pack is gzip.compress else ""
    assert f"expected an IDX file of unsigned bytes with 3 dimensions, got {found}{packed}\n" in message


@pytest.mark.parametrize("length", range(4, 16))
def test_a_truncated_header_raises(tmp_path, length):
    """The message has the length of the file."""
    assert f"ends inside its header, after {length} bytes" in error_message(write(tmp_path, PLAIN[:length]))


def test_other_dimensions_raise(tmp_path):
    """The message has the expected and the actual dimensions."""
    message = error_message(write(tmp_path, idx_file(ARRAY.reshape(4, 2, 3))))
    assert "expected dimensions any x 3 x 2, got 4 x 2 x 3" in message


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_too_few_bytes_raise(tmp_path, pack):
    """A header of five images before the bytes of four."""
    message = error_message(write(tmp_path, pack(idx_file(ARRAY, sizes=(5, 3, 2)))))
    assert "expected 30 bytes of data, got 24" in message
    assert "5 x 3 x 2" in message


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_too_many_bytes_raise(tmp_path, pack):
    """A header of three images before the bytes of four."""
    message = error_message(write(tmp_path, pack(idx_file(ARRAY, sizes=(3, 3, 2)))))
    assert re.search("expected 18 bytes of data, got (24|more)", message)
    assert "3 x 3 x 2" in message


def cost_of_error(path):
    """Peak memory in bytes and CPU time in seconds until the error is raised."""
    tracemalloc.start()
    started = time.process_time()
    try:
        error_message(path)
        return tracemalloc.get_traced_memory()[1], time.process_time() - started
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_huge_count_allocates_no_memory(tmp_path, pack):
    """A header of 24 GiB does not allocate 24 GiB."""
    memory, seconds = cost_of_error(write(tmp_path, pack(idx_file(ARRAY, sizes=(2**32 - 1, 3, 2)))))
    assert memory < 4 << 20
    assert seconds < 1


def test_a_gzip_bomb_after_the_data_is_not_unpacked(tmp_path):
    """A gigabyte of zeros in members after the data."""
    zeros = gzip.compress(bytes(16 << 20))
    memory, seconds = cost_of_error(write(tmp_path, COMPRESSED + 64 * zeros))
    assert memory < 4 << 20
    assert seconds < 1


def test_a_gzip_bomb_in_one_member_is_not_unpacked(tmp_path):
    """Data and zeros in the same member."""
    memory, seconds = cost_of_error(write(tmp_path, gzip.compress(PLAIN + bytes(64 << 20), compresslevel=1)))
    assert memory < 4 << 20
    assert seconds < 1


def test_truncated_gzip_raises(tmp_path):
    """At any length, as an interrupted download may have."""
    for length in range(len(COMPRESSED)):
        error_message(write(tmp_path, COMPRESSED[:length]))


@pytest.mark.parametrize("position", [-8, -1, len(COMPRESSED) // 2], ids=["checksum", "length", "data"])
def test_corrupt_gzip_raises(tmp_path, position):
    """One flipped bit, also in the checksum after the last image."""
    content = bytearray(COMPRESSED)
    content[position] ^= 1
    assert "gzip data is truncated or corrupt" in error_message(write(tmp_path, content))


def test_garbage_after_gzip_raises(tmp_path):
    """Only further gzip members may follow."""
    assert "gzip data is truncated or corrupt" in error_message(write(tmp_path, COMPRESSED + b"garbage"))


def test_a_missing_file_raises(tmp_path):
    """The message says that there is no such file."""
    assert "No such file" in error_message(tmp_path / "absent")


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_special_files_raise_at_once(tmp_path, kind):
    """A FIFO, a device, a socket, a directory or a link to one raises without blocking."""
    path = odd_files.make(kind, tmp_path / "images")
    with odd_files.no_hang():
        assert "put a readable IDX file there" in error_message(path)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.EACCES])
def test_a_temporary_error_does_not_blame_the_file(tmp_path, monkeypatch, number):
    """If the system cannot open the file now, the hint is to retry, not to replace the file."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    message = error_message(write(tmp_path, PLAIN))
    assert os.strerror(number) in message
    assert "put a readable IDX file there" not in message


def int32_file(array):
    """The bytes of the IDX file of an array of 32-bit integers."""
    return (
        b"\0\0\x0c" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(">i4").tobytes()
    )


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_32_bit_integers_are_read(tmp_path, pack):
    """As in the labels of QMNIST; negative values included."""
    array = np.arange(-4, 8).reshape(6, 2)
    path = write(tmp_path, pack(int32_file(array)))
    assert idx.is_int32(path, dimensions=2)
    assert idx.read_shape(path, (None, 2), int32=True) == (6, 2)
    np.testing.assert_array_equal(idx.read_int32(path, (None, 2)), array)
    assert not idx.is_int32(write(tmp_path, pack(PLAIN)), dimensions=3)


def test_too_few_bytes_of_32_bit_integers_raise(tmp_path):
    """Four bytes are expected for each number."""
    path = write(tmp_path, int32_file(np.arange(12).reshape(6, 2))[:-3])
    with pytest.raises(DataError, match="expected 48 bytes of data, got 45"):
        idx.read_int32(path, (None, 2))


HUGE = 2**32 - 1


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("sizes", [(0, HUGE, HUGE), (HUGE, 0, HUGE), (HUGE, HUGE, HUGE)])
def test_dimensions_beyond_numpy_raise(tmp_path, pack, sizes):
    """Dimensions whose product overflows, also if one of them is 0."""
    path = write(tmp_path, pack(idx_file(np.zeros(0, np.uint8), sizes=sizes)))
    assert "dimensions that an array can have" in error_message(path, (None, None, None))


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_read_shape(tmp_path, pack):
    """Reads the dimensions in the header; other dimensions raise, as in read."""
    assert idx.read_shape(write(tmp_path, pack(PLAIN)), SHAPE) == (4, 3, 2)
    with pytest.raises(DataError, match="expected dimensions any x 2 x 2, got 4 x 3 x 2"):
        idx.read_shape(write(tmp_path, pack(PLAIN)), (None, 2, 2))


def gzip_of_zeros(size, header):
    """A gzip file of a header and `size` zeros; compresses only 1 MiB of them."""
    block = gzip.compress(bytes(1 << 20), mtime=0)
    return gzip.compress(header, mtime=0) + (size >> 20) * block + gzip.compress(bytes(size % (1 << 20)), mtime=0)


def test_a_gzip_bomb_with_a_matching_header_is_not_unpacked(tmp_path):
    """A gigabyte of zeros in a megabyte of gzip raises; the hint says how to read the file nevertheless."""
    count = 178_956_971  # x 3 x 2: a gigabyte
    content = gzip_of_zeros(count * 6, idx_file(np.zeros(0, np.uint8), sizes=(count, 3, 2)))
    assert len(content) < 2 << 20
    path = write(tmp_path, content)
    memory, seconds = cost_of_error(path)
    assert memory < 4 << 20
    assert seconds < 1
    assert "unpack the file with gunzip" in error_message(path)


def test_small_data_may_have_any_compression_ratio(tmp_path):
    """Up to 256 MiB, data that gzip compresses 1000 : 1 are read."""
    sizes = (1_000_000, 3, 2)
    path = write(tmp_path, gzip_of_zeros(6_000_000, idx_file(np.zeros(0, np.uint8), sizes=sizes)))
    array = idx.read(path, SHAPE)
    assert array.shape == sizes
    assert not array.any()


def test_gzip_files_of_many_members_are_read(tmp_path):
    """Empty members are skipped, and members of one byte are concatenated."""
    empty, pieces = gzip.compress(b""), b"".join(gzip.compress(PLAIN[at : at + 1]) for at in range(len(PLAIN)))
    path = write(tmp_path, 1000 * empty + pieces + 10_000 * empty)
    np.testing.assert_array_equal(idx.read(path, SHAPE), ARRAY, strict=True)


def test_zeros_after_gzip_data_are_not_read(tmp_path):
    """A sparse file of a terabyte raises at the end of its gzip data."""
    path = write(tmp_path, COMPRESSED)
    os.truncate(path, 1 << 40)
    memory, seconds = cost_of_error(path)
    assert memory < 4 << 20
    assert seconds < 1


def test_too_little_memory_raises_a_data_error(tmp_path):
    """The message contains the number of bytes that the data need."""
    header = idx_file(np.zeros(0, np.uint8), sizes=(1 << 30,))
    path = write(tmp_path, header)
    os.truncate(path, len(header) + (1 << 30))
    with odd_files.little_memory(256 << 20):
        assert f"not enough memory for {1 << 30:,} bytes" in error_message(path, (None,))


def test_files_of_size_0_are_not_read():
    """Files in /proc have size 0 and contents that may be endless; they are read as empty."""
    assert "got an empty file" in error_message(Path("/proc/self/environ"))


@st.composite
def damaged(draw, content):
    """The content with one to three slices replaced by other bytes, or removed."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(result)))
        end = draw(st.sampled_from([begin, begin + 1, begin + 4, len(result)]))
        result[begin:end] = draw(st.binary(max_size=6))
    return bytes(result)


def read_or_refuse(path):
    """The shape and the bytes of the array in a file, or None if it raises a DataError."""
    try:
        array = idx.read(path, SHAPE)
    except DataError:
        return None
    return array.shape, array.tobytes()


def described(content):
    """The shape and the bytes that a plain file holds by the definition of the format, or None."""
    count = int.from_bytes(content[4:8], "big")
    if content[:4] != PLAIN[:4] or content[8:16] != PLAIN[8:16] or len(content) != 16 + count * 6:
        return None
    return (count, 3, 2), content[16:]


@given(content=damaged(PLAIN))
@settings(max_examples=300, deadline=None)
def test_a_damaged_plain_file_raises_or_is_read_by_definition(tmp_path_factory, content):
    """For any change of its bytes."""
    path = write(tmp_path_factory.getbasetemp(), content, "damaged_plain")
    assert read_or_refuse(path) == described(content)


@given(content=damaged(COMPRESSED))
@settings(max_examples=300, deadline=None)
def test_a_damaged_gzip_file_raises_or_is_read_unchanged(tmp_path_factory, content):
    """For any change of its bytes."""
    path = write(tmp_path_factory.getbasetemp(), content, "damaged_gzip")
    assert read_or_refuse(path) in (None, (ARRAY.shape, ARRAY.tobytes()))
