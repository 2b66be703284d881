import numpy as np
import pytest

from trainer.replay.comparison import compare
from trainer.replay.outcome import variable_text

NAN, OTHER_NAN = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.5, -0.0, NAN, np.inf], np.float32),
        np.int64(3),
        np.zeros((0, 4), np.float32),
        np.array([True, False]),
        np.arange(6, dtype=np.float64).reshape(2, 3).T,
    ],
)
def test_the_same_bits_are_equal(array):
    """Of any dtype and shape; NaN equals a NaN of the same bits."""
    assert compare(array, np.array(array)) is None


@pytest.mark.parametrize(
    ("found", "kept", "expected", "text"),
    [
        (np.float32([1, 2, 3]), np.float32([1, 2.5, 2]), (2, 1.0, 0), "2 of 3 elements, largest absolute difference 1"),
        (np.float32([0.0]), np.float32([-0.0]), (1, 0.0, 0), "1 of 1 elements, equal values, other bits"),
        (np.float32([NAN]), np.float32([OTHER_NAN]), (1, None, 1), "1 of 1 elements, 1 with NaN or infinity"),
        (np.float32([1, 2]), np.float32([np.inf, 4]), (2, 2.0, 1), "absolute difference 2, 1 with NaN or infinity"),
        (np.int64(2**62), np.int64(-(2**62)), (1, 2.0**63, 0), "1 of 1 elements, largest absolute difference 9.22e+18"),
        (np.array([True]), np.array([False]), (1, 1.0, 0), "1 of 1 elements, largest absolute difference 1"),
    ],
)
def test_other_bits_are_counted_and_measured(found, kept, expected, text):
    """Also where the values are equal, and where a difference is no finite number."""
    record = compare(found, kept)
    assert (record["different"], record["largest_difference"], record["not_finite"]) == expected
    assert variable_text({"variable": "w", **record}).endswith(text)


@pytest.mark.parametrize("kept", [np.zeros(3, np.float32), np.zeros((2, 1), np.float32), np.zeros(2, np.float64)])
def test_another_dtype_or_shape_is_a_difference(kept):
    """Even if the bytes are the same."""
    assert compare(np.zeros(2, np.float32), kept)["problem"].startswith("replayed as float32 [2], kept as float")
