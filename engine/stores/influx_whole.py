"""Windows whose numbers are read one by one, because InfluxDB would count them wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from engine.errors import BadInput
from engine.stores.aggregates import of_values
from engine.stores.influx_grid import Grid, Name, Statement, run_statements
from engine.stores.influx_http import Http
from engine.stores.influx_rows import Rows, Series
from engine.stores.influxql import Scope, source
from engine.stores.windows import place

MOST_NUMBERS: Final = 5_000_000
"""Numbers of one window, which are in memory together."""

Values = defaultdict[Name, defaultdict[int, dict[str, Any]]]
"""By series and window, by function: every one that was asked for, None until it has something."""

_rows: Final[Rows[Any]] = Rows(tuple[int, int | None, float | None, str | None])


async def read_whole(
    http: Http, tenant: str, grid: Grid, functions: Sequence[str], windows: Mapping[Name, Sequence[int]], into: Values
) -> None:
    """Put the numeric functions of the named windows (in order) into `into`; BadInput for too many numbers in one."""
    reading = _Reading(grid, functions)
    statements = (
        Statement(
            f"SELECT l,d,t {source(Scope(tenant, [name[0]], [name[1]]), *grid.span(first, last))}",
            partial(reading.take, into[name]),
        )
        for name, indices in windows.items()
        for first, last in _stretches(indices)
    )
    await run_statements(http, statements)
    reading.end()


class _Reading:
    """Numbers as they come: series by series, by time. Those of one window are in memory."""

    def __init__(self, grid: Grid, functions: Sequence[str]) -> None:
        self._edges, self._functions = grid.edges, functions
        self._into: dict[int, dict[str, Any]] | None = None
        self._index = 0
        self._numbers: list[int | float] = []

    def take(self, into: dict[int, dict[str, Any]], series: Series) -> None:
        """Some rows of a series, whose windows are put into `into`."""
        for ts_ms, long, double, t in _rows(series):
            if into is not self._into or not self._edges[self._index] <= ts_ms < self._edges[self._index + 1]:
                self.end()
                self._into, self._index = into, place(self._edges, ts_ms)
            kind = t[:1] if t else "l" if long is not None else "d"
            number = double if kind == "d" else long if kind == "l" else None
            if number is not None:
                self._numbers.append(number)
                if len(self._numbers) > MOST_NUMBERS:
                    raise BadInput(f"a window has more than {MOST_NUMBERS} numbers; ask for shorter ones")

    def end(self) -> None:
        """Count the window that was read last."""
        if self._into is not None:
            self._into[self._index].update(of_values(self._functions, self._numbers))
        self._into, self._numbers = None, []


def _stretches(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each stretch of indices without a gap."""
    first = last = indices[0]
    for index in indices[1:]:
        if index != last + 1:
            yield first, last
            first = index
        last = index
    yield first, last
