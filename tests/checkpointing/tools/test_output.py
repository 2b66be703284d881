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
    ("number", "text"),
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
def test_sizes_have_three_figures(number, text):
    """In powers of a thousand."""
    assert size(number) == text


@given(st.integers(0, 10**15))
def test_a_size_is_correct_to_half_a_percent(number):
    """In every unit."""
    value, unit = size(number).split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert math.isclose(float(value.replace(",", "")) * factor, number, rel_tol=0.005)
    assert float(value.replace(",", "")) < 1000 or unit == "TB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s ago"), (-5, "0 s ago"), (59, "59 s ago"), (61, "1 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_an_age_has_one_unit(seconds, text):
    """Times in the future, as after a clock was set back, count as now."""
    assert ago(1000.0, 1000.0 + seconds) == text


def test_a_moment_is_a_local_time():
    """With a date."""
    assert moment(1_700_000_000.9)[:8] == "2023-11-"


def test_nouns_are_singular_or_plural():
    """By the number."""
    assert [counted(number, "step") for number in (0, 1, 1234)] == ["0 steps", "1 step", "1,234 steps"]


@given(RECORDS)
def test_any_record_becomes_json(record):
    """Standard JSON, without NaN."""

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(as_json(record), parse_constant=refuse)


def test_numbers_that_are_not_finite_become_null():
    """At any depth; a path becomes a string."""
    record = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}, "d": Path("run"), "e": None}
    assert json.loads(as_json(record)) == {"a": [None, [None, 1.5]], "b": {"c": None}, "d": "run", "e": None}
