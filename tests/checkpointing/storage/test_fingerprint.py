import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from checkpointing.storage.fingerprint import file_sha256, weights_sha256

WEIGHTS = {"layer1/weights": np.array([[1.5, -2.0], [0.0, 3.25]], np.float32), "layer1/biases": np.float32([0.5, 1])}


@given(st.binary(max_size=1000))
@settings(deadline=None)
def test_a_files_hash_is_its_sha256(tmp_path_factory, content):
    """As sha256sum prints it."""
    path = tmp_path_factory.getbasetemp() / "fingerprinted"
    path.write_bytes(content)
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_large_file_is_read_to_its_end(tmp_path):
    """No chunk is left out."""
    content = bytes(range(256)) * 20_000
    (tmp_path / "large").write_bytes(content)
    assert file_sha256(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_a_missing_file_is_an_error(tmp_path):
    """It is not hashed as an empty file."""
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "absent")


def test_weights_are_hashed_as_documented():
    """In sorted order of names: a line of name, dtype and shape, then the little-endian bytes."""
    content = (
        b"layer1/biases float32 [2]\n"
        + struct.pack("<2f", 0.5, 1)
        + b"layer1/weights float32 [2, 2]\n"
        + struct.pack("<4f", 1.5, -2.0, 0.0, 3.25)
    )
    assert weights_sha256(WEIGHTS) == hashlib.sha256(content).hexdigest()


def test_the_order_of_the_weights_does_not_matter():
    """The same arrays in another order have the same hash."""
    assert weights_sha256(dict(reversed(WEIGHTS.items()))) == weights_sha256(WEIGHTS)


@pytest.mark.parametrize(
    "stored",
    [
        WEIGHTS["layer1/weights"].astype(">f4"),
        np.asfortranarray(WEIGHTS["layer1/weights"]),
        np.repeat(WEIGHTS["layer1/weights"], 2, axis=1)[:, ::2],
    ],
    ids=["big-endian", "by columns", "with gaps"],
)
def test_the_memory_layout_of_weights_does_not_matter(stored):
    """The same numbers in another byte order or with other strides have the same hash."""
    assert weights_sha256(WEIGHTS | {"layer1/weights": stored}) == weights_sha256(WEIGHTS)


@given(arrays_of.arrays(np.float32, arrays_of.array_shapes(max_dims=3, max_side=4)), st.data())
@settings(deadline=None)
def test_each_bit_changes_the_hash(array, data):
    """Also the sign of a zero, or a bit in a NaN."""
    flipped = bytearray(array.tobytes())
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    other = np.frombuffer(flipped, np.float32).reshape(array.shape)
    assert weights_sha256({"weights": array}) == weights_sha256({"weights": array.copy()})
    assert weights_sha256({"weights": array}) != weights_sha256({"weights": other})


@pytest.mark.parametrize(
    "other",
    [
        {"layer1/weights": WEIGHTS["layer1/weights"]},
        WEIGHTS | {"layer1/biases": np.float64([0.5, 1])},
        WEIGHTS | {"layer1/biases": np.float32([[0.5, 1]])},
        WEIGHTS | {"layer1/biases": np.float32([0.5, 1]).view(np.int32)},
        WEIGHTS | {"step": np.int64(7)},
        {"layer1/weights": WEIGHTS["layer1/weights"], "layer2/biases": WEIGHTS["layer1/biases"]},
        {},
    ],
    ids=["one less", "wider", "another shape", "another type", "one more", "another name", "none"],
)
def test_names_dtypes_and_shapes_change_the_hash(other):
    """The same bytes under another name, dtype or shape have another hash."""
    assert weights_sha256(other) != weights_sha256(WEIGHTS)
