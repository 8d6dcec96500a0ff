"""What devices have measured: the newest of each key, ranges of time, and forgetting one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from api.flow.devices import ONE as DEVICE
from api.flow.forms import CSV, CSV_WITH_TITLES, NDJSON, Form, as_file, form_of
from api.flow.operation import BASE, Answer, Call, Lines, Operation, Parts
from api.flow.point_queries import POINTS_MOST, Asked, Devices, Keys, PointShown, asked, check_size, shown
from api.flow.point_streams import Span, Stream
from api.flow.times import FAR_MS, Behind, First, read_range
from api.points import csv_form, ndjson_form


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """Points; `cursor` continues a range, empty at its end."""

    points: list[PointShown]
    devices: Annotated[dict[str, str], Meta(description="Id of each device asked for to its name.")]
    cursor: str = ""


class LatestQuery(msgspec.Struct):
    """Which keys, and how many points of each."""

    key: Keys = []
    count: Annotated[int, Meta(ge=1, le=POINTS_MOST, description="The newest so many of each series.")] = 1


class RangeQuery(msgspec.Struct):
    """Which part of which time, and in which form."""

    key: Keys = []
    start_ms: First = -FAR_MS
    end_ms: Behind = FAR_MS
    limit: Annotated[
        Annotated[int, Meta(ge=1, le=POINTS_MOST)] | None,
        Meta(description="How many; in JSON 1000 by default, in streams all."),
    ] = None
    order: Annotated[Literal["asc", "desc"], Meta(description="desc: the newest first.")] = "asc"
    cursor: Annotated[str, Meta(description="From the last answer, with all else the same.")] = ""
    format: Form = None


class DeleteQuery(msgspec.Struct):
    """What to forget: the range must be given."""

    start_ms: First
    end_ms: Behind
    key: Keys = []


class LatestOfQuery(LatestQuery, kw_only=True):
    """Which devices and keys, and how many points of each."""

    device: Devices


class RangeOfQuery(RangeQuery, kw_only=True):
    """Which devices and keys, which part of which time, and in which form."""

    device: Devices


class DeleteOfQuery(DeleteQuery, kw_only=True):
    """Of which devices what to forget: the range must be given."""

    device: Devices


async def latest_points(parts: Parts, call: Call) -> Answer:
    """The newest points of each series, by device, then key; of unknown keys there are none."""
    of, count = await asked(parts, call), call.query.count
    await check_size(parts, of, count, "points")
    found = await parts.store.latest(of.tenant, of.ids, of.keys, count=count)
    return Answer(200, Points(points=[shown(point) for point in found], devices=of.names))


async def range_points(parts: Parts, call: Call) -> Answer | Lines:
    """Points of a time, by time, then by device and key. A stream that cannot go on ends with the connection cut."""
    of, query = await asked(parts, call), call.query
    form = form_of(call)
    start_ms, end_ms = read_range(query)
    span = Span(of=of, start_ms=start_ms, end_ms=end_ms, newest_first=query.order == "desc")
    if form == "json":
        page = await span.page(parts.store, query.limit or 1000, query.cursor)
        return Answer(200, Points(points=[shown(point) for point in page.points], devices=of.names, cursor=page.cursor))
    stream = Stream(parts.store, span, query.cursor, query.limit)
    await stream.open()
    if form == "csv":
        return Lines(_csv(stream, of), CSV_WITH_TITLES, as_file("points.csv"))
    return Lines(_ndjson(stream, of), NDJSON)


async def delete_points(parts: Parts, call: Call) -> Answer:
    """Forget the points of a range for good; those still on their way to the store may arrive later."""
    of, query = await asked(parts, call), call.query
    start_ms, end_ms = read_range(query)
    await parts.store.delete(of.tenant, of.ids, of.keys, start_ms, end_ms)
    return Answer(204)


async def _csv(stream: Stream, of: Asked) -> AsyncGenerator[bytes, None]:
    yield csv_form.lines([csv_form.STREAM_TITLES])
    async for piece in stream.pieces():
        yield csv_form.lines(csv_form.tenant_rows(piece, of.names))


async def _ndjson(stream: Stream, of: Asked) -> AsyncGenerator[bytes, None]:
    async for piece in stream.pieces():
        yield ndjson_form.tenant_lines(piece, of.names)


OF_DEVICE: Final = DEVICE + "/points"
OF_TENANT: Final = BASE + "/tenants/{tenant}/points"

OPERATIONS: Final = (
    Operation(
        method="GET", path=OF_DEVICE, id="range_points", summary="Read the points of a time",
        handler=range_points, answers={200: Points}, query=RangeQuery, also_media=(CSV, NDJSON),
    ),
    Operation(
        method="DELETE", path=OF_DEVICE, id="delete_points", summary="Forget the points of a time",
        handler=delete_points, answers={204: None}, query=DeleteQuery, problems=(501,),
    ),
    Operation(
        method="GET", path=OF_DEVICE + "/latest", id="latest_points", summary="Read the newest points of each key",
        handler=latest_points, answers={200: Points}, query=LatestQuery,
    ),
    Operation(
        method="GET", path=OF_TENANT, id="range_points_of", summary="Read the points of several devices and a time",
        handler=range_points, answers={200: Points}, query=RangeOfQuery, also_media=(CSV, NDJSON),
    ),
    Operation(
        method="DELETE", path=OF_TENANT, id="delete_points_of",
        summary="Forget the points of several devices and a time", handler=delete_points, answers={204: None},
        query=DeleteOfQuery, problems=(501,),
    ),
    Operation(
        method="GET", path=OF_TENANT + "/latest", id="latest_points_of",
        summary="Read the newest points of several devices", handler=latest_points, answers={200: Points},
        query=LatestOfQuery,
    ),
)  # fmt: skip
