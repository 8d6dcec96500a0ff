"""Reads of points from InfluxDB: the latest, ranges by time, keys."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final

from engine.errors import BadInput
from engine.message import Point
from engine.stores import cursor as cursors
from engine.stores.cursor import Position
from engine.stores.influx_http import Http
from engine.stores.influx_rows import Rows, Series, field_rows, named_rows, point_of
from engine.stores.influx_scopes import keys_in, scopes_of
from engine.stores.influxql import Scope, by_time, devices_there, newest, scopes, tenants_there
from engine.stores.line_protocol import shown_name
from engine.stores.timeseries import Page
from engine.stores.values import MAX_TS_MS, is_name

_tag_rows: Final[Rows[Any]] = Rows(tuple[str, str])

_MORE: Final = 64
"""Points read beyond a page: a message's keys share a time, and its points must not be parted without order."""


async def latest(
    http: Http,
    tenant: str,
    devices: Sequence[str],
    keys: Sequence[str] | None,
    *,
    count: int,
    start_ms: int,
    end_ms: int,
) -> list[Point]:
    """As `Timeseries.latest`."""
    if count < 1:
        raise BadInput("count must be at least 1")
    found: dict[tuple[str, str], list[Point]] = {}

    def take(_: int, series: Series) -> None:
        device, key = series.device, series.key
        points = found.setdefault((device, key), [])
        for row in field_rows(series):
            if (point := point_of(tenant, device, key, row[0], row[1:])) is not None:
                points.append(point)

    if start_ms < end_ms:
        for scope in await scopes_of(http, tenant, devices, keys):
            await http.query(newest(scope, start_ms, end_ms, count), take)
    return [point for series in sorted(found) for point in found[series]]


async def page(
    http: Http,
    tenant: str,
    devices: Sequence[str],
    keys: Sequence[str] | None,
    start_ms: int,
    end_ms: int,
    *,
    limit: int,
    newest_first: bool,
    cursor: str,
) -> Page:
    """As `Timeseries.range`."""
    if limit < 1:
        raise BadInput("limit must be at least 1")
    mark = cursors.mark(tenant, devices, keys, newest_first)
    behind = cursors.decode(mark, cursor) if cursor else None
    span = _Span(max(start_ms, -MAX_TS_MS), min(end_ms, MAX_TS_MS + 1), newest_first)
    points: list[Point] = []
    for scope in await scopes_of(http, tenant, devices, keys):
        some = await _first(http, scope, span, limit + 1, behind)
        points = list(islice(merge(points, some, key=span.order), limit + 1))
        if len(points) > limit:
            span = span.up_to(points[-1].ts_ms)  # nothing later can come into this page
    if len(points) <= limit:
        return Page(points)
    last = points[limit - 1]
    return Page(points[:limit], cursors.encode(mark, Position(last.ts_ms, last.device, last.key)))


async def keys(http: Http, tenant: str, device: str) -> list[str]:
    """As `Timeseries.keys`."""
    return sorted({key for scope in scopes(tenant, [device], None) for key in await keys_in(http, scope)})


async def tenants(http: Http, major: int) -> list[str]:
    """As `Timeseries.tenants`."""
    return await _tag(http, "tenant", tenants_there(major))


async def devices(http: Http, major: int, tenant: str) -> list[str]:
    """As `Timeseries.devices`."""
    return await _tag(http, "device", devices_there(major, tenant)) if is_name(tenant) else []


async def _tag(http: Http, tag: str, statement: str) -> list[str]:
    """The names in a tag, from the index or from one point of each."""
    found: set[str] = set()

    def take(_: int, series: Series) -> None:
        found.update([row[1] for row in _tag_rows(series)] if not series.tags else [series.tags[tag]])

    await http.query(statement, take)
    return sorted(map(shown_name, found))


class _Span:
    """A range and the direction in which it is read."""

    def __init__(self, start_ms: int, end_ms: int, newest_first: bool) -> None:
        self.start_ms, self.end_ms, self.newest_first = start_ms, end_ms, newest_first
        self.empty = start_ms >= end_ms

    def order(self, point: Point) -> tuple[int, str, str]:
        """The order of a page."""
        return -point.ts_ms if self.newest_first else point.ts_ms, point.device, point.key

    def at(self, ts_ms: int) -> _Span:
        """The part of the range at one time."""
        return _Span(max(self.start_ms, ts_ms), min(self.end_ms, ts_ms + 1), self.newest_first)

    def behind(self, ts_ms: int) -> _Span:
        """The part that is read after a time."""
        if self.newest_first:
            return _Span(self.start_ms, min(self.end_ms, ts_ms), True)
        return _Span(max(self.start_ms, ts_ms + 1), self.end_ms, False)

    def up_to(self, ts_ms: int) -> _Span:
        """The part that is read up to a time, with it."""
        if self.newest_first:
            return _Span(max(self.start_ms, ts_ms), self.end_ms, True)
        return _Span(self.start_ms, min(self.end_ms, ts_ms + 1), False)


class _Rows:
    """Rows of a statement, as far as InfluxDB gave them."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self.points: list[Point] = []
        self.count = 0
        self.last_ms = 0

    def add(self, series: Series) -> None:
        for row in named_rows(series):
            self.count += 1
            self.last_ms = row[0]
            point = point_of(self._tenant, shown_name(row[1]), shown_name(row[2]), row[0], row[3:])
            if point is not None:
                self.points.append(point)


async def _first(http: Http, scope: Scope, span: _Span, wanted: int, behind: Position | None) -> list[Point]:
    """The first points of a range in the order of a page, behind a position; `wanted` of them or a few more.

    InfluxDB orders by time only. So a time counts as read when a later one was read too, or when all was; else it is
    read by itself, whole: as many points as there are series.
    """
    found: list[Point] = []
    cut = None if behind is None else behind.ts_ms
    """A time of which some points were read: it is read again, whole."""
    while True:
        rest = span if cut is None else span.behind(cut)
        asked = wanted - len(found) + _MORE
        parts = [(rest, asked)] if cut is None else [(span.at(cut), None), (rest, asked)]
        *whole, some = await _read(http, scope, parts)
        for rows in whole:
            found += sorted(rows.points, key=span.order)
        if behind is not None:
            found = [point for point in found if (point.device, point.key) > behind[1:]]
            behind = None
        if some.count < asked:
            return found + sorted(some.points, key=span.order)
        found += sorted((point for point in some.points if point.ts_ms != some.last_ms), key=span.order)
        if len(found) >= wanted:
            return found
        span, cut = rest, some.last_ms


async def _read(http: Http, scope: Scope, parts: Sequence[tuple[_Span, int | None]]) -> list[_Rows]:
    """The first so many points (None: all) of several spans."""
    rows = [_Rows(scope.tenant) for _ in parts]
    asked = [i for i, (span, _) in enumerate(parts) if not span.empty]
    statements = [
        by_time(scope, span.start_ms, span.end_ms, newest_first=span.newest_first, limit=limit)
        for span, limit in parts
        if not span.empty
    ]
    if statements:
        await http.query(";".join(statements), lambda i, series: rows[asked[i]].add(series))
    return rows
