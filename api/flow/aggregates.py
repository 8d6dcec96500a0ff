"""Aggregates of what devices have measured: by windows of time on the clock of a time zone, gaps filled if asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from api.flow.forms import CSV, CSV_WITH_TITLES, JSON, NDJSON, Form, as_file, form_of
from api.flow.operation import Call, Lines, Operation, Parts
from api.flow.point_queries import Asked, Devices, Keys, asked, check_size
from api.flow.points import OF_DEVICE, OF_TENANT
from api.flow.times import Time, read_range
from api.points import csv_form
from api.points.ndjson_form import json_value
from engine.errors import BadInput
from engine.message import now_ms
from engine.stores.aggregates import check_functions
from engine.stores.fill import Fill, fill, fill_of
from engine.stores.timeseries import Bucket
from engine.stores.windows import Window, edges, window
from engine.stores.zones import check_zone

WINDOWS_MOST: Final = 100_000
"""Windows of one answer, those of all series together."""
AT_ONCE: Final = 500
"""Windows that are written out between two looks at other requests."""


class AggregateQuery(msgspec.Struct, kw_only=True):
    """Which part of which time, and what is to be made of it."""

    function: Annotated[
        list[str],
        Meta(
            min_length=1, max_length=20,
            description="count, min, max, sum, mean, first, last, or a percentile such as p95. May be repeated.",
        ),
    ]  # fmt: skip
    key: Keys = []
    start_ms: Annotated[
        Time, Meta(description="First time: milliseconds since 1970 UTC, or ISO 8601; 1970 by default.")
    ] = 0
    end_ms: Annotated[
        Time | None, Meta(description="First time that is not in the range, given in the same ways; now by default.")
    ] = None
    window: Annotated[
        str, Meta(max_length=20, description="30s, 5m, 1h, 1d, 1w, 1mo, …; empty: the whole range is one.")
    ] = ""
    zone: Annotated[
        str, Meta(max_length=80, description="IANA time zone of the windows, and of times without an offset.")
    ] = "UTC"
    fill: Annotated[
        str,
        Meta(max_length=40, description="What windows without a point get: none, null, previous, linear or a number."),
    ] = "none"
    format: Form = None


class AggregateOfQuery(AggregateQuery, kw_only=True):
    """Which devices, which part of which time, and what is to be made of it."""

    device: Devices


class WindowShown(msgspec.Struct, frozen=True):
    """A window: start <= ts < end."""

    start_ms: int
    end_ms: int
    values: Annotated[dict[str, Any], Meta(description="Each function asked for; null where it has nothing.")]


class SeriesShown(msgspec.Struct, frozen=True):
    """What came of one key of one device."""

    device: Annotated[str, Meta(description="Id of the device.")]
    key: str
    windows: list[WindowShown]


class Aggregates(msgspec.Struct, frozen=True):
    """Series by device and key; one without a point in the range is not there."""

    devices: Annotated[dict[str, str], Meta(description="Id of each device asked for to its name.")]
    series: list[SeriesShown]


async def aggregate_points(parts: Parts, call: Call) -> Lines:
    """What functions give for each series in each window. Points outside the range count nowhere.

    Devices × keys × windows are 100,000 at most.
    """
    of, query = await asked(parts, call), call.query
    _checked("zone", check_zone, query.zone)
    functions = _checked("function", check_functions, query.function)
    how = _checked("fill", fill_of, query.fill)
    every = _checked("window", window, query.window, query.zone) if query.window else None
    zone = ZoneInfo(query.zone)
    query.end_ms = now_ms() if query.end_ms is None else query.end_ms
    start_ms, end_ms = read_range(query, zone)
    found = await _read(parts, of, functions, every, how, start_ms, end_ms)
    match form_of(call):
        case "csv":
            return Lines(_csv(found, of, functions, zone), CSV_WITH_TITLES, as_file("aggregates.csv"))
        case "ndjson":
            return Lines(_ndjson(found, of), NDJSON)
        case _:
            return Lines(_json(found, of), JSON)


async def _read(
    parts: Parts, of: Asked, functions: Sequence[str], every: Window | None, how: Fill, start_ms: int, end_ms: int
) -> list[Bucket]:
    if every is None:
        await check_size(parts, of, 1, "windows", WINDOWS_MOST)
        return await parts.store.aggregate(of.tenant, of.ids, of.keys, start_ms, end_ms, functions)
    cuts = _checked("window", edges, every, start_ms, end_ms)
    await check_size(parts, of, max(1, len(cuts) - 1), "windows", WINDOWS_MOST)
    found = await parts.store.aggregate(of.tenant, of.ids, of.keys, start_ms, end_ms, functions, every)
    # Not on the loop: it may take a tenth of a second.
    return found if how == "none" else await asyncio.to_thread(fill, found, cuts, how)


def _checked(name: str, check: Any, *given: Any) -> Any:
    """What a check makes of a query parameter; its BadInput with the parameter's place."""
    try:
        return check(*given)
    except BadInput as error:
        raise BadInput(f"query parameter {name}: {error.reason}", f"?{name}") from error


