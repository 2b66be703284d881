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
    """The bytes of an array's IDX file, as the format's description spells them; the sizes may lie."""
    sizes = array.shape if sizes is None else sizes
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + array.tobytes()


PLAIN = idx_file(ARRAY)
COMPRESSED = gzip.compress(PLAIN, mtime=0)
PACK = {"plain": bytes, "gzip": gzip.compress}


def write(directory, content, name="images"):
    """A file with this content."""
    path = directory / name
    path.write_bytes(content)
    return path


def complaint(path, shape=SHAPE):
    """The one sentence, naming the file, with which it is refused."""
    with pytest.raises(DataError) as refused:
        idx.read(path, shape)
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_content_not_name_says_whether_a_file_is_gzip(tmp_path, pack, name):
    """Plain or gzip, whatever it is called, a file gives the array that was put into it."""
    np.testing.assert_array_equal(idx.read(write(tmp_path, pack(PLAIN), name), SHAPE), ARRAY, strict=True)


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4), data=st.data())
@settings(deadline=None)
def test_every_array_comes_back_as_it_was(tmp_path_factory, sizes, data):
    """Whatever the dimensions, zero among them, the array that was written is the array that is read."""
    size = int(np.prod(sizes))
    array = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8).reshape(sizes)
    path = write(tmp_path_factory.getbasetemp(), idx_file(array), "any_array")
    np.testing.assert_array_equal(idx.read(path, (None,) * len(sizes)), array, strict=True)


def test_what_was_read_cannot_be_changed(tmp_path):
    """The arrays are read-only: nobody trains on data that somebody altered on the way."""
    array = idx.read(write(tmp_path, PLAIN), SHAPE)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0, 0] = 1


@pytest.mark.parametrize("array", [ARRAY, ARRAY[::2], np.asfortranarray(ARRAY)], ids=["whole", "stepped", "columns"])
def test_the_digest_is_that_of_the_plain_file(array):
    """Wherever an array came from and however it lies in memory, its digest is its IDX file's."""
    assert idx.sha256(array) == hashlib.sha256(idx_file(array)).hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\0\0\x08",
        b"\0\0\x0d\x03" + PLAIN[4:],
        b"\0\0\x08\x01" + PLAIN[4:],
        b"\x03\x08\0\0" + PLAIN[4:],
        b"\x89PNG\r\n\x1a\n",
        b"<!DOCTYPE html>",
    ],
    ids=["empty", "one byte", "three bytes", "floats", "one dimension", "swapped", "picture", "web page"],
)
@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_what_is_no_idx_file_is_refused(tmp_path, pack, content):
    """A file that starts otherwise than an IDX file of this kind is refused, with both beginnings told."""
    sentence = complaint(write(tmp_path, pack(content)))
    assert f"expected the first bytes [00 00 08 03], got [{content[:4].hex(' ')}]" in sentence


@pytest.mark.parametrize("length", range(4, 16))
def test_a_header_cut_short_is_refused(tmp_path, length):
    """A file that ends inside its header says so, and where."""
    assert f"ends inside its header, after {length} bytes" in complaint(write(tmp_path, PLAIN[:length]))


def test_other_dimensions_are_refused(tmp_path):
    """Images of another size are refused, with both sizes told."""
    sentence = complaint(write(tmp_path, idx_file(ARRAY.reshape(4, 2, 3))))
    assert "expected dimensions any x 3 x 2, got 4 x 2 x 3" in sentence


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_count_beyond_the_bytes_is_refused(tmp_path, pack):
    """A header that promises five images over the bytes of four is found out."""
    sentence = complaint(write(tmp_path, pack(idx_file(ARRAY, sizes=(5, 3, 2)))))
    assert "expected 30 bytes of data, got 24" in sentence
    assert "5 x 3 x 2" in sentence


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_bytes_beyond_the_count_are_refused(tmp_path, pack):
    """So is one that promises three."""
    sentence = complaint(write(tmp_path, pack(idx_file(ARRAY, sizes=(3, 3, 2)))))
    assert re.search("expected 18 bytes of data, got (24|more)", sentence)
    assert "3 x 3 x 2" in sentence


