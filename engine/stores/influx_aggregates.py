"""Aggregates that InfluxDB counts itself, as far as it counts right.

Longs and doubles stand in two fields, so both are aggregated and put together here. Three things would be wrong:

- A point that was sent again with another type stands in both fields. Only a series with values of several types in
  the range can hold one. There a window in which the types have more values than it has points is read whole.
- A sum of longs that does not fit wraps around. So the least, the greatest and the number of them come with it, and a
  window in which these do not exclude that is read whole.
- InfluxDB's percentile is not the nearest rank. With the number of values known, it is asked for the one that is.

What is read whole is counted by `aggregates`, as in every other store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from engine.stores import windows
from engine.stores.aggregates import check_functions, percentile, plain, rank, too_many_buckets
from engine.stores.influx_counts import (
    FIELDS,
    calls_of_both,
    calls_of_ends,
    calls_of_one,
    end_of,
    of_both,
    of_one,
    rows_of,
)
from engine.stores.influx_grid import Add, Grid, Name, Statement, by_series, name_of, run_statements
from engine.stores.influx_http import Http, Infinite
from engine.stores.influx_rows import Rows, Series, value_of
from engine.stores.influx_scopes import scopes_of
from engine.stores.influx_whole import Values, read_whole
from engine.stores.influxql import Scope, source
from engine.stores.timeseries import MOST_BUCKETS, Bucket
from engine.stores.windows import Run, Window

_STATEMENT_COSTS: Final = 250
"""What one more statement costs, in points that are read whole."""

_kinds_rows: Final[Rows[Any]] = Rows(tuple[int, int | None, float | None, bool | None, str | None, str | None])
_end_rows: Final[Rows[Any]] = Rows(
    tuple[int, str | None, int | None, float | None, bool | None, str | None, str | None]
)


async def aggregate(
    http: Http,
    tenant: str,
    devices: Sequence[str],
    keys: Sequence[str] | None,
    start_ms: int,
    end_ms: int,
    functions: Sequence[str],
    window: Window | None,
) -> list[Bucket]:
    """As `Timeseries.aggregate`."""
    asked = check_functions(functions)
    bounds = [start_ms, end_ms] if window is None else windows.edges(window, start_ms, end_ms)
    if start_ms >= end_ms or len(bounds) < 2:
        return []
    grid = Grid(bounds, start_ms, end_ms)
    buckets: list[Bucket] = []
    for scope in await scopes_of(http, tenant, devices, keys):
        buckets += await _Aggregate(http, scope, grid, asked, MOST_BUCKETS - len(buckets)).buckets()
    buckets.sort(key=lambda bucket: (bucket.device, bucket.key, bucket.start_ms))
    return buckets


class _Aggregate:
    """One scope's part of an aggregate, of which at most so many buckets may come."""

    def __init__(self, http: Http, scope: Scope, grid: Grid, asked: Sequence[str], most: int) -> None:
        self._http, self._scope, self._grid, self._asked, self._most = http, scope, grid, asked, most
        self._numeric = [name for name in asked if name not in ("count", "first", "last")]
        self._percentiles = {name: part for name in asked if (part := percentile(name)) is not None}
        self._kinds: dict[Name, str] = {}
        """The fields among l, d, b, s, j that a series has values in."""
        self._rows: dict[Name, dict[int, dict[str, Any]]] = {}
        self._values: Values = {}
        self._ends = [name for name in asked if name in ("first", "last")]
        self._open_ends: dict[str, dict[Name, list[int]]] = {name: {} for name in self._ends}

    async def buckets(self) -> list[Bucket]:
        """The buckets, in no order; BadInput for too many."""
        scope = self._scope
        calls = calls_of_one(self._asked, longest_ms=max(run.every_ms for _, run in self._grid.runs))
        try:
            await self._run([*self._kind_statements(), *self._counted(scope, calls)])
            unclear = [name for name in self._rows.keys() | self._kinds.keys() if not self._is_pure(name)]
            if self._numeric and unclear:
                await self._run(self._counted(_narrowed(scope, unclear), calls_of_both(self._asked)))
            doubtful = self._put_together()
            await self._run(self._percentile_statements(doubtful))
        except Infinite:
            # A sum or a mean is beyond every double, and the whole answer is lost.
            self._rows.clear()
            self._open_ends = {name: {} for name in self._ends}
            await self._run(self._counted(scope, ["count(t)", *calls_of_ends(self._asked)]))
            doubtful = self._put_together(trusted=False)
        await self._run(self._end_statements())
        if doubtful:
            await read_whole(self._http, scope.tenant, self._grid, self._numeric, doubtful, self._values)
        edges = self._grid.edges
        return [
            Bucket(device, key, edges[i], edges[i + 1], {function: values.get(function) for function in self._asked})
            for (device, key), found in self._values.items()
            for i, values in found.items()
        ]

    async def _run(self, statements: Iterable[Statement]) -> None:
        await run_statements(self._http, statements)

    def _is_pure(self, name: Name) -> bool:
        return self._kinds.get(name) in ("l", "d")

    def _kind_statements(self) -> Iterator[Statement]:
        """What types of values each series has in the range."""

        def take(series: Series) -> None:
            for row in _kinds_rows(series):
                found = "".join(field for field, first in zip(FIELDS, row[1:], strict=True) if first is not None)
                self._kinds[name_of(series, self._scope)] = found

        if self._numeric:
            select = ",".join(f"first({field})" for field in FIELDS)
            where = source(self._scope, self._grid.start_ms, self._grid.end_ms)
            groups = by_series(self._scope)
            yield Statement(f"SELECT {select} {where}{f' GROUP BY {groups}' if groups else ''}", take)

    def _counted(self, scope: Scope, calls: Sequence[str]) -> Iterator[Statement]:
        """What InfluxDB is to count in each window."""
        seen = 0

        def add(name: Name, index: int, row: tuple[Any, ...]) -> None:
            nonlocal seen
            found = {call: value for call, value in zip(calls, row, strict=True) if value is not None}
            # Nearly every row says yes to the first question, which is the cheap one.
            if any(row) or any(not call.startswith("count") for call in found):
                rows = self._rows.setdefault(name, {})
                if index in rows:
                    rows[index].update(found)
                else:
                    rows[index] = found
                seen += 1
                if seen > self._most:
                    raise too_many_buckets()

        return self._grid.statements(",".join(calls), rows_of(tuple(calls)), scope, add) if calls else iter(())

    def _end_statements(self) -> Iterator[Statement]:
        """First and last values where the types alone do not say which."""
        for function, names in self._open_ends.items():
            select = f"{function}(t),{','.join(FIELDS)}"
            for name, indices in names.items():
                scope, add = Scope(self._scope.tenant, [name[0]], [name[1]]), self._end_of(function)
                for index, run in self._grid.parts(indices):
                    yield self._grid.statement(select, _end_rows, scope, add, index, run)

    def _end_of(self, function: str) -> Add:
        def add(name: Name, index: int, row: tuple[Any, ...]) -> None:
            self._values[name][index][function] = value_of((*row[1:], row[0]))

        return add

    def _put_together(self, *, trusted: bool = True) -> dict[Name, list[int]]:
        """Values of what was counted; those windows in which the numbers are to be counted again."""
        doubtful: dict[Name, list[int]] = {}
        for name, rows in self._rows.items():
            pure, of_series = self._is_pure(name), self._values.setdefault(name, {})
            for index in sorted(rows):
                row = rows[index]
                values = of_series.setdefault(index, {})
                if "count" in self._asked:
                    values["count"] = row.get("count(t)", 0)
                for function in self._ends:
                    clear, values[function] = end_of(function, row)
                    if not clear:
                        self._open_ends[function].setdefault(name, []).append(index)
                if not self._numeric:
                    continue
                found = None
                if trusted and pure:
                    found = of_one(self._kinds[name], self._numeric, row)
                elif trusted:
                    found = of_both(self._numeric, row)
                if found is None:
                    doubtful.setdefault(name, []).append(index)
                else:
                    values.update(found)
        return doubtful

    def _percentile_statements(self, doubtful: dict[Name, list[int]]) -> Iterator[Statement]:
        """Percentiles of series whose numbers are all of one type; others join the doubtful ones."""
        for name, rows in self._rows.items() if self._percentiles else ():
            if not self._is_pure(name):
                continue
            counts = {index: row.get("count(t)", 0) for index, row in rows.items()}
            parts = list(_of_equal_count(self._grid, counts))
            if not all(counts.values()) or len(parts) * _STATEMENT_COSTS > sum(counts.values()):
                doubtful[name] = sorted(rows)
                continue
            scope, field = Scope(self._scope.tenant, [name[0]], [name[1]]), self._kinds[name]
            for index, run, count in parts:
                # The middle of what InfluxDB rounds to this rank: floor(count * percent / 100 + 0.5).
                percents = [100 * (rank(part, count) + 1) / count for part in self._percentiles.values()]
                calls = [f"percentile({field},{percent:.12f})" for percent in percents]
                decoder = rows_of(tuple(f"percentile({field})" for _ in calls))
                yield self._grid.statement(",".join(calls), decoder, scope, self._percentile, index, run)

    def _percentile(self, name: Name, index: int, row: tuple[Any, ...]) -> None:
        found = {name: plain(value) for name, value in zip(self._percentiles, row, strict=True) if value is not None}
        self._values.setdefault(name, {}).setdefault(index, {}).update(found)


def _narrowed(scope: Scope, names: Iterable[Name]) -> Scope:
    """A scope that has these series, and as few others as can be said in one statement."""
    return Scope(scope.tenant, sorted({device for device, _ in names}), sorted({key for _, key in names}))


def _of_equal_count(grid: Grid, counts: dict[int, int]) -> Iterator[tuple[int, Run, int]]:
    """Stretches of windows with the same number of points, or none: index of the first, the windows, the number."""
    indices = sorted(counts)
    at = 0
    for base, run in grid.runs:
        while at < len(indices) and indices[at] < base + run.windows:
            first, count = indices[at], counts[indices[at]]
            last = first
            while at < len(indices) and indices[at] < base + run.windows and counts[indices[at]] == count:
                last = indices[at]
                at += 1
            start_ms = run.start_ms + (first - base) * run.every_ms
            yield first, Run(start_ms, run.every_ms, last - first + 1), count
