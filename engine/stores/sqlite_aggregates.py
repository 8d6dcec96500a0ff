"""Aggregates by SQLite itself: points are summed up where they lie, and only buckets cross into Python.

Windows of equal length are one run, which one statement groups by division; a year of days has five of them. Longs and
doubles are summed apart, longs in two halves of 32 bits, since SQLite's sum of integers fails when it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from operator import itemgetter
from typing import Any, Final

from engine.stores.aggregates import greatest, least, mean, percentile, plain, rank, too_many_buckets, total
from engine.stores.sqlite_readers import Reading
from engine.stores.sqlite_rows import value_of
from engine.stores.sqlite_series import AT_ONCE, Series, bound, parts, table
from engine.stores.timeseries import MOST_BUCKETS, Bucket
from engine.stores.windows import Run

_LONG, _DOUBLE = "CASE t.kind WHEN 'l' THEN t.value END", "CASE t.kind WHEN 'd' THEN t.value END"
_SUMS: Final = (
    f"count({_LONG})",
    f"sum(({_LONG}) >> 32)",
    f"sum(({_LONG}) & 4294967295)",
    f"count({_DOUBLE})",
    f"total({_DOUBLE})",
)
_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "count": ("count(*)",),
    "min": (f"min({_LONG})", f"min({_DOUBLE})"),
    "max": (f"max({_LONG})", f"max({_DOUBLE})"),
    "sum": _SUMS,
    "mean": _SUMS,
    "first": ("min(t.ts)",),
    "last": ("max(t.ts)",),
}
"""What SQLite finds for a function; percentiles are found apart."""

_EXTENT: Final = """
WITH asked(i, device, key) AS ({table})
SELECT
  min((SELECT ts FROM ts_kv WHERE device = asked.device AND key = asked.key AND ts >= ? AND ts < ?
       ORDER BY ts LIMIT 1)),
  max((SELECT ts FROM ts_kv WHERE device = asked.device AND key = asked.key AND ts >= ? AND ts < ?
       ORDER BY ts DESC LIMIT 1))
FROM asked"""
_POINTS: Final = """asked CROSS JOIN ts_kv AS t
  ON t.device = asked.device AND t.key = asked.key AND t.ts >= ? AND t.ts < ?"""
_BUCKETS: Final = (
    """
WITH asked(i, device, key) AS ({table}), found AS (
  SELECT asked.i AS i, asked.device AS device, asked.key AS key, (t.ts - ?) / ? AS w{columns}
  FROM """
    + _POINTS
    + """ GROUP BY asked.i, w)
SELECT found.i, found.w{shown} FROM found{joined} ORDER BY found.i, found.w LIMIT ?"""
)
_RANKED: Final = (
    """
WITH asked(i, device, key) AS ({table}), numbers AS (
  SELECT asked.i AS i, (t.ts - ?) / ? AS w, t.kind AS kind, t.value AS value
  FROM """
    + _POINTS
    + """ AND t.kind IN ('l', 'd')), ranked AS (
  SELECT i, w, value, row_number() OVER (PARTITION BY i, w ORDER BY value, kind DESC) AS place,
    count(*) OVER (PARTITION BY i, w) AS n FROM numbers)
