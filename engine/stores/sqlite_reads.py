"""Reading points of many series out of a SQLite file: the newest of each, and ranges of time in pages."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from engine.message import Point
from engine.stores.cursor import Position
from engine.stores.sqlite_readers import Reading
from engine.stores.sqlite_rows import point_of
from engine.stores.sqlite_series import AT_ONCE, Series, bound, parts, table
from engine.stores.values import INT64_MAX

_NEWEST: Final = """
WITH asked(i, device, key) AS ({table})
SELECT asked.i, t.ts, t.kind, t.value, t.lat, t.lon
FROM asked CROSS JOIN ts_kv AS t ON t.device = asked.device AND t.key = asked.key AND t.ts IN (
  SELECT ts FROM ts_kv WHERE device = asked.device AND key = asked.key AND ts >= ? AND ts < ? ORDER BY ts DESC LIMIT ?)
ORDER BY asked.i, t.ts DESC"""
_HEADS: Final = """
WITH asked(i, device, key, first, behind) AS ({table})
SELECT asked.i, (
  SELECT ts FROM ts_kv WHERE device = asked.device AND key = asked.key AND ts >= asked.first AND ts < asked.behind
  ORDER BY ts {order} LIMIT 1) AS head
FROM asked WHERE head IS NOT NULL"""
_BLOCK: Final = """
SELECT ts, kind, value, lat, lon FROM ts_kv
WHERE device = ? AND key = ? AND ts >= ? AND ts < ? ORDER BY ts {order} LIMIT ?"""


def newest(read: Reading, tenant: str, series: Sequence[Series], count: int, start_ms: int, end_ms: int) -> list[Point]:
    """The newest `count` points of each series within the range, in the order of the series, the newest first."""
    points: list[Point] = []
    for some in parts(series, AT_ONCE):
        read.check()
        sql = _NEWEST.format(table=table(len(some), 3))
        asked = bound([(i, each.device_id, each.key_id) for i, each in enumerate(some)])
        for i, *row in read.db.execute(sql, (*asked, start_ms, end_ms, count)):
            points.append(point_of(tenant, some[i].device, some[i].key, row))
    return points


class Pages:
    """A range of many series: by time, then by device and key ascending in either direction."""

    def __init__(
        self,
        read: Reading,
        tenant: str,
        series: Sequence[Series],
        start_ms: int,
        end_ms: int,
        *,
        newest_first: bool,
        behind: Position | None,
    ) -> None:
        self._read, self._tenant, self._series = read, tenant, series
        self._start_ms, self._end_ms, self._behind = start_ms, end_ms, behind
        self._newest_first, self._order = newest_first, "DESC" if newest_first else "ASC"

    def page(self, limit: int) -> tuple[list[Point], bool]:
        """The first `limit` points, and whether there are more."""
        series = self._series if len(self._series) <= limit else self._nearest(limit + 1)
        if not series:
            return [], False
        # A page takes so many rows of each series if they are alike; one that has more is asked again.
        size = (limit + 1) // len(series) + 1
        most = min(limit + 1, INT64_MAX)
        rows = heapq.merge(*(self._rows(each, size, most) for each in series), key=lambda row: row[:3])
        page = list(islice(rows, limit + 1))
        points = [point_of(self._tenant, device, key, row) for _, device, key, row in page[:limit]]
        return points, len(page) > limit

    def _nearest(self, count: int) -> list[Series]:
        """The series that begin first: no other can have a point in a page that is shorter than their number."""
        sign = -1 if self._newest_first else 1
        heads: list[tuple[int, Series]] = []
        for some in parts(self._series, AT_ONCE):
            self._read.check()
            sql = _HEADS.format(table=table(len(some), 5), order=self._order)
            asked = bound([(i, each.device_id, each.key_id, *self._rest(each)) for i, each in enumerate(some)])
            heads += [(sign * head, some[i]) for i, head in self._read.db.execute(sql, asked)]
        return [each for _, each in heapq.nsmallest(count, heads)]

    def _rows(self, series: Series, size: int, most: int) -> Iterator[tuple[int, str, str, Any]]:
        """The rows of one series in order, so many at a time, then twice as many, and never more than `most`."""
        sign = -1 if self._newest_first else 1
        sql = _BLOCK.format(order=self._order)
        start_ms, end_ms = self._rest(series)
        while True:
            self._read.check()
            size = min(size, most)
            rows = self._read.db.execute(sql, (series.device_id, series.key_id, start_ms, end_ms, size)).fetchall()
            for row in rows:
                yield sign * row[0], series.device, series.key, row
            if len(rows) < size:
                return
            size *= 2
            if self._newest_first:
                end_ms = rows[-1][0]
            else:
                start_ms = rows[-1][0] + 1

    def _rest(self, series: Series) -> tuple[int, int]:
        """What is left of start <= ts < end behind the position: a series after the last one still has that time."""
        behind, start_ms, end_ms = self._behind, self._start_ms, self._end_ms
        if behind is None:
            return start_ms, end_ms
        at_it_too = (series.device, series.key) > (behind.device, behind.key)
        if self._newest_first:
            return start_ms, min(end_ms, behind.ts_ms + 1 if at_it_too else behind.ts_ms)
        return max(start_ms, behind.ts_ms if at_it_too else behind.ts_ms + 1), end_ms
