"""Points of a device: the newest of each key, and ranges of time."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from api.flow.devices import ONE as DEVICE
from api.flow.devices import find
from api.flow.operation import Answer, Call, Operation, Parts
from engine.message import Point

FAR_MS: Final = 9_007_199_254_740_991
"""The last millisecond that every JSON reader can tell from its neighbours."""

Keys = Annotated[list[str], Meta(max_length=1000, description="Only these keys; none: all. May be repeated.")]


class PointShown(msgspec.Struct, frozen=True, kw_only=True):
    """A point; integers and decimals are told apart as they were sent."""

    key: str
    ts_ms: int
    value: Any
    lat: float | None = None
    lon: float | None = None


class Points(msgspec.Struct, frozen=True):
    """Points; `cursor` continues a range, empty at its end."""

    points: list[PointShown]
    cursor: str = ""


class LatestQuery(msgspec.Struct):
    """Which keys."""

    key: Keys = []


class RangeQuery(msgspec.Struct):
    """Which part of which time."""

    key: Keys = []
    start_ms: Annotated[int, Meta(ge=-FAR_MS, le=FAR_MS, description="First millisecond.")] = 0
    end_ms: Annotated[int, Meta(ge=-FAR_MS, le=FAR_MS, description="First millisecond not in the range.")] = FAR_MS
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    order: Annotated[Literal["asc", "desc"], Meta(description="desc: the newest first.")] = "asc"
    cursor: Annotated[str, Meta(description="From the last answer, with all else the same.")] = ""


async def latest_points(parts: Parts, call: Call) -> Answer:
    """The newest point of each key."""
    device = await find(parts, call)
    found = await parts.store.latest(device.tenant, [device.id], call.query.key or None)
    return Answer(200, Points([_shown(point) for point in found]))


async def range_points(parts: Parts, call: Call) -> Answer:
    """Points of a time, by time, then by key."""
    device = await find(parts, call)
    query: RangeQuery = call.query
    page = await parts.store.range(
        device.tenant, [device.id], query.key or None, query.start_ms, query.end_ms,
        limit=query.limit, newest_first=query.order == "desc", cursor=query.cursor,
    )  # fmt: skip
    return Answer(200, Points([_shown(point) for point in page.points], page.cursor))


def _shown(point: Point) -> PointShown:
    return PointShown(key=point.key, ts_ms=point.ts_ms, value=point.value, lat=point.lat, lon=point.lon)


_ALL: Final = DEVICE + "/points"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="range_points", summary="Read the points of a time",
        handler=range_points, answers={200: Points}, query=RangeQuery,
    ),
    Operation(
        method="GET", path=_ALL + "/latest", id="latest_points", summary="Read the newest point of each key",
        handler=latest_points, answers={200: Points}, query=LatestQuery,
    ),
)  # fmt: skip
