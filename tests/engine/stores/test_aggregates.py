from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.stores.aggregates import check_functions, greatest, least, mean, order, percentile, rank, total
from engine.stores.values import INT64_MAX, INT64_MIN


def test_functions_each_once() -> None:
    assert check_functions(["p95", "min", "p95", "count"]) == ["p95", "min", "count"]


@pytest.mark.parametrize(
    "name", ["", "avg", "p", "p101", "p100.1", "p-1", "p9.9999", "P95", "p95 ", "p٩", "p1e1", "median"]
)
def test_no_function(name: str) -> None:
    with pytest.raises(BadInput, match="not a function"):
        check_functions(["min", name])
    with pytest.raises(BadInput, match="at least one"):
        check_functions([])


def test_percentiles_in_thousandths() -> None:
    found = [percentile(name) for name in ("p0", "p5", "p99.9", "p99.999", "p100", "p100.0", "p07", "min", "mean")]
    assert found == [0, 5000, 99_900, 99_999, 100_000, 100_000, 7000, None, None]


@given(st.integers(0, 100_000), st.integers(1, 10_000))
def test_the_nearest_rank_is_exact(thousandths: int, count: int) -> None:
    wanted = max(1, math.ceil(Fraction(thousandths, 100_000) * count))
    assert rank(thousandths, count) == wanted - 1
    assert rank(0, count) == 0
    assert rank(100_000, count) == count - 1


@given(st.lists(st.integers(-3, 3) | st.integers() | st.floats(-3, 3, width=16), min_size=1))
def test_least_and_greatest_are_the_ends_of_the_order(numbers: list[int | float]) -> None:
    longs = [number for number in numbers if type(number) is int]
    doubles = [number for number in numbers if type(number) is float]
    ordered = sorted(numbers, key=order)
    first = least(min(longs, default=None), min(doubles, default=None))
    last = greatest(max(longs, default=None), max(doubles, default=None))
    assert (first, type(first)) == (ordered[0], type(ordered[0]))
    assert (last, type(last)) == (ordered[-1], type(ordered[-1]))


def test_numbers_beyond_what_a_double_tells_apart() -> None:
    assert least(2**53 + 1, float(2**53)) == float(2**53)
    assert greatest(2**53 + 1, float(2**53)) == 2**53 + 1
    assert repr((least(None, -0.0), greatest(None, -0.0), least(0, -0.0))) == "(0.0, 0.0, 0)"


def test_sums_are_longs_as_long_as_they_fit() -> None:
    assert repr(total(2, INT64_MAX, 0, 0.0)) == str(INT64_MAX)
    assert repr(total(2, INT64_MAX + 1, 0, 0.0)) == repr(float(2**63))
    assert repr(total(1, INT64_MIN, 1, 0.5)) == repr(float(INT64_MIN))
    assert repr(total(1, 1, 1, 1.0)) == "2.0"
    assert total(0, 0, 2, math.inf) is None
    assert total(0, 0, 0, 0.0) is None


def test_means_are_doubles() -> None:
    assert repr(mean(2, 4, 0, 0.0)) == "2.0"
    assert mean(2, 2 * INT64_MAX, 0, 0.0) == float(INT64_MAX)
    assert mean(1, 1, 1, 2.0) == 1.5
    assert mean(0, 0, 2, -math.inf) is None
    assert mean(0, 0, 0, 0.0) is None
