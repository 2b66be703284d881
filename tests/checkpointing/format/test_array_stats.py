import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from checkpointing.format import array_stats
from checkpointing.format.array_stats import difference, histogram, is_numeric, summary

DTYPES = st.one_of(
    arrays.floating_dtypes(),
    arrays.integer_dtypes(),
    arrays.unsigned_integer_dtypes(),
    arrays.boolean_dtypes(),
    arrays.complex_number_dtypes(),
)
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=5)))
INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True, scope="module")
def small_chunks():
    """Make every array take several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_stats, "_CHUNK", 3)
        yield


def doubles(array):
    """Convert to double precision; complex numbers to their absolute values."""
    with np.errstate(over="ignore"):
        return abs(array.astype(complex)).ravel() if array.dtype.kind == "c" else array.astype(float).ravel()


def test_the_statistics_of_a_small_array():
    """Non-finite elements are counted, and left out of min, mean and max."""
    found = summary(np.array([[0, -2, 4], [NAN, INF, -INF]], np.float32))
    assert found == (6, -2, 2 / 3, 4, 1 / 6, 1, 2)


@pytest.mark.parametrize("content", [[], [NAN], [INF, -INF]])
def test_without_finite_elements_there_is_no_min_mean_or_max(content):
    """They are None, not infinite."""
    found = summary(np.array(content, float))
    assert (found.min, found.mean, found.max) == (None, None, None)
    assert histogram(np.array(content, float), 4) == []


@given(ARRAYS)
def test_statistics_are_those_of_numpy(array):
    """For any dtype and shape, also with the largest numbers, without a warning."""
    found, values = summary(array), doubles(array)
    finite = values[np.isfinite(values)]
    assert found.elements == array.size
    assert found.nans == np.isnan(values).sum()
    assert found.infinities == np.isinf(values).sum()
    assert found.zeros == (None if array.size == 0 else (values == 0).sum() / array.size)
    if finite.size:
        assert (found.min, found.max) == (finite.min(), finite.max())
        assert found.min <= found.mean <= found.max or np.isclose(found.min, found.mean) or np.isinf(found.mean)
    assert not any(isinstance(value, np.generic) for value in found)


@given(ARRAYS, st.integers(1, 12))
def test_a_histogram_holds_every_finite_element(array, bins):
    """Its bins are contiguous, from the smallest to the largest element."""
    found, values = histogram(array, bins), doubles(array)
    finite = values[np.isfinite(values)]
    assert sum(count for _, _, count in found) == finite.size
    assert len(found) <= bins
    assert [low for low, _, _ in found[1:]] == [high for _, high, _ in found[:-1]]
    if finite.size:
        assert (found[0][0], found[-1][1]) == (finite.min(), finite.max())


def test_a_histogram_counts():
    """The largest element belongs to the last bin."""
    assert histogram(np.array([0, 1, 1, 2, 3, 4]), 2) == [(0, 2, 3), (2, 4, 3)]


@pytest.mark.parametrize("values", [[7.0, 7.0], [1.0, np.nextafter(1.0, 2)], [-1.7e308, 1.7e308]])
def test_a_range_that_cannot_be_divided_is_one_bin(values):
    """Equal numbers, neighbouring ones, or the largest range."""
    assert histogram(np.array(values), 12) == [(values[0], values[1], 2)]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_dtypes_that_numpy_lacks_have_statistics(name):
    """TensorFlow has them."""
    array = np.array([0, 1, 2, 5], getattr(ml_dtypes, name))
    assert is_numeric(array)
    assert summary(array)[1:5] == (0, 2, 5, 0.25)
    assert difference(array, array[::-1]).largest == 5


@pytest.mark.parametrize("array", [np.array([b"a"], object), np.array(["a"]), np.array([b"a"])])
def test_strings_have_no_statistics(array):
    """They are not numeric."""
    assert not is_numeric(array)


@given(ARRAYS)
def test_an_array_equals_itself(array):
    """To the last bit, with any content."""
    found = difference(array, array.copy())
    assert found.equal
    if np.isfinite(doubles(array)).all() and array.size:
        assert (found.largest, found.mean) == (0, 0)


@given(st.data())
def test_differences_are_those_of_numpy(data):
    """Largest, mean and cosine."""
    shape = data.draw(arrays.array_shapes(max_side=5))
    numbers = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))
    one, other = (data.draw(arrays.arrays(float, shape, elements=numbers)) for _ in range(2))
    found, distance = difference(one, other), abs(one - other)
    assert found.equal == (one.tobytes() == other.tobytes())
    assert np.isclose(found.largest, distance.max())
    assert np.isclose(found.mean, distance.mean())
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    assert found.cosine is None if lengths == 0 else np.isclose(found.cosine, (one * other).sum() / lengths)


@pytest.mark.parametrize(("one", "other"), [([0.0], [-0.0]), ([NAN], [-NAN])])
def test_the_sign_of_a_zero_or_nan_is_a_difference(one, other):
    """The bits are compared, not the values."""
    assert not difference(np.array(one), np.array(other)).equal


def test_non_finite_elements_make_the_difference_nan():
    """A number would hide them. Two zero arrays have no cosine."""
    found = difference(np.array([1.0, INF, 2.0]), np.array([1.0, INF, 3.0]))
    assert math.isnan(found.largest)
    assert difference(np.zeros(3), np.zeros(3)).cosine is None


@given(arrays.arrays(float, 5), arrays.arrays(float, 5))
def test_any_difference_can_be_computed(one, other):
    """Without a warning, also for the largest numbers."""
    assert difference(one, other).equal == (one.tobytes() == other.tobytes())


def test_both_parts_of_complex_numbers_are_compared():
    """A rotation is a difference, though the absolute value is the same."""
    found = difference(np.array([1 + 0j], np.complex64), np.array([1j], np.complex64))
    assert (found.equal, found.largest, found.mean, found.cosine) == (False, 1, 1, 0)


def test_memory_does_not_grow_with_the_array(tmp_path, monkeypatch):
    """An array of 128 MB takes less than half of that."""
    monkeypatch.undo()
    (tmp_path / "zeros").write_bytes(b"")
    with (tmp_path / "zeros").open("r+b") as file:
        file.truncate(2**27)
    array = np.memmap(tmp_path / "zeros", np.float32, "r")
    monkeypatch.setattr(array_stats, "_CHUNK", 2**20)
    tracemalloc.start()
    try:
        assert summary(array).zeros == 1
        assert difference(array, array).equal
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
