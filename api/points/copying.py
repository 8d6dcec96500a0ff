"""Points from a store into a file, from a file into a store, from one store into another: in order, bounded, again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from api.points.files import Writer
from api.points.reading import Read
from engine.errors import PointsRefused, StoreUnavailable
from engine.message import Point
from engine.stores.timeseries import Timeseries

T = TypeVar("T")

PAGE: Final = 5000
"""Points that are read, and written, at once."""
PATIENCE_S: Final = 120.0
"""How long a store that is away is waited for."""


class Span(NamedTuple):
    """Which points: some keys (None: all) of a time."""

    keys: Sequence[str] | None
    start_ms: int
    end_ms: int


class Part(NamedTuple):
    """Points of one device, and how much of that device's time is behind them: 0 to 1."""

    points: list[Point]
    done: float


class Bad(NamedTuple):
    """A line, or a point, that went nowhere, and why."""

    line: int
    problem: str


async def parts(store: Timeseries, tenant: str, device: str, span: Span) -> AsyncIterator[Part]:
    """All points of a device's time, by time; the next page is read while the last one is used."""
    first_ms, last_ms = await _ends(store, tenant, device, span)

    async def page(cursor: str) -> tuple[list[Point], str]:
        found = await patient(
            lambda: store.range(tenant, [device], span.keys, span.start_ms, span.end_ms, limit=PAGE, cursor=cursor)
        )
        return found.points, found.cursor

    following = asyncio.ensure_future(page(""))
    try:
        while True:
            points, cursor = await following
            if cursor:
                following = asyncio.ensure_future(page(cursor))
            if points:
                reached = (points[-1].ts_ms - first_ms) / max(1, last_ms - first_ms)
                yield Part(points, min(1.0, max(0.0, reached)) if cursor else 1.0)
            if not cursor:
                return
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _ends(store: Timeseries, tenant: str, device: str, span: Span) -> tuple[int, int]:
    """Time of the first and of the last point."""

    async def one(newest_first: bool) -> int:
        found = await patient(
            lambda: store.range(
                tenant, [device], span.keys, span.start_ms, span.end_ms, limit=1, newest_first=newest_first
            )
        )
        return found.points[0].ts_ms if found.points else 0

    return await one(False), await one(True)


async def write_file(
    store: Timeseries, devices: Sequence[tuple[str, str]], span: Span, writer: Writer,
    told: Callable[[float, int], None],
) -> list[Bad]:  # fmt: skip
    """Write the points of (tenant, device)s, device by device; which of them the form cannot hold.

    `told` hears how many devices are done, in fractions, and how many points were written in all.
    """
    count = 0
    refused: list[Bad] = []
    for i, (tenant, device) in enumerate(devices):
        async for part in parts(store, tenant, device, span):
            bad = await asyncio.to_thread(writer.write, part.points)
            refused += [Bad(0, f"{_name(part.points[at])}: {reason}") for at, reason in bad]
            count += len(part.points) - len(bad)
            told(i + part.done, count)
        told(i + 1.0, count)
    return refused


async def load(
    reads: Iterator[Read], store: Timeseries, resolve: Callable[[Point], Point | str],
    told: Callable[[int, int], None], bad: Callable[[Bad], None],
) -> None:  # fmt: skip
    """Write what was read, up to 5,000 points at once; the next ones are read meanwhile.

    `resolve` gives the point as it is to be stored, or why it is not. `told` hears which line was reached, everything
    up to which is durable or was told to `bad`, and how many points were stored in all.
    """
    count = 0
    part = await asyncio.to_thread(_next, reads)
    while part:
        following = asyncio.ensure_future(asyncio.to_thread(_next, reads))
        try:
            lines, points = [], []
            for read in part:
                made = resolve(read.point) if read.point is not None else read.problem
                if isinstance(made, str):
                    bad(Bad(read.line, made))
                else:
                    lines.append(read.line)
                    points.append(made)
            for at, reason in await put(store, points):
                bad(Bad(lines[at], reason))
                count -= 1
            count += len(points)
            told(part[-1].line, count)
        finally:
            # A thread cannot be cancelled: whoever goes on reads where it has stopped.
            await asyncio.wait([following])
        part = await following


def _next(reads: Iterator[Read]) -> list[Read]:
    return list(islice(reads, PAGE))


async def put(store: Timeseries, points: Sequence[Point]) -> list[tuple[int, str]]:
    """Write points, and wait for a store that is away; which ones it refused."""
    if not points:
        return []
    try:
        await patient(lambda: store.write(points))
    except PointsRefused as error:
        return error.refused
    return []


async def patient(call: Callable[[], Awaitable[T]]) -> T:
    """What the call gives; StoreUnavailable after two minutes of it."""
    waited = 0.0
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            pause = min(max(error.retry_after_s, 0.1), 10.0)
            if waited + pause > PATIENCE_S:
                raise
            waited += pause
            await asyncio.sleep(pause)


def _name(point: Point) -> str:
    return f"{point.tenant}/{point.device}/{point.key} at {point.ts_ms}"
