"""A live look at new points: lines of JSON for as long as somebody reads."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.forms import NDJSON
from api.flow.operation import Call, Lines, Operation, Parts
from api.flow.point_queries import DEVICES_MOST, Keys, named
from api.flow.points import OF_TENANT


class PointTailQuery(msgspec.Struct):
    """Whose points."""

    device: Annotated[
        list[str],
        Meta(
            max_length=DEVICES_MOST,
            description="Id, name or external id of a device, or a pattern of names with * and ?; none: all devices. "
            "May be repeated.",
        ),
    ] = []
    key: Keys = []


async def tail_points(parts: Parts, call: Call) -> Lines:
    """Points as soon as they are durable, which is some milliseconds before the store has them."""
    patterns = [name for name in call.query.device if "*" in name or "?" in name]
    devices = await named(parts, call.tenant, [name for name in call.query.device if name not in patterns])
    ids = [device.id for device in devices]
    return Lines(await parts.point_tail.watch(call.tenant, ids, patterns, call.query.key))


OPERATIONS: Final = (
    Operation(
        method="GET", path=OF_TENANT + "/tail", id="tail_points", summary="Watch new points, as lines of JSON",
        handler=tail_points, answers={200: Any}, query=PointTailQuery, media=NDJSON,
    ),
)  # fmt: skip