SELECT i, w, n, place, value FROM ranked WHERE place IN ({places})"""
)
_PLACE: Final = "max(1, (? * n + 99999) / 100000)"
"""`aggregates.rank` in SQL, from 1."""


Value = Callable[[Sequence[Any]], Any]
"""What a function gives, from the row of a bucket."""


def aggregate(
    read: Reading,
    series: Sequence[Series],
    start_ms: int,
    end_ms: int,
    functions: Sequence[str],
    runs: Sequence[Run],
) -> list[Bucket]:
    """The buckets of each series in its order, by time. `runs` are the windows that the range meets."""
    found: list[Bucket] = []
    for some in parts(series, AT_ONCE):
        asked = _Asked(read, some, functions)
        buckets: list[Bucket] = []
        met = asked.met(runs, start_ms, end_ms)
        for run in met:
            read.check()
            most = MOST_BUCKETS - len(found) - len(buckets)
            buckets += asked.buckets(run, max(start_ms, run.start_ms), min(end_ms, run.end_ms), most)
        if len(met) > 1:
            buckets.sort(key=lambda bucket: (bucket.device, bucket.key, bucket.start_ms))
        found += buckets
    return found


class _Asked:
    """Series of one statement, and what is asked of them."""

    def __init__(self, read: Reading, series: Sequence[Series], functions: Sequence[str]) -> None:
        self._db, self._series = read.db, series
        self._table = table(len(series), 3)
        self._bound = bound([(i, each.device_id, each.key_id) for i, each in enumerate(series)])
        self._percentiles = {name: part for name in functions if (part := percentile(name)) is not None}
        columns = list(dict.fromkeys(column for name in functions for column in _COLUMNS.get(name, ())))
        shown, joined = [f"found.c{i}" for i in range(len(columns))], ""
        self._values: list[tuple[str, Value]] = []
        """The functions in the order in which they were asked for, but for percentiles."""
        for name in functions:
            if name in self._percentiles:
                continue
            at = [2 + columns.index(column) for column in _COLUMNS[name]]
            if name in ("first", "last"):
                joined += f" CROSS JOIN ts_kv AS {name} ON {name}.device = found.device AND {name}.key = found.key"
                joined += f" AND {name}.ts = found.c{at[0] - 2}"
                at = [2 + len(shown), 3 + len(shown)]
                shown += [f"{name}.kind", f"{name}.value"]
            self._values.append((name, _value(name, at)))
        self._functions = functions
        self._sql = _BUCKETS.format(
            table=self._table, columns="".join(f", {column} AS c{i}" for i, column in enumerate(columns)),
            shown="".join(f", {column}" for column in shown), joined=joined,
        )  # fmt: skip

    def met(self, runs: Sequence[Run], start_ms: int, end_ms: int) -> Sequence[Run]:
        """The runs that can have a point: decades of months are many."""
        if len(runs) == 1:
            return runs
        sql = _EXTENT.format(table=self._table)
        first_ms, last_ms = self._db.execute(sql, (*self._bound, start_ms, end_ms, start_ms, end_ms)).fetchone()
        return [run for run in runs if first_ms is not None and run.start_ms <= last_ms and run.end_ms > first_ms]

    def buckets(self, run: Run, start_ms: int, end_ms: int, most: int) -> list[Bucket]:
        """The windows of one run that have a point, by series and time."""
        parameters = (*self._bound, run.start_ms, run.every_ms, start_ms, end_ms)
        rows = self._db.execute(self._sql, (*parameters, most + 1)).fetchall()
        if len(rows) > most:
            raise too_many_buckets()
        ranked = self._ranked(parameters) if self._percentiles else {}
        found = []
        for row in rows:
            device, key, _, _ = self._series[row[0]]
            window_ms = run.start_ms + row[1] * run.every_ms
            values = {name: value(row) for name, value in self._values}
            if self._percentiles:
                values = self._with_percentiles(values, ranked.get(row[:2]))
            found.append(Bucket(device, key, window_ms, window_ms + run.every_ms, values))
        return found

    def _ranked(self, parameters: Sequence[int]) -> dict[tuple[int, int], tuple[int, dict[int, Any]]]:
        """Of each series and window with numbers: how many, and those at the places that are asked for."""
        asked = list(self._percentiles.values())
        sql = _RANKED.format(table=self._table, places=", ".join([_PLACE] * len(asked)))
        found: dict[tuple[int, int], tuple[int, dict[int, Any]]] = {}
        for i, w, n, place, value in self._db.execute(sql, (*parameters, *asked)):
            found.setdefault((i, w), (n, {}))[1][place] = value
        return found

    def _with_percentiles(self, values: dict[str, Any], ranked: tuple[int, dict[int, Any]] | None) -> dict[str, Any]:
        """The values with the percentiles among them, as they were asked for."""
        for name, part in self._percentiles.items():
            if ranked is None:
                values[name] = None
            else:
                count, numbers = ranked
                values[name] = plain(numbers[rank(part, count) + 1])
        return {name: values[name] for name in self._functions}


def _value(name: str, at: Sequence[int]) -> Value:
    """How a function's value is made of the columns `at` of a bucket's row."""
    match name:
        case "count":
            return itemgetter(*at)
        case "min":
            return lambda row: least(row[at[0]], row[at[1]])
        case "max":
            return lambda row: greatest(row[at[0]], row[at[1]])
        case "first" | "last":
            return lambda row: value_of(row[at[0]], row[at[1]])
    of_sums = total if name == "sum" else mean

    def of(row: Sequence[Any]) -> Any:
        longs, upper, lower, doubles, of_doubles = (row[i] for i in at)
        of_longs = (upper << 32) + lower if longs else 0
        # A sum that went beyond both ends is NULL.
        return of_sums(longs, of_longs, doubles, nan if of_doubles is None else of_doubles)

    return of