def cost_of_refusing(path):
    """Peak bytes of memory and seconds of computing that it takes to refuse a file."""
    tracemalloc.start()
    started = time.process_time()
    try:
        complaint(path)
        return tracemalloc.get_traced_memory()[1], time.process_time() - started
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_promise_of_terabytes_allocates_nothing(tmp_path, pack):
    """A header of 24 GiB costs no more memory than the bytes that are really there."""
    memory, seconds = cost_of_refusing(write(tmp_path, pack(idx_file(ARRAY, sizes=(2**32 - 1, 3, 2)))))
    assert memory < 4 << 20
    assert seconds < 1


def test_a_gzip_bomb_does_not_go_off(tmp_path):
    """A gigabyte of zeros beyond what the header says is refused before it is unpacked."""
    zeros = gzip.compress(bytes(16 << 20))
    memory, seconds = cost_of_refusing(write(tmp_path, COMPRESSED + 64 * zeros))
    assert memory < 4 << 20
    assert seconds < 1


def test_a_gzip_bomb_in_one_piece_does_not_go_off_either(tmp_path):
    """Nor does it where header and zeros are one gzip member."""
    memory, seconds = cost_of_refusing(write(tmp_path, gzip.compress(PLAIN + bytes(64 << 20), compresslevel=1)))
    assert memory < 4 << 20
    assert seconds < 1


def test_gzip_cut_anywhere_is_refused(tmp_path):
    """However short a download broke off, what is there is not taken for the whole."""
    for length in range(len(COMPRESSED)):
        complaint(write(tmp_path, COMPRESSED[:length]))


@pytest.mark.parametrize("position", [-8, -1, len(COMPRESSED) // 2], ids=["checksum", "length", "data"])
def test_corrupt_gzip_is_refused(tmp_path, position):
    """One flipped bit, be it in the checksum that comes after the last image, is found."""
    content = bytearray(COMPRESSED)
    content[position] ^= 1
    assert "gzip data is truncated or corrupt" in complaint(write(tmp_path, content))


def test_garbage_after_gzip_is_refused(tmp_path):
    """What follows the gzip data must be gzip data, too."""
    assert "gzip data is truncated or corrupt" in complaint(write(tmp_path, COMPRESSED + b"garbage"))


def test_a_missing_file_is_told(tmp_path):
    """A file that is not there is one sentence."""
    assert "No such file" in complaint(tmp_path / "absent")


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_what_is_no_file_is_named_at_once(tmp_path, kind):
    """A FIFO, a device, a socket, a directory or a link to such is one sentence, and nothing waits for it."""
    path = odd_files.make(kind, tmp_path / "images")
    with odd_files.no_hang():
        assert "put a readable IDX file there" in complaint(path)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.EACCES])
