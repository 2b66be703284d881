import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointing.tools.output import ago, as_json, counted, moment, size

RECORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(min_size=1).map(Path),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1 kB"),
        (1000, "1 kB"),
        (31_400, "31.4 kB"),
        (5e8, "500 MB"),
        (4e15, "4e+03 TB"),
    ],
)
def test_sizes_have_three_figures(number, told):
    """In units of a thousand."""
    assert size(number) == told


@given(st.integers(0, 10**15))
def test_a_size_is_right_to_half_a_percent(number):
    """Whatever its unit."""
    value, unit = size(number).split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert math.isclose(float(value.replace(",", "")) * factor, number, rel_tol=0.005)
    assert float(value.replace(",", "")) < 1000 or unit == "TB"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s ago"), (-5, "0 s ago"), (59, "59 s ago"), (61, "1 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_age_is_told_in_one_unit(seconds, told):
    """A clock that was put back makes nothing come from the future."""
    assert ago(1000.0, 1000.0 + seconds) == told


def test_a_moment_is_one_of_here():
    """As a clock on the wall shows it."""
    assert moment(1_700_000_000.9)[:8] == "2023-11-"


def test_one_is_not_many():
    """In words."""
    assert [counted(number, "step") for number in (0, 1, 1234)] == ["0 steps", "1 step", "1,234 steps"]


@given(RECORDS)
def test_any_answer_is_json(record):
    """By the standard, which has no NaN; and what it has comes back."""

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(as_json(record), parse_constant=refuse)


def test_what_is_not_finite_is_null():
    """Wherever it stands; a path is its name."""
    record = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}, "d": Path("run"), "e": None}
    assert json.loads(as_json(record)) == {"a": [None, [None, 1.5]], "b": {"c": None}, "d": "run", "e": None}
