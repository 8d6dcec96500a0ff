"""What InfluxDB is asked to count of a window, and what functions make of it.

The calls of one type are enough for a series whose values are all longs or all doubles; on a field that it does not
have they cost next to nothing. The calls of both are for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from engine.stores.aggregates import greatest, least, mean, percentile, plain, total
from engine.stores.influx_rows import Rows, value_of
from engine.stores.values import INT64_MAX

FIELDS: Final = "ldbsj"
"""Those that hold values."""

Row = Mapping[str, Any]
"""What a window has, by the call, such as `sum(l)`."""

_LONGS: Final = ("sum(l)", "count(l)", "min(l)", "max(l)")
_COUNTS: Final = tuple(f"count({field})" for field in FIELDS)
_TYPES: Final[dict[str, type]] = {"l": int, "d": float, "b": bool, "s": str, "j": str}


def calls_of_one(functions: Sequence[str], *, counted: bool) -> list[str]:
    """The calls for series of one type; none if nothing of it is asked for."""
    calls = ["count(t)"] if counted else []
    for function in ("min", "max", "sum", "mean"):
        if function in functions:
            calls += [f"{function}(d)", *(_LONGS if function in ("sum", "mean") else [f"{function}(l)"])]
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
        calls += ["sum(d)", *_LONGS]
    return list(dict.fromkeys(calls))


@cache
def rows_of(calls: tuple[str, ...]) -> Rows[Any]:
    """The decoder of the rows of calls."""
    types = (int if call.startswith("count") else _TYPES[call[-2]] for call in calls)
    return Rows(tuple.__class_getitem__((int, *(type | None for type in types))))


def of_one(field: str, functions: Sequence[str], row: Row) -> dict[str, Any] | None:
    """Numeric functions, but percentiles, of longs (`l`) or doubles (`d`); None if they must be counted again."""
    values: dict[str, Any] = {}
    for function in functions:
        if percentile(function) is not None:
            continue
        call = f"{function}({field})"
        if field == "d" or function in ("min", "max"):
            if call not in row:
                return None
            values[function] = plain(row[call])
            continue
        if not _fits(row):
            return None
        values[function] = (total if function == "sum" else mean)(row["count(l)"], row["sum(l)"], 0, 0.0)
    return values


def end_of(function: str, row: Row) -> tuple[bool, Any]:
    """Whether it is clear what the first or last value is, and which.

    A point that was sent with several types stands in all their fields. So it is clear where there is but one.
    """
    found = [row.get(f"{function}({field})") for field in FIELDS]
    types = "".join(field for field, value in zip(FIELDS, found, strict=True) if value is not None)
    return len(types) == 1, value_of((*found, types)) if len(types) == 1 else None


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
                if not _fits(row):
                    return None
                of = total if function == "sum" else mean
                values[function] = of(longs, row.get("sum(l)", 0), doubles, row.get("sum(d)", 0.0))
            case _:
                return None  # a percentile of both
    return values


def _fits(row: Row) -> bool:
    """The sum of the longs has not wrapped around."""
    if not row.get("count(l)"):
        return True
    if "min(l)" not in row or "max(l)" not in row or "sum(l)" not in row:
        return False
    return bool(row["count(l)"] * max(abs(row["min(l)"]), abs(row["max(l)"])) <= INT64_MAX)
