"""What InfluxDB has counted of series, window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.stores.aggregates import too_many_buckets
from engine.stores.influx_counts import Row, places, rows_of
from engine.stores.influx_grid import Grid, Name, Placed, Statement
from engine.stores.influxql import Scope


class Counted:
    """Some calls, and what came of them: `rows` has those in which there is something, by series and window."""

    def __init__(self, calls: Sequence[str]) -> None:
        self.at = places(calls)
        self.rows: dict[Name, Placed] = {}
        self._calls = tuple(calls)
        self._values = [i for call, i in self.at.items() if not call.startswith("count")]
        self._seen = 0

    def statements(self, grid: Grid, scope: Scope, most: int) -> Iterator[Statement]:
        """What fills `rows`, of which at most so many may come; none if nothing is to be counted."""

        def add(name: Name, placed: Placed) -> None:
            # Nearly every row says yes to the first question, which is the cheap one.
            found = {i: row for i, row in placed.items() if any(row[1:]) or self._has_value(row)}
            if found:
                self.rows.setdefault(name, {}).update(found)
            self._seen += len(found)
            if self._seen > most:
                raise too_many_buckets()

        if self._calls:
            yield from grid.statements(",".join(self._calls), rows_of(self._calls), scope, add)

    def _has_value(self, row: Row) -> bool:
        return any(row[i] is not None for i in self._values)
