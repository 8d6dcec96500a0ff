"""Alarms: a tenant's list, and the operator's word on one."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.devices import ONE as DEVICE
from api.flow.devices import find
from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine.stores.alarms import Alarm, Severity, Status, as_json


class AlarmShown(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm. Times are milliseconds; 0: has not happened."""

    id: str
    type: str
    originator: Annotated[str, Meta(description="Id of the device.")]
    severity: Severity
    status: Status
    start_ms: int
    end_ms: Annotated[int, Meta(description="The last time it was triggered.")]
    acked_ms: int
    acked_by: str
    cleared_ms: int
    cleared_by: Annotated[str, Meta(description="Who cleared it; empty: a chain.")]
    details: Any


class AlarmList(msgspec.Struct, frozen=True):
    """Alarms, those that began last first; `cursor` continues the list, empty at its end.

    With a filter a page may be short, or even empty, and still not be the last.
    """

    alarms: list[AlarmShown]
    cursor: str


class AlarmQuery(msgspec.Struct):
    """Which alarms."""

    status: Annotated[list[Status], Meta(description="Only these; none: all. May be repeated.")] = []
    device: Annotated[str, Meta(description="Id, name or external id of a device; empty: all.")] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str = ""


class ByQuery(msgspec.Struct):
    """Who says so."""

    by: Annotated[str, Meta(max_length=255, description="Name kept with the alarm.")] = "operator"


async def list_alarms(parts: Parts, call: Call) -> Answer:
    """A part of the tenant's alarms."""
    query: AlarmQuery = call.query
    device = (await parts.registry.device(call.tenant, query.device)).id if query.device else ""
    page = await parts.alarms.list(
        call.tenant, statuses=query.status, device=device, limit=query.limit, cursor=query.cursor
    )
    return Answer(200, AlarmList([_shown(alarm) for alarm in page.alarms], page.cursor))


async def get_alarm(parts: Parts, call: Call) -> Answer:
    """One alarm."""
    device = await find(parts, call)
    return Answer(200, _shown(await parts.alarms.get(device.tenant, device.id, call.path["alarm"])))


async def acknowledge_alarm(parts: Parts, call: Call) -> Answer:
    """Note that somebody has seen it."""
    device = await find(parts, call)
    return Answer(
        200,
        _shown(await parts.alarms.acknowledge(device.tenant, device.id, call.path["alarm"], call.query.by)),
    )


async def clear_alarm(parts: Parts, call: Call) -> Answer:
    """End it."""
    device = await find(parts, call)
    return Answer(200, _shown(await parts.alarms.clear(device.tenant, device.id, call.path["alarm"], call.query.by)))


def _shown(alarm: Alarm) -> AlarmShown:
    return AlarmShown(**as_json(alarm))


_ONE: Final = DEVICE + "/alarms/{alarm}"

OPERATIONS: Final = (
    Operation(
        method="GET", path=BASE + "/tenants/{tenant}/alarms", id="list_alarms", summary="List a tenant's alarms",
        handler=list_alarms, answers={200: AlarmList}, query=AlarmQuery,
    ),
    Operation(
        method="GET", path=_ONE, id="get_alarm", summary="Show an alarm", handler=get_alarm,
        answers={200: AlarmShown},
    ),
    Operation(
        method="POST", path=_ONE + "/acknowledge", id="acknowledge_alarm", summary="Acknowledge an alarm",
        handler=acknowledge_alarm, answers={200: AlarmShown}, query=ByQuery,
    ),
    Operation(
        method="POST", path=_ONE + "/clear", id="clear_alarm", summary="Clear an alarm", handler=clear_alarm,
        answers={200: AlarmShown}, query=ByQuery,
    ),
)  # fmt: skip
