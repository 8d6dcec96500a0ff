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

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from engine.stores import windows
from engine.stores.aggregates import check_functions, percentile, plain, rank
from engine.stores.influx_counted import Counted
from engine.stores.influx_counts import (
    COUNT_AT,
    FIELDS,
    ValuesOf,
    calls_of_both,
    calls_of_ends,
    calls_of_one,
    end_of,
    of_both,
    of_one,
    rows_of,
)
from engine.stores.influx_grid import Add, Grid, Name, Placed, Statement, by_series, name_of, run_statements
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
    found: dict[Name, list[Bucket]] = {}
    most = MOST_BUCKETS
    for scope in await scopes_of(http, tenant, devices, keys):
        some = await _Aggregate(http, scope, grid, asked, most).buckets()
        most -= sum(map(len, some.values()))
        found |= some
    return [bucket for name in sorted(found) for bucket in found[name]]


class _Aggregate:
    """One scope's part of an aggregate, of which at most so many buckets may come."""

    def __init__(self, http: Http, scope: Scope, grid: Grid, asked: Sequence[str], most: int) -> None:
        self._http, self._scope, self._grid, self._asked, self._most = http, scope, grid, asked, most
        self._numeric = [name for name in asked if name not in ("count", "first", "last")]
        self._percentiles = {name: part for name in asked if (part := percentile(name)) is not None}
        self._ends = [name for name in asked if name in ("first", "last")]
        self._kinds: dict[Name, str] = {}
        """The fields among l, d, b, s, j that a series has values in."""
        self._one = Counted(calls_of_one(asked, longest_ms=max(run.every_ms for _, run in grid.runs)))
        """The first pass, for series of one type; ends and the number of points are right for all."""
        self._both = Counted(calls_of_both(asked))
        """The second, for series of several types."""
        none = dict.fromkeys(asked)
        self._values: Values = defaultdict(lambda: defaultdict(none.copy))
        self._open_ends: dict[str, dict[Name, list[int]]] = {name: {} for name in self._ends}

    async def buckets(self) -> dict[Name, list[Bucket]]:
        """The buckets of each series by time; BadInput for too many."""
        scope = self._scope
        try:
            await self._run([*self._kind_statements(), *self._counted(self._one, scope)])
            unclear = [name for name in self._one.rows.keys() | self._kinds.keys() if not self._is_pure(name)]
            if self._numeric and unclear:
                await self._run(self._counted(self._both, _narrowed(scope, unclear)))
            doubtful = self._put_together()
            await self._run(self._percentile_statements(doubtful))
        except Infinite:
            # A sum or a mean is beyond every double, and the whole answer is lost.
            self._one = Counted(["count(t)", *calls_of_ends(self._asked)])
            self._open_ends = {name: {} for name in self._ends}
            await self._run(self._counted(self._one, scope))
            doubtful = self._put_together(trusted=False)
        await self._run(self._end_statements())
        if doubtful:
            await read_whole(self._http, scope.tenant, self._grid, self._numeric, doubtful, self._values)
        edges = self._grid.edges
        return {
            (device, key): [Bucket(device, key, edges[i], edges[i + 1], found[i]) for i in sorted(found)]
            for (device, key), found in self._values.items()
        }

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

    def _counted(self, counted: Counted, scope: Scope) -> Iterator[Statement]:
        return counted.statements(self._grid, scope, self._most)

    def _end_statements(self) -> Iterator[Statement]:
        """First and last values where the types alone do not say which."""
        for function, names in self._open_ends.items():
            select = f"{function}(t),{','.join(FIELDS)}"
            for name, indices in names.items():
                scope, add = Scope(self._scope.tenant, [name[0]], [name[1]]), self._end_of(function)
                for index, run in self._grid.parts(indices):
                    yield self._grid.statement(select, _end_rows, scope, add, index, run)

    def _end_of(self, function: str) -> Add:
        def add(name: Name, placed: Placed) -> None:
            for index, row in placed.items():
                self._values[name][index][function] = value_of((*row[2:], row[1]))

        return add

    def _put_together(self, *, trusted: bool = True) -> dict[Name, list[int]]:
        """Values of what was counted; those windows in which the numbers are to be counted again."""
        doubtful: dict[Name, list[int]] = {}
        counting = "count" in self._asked
        for name, rows, values_of in self._counts(trusted):
            of_series, ends = self._values[name], self._one.rows.get(name, {})
            for index in sorted(rows):
                row = rows[index]
                values = values_of(row)
                if values is None:
                    doubtful.setdefault(name, []).append(index)
                    values = dict.fromkeys(self._asked)
                of_series[index] = values
                if counting:
                    values["count"] = row[COUNT_AT] or 0
                for function in self._ends:
                    clear, values[function] = end_of(function, self._one.at, ends.get(index))
                    if not clear:
                        self._open_ends[function].setdefault(name, []).append(index)
        return doubtful

    def _counts(self, trusted: bool) -> Iterator[tuple[Name, Placed, ValuesOf]]:
        """The rows of each series that count, and what makes values of them."""
        one, both, asked = self._one.rows, self._both.rows, self._asked
        if not self._numeric:
            yield from ((name, rows, lambda _: dict.fromkeys(asked)) for name, rows in one.items())
        elif not trusted:
            yield from ((name, rows, lambda _: None) for name, rows in one.items())
        else:
            of_type = {field: of_one(field, asked, self._one.at) for field in "ld"}
            of_types = of_both(asked, self._both.at)
            for name in one.keys() | both.keys():
                if self._is_pure(name):
                    yield name, one.get(name, {}), of_type[self._kinds[name]]
                else:
                    yield name, both.get(name, {}), of_types

    def _percentile_statements(self, doubtful: dict[Name, list[int]]) -> Iterator[Statement]:
        """Percentiles of series whose numbers are all of one type; others join the doubtful ones."""
        for name, rows in self._one.rows.items() if self._percentiles else ():
            if not self._is_pure(name):
                continue
            counts = {index: row[COUNT_AT] or 0 for index, row in rows.items()}
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

    def _percentile(self, name: Name, placed: Placed) -> None:
        for index, row in placed.items():
            found = zip(self._percentiles, row[1:], strict=True)
            self._values[name][index].update({name: plain(value) for name, value in found if value is not None})


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