def test_a_shortage_is_not_blamed_on_the_file(tmp_path, monkeypatch, number):
    """Where the system cannot open a file just now, the sentence says so, and asks for no other file."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    sentence = complaint(write(tmp_path, PLAIN))
    assert os.strerror(number) in sentence
    assert "put a readable IDX file there" not in sentence


HUGE = 2**32 - 1


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
@pytest.mark.parametrize("sizes", [(0, HUGE, HUGE), (HUGE, 0, HUGE), (HUGE, HUGE, HUGE)])
def test_dimensions_that_no_array_can_have_are_refused(tmp_path, pack, sizes):
    """A file of 16 bytes may promise more than can be numbered, and a 0 makes that no smaller."""
    path = write(tmp_path, pack(idx_file(np.zeros(0, np.uint8), sizes=sizes)))
    assert "dimensions that an array can have" in complaint(path, (None, None, None))


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_the_shape_alone_can_be_read(tmp_path, pack):
    """The header tells how many images there are; a wrong one is refused as by reading all."""
    assert idx.read_shape(write(tmp_path, pack(PLAIN)), SHAPE) == (4, 3, 2)
    with pytest.raises(DataError, match="expected dimensions any x 2 x 2, got 4 x 3 x 2"):
        idx.read_shape(write(tmp_path, pack(PLAIN)), (None, 2, 2))


def gzip_of_zeros(size, header):
    """A gzip file of the header and so many zeros, of which only 1 MiB is ever compressed."""
    block = gzip.compress(bytes(1 << 20), mtime=0)
    return gzip.compress(header, mtime=0) + (size >> 20) * block + gzip.compress(bytes(size % (1 << 20)), mtime=0)


def test_a_gzip_bomb_of_what_its_header_says_does_not_go_off(tmp_path):
    """A gigabyte of blank images in one megabyte is refused by its header, and the sentence says how to read it."""
    count = 178_956_971  # x 3 x 2: a gigabyte
    content = gzip_of_zeros(count * 6, idx_file(np.zeros(0, np.uint8), sizes=(count, 3, 2)))
    assert len(content) < 2 << 20
    path = write(tmp_path, content)
    memory, seconds = cost_of_refusing(path)
    assert memory < 4 << 20
    assert seconds < 1
    assert "unpack it with gunzip if that is right" in complaint(path)


def test_a_small_blank_data_set_may_be_gzip(tmp_path):
    """Up to 256 MiB, images that gzip packs a thousand to one are read."""
    sizes = (1_000_000, 3, 2)
    path = write(tmp_path, gzip_of_zeros(6_000_000, idx_file(np.zeros(0, np.uint8), sizes=sizes)))
    array = idx.read(path, SHAPE)
    assert array.shape == sizes
    assert not array.any()


def test_a_gzip_file_of_many_members_is_read(tmp_path):
    """Members without content, and a content in pieces of one byte, are what they are put together."""
    empty, pieces = gzip.compress(b""), b"".join(gzip.compress(PLAIN[at : at + 1]) for at in range(len(PLAIN)))
    path = write(tmp_path, 1000 * empty + pieces + 10_000 * empty)
    np.testing.assert_array_equal(idx.read(path, SHAPE), ARRAY, strict=True)


def test_zeros_without_end_after_gzip_data_are_not_read(tmp_path):
    """A sparse file of a terabyte is refused where its gzip data end."""
    path = write(tmp_path, COMPRESSED)
    os.truncate(path, 1 << 40)
    memory, seconds = cost_of_refusing(path)
    assert memory < 4 << 20
    assert seconds < 1


def test_too_little_memory_is_told_with_what_is_needed(tmp_path):
    """A file as large as its header says, but larger than the memory, is one sentence."""
    header = idx_file(np.zeros(0, np.uint8), sizes=(1 << 30,))
    path = write(tmp_path, header)
    os.truncate(path, len(header) + (1 << 30))
    with odd_files.little_memory(256 << 20):
        assert f"not enough memory for {1 << 30:,} bytes" in complaint(path, (None,))


def test_a_file_without_size_is_not_read():
    """Files of /proc hold something but have no size: they are taken for empty, for they may have no end."""
    assert "got []" in complaint(Path("/proc/self/environ"))


@st.composite
def damaged(draw, content):
    """The content with one to three stretches replaced by other bytes, or by none."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(result)))
        end = draw(st.sampled_from([begin, begin + 1, begin + 4, len(result)]))
        result[begin:end] = draw(st.binary(max_size=6))
    return bytes(result)


def read_or_refuse(path):
    """What comes out of a file: the shape and the bytes of its array, or None where it is refused."""
    try:
        array = idx.read(path, SHAPE)
    except DataError:
        return None
    return array.shape, array.tobytes()


def described(content):
    """What the bytes of a plain file truly describe, by the letter of the format."""
    count = int.from_bytes(content[4:8], "big")
    if content[:4] != PLAIN[:4] or content[8:16] != PLAIN[8:16] or len(content) != 16 + count * 6:
        return None
    return (count, 3, 2), content[16:]


@given(content=damaged(PLAIN))
@settings(max_examples=300, deadline=None)
def test_a_damaged_plain_file_is_refused_or_read_by_the_letter(tmp_path_factory, content):
    """Whatever happens to its bytes, a plain file gives exactly what they describe, or one DataError."""
    path = write(tmp_path_factory.getbasetemp(), content, "damaged_plain")
    assert read_or_refuse(path) == described(content)


@given(content=damaged(COMPRESSED))
@settings(max_examples=300, deadline=None)
def test_a_damaged_gzip_file_is_refused_or_unharmed(tmp_path_factory, content):
    """Whatever happens to its bytes, a gzip file gives the array that was put into it, or one DataError."""
    path = write(tmp_path_factory.getbasetemp(), content, "damaged_gzip")
    assert read_or_refuse(path) in (None, (ARRAY.shape, ARRAY.tobytes()))
