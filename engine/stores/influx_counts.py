"""What InfluxDB is asked to count of a window, and what functions make of it.

The calls of one type are enough for a series whose values are all longs or all doubles; on a field that it does not
have they cost next to nothing. The calls of both are for the others.

InfluxDB adds longs up in 64 bits and says nothing when they do not suffice. So it is asked for the sum as doubles too:
it is off by less than 2^62 as long as a window has fewer than `MOST_ADDED` points, so where it is less than 2^62 the
sum of longs has not wrapped around. The same holds for a mean, which InfluxDB makes of that sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from engine.stores.aggregates import greatest, least, mean, percentile, plain, total
from engine.stores.influx_rows import Rows, value_of

FIELDS: Final = "ldbsj"
"""Those that hold values."""

MOST_ADDED: Final = 2**26
"""n doubles are added with an error below n * 2^-53 * n * 2^63. A shorter window in milliseconds cannot have more."""

Row = Sequence[Any]
"""A time, and what a window has of each call, such as `sum(l)`; None for nothing."""

Places = Mapping[str, int]
"""Where each call stands in a row; those of one end stand together, in the order of `FIELDS`."""

COUNT_AT: Final = 1
"""Where `count(t)` stands, if it is asked for."""

ValuesOf = Callable[[Row], dict[str, Any] | None]
"""What the functions give in a window, from its row: numeric ones (None for the others, which are found apart).

None altogether if the numbers must be counted again.
"""

_NUMERIC: Final = ("min", "max", "sum", "mean")
_COUNTS: Final = tuple(f"count({field})" for field in FIELDS)
_TYPES: Final[dict[str, type]] = {"l": int, "d": float, "b": bool, "s": str, "j": str}
_SAFE: Final = 2.0**62


def calls_of_one(functions: Sequence[str], *, longest_ms: int) -> list[str]:
    """The calls for series of one type; none if nothing of it is asked for. The longest window has `longest_ms`."""
    calls = ["count(t)"] if "count" in functions or any(map(is_percentile, functions)) else []
    for function in _NUMERIC:
        if function in functions:
            calls += [f"{function}(d)", f"{function}(l)"]
            if function in ("sum", "mean"):
                calls.append(f"{function}(l::float)")
                calls += ["count(l)"] if longest_ms >= MOST_ADDED else []
    return [*dict.fromkeys(calls), *calls_of_ends(functions)]


def calls_of_ends(functions: Sequence[str]) -> list[str]:
    """The calls for the first and the last value."""
    return [f"{function}({field})" for function in ("first", "last") if function in functions for field in FIELDS]


def calls_of_both(functions: Sequence[str]) -> list[str]:
    """The calls for the numbers of series of several types."""
    calls = ["count(t)", *_COUNTS]
    for function in ("min", "max"):
        if function in functions:
            calls += [f"{function}(d)", f"{function}(l)"]
    if "sum" in functions or "mean" in functions:
        calls += ["sum(d)", "sum(l)", "sum(l::float)"]
    return calls


@lru_cache(256)
def rows_of(calls: tuple[str, ...]) -> Rows[Any]:
    """The decoder of the rows of calls."""
    return Rows(tuple.__class_getitem__((int, *(_type(call) | None for call in calls))))


def is_percentile(function: str) -> bool:
    """Whether a checked function is one."""
    return percentile(function) is not None


def places(calls: Sequence[str]) -> Places:
    """Where calls stand in the rows that come of them, behind the time."""
    return {call: at for at, call in enumerate(calls, start=1)}


def of_one(field: str, functions: Sequence[str], at: Places) -> ValuesOf:
    """For series whose values are all longs (`l`) or all doubles (`d`); percentiles are found apart, too."""
    none = dict.fromkeys(functions)
    numeric = [(function, at[f"{function}({field})"]) for function in functions if function in _NUMERIC]
    sums = [(function, at[f"{function}(l::float)"]) for function, _ in numeric if function in ("sum", "mean")]
    count_at = at.get("count(l)")

    def of(row: Row) -> dict[str, Any] | None:
        values = none.copy()
        for function, i in numeric:
            number = row[i]
            if number is None:
                return None
            values[function] = plain(number)
        if field == "l":
            count = 0 if count_at is None else row[count_at]
            if not all(_is_unwrapped(function, count, values[function], row[i]) for function, i in sums):
                return None
        return values

    return of


def of_both(functions: Sequence[str], at: Places) -> ValuesOf:
    """For series with values of any types."""

    def of(row: Row) -> dict[str, Any] | None:
        found = {call: row[i] for call, i in at.items() if row[i] is not None}
        if found.get("count(t)", 0) != sum(found.get(call, 0) for call in _COUNTS):
            return None  # a type that was sent before stands there still
        longs, doubles = found.get("count(l)", 0), found.get("count(d)", 0)
        values: dict[str, Any] = dict.fromkeys(functions)
        if not longs and not doubles:
            return values
        for function in functions:
            match function:
                case "min":
                    values[function] = least(found.get("min(l)"), found.get("min(d)"))
                case "max":
                    values[function] = greatest(found.get("max(l)"), found.get("max(d)"))
                case "sum" | "mean":
                    if longs and not _is_unwrapped("sum", longs, found.get("sum(l)"), found.get("sum(l::float)")):
                        return None
                    of_sums = total if function == "sum" else mean
                    values[function] = of_sums(longs, found.get("sum(l)", 0), doubles, found.get("sum(d)", 0.0))
                case _ if is_percentile(function):
                    return None
        return values

    return of


def end_of(function: str, at: Places, row: Row | None) -> tuple[bool, Any]:
    """Whether it is clear what the first or last value of a window is, and which.

    A point that was sent with several types stands in all their fields. So it is clear where there is but one.
    """
    if row is None:
        return False, None
    first = at[f"{function}({FIELDS[0]})"]
    found = row[first : first + len(FIELDS)]
    types = "".join(field for field, value in zip(FIELDS, found, strict=True) if value is not None)
    if len(types) != 1:
        return False, None
    long, double, boolean, text, json = found
    return True, value_of((long, double, boolean, text, json, types))


def _is_unwrapped(function: str, count: int | None, found: Any, of_doubles: float | None) -> bool:
    """The sum of so many longs, or the mean that was made of it, is what it should be."""
    if count is None or count >= MOST_ADDED or of_doubles is None:
        return False
    if function == "sum":
        return abs(of_doubles) < _SAFE
    # A sum that has wrapped is 2^64 off, and its mean more than 2^37; an honest one less than 2^36.
    return bool(abs(found - of_doubles) < 2.0**36.5)


def _type(call: str) -> type:
    function, _, field = call.rstrip(")").partition("(")
    if function == "count":
        return int
    return float if function == "mean" or field.endswith("::float") else _TYPES[field]
