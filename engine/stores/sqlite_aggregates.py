"""Aggregates by SQLite itself: points are summed up where they lie, and only buckets cross into Python.

Windows of equal length are one run, which one statement groups by division; a year of days has five of them. Longs and
doubles are summed apart, longs in two halves of 32 bits, since SQLite's sum of integers fails when it does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import nan
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
        rows: list[tuple[int, int, int, dict[str, Any]]] = []
        for run in asked.met(runs, start_ms, end_ms):
            read.check()
            most = MOST_BUCKETS - len(found) - len(rows)
            rows += asked.buckets(run, max(start_ms, run.start_ms), min(end_ms, run.end_ms), most)
        rows.sort(key=lambda row: row[:2])
        found += [Bucket(some[i].device, some[i].key, start, end, values) for i, start, end, values in rows]
    return found


class _Asked:
    """Series of one statement, and what is asked of them."""

    def __init__(self, read: Reading, series: Sequence[Series], functions: Sequence[str]) -> None:
        self._db, self._functions = read.db, functions
        self._table = table(len(series), 3)
        self._bound = bound([(i, each.device_id, each.key_id) for i, each in enumerate(series)])
        self._percentiles = {name: part for name in functions if (part := percentile(name)) is not None}
        columns = dict.fromkeys(column for name in functions for column in _COLUMNS.get(name, ()))
        self._at = {column: 2 + i for i, column in enumerate(columns)}
        shown, joined, at = [f"found.c{i}" for i in range(len(columns))], "", 2 + len(columns)
        for name in ("first", "last"):
            if name in functions:
                ts = f"found.c{self._at[_COLUMNS[name][0]] - 2}"
                joined += f" CROSS JOIN ts_kv AS {name} ON {name}.device = found.device AND {name}.key = found.key"
                joined += f" AND {name}.ts = {ts}"
                shown += [f"{name}.kind", f"{name}.value"]
                self._at[name] = at
                at += 2
        self._sql = _BUCKETS.format(
            table=self._table, columns="".join(f", {column} AS c{i}" for i, column in enumerate(columns)),
            shown="".join(f", {column}" for column in shown), joined=joined,
        )  # fmt: skip

    def met(self, runs: Sequence[Run], start_ms: int, end_ms: int) -> Iterator[Run]:
        """The runs that can have a point: decades of months are many."""
        if len(runs) > 1:
            extent = self._db.execute(
                _EXTENT.format(table=self._table), (*self._bound, start_ms, end_ms, start_ms, end_ms)
            )
            first_ms, last_ms = extent.fetchone()
            runs = [run for run in runs if first_ms is not None and run.start_ms <= last_ms and run.end_ms > first_ms]
        return iter(runs)

    def buckets(self, run: Run, start_ms: int, end_ms: int, most: int) -> list[tuple[int, int, int, dict[str, Any]]]:
        """Which series, start and end of the window, values; for the windows of one run that have a point."""
        parameters = (*self._bound, run.start_ms, run.every_ms, start_ms, end_ms)
        rows = self._db.execute(self._sql, (*parameters, most + 1)).fetchall()
        if len(rows) > most:
            raise too_many_buckets()
        ranked = self._ranked(parameters) if self._percentiles else {}
        found = []
        for row in rows:
            window_ms = run.start_ms + row[1] * run.every_ms
            values = {name: self._value(name, row, ranked.get(row[:2])) for name in self._functions}
            found.append((row[0], window_ms, window_ms + run.every_ms, values))
        return found

    def _ranked(self, parameters: Sequence[int]) -> dict[tuple[int, int], tuple[int, dict[int, Any]]]:
        """Of each series and window with numbers: how many, and those at the places that are asked for."""
        parts = list(self._percentiles.values())
        sql = _RANKED.format(table=self._table, places=", ".join([_PLACE] * len(parts)))
        found: dict[tuple[int, int], tuple[int, dict[int, Any]]] = {}
        for i, w, n, place, value in self._db.execute(sql, (*parameters, *parts)):
            found.setdefault((i, w), (n, {}))[1][place] = value
        return found

    def _value(self, name: str, row: Sequence[Any], ranked: tuple[int, dict[int, Any]] | None) -> Any:
        if name in self._percentiles:
            if ranked is None:
                return None
            count, numbers = ranked
            return plain(numbers[rank(self._percentiles[name], count) + 1])
        if name in ("first", "last"):
            at = self._at[name]
            return value_of(row[at], row[at + 1])
        found = [row[self._at[column]] for column in _COLUMNS[name]]
        match name:
            case "min":
                return least(*found)
            case "max":
                return greatest(*found)
            case "sum" | "mean":
                longs, upper, lower, doubles, of_doubles = found
                of_longs = ((upper or 0) << 32) + (lower or 0)
                # A sum that went beyond both ends is NULL.
                in_all = nan if of_doubles is None else of_doubles
                return (total if name == "sum" else mean)(longs, of_longs, doubles, in_all)
        return found[0]
