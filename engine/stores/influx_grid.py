"""The windows of an aggregate as InfluxDB groups by them, and statements of which each has its own reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from engine.stores.influx_http import Http
from engine.stores.influx_rows import Rows, Series
from engine.stores.influxql import BY_SERIES, Scope, source
from engine.stores.windows import Run, runs

_STATEMENTS_AT_ONCE: Final = 200
_BYTES_AT_ONCE: Final = 1_000_000

Name = tuple[str, str]
"""Device and key."""

Placed = dict[int, tuple[Any, ...]]
"""Rows, whose times stand first, by the index of their window."""

Add = Callable[[Name, Placed], None]
"""Called with a series and some rows of it."""


class Statement(NamedTuple):
    """A statement, and what is done with its series."""

    text: str
    take: Callable[[Series], None]


class Grid:
    """The windows between `edges`, of which only the points with start <= ts < end count."""

    def __init__(self, edges: Sequence[int], start_ms: int, end_ms: int) -> None:
        self.edges, self.start_ms, self.end_ms = edges, start_ms, end_ms
        self.runs: list[tuple[int, Run]] = []
        """Windows of equal length, one behind the other, with the index of the first."""
        index = 0
        for run in runs(edges):
            self.runs.append((index, run))
            index += run.windows

    def statements(self, select: str, rows: Rows[Any], scope: Scope, add: Add) -> Iterator[Statement]:
        """Statements that give `select` of each series in each window."""
        for index, run in self.runs:
            yield self.statement(select, rows, scope, add, index, run)

    def statement(
        self, select: str, rows: Rows[Any], scope: Scope, add: Add, index: int, run: Run
    ) -> Statement:  # fmt: skip
        """The statement for some windows of equal length, the first of which has the index."""

        start_ms, every_ms, last = run.start_ms, run.every_ms, run.windows - 1

        def take(series: Series) -> None:
            placed: Placed = {}
            for row in rows(series):
                n = (row[0] - start_ms) // every_ms
                if not 0 <= n <= last:  # one window alone is not grouped by time: it has that of whatever stood there
                    n = 0 if n < 0 else last
                placed[index + n] = row
            add(name_of(series, scope), placed)

        where = source(scope, max(run.start_ms, self.start_ms), min(run.end_ms, self.end_ms))
        time = f"time({run.every_ms}ms,{run.start_ms % run.every_ms}ms)" if run.windows > 1 else ""
        groups = ",".join(filter(None, (by_series(scope), time)))
        grouped = (f" GROUP BY {groups}" if groups else "") + (" fill(none)" if time else "")
        return Statement(f"SELECT {select} {where}{grouped}", take)

    def parts(self, indices: Sequence[int]) -> Iterator[tuple[int, Run]]:
        """Windows one behind the other and of equal length, as index of the first and windows; `indices` in order."""
        at = 0
        for base, run in self.runs:
            while at < len(indices) and indices[at] < base + run.windows:
                first = last = indices[at]
                at += 1
                while at < len(indices) and indices[at] == last + 1 < base + run.windows:
                    last = indices[at]
                    at += 1
                yield first, Run(run.start_ms + (first - base) * run.every_ms, run.every_ms, last - first + 1)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Start and end of the part of the range in the windows from the first to the last."""
        return max(self.edges[first], self.start_ms), min(self.edges[last + 1], self.end_ms)


def by_series(scope: Scope) -> str:
    """What an answer for each series is grouped by: nothing for one series, which takes InfluxDB half as long again."""
    return "" if _is_one(scope) else BY_SERIES


def name_of(series: Series, scope: Scope) -> Name:
    """Whose rows these are."""
    if scope.keys is not None and _is_one(scope):
        return scope.devices[0], scope.keys[0]
    return series.device, series.key


def _is_one(scope: Scope) -> bool:
    return len(scope.devices) == 1 and scope.keys is not None and len(scope.keys) == 1


async def run_statements(http: Http, statements: Iterable[Statement]) -> None:
    """Ask all of them, as many together as a request holds well."""
    some: list[Statement] = []
    size = 0
    for statement in statements:
        if some and (len(some) == _STATEMENTS_AT_ONCE or size + len(statement.text) > _BYTES_AT_ONCE):
            await _run(http, some)
            some, size = [], 0
        some.append(statement)
        size += len(statement.text)
    if some:
        await _run(http, some)


async def _run(http: Http, statements: Sequence[Statement]) -> None:
    await http.query(
        ";".join(statement.text for statement in statements), lambda i, series: statements[i].take(series)
    )  # fmt: skip
