"""Ranges of points, read a piece at a time: a page, or all of it as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from heapq import heapify, heappop, heapreplace
from typing import Final

import msgspec

from api.flow.point_queries import Asked
from engine.errors import BadInput
from engine.message import Point
from engine.stores.timeseries import Page, Timeseries

PAGE: Final = 2000
"""Points of one device that a stream reads at once."""
HELD: Final = 50_000
"""Points of all its devices that a stream holds, if they are many."""
SOME: Final = 500
"""Points that are written out between two looks at other requests: a few milliseconds of work."""
AHEAD: Final = 8
"""Devices whose first points are read at once."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A range of some devices' points, in one of its two orders."""

    of: Asked
    start_ms: int
    end_ms: int
    newest_first: bool

    async def page(self, store: Timeseries, limit: int, cursor: str, device: str = "") -> Page:
        """A page of all devices, or of one; BadInput for a cursor that is none of it."""
        try:
            return await store.range(
                self.of.tenant, [device] if device else self.of.ids, self.of.keys, self.start_ms, self.end_ms,
                limit=limit, newest_first=self.newest_first, cursor=cursor,
            )  # fmt: skip
        except BadInput as error:
            raise BadInput(f"query parameter cursor: {error.reason}", "?cursor") from error


class Stream:
    """All points of a span, by time, then by device and key; or those behind a cursor. At most `limit` of them.

    Of several devices each is read by itself: a store that puts them in order for every page does so again and again.
    """

    def __init__(self, store: Timeseries, span: Span, cursor: str, limit: int | None) -> None:
        self._span, self._limit = span, limit
        devices = [""] if cursor or len(span.of.names) == 1 else span.of.ids
        most = min(PAGE, HELD // len(devices), limit or PAGE)
        self._sources = [_Source(store, span, device, cursor, most) for device in devices]

    async def open(self) -> None:
        """Read the first points; what is wrong with the range or the store is raised here, before anything is sent."""
        for i in range(0, len(self._sources), AHEAD):
            await asyncio.gather(*(source.fill() for source in self._sources[i : i + AHEAD]))

    async def pieces(self) -> AsyncGenerator[list[Point], None]:
        """The points in pieces of some hundreds."""
        left = self._limit
        async for piece in self._merged() if len(self._sources) > 1 else self._single():
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            yield piece
            if left == 0:
                return
            await asyncio.sleep(0)

    async def _single(self) -> AsyncGenerator[list[Point], None]:
        [source] = self._sources
        while source.points:
            for i in range(0, len(source.points), SOME):
                yield source.points[i : i + SOME]
            await source.fill()

    async def _merged(self) -> AsyncGenerator[list[Point], None]:
        sign = -1 if self._span.newest_first else 1
        heap = [source.next(sign, i) for i, source in enumerate(self._sources) if source.points]
        heapify(heap)
        piece: list[Point] = []
        while heap:
            source = self._sources[heap[0][3]]
            piece.append(source.points[source.at])
            source.at += 1
            if source.at == len(source.points):
                await source.fill()
            if source.points:
                heapreplace(heap, source.next(sign, heap[0][3]))
            else:
                heappop(heap)
            if len(piece) >= SOME:
                yield piece
                piece = []
        if piece:
            yield piece


class _Source:
    """Points of one device (or of all, where `device` is empty) that are not yet written out; none: it has ended."""

    def __init__(self, store: Timeseries, span: Span, device: str, cursor: str, most: int) -> None:
        self._store, self._span, self._device, self._most = store, span, device, most
        self._cursor: str | None = cursor
        self.points: list[Point] = []
        self.at = 0

    async def fill(self) -> None:
        self.at = 0
        if self._cursor is None:
            self.points = []
            return
        page = await self._span.page(self._store, self._most, self._cursor, self._device)
        self.points, self._cursor = page.points, page.cursor or None

    def next(self, sign: int, i: int) -> tuple[int, str, str, int]:
        """What orders its first point among those of others."""
        point = self.points[self.at]
        return sign * point.ts_ms, point.device, point.key, i
