"""What the functions of an aggregate are, and the arithmetic that must not differ from store to store.

Numbers stand in one order: by value, exactly (2^53 + 1 is more than the double 2^53), and of the same value a long
before a double. min is the first of them, max the last, and a percentile the one at its nearest rank.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, Final

from engine.errors import BadInput
from engine.stores.timeseries import FUNCTIONS, MOST_BUCKETS
from engine.stores.values import INT64_MAX, INT64_MIN

_PERCENTILE: Final = re.compile(r"p(100(?:\.0{1,3})?|[0-9]{1,2}(?:\.[0-9]{1,3})?)", re.ASCII)
_WHOLE: Final = 100_000
"""Thousandths of a percent in all."""


def check_functions(functions: Sequence[str]) -> list[str]:
    """The functions, each once; BadInput for none at all, and for one that does not exist."""
    if not functions:
        raise BadInput("name at least one function")
    for name in functions:
        if name not in FUNCTIONS and _PERCENTILE.fullmatch(name) is None:
            raise BadInput(f"not a function: {name[:40]!r}; there are {', '.join(FUNCTIONS)} and percentiles like p95")
    return list(dict.fromkeys(functions))


def too_many_buckets() -> BadInput:
    """More than `MOST_BUCKETS` came of an aggregate."""
    return BadInput(f"more than {MOST_BUCKETS} windows in all; ask for fewer series, longer windows or less time")


@lru_cache(1024)
def percentile(function: str) -> int | None:
    """Which percentile a checked function is, in thousandths of a percent; None for one that is none."""
    found = _PERCENTILE.fullmatch(function)
    if found is None:
        return None
    whole, _, part = found[1].partition(".")
    return int(whole) * 1000 + int(part.ljust(3, "0"))


def rank(thousandths: int, count: int) -> int:
    """The place of a percentile among `count` numbers in order, from 0: the nearest rank."""
    return max(1, -(-thousandths * count // _WHOLE)) - 1


def order(number: int | float) -> tuple[int | float, bool]:
    """The sort key of numbers: by value, then longs before doubles."""
    return number, type(number) is float


def least(long: int | None, double: float | None) -> int | float | None:
    """min of a window, from that of its longs and that of its doubles."""
    if long is None or double is None:
        return long if double is None else plain(double)
    return long if long <= double else plain(double)


def greatest(long: int | None, double: float | None) -> int | float | None:
    """max of a window, from that of its longs and that of its doubles."""
    if long is None or double is None:
        return long if double is None else plain(double)
    return long if long > double else plain(double)


def total(longs: int, of_longs: int, doubles: int, of_doubles: float) -> int | float | None:
    """sum of a window: how many longs, what they give, exactly, how many doubles, what they give."""
    if not longs and not doubles:
        return None
    if not doubles and INT64_MIN <= of_longs <= INT64_MAX:
        return of_longs
    return _finite(float(of_longs) + of_doubles)


def mean(longs: int, of_longs: int, doubles: int, of_doubles: float) -> float | None:
    """mean of a window, from the same as `total`."""
    if not longs and not doubles:
        return None
    if not doubles:
        return of_longs / longs
    return _finite((float(of_longs) + of_doubles) / (longs + doubles))


def of_values(functions: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What checked functions give of the values of one window's points, which stand by time."""
    numbers = sorted((value for value in values if type(value) in (int, float)), key=order)
    return {function: _of(function, values, numbers) for function in functions}


def plain(number: int | float) -> int | float:
    """A number as an aggregate shows it: there is one zero, not two."""
    return number + 0.0 if type(number) is float else number


def _finite(number: float) -> float | None:
    return number + 0.0 if isfinite(number) else None


def _of(function: str, values: Sequence[Any], numbers: Sequence[int | float]) -> Any:
    match function:
        case "count":
            return len(values)
        case "first":
            return values[0]
        case "last":
            return values[-1]
    if not numbers:
        return None
    longs = [number for number in numbers if type(number) is int]
    doubles = [number for number in numbers if type(number) is float]
    match function:
        case "min":
            return plain(numbers[0])
        case "max":
            return plain(numbers[-1])
        case "sum":
            return total(len(longs), sum(longs), len(doubles), sum(doubles))
        case "mean":
            return mean(len(longs), sum(longs), len(doubles), sum(doubles))
    thousandths = percentile(function)
    assert thousandths is not None
    return plain(numbers[rank(thousandths, len(numbers))])
