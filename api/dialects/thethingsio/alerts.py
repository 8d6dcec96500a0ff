"""Alerts (`TTI-X11`): the alarms of a user's things that are active, or that nobody has acknowledged yet.

They are the alarms of the tenant's chains and nothing besides: what an app raises goes through the root chain, whose
node `create_alarm` raises it, and deleting an alert is an operator's acknowledging and clearing.

An alarm is of a thing and says of no resource that it is about it. So alerts are for those who may read every resource
of the thing that the app shows; and of details that are an object only members named after such resources are told,
since they are as a rule the message that raised the alarm, with values of private resources in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Final

from api.dialects.thethingsio.bodies import answer, read_object, success, text_of
from api.dialects.thethingsio.callers import Caller, Callers
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.reading import choice, wanted
from api.dialects.thethingsio.settings import DIALECT, SYNC_TIMEOUT_S
from api.login_throttle import Limits, LoginThrottle, TooManyAttempts
from api.transports.http import Request, Response, Route
from api.transports.http_exchange import HttpError
from engine.errors import BadInput, NotFound, Refused
from engine.message import Message
from engine.stores.alarms import MAX_TYPE, SEVERITIES, Alarm
from engine.stores.apps.rights import GET, POST, ThingRights
from engine.stores.registry import Device
from engine.stores.values import problem

RAISE: Final = "ALARM_REQUEST"
"""The type of the message that asks the chain for an alarm and is answered with it."""
USUAL_LIMIT: Final = 100
MOST_BYTES: Final = 16 * 1024
"""Of the body of one that is raised: alarms are kept in memory, for months."""
MOST_ACTIVE: Final = 100
"""Active alerts of one thing at which apps can raise no further ones."""
RAISED: Final = Limits(pair=100, address=10_000, name=100)
"""Within five minutes; a name is one user."""
NO_ANSWER: Final = (
    "the tenant's root chain raises no alarms for apps: it has to answer messages 'Alarm request' with the alarm"
)
MENDED_S: Final = 60
"""When to try again with such a chain: somebody has to deploy another."""


class AlertRoutes:
    """`/v2/me/alerts` and `/v2/me/alerts/{id}`."""

    def __init__(self, parts: Parts, callers: Callers) -> None:
        self._parts, self._callers = parts, callers
        self._throttle = LoginThrottle(parts.redis, "alerts", RAISED)
        one = "/v2/me/alerts/{alert}"
        self.routes: Sequence[Route] = (
            Route("GET", "/v2/me/alerts", self._list),
            Route("POST", "/v2/me/alerts", self._raise),
            Route("GET", one, self._get),
            Route("DELETE", one, self._delete),
        )

    async def _list(self, request: Request, names: dict[str, str]) -> Response:
        """The newest first; dates say when alarms began."""
        caller = await self._callers.of(request)
        asked, active, thing = wanted(request, USUAL_LIMIT), choice(request, "active"), request.query.get("thingId")

        def fits(alarm: Alarm) -> bool:
            began = asked.start_ms <= alarm.start_ms < asked.end_ms
            return began and _is_alert(alarm) and (active is None or alarm.active is active)

        if thing is None:
            rights = await self._callers.things(caller)
            things = [id for id, each in rights.items() if _may(each, caller, GET)]
            if rights and not things:
                raise HttpError(403, "Permission denied")
        else:
            device, of_thing = await self._callers.thing(caller, thing)
            _check(of_thing, caller, GET)
            things = [device.id]
        found = await self._parts.alarms.of_devices(caller.tenant, things, asked.limit, fits)
        return answer([_shown(alarm, caller.resources) for alarm in found])

    async def _get(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._callers.of(request)
        alarm, _ = await self._find(caller, names["alert"])
        return answer(_shown(alarm, caller.resources))

    async def _delete(self, request: Request, names: dict[str, str]) -> Response:
        """Acknowledge and clear it: then it is history, which is for operators."""
        caller = await self._callers.of(request)
        alarm, rights = await self._find(caller, names["alert"])
        _check(rights, caller, POST)
        alarms = self._parts.alarms
        try:
            for mark in (alarms.acknowledge, alarms.clear):
                await mark(caller.tenant, alarm.device, alarm.id, caller.user.id)
        except NotFound as error:
            raise _nowhere() from error
        return success("deleted")

    async def _raise(self, request: Request, names: dict[str, str]) -> Response:
        """Have the chain raise one, and wait until it has."""
        caller = await self._callers.of(request)
        body = await read_object(request, MOST_BYTES)
        type, severity, details = _type(body), _severity(body), _details(body, caller.resources)
        device, rights = await self._callers.thing(caller, text_of(body, "thingId"))
        _check(rights, caller, POST)
        await self._check_room(caller, device, type)
        await self._count(caller, request)
        metadata = {
            "userId": caller.user.id, "appId": caller.app.id, "alarmType": type, "alarmSeverity": severity,
        }  # fmt: skip
        intake = self._parts.intake
        message = intake.message(
            device, RAISE, details, dialect=DIALECT, transport="http", ts_ms=intake.stamp(device.id), metadata=metadata
        )
        return success("raised", 201, id=await self._raised(request, device, message))

    async def _raised(self, request: Request, device: Device, message: Message) -> str:
        """The id of the alarm that the chain has raised.

        BadInput where it fails; Refused where it does not answer with an alarm of the thing, or not in time.
        """
        found = await request.wait(
            asyncio.ensure_future(self._parts.intake.ask(message, SYNC_TIMEOUT_S)), 2 * SYNC_TIMEOUT_S
        )
        if found is None:
            raise Refused("the chain gave no answer in time; it may raise the alert yet")
        if found.error:
            raise BadInput(f"the chain failed: {found.error}")
        id = found.data.get("id") if found.kind == "reply" and isinstance(found.data, dict) else None
        if not isinstance(id, str):
            raise Refused(NO_ANSWER, MENDED_S)
        try:
            # A chain of the tenant's own may answer anything: said is only what is there.
            return (await self._parts.alarms.get(device.tenant, device.id, id)).id
        except NotFound as error:
            raise Refused(NO_ANSWER, MENDED_S) from error

    async def _check_room(self, caller: Caller, device: Device, type: str) -> None:
        """BadInput for one alert more than a thing may have; one that is active already takes no room."""
        read, things = self._parts.alarms.of_devices, [device.id]
        active = await read(caller.tenant, things, MOST_ACTIVE, lambda alarm: alarm.active)
        if len(active) < MOST_ACTIVE:
            return
        if not await read(caller.tenant, things, 1, lambda alarm: alarm.active and alarm.type == type):
            raise BadInput(f"the thing has {len(active)} active alerts; delete one first")

    async def _count(self, caller: Caller, request: Request) -> None:
        try:
            await self._throttle.attempt(f"{caller.app.id}/{caller.user.key}", request.client)
        except TooManyAttempts as error:
            wait = b"%d" % error.retry_after_s
            raise HttpError(429, "too many alerts, try again later", ((b"retry-after", wait),)) from error

    async def _find(self, caller: Caller, id: str) -> tuple[Alarm, ThingRights]:
        """An alert, and the rights of its thing; 404, whether there is none or it is not for the caller."""
        rights = await self._callers.things(caller)
        things = [thing for thing, each in rights.items() if _may(each, caller, GET)]
        found = await self._parts.alarms.of_devices(
            caller.tenant, things, 1, lambda alarm: alarm.id == id and _is_alert(alarm)
        )
        if not found:
            raise _nowhere()
        return found[0], rights[found[0].device]


def _is_alert(alarm: Alarm) -> bool:
    return alarm.active or not alarm.acked_ms


def _nowhere() -> HttpError:
    return HttpError(404, "Alert not found")


def _may(rights: ThingRights, caller: Caller, wanted: int) -> bool:
    """Whether the caller has a right on every resource of the thing that the app shows."""
    return all(rights.of(caller.user.key, resource) & wanted for resource in caller.resources)


def _check(rights: ThingRights, caller: Caller, wanted: int) -> None:
    if not _may(rights, caller, wanted):
        raise HttpError(403, "Permission denied")


def _type(body: dict[str, Any]) -> str:
    name = "name" if "name" in body and "type" not in body else "type"
    type = text_of(body, name).strip()
    if len(type) > MAX_TYPE or not type.isprintable():
        raise BadInput(f"a type has at most {MAX_TYPE} characters, all of them printable", f"/{name}")
    return type


def _severity(body: dict[str, Any]) -> str:
    severity = body.get("severity", SEVERITIES[0])
    if severity not in SEVERITIES:
        raise BadInput(f"must be one of {', '.join(SEVERITIES)}", "/severity")
    return str(severity)


def _details(body: dict[str, Any], resources: Collection[str]) -> Any:
    """What is said besides: nothing that could not be read again."""
    details = body.get("details")
    if details is None:
        return {}
    if isinstance(details, dict):
        if strange := [name for name in details if name not in resources]:
            raise BadInput(f"not a resource of the app: {strange[0][:40]!r}; other words go into a text", "/details")
    elif not isinstance(details, str):
        raise BadInput("must be a text, or an object of resources with their values", "/details")
    if reason := problem(details):
        raise BadInput(reason, "/details")
    return details


def _shown(alarm: Alarm, resources: Collection[str]) -> dict[str, Any]:
    details = alarm.details
    if isinstance(details, dict):
        details = {name: value for name, value in details.items() if name in resources}
    elif not isinstance(details, str):
        details = None
    return {
        "id": alarm.id,
        "thingId": alarm.device,
        "type": alarm.type,
        "severity": alarm.severity,
        "active": alarm.active,
        "acknowledged": bool(alarm.acked_ms),
        "startDate": iso(alarm.start_ms),
        "endDate": iso(alarm.end_ms),
        "details": details,
    }
