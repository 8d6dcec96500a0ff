"""What InfluxDB is asked to count of a window, and what functions make of it.

The calls of one type are enough for a series whose values are all longs or all doubles; on a field that it does not
have they cost next to nothing. The calls of both are for the others.

InfluxDB adds longs up in 64 bits and says nothing when they do not suffice. So it is asked for the sum as doubles too:
it is off by less than 2^62 as long as a window has fewer than `MOST_ADDED` points, so where it is less than 2^62 the
sum of longs has not wrapped around. The same holds for a mean, which InfluxDB makes of that sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from engine.stores.aggregates import greatest, least, mean, percentile, plain, total
from engine.stores.influx_rows import Rows, value_of

FIELDS: Final = "ldbsj"
"""Those that hold values."""

MOST_ADDED: Final = 2**26
"""n doubles are added with an error below n * 2^-53 * n * 2^63. A shorter window in milliseconds cannot have more."""

Row = Mapping[str, Any]
"""What a window has, by the call, such as `sum(l)`."""

_COUNTS: Final = tuple(f"count({field})" for field in FIELDS)
_TYPES: Final[dict[str, type]] = {"l": int, "d": float, "b": bool, "s": str, "j": str}
_SAFE: Final = 2.0**62


def calls_of_one(functions: Sequence[str], *, longest_ms: int) -> list[str]:
    """The calls for series of one type; none if nothing of it is asked for. The longest window has `longest_ms`."""
    calls = ["count(t)"] if "count" in functions or any(map(is_percentile, functions)) else []
    for function in ("min", "max", "sum", "mean"):
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


@lru_cache(256)
def _plain_calls(field: str, functions: tuple[str, ...]) -> list[tuple[str, str]]:
    """Functions that are no percentiles, with what InfluxDB was asked for."""
    return [(function, f"{function}({field})") for function in functions if not is_percentile(function)]


def of_one(field: str, functions: Sequence[str], row: Row) -> dict[str, Any] | None:
    """Numeric functions, but percentiles, of longs (`l`) or doubles (`d`); None if they must be counted again."""
    values: dict[str, Any] = {}
    for function, call in _plain_calls(field, tuple(functions)):
        found = row.get(call)
        if found is None or (field == "l" and not _is_unwrapped(function, row)):
            return None
        values[function] = plain(found)
    return values


def of_both(functions: Sequence[str], row: Row) -> dict[str, Any] | None:
    """Numeric functions of a window with values of any types; None if they must be counted again."""
    if row.get("count(t)", 0) != sum(row.get(call, 0) for call in _COUNTS):
        return None  # a type that was sent before stands there still
    longs, doubles = row.get("count(l)", 0), row.get("count(d)", 0)
    if not longs and not doubles:
        return dict.fromkeys(functions)
    values: dict[str, Any] = {}
    for function in functions:
        match function:
            case "min":
                values[function] = least(row.get("min(l)"), row.get("min(d)"))
            case "max":
                values[function] = greatest(row.get("max(l)"), row.get("max(d)"))
            case "sum" | "mean":
                if longs and not _is_unwrapped("sum", row):
                    return None
                of = total if function == "sum" else mean
                values[function] = of(longs, row.get("sum(l)", 0), doubles, row.get("sum(d)", 0.0))
            case _:
                return None  # a percentile of both
    return values


def end_of(function: str, row: Row) -> tuple[bool, Any]:
    """Whether it is clear what the first or last value is, and which.

    A point that was sent with several types stands in all their fields. So it is clear where there is but one.
    """
    found: list[Any] = [row.get(f"{function}({field})") for field in FIELDS]
    types = "".join(field for field, value in zip(FIELDS, found, strict=True) if value is not None)
    if len(types) != 1:
        return False, None
    long, double, boolean, text, json = found
    return True, value_of((long, double, boolean, text, json, types))


def _is_unwrapped(function: str, row: Row) -> bool:
    """The sum of the longs, or the mean that was made of it, is what it should be."""
    if function not in ("sum", "mean"):
        return True
    if row.get("count(l)", 0) >= MOST_ADDED or f"{function}(l::float)" not in row:
        return False
    of_doubles = row[f"{function}(l::float)"]
    if function == "sum":
        return bool(abs(of_doubles) < _SAFE)
    # A sum that has wrapped is 2^64 off, and its mean more than 2^37; an honest one less than 2^36.
    return bool(abs(row["mean(l)"] - of_doubles) < 2.0**36.5)


def _type(call: str) -> type:
    function, _, field = call.rstrip(")").partition("(")
    if function == "count":
        return int
    return float if function == "mean" or field.endswith("::float") else _TYPES[field]