async def _json(buckets: Sequence[Bucket], of: Asked) -> AsyncGenerator[bytes, None]:
    """The document of `Aggregates`, piece by piece."""
    encode = msgspec.json.encode
    yield b'{"devices":' + encode(of.names) + b',"series":['
    before = b""
    for (device, key), group in groupby(buckets, lambda bucket: (bucket.device, bucket.key)):
        yield before + b'{"device":' + encode(device) + b',"key":' + encode(key) + b',"windows":['
        between = b""
        for part in _parts(group):
            yield between + encode([_window(bucket) for bucket in part])[1:-1]
            between = b","
            await asyncio.sleep(0)
        yield b"]}"
        before = b","
    yield b"]}"


async def _ndjson(buckets: Sequence[Bucket], of: Asked) -> AsyncGenerator[bytes, None]:
    encode = msgspec.json.Encoder().encode_lines
    for part in _parts(buckets):
        yield encode(
            [
                {"device": one.device, "name": of.names[one.device], "key": one.key}
                | msgspec.structs.asdict(_window(one))
                for one in part
            ]
        )
        await asyncio.sleep(0)


async def _csv(
    buckets: Sequence[Bucket], of: Asked, functions: Sequence[str], zone: ZoneInfo
) -> AsyncGenerator[bytes, None]:
    yield csv_form.lines([("device", "name", "key", "start_ms", "end_ms", "start", *functions)])
    for part in _parts(buckets):
        yield csv_form.lines(
            (
                one.device, csv_form.guarded(of.names[one.device]), csv_form.guarded(one.key), one.start_ms, one.end_ms,
                _local(one.start_ms, zone),
                *("" if (value := one.values[name]) is None else csv_form.value_text(value)[1] for name in functions),
            )
            for one in part
        )  # fmt: skip
        await asyncio.sleep(0)


def _parts(buckets: Iterable[Bucket]) -> Iterator[list[Bucket]]:
    part: list[Bucket] = []
    for bucket in buckets:
        part.append(bucket)
        if len(part) == AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _window(bucket: Bucket) -> WindowShown:
    values = {name: json_value(value) for name, value in bucket.values.items()}
    return WindowShown(bucket.start_ms, bucket.end_ms, values)


def _local(ts_ms: int, zone: ZoneInfo) -> str:
    try:
        when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts_ms)
        return when.astimezone(zone).isoformat(timespec="milliseconds")
    except OverflowError:
        return ""


OPERATIONS: Final = (
    Operation(
        method="GET", path=OF_DEVICE + "/aggregates", id="aggregate_points",
        summary="Aggregate points by windows of time", handler=aggregate_points, answers={200: Aggregates},
        query=AggregateQuery, also_media=(CSV, NDJSON),
    ),
    Operation(
        method="GET", path=OF_TENANT + "/aggregates", id="aggregate_points_of",
        summary="Aggregate points of several devices by windows of time", handler=aggregate_points,
        answers={200: Aggregates}, query=AggregateOfQuery, also_media=(CSV, NDJSON),
    ),
)  # fmt: skip
