"""A device's time series as operators read them. Every call of the telemetry store that this dialect makes is here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from engine.errors import BadInput
from engine.message import Point
from engine.stores.registry import Device
from engine.stores.timeseries import Timeseries

A_PAGE: Final = 10_000
"""Points read at a time."""
MOST_AGGREGATED: Final = 100_000
"""Points of one key that are aggregated in one request."""
MANY: Final = 5_000
"""Points that are dealt with in a thread: they take milliseconds."""
MOST_INTERVALS: Final = 700
"""As with the vendor's server."""

FUNCTIONS: Final = ("MIN", "MAX", "AVG", "SUM", "COUNT")


async def latest(store: Timeseries, device: Device, keys: Sequence[str] | None) -> list[Point]:
    """The newest point of each key (None: of all there are)."""
    return await store.latest(device.tenant, [device.id], keys)


async def newest(
    store: Timeseries, device: Device, key: str, start_ms: int, end_ms: int, limit: int, *, newest_first: bool
) -> list[Point]:
    """At most `limit` points of start <= ts < end, from either end."""
    found: list[Point] = []
    cursor = ""
    while True:
        page = await store.range(
            device.tenant, [device.id], [key], start_ms, end_ms,
            limit=min(limit - len(found), A_PAGE), newest_first=newest_first, cursor=cursor,
        )  # fmt: skip
        found += page.points
        cursor = page.cursor
        if not cursor or len(found) >= limit:
            return found


async def aggregated(
    store: Timeseries, device: Device, key: str, start_ms: int, end_ms: int, interval_ms: int, function: str
) -> list[Point]:
    """One point for each interval that has any, in its middle; the first interval begins at `start_ms`.

    BadInput for too many intervals or points.
    """
    if (end_ms - start_ms) > interval_ms * MOST_INTERVALS:
        raise BadInput(f"Incorrect TsKvQuery. Number of intervals is to high - {MOST_INTERVALS} at most")
    points = await newest(store, device, key, start_ms, end_ms, MOST_AGGREGATED + 1, newest_first=False)
    if len(points) > MOST_AGGREGATED:
        raise BadInput(f"more than {MOST_AGGREGATED} points of {key!r}; ask for a shorter range")

    def work() -> list[Point]:
        return [
            Point(device.tenant, device.id, key, (start + min(start + interval_ms, end_ms)) // 2, value)
            for start, values in _by_interval(points, start_ms, interval_ms).items()
            if (value := _aggregate(values, function)) is not None
        ]

    return await asyncio.to_thread(work) if len(points) > MANY else work()


def _by_interval(points: Sequence[Point], start_ms: int, interval_ms: int) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for point in points:
        start = start_ms + (point.ts_ms - start_ms) // interval_ms * interval_ms
        found.setdefault(start, []).append(point.value)
    return found


def _aggregate(values: Sequence[Any], function: str) -> Any:
    """COUNT counts values of every type, the others take numbers; None where there are none."""
    if function == "COUNT":
        return len(values)
    numbers = [value for value in values if type(value) in (int, float)]
    if not numbers:
        return None
    if function == "AVG":
        return sum(numbers) / len(numbers)
    if function == "SUM":
        total = sum(numbers)
        return total if -(2**63) <= total < 2**63 else float(total)
    return min(numbers) if function == "MIN" else max(numbers)


def as_text(value: Any) -> str:
    """A value as the vendor's API tells it unless it is asked for types."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    return repr(value) if type(value) in (int, float) else msgspec.json.encode(value).decode()
