"""Values of resources, as users read and write them; names with a `$` are dealt with in `magic`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.dialects.thethingsio.bodies import answer, read
from api.dialects.thethingsio.callers import Callers, check_right
from api.dialects.thethingsio.dates import compact, iso
from api.dialects.thethingsio.magic import Magic
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.reading import flag, shown, wanted
from api.dialects.thethingsio.streams import Streams
from api.dialects.thethingsio.writing import How, messages_of, submit, values_of
from api.transports.http import Feed, Request, Response, Route
from api.transports.http_exchange import HttpError
from engine.errors import BadInput
from engine.stores.apps.rights import GET, POST


class ValueRoutes:
    """`/v2/me/resources/{resource}` and what is below it."""

    def __init__(self, parts: Parts, callers: Callers, magic: Magic, streams: Streams) -> None:
        self._parts, self._callers, self._magic, self._streams = parts, callers, magic, streams
        self.routes: Sequence[Route] = (
            Route("GET", "/v2/me/resources/{resource}", self._of_all),
            Route("GET", "/v2/me/resources/{resource}/{thing}", self._of_one),
            Route("POST", "/v2/me/resources/{resource}/{thing}", self._write),
        )

    async def _of_all(self, request: Request, names: dict[str, str]) -> Response | Feed:
        caller, resource = await self._callers.of(request), names["resource"]
        if resource.startswith("$"):
            raise HttpError(404, "Resource not found")
        self._callers.check_resource(caller, resource)
        if request.query.get("subscribe") == "true":
            return await self._streams.of_resource(request, caller, resource, None)
        asked = wanted(request)
        rights = await self._callers.things(caller)
        who = caller.user.key
        things = [thing for thing, each in rights.items() if each.of(who, resource) & GET]
        if rights and not things:
            raise HttpError(403, "Permission denied")
        date = iso if self._parts.settings.iso_datetime_everywhere else compact
        found: dict[str, list[dict[str, Any]]] = {}
        for point in await asked.read(self._parts.store, caller.tenant, things, [resource]):
            found.setdefault(point.device, []).append({"value": point.value, "datetime": date(point.ts_ms)})
        return answer(found)

    async def _of_one(self, request: Request, names: dict[str, str]) -> Response | Feed:
        caller, resource = await self._callers.of(request), names["resource"]
        if resource.startswith("$"):
            if request.query.get("subscribe") == "true":
                raise BadInput("a magic resource cannot be subscribed to")
            return await self._magic.read(caller, resource, names["thing"])
        self._callers.check_resource(caller, resource)
        device, rights = await self._callers.thing(caller, names["thing"])
        check_right(rights, caller, resource, GET)
        if request.query.get("subscribe") == "true":
            return await self._streams.of_resource(request, caller, resource, device.id)
        points = await wanted(request).read(self._parts.store, caller.tenant, [device.id], [resource])
        return answer([shown(point) for point in points])

    async def _write(self, request: Request, names: dict[str, str]) -> Response:
        caller, resource = await self._callers.of(request), names["resource"]
        if resource.startswith("$"):
            return await self._magic.write(caller, resource, names["thing"], await read(request), "http")
        self._callers.check_resource(caller, resource)
        device, rights = await self._callers.thing(caller, names["thing"])
        check_right(rights, caller, resource, POST)
        how = How(flag(request, "store"), flag(request, "broadcast"))
        about = {"userId": caller.user.id, "appId": caller.app.id}
        values = values_of(await read(request), resource)
        messages = messages_of(self._parts.intake, device, values, how, "http", about)
        await submit(self._parts.intake, messages, request.query.get("sync") == "true")
        return answer({"status": "Success", "message": "Created"}, 201)
