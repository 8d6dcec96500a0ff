"""Objects of users and of apps: `/v2/classes/me/…` and `/v2/classes/app/…` (`TTI-65` to `TTI-79`)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from api.dialects.thethingsio.bodies import answer, read_object, success
from api.dialects.thethingsio.callers import Caller, Callers
from api.dialects.thethingsio.chain_messages import about_user
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.streams import Streams
from api.transports.http import Feed, Request, Response, Route
from api.transports.http_exchange import HttpError
from engine.bus import BUS
from engine.entries import encode
from engine.errors import BadInput, Conflict, NotFound
from engine.stores.apps.objects import MOST_OBJECT_BYTES, SHARED, Place, path_of, private

KIND: Final = "object"
"""Of what the bus says of a collection."""


class _Asked(NamedTuple):
    """What a path names: a collection, or (with an id) an object in it."""

    caller: Caller
    place: Place
    id: str


class ObjectRoutes:
    """Both trees."""

    def __init__(self, parts: Parts, callers: Callers, streams: Streams) -> None:
        self._parts, self._callers, self._streams = parts, callers, streams
        handlers = {"GET": self._get, "POST": self._post, "PUT": self._put, "DELETE": self._delete}
        self.routes: Sequence[Route] = tuple(
            Route(method, f"/v2/classes/{tree}/{{path*}}", handler)
            for tree in ("me", "app")
            for method, handler in handlers.items()
        )

    async def _asked(self, request: Request) -> _Asked:
        caller = await self._callers.of(request)
        names = path_of(request.segments[3:])
        scope = SHARED if request.segments[2] == "app" else private(caller.user.key)
        if len(names) % 2:
            return _Asked(caller, Place(caller.app.id, scope, names), "")
        return _Asked(caller, Place(caller.app.id, scope, names[:-1]), names[-1])

    async def _get(self, request: Request, names: dict[str, str]) -> Response | Feed:
        asked = await self._asked(request)
        objects = self._parts.objects
        if asked.id:
            return answer({"results": [await _found(objects.get(asked.place, asked.id))]})
        if request.query.get("subscribe") == "true":
            return await self._streams.of_collection(request, asked.caller, asked.place)
        return answer({"results": await objects.list(asked.place)})

    async def _post(self, request: Request, names: dict[str, str]) -> Response:
        asked = await self._asked(request)
        body = await read_object(request, MOST_OBJECT_BYTES + 1024)
        id: Any = asked.id or body.get("_id")
        if id is None:
            id = secrets.token_hex(12)
        if type(id) not in (str, int):
            raise BadInput("_id is a text or a whole number", "/_id")
        [name] = path_of([str(id)])
        made = {"_id": id, **{key: value for key, value in body.items() if key != "_id"}}
        try:
            await self._parts.objects.create(asked.place, name, asked.caller.user.key, made)
        except Conflict as error:
            raise BadInput(error.reason) from error
        await self._tell(asked, name, "OBJECT_CREATED", made, made)
        return success("created", 201, id=name)

    async def _put(self, request: Request, names: dict[str, str]) -> Response:
        asked = await self._object(request)
        body = await read_object(request, MOST_OBJECT_BYTES + 1024)
        body.pop("_id", None)
        changed = await _found(self._parts.objects.merge(asked.place, asked.id, asked.caller.user.key, body))
        await self._tell(asked, asked.id, "OBJECT_UPDATED", changed, changed)
        return success("updated")

    async def _delete(self, request: Request, names: dict[str, str]) -> Response:
        asked = await self._object(request)
        id = await _found(self._parts.objects.delete(asked.place, asked.id, asked.caller.user.key))
        await self._tell(asked, asked.id, "OBJECT_DELETED", {"_id": id}, {"_id": id, "deleted": True})
        return success("deleted")

    async def _object(self, request: Request) -> _Asked:
        asked = await self._asked(request)
        if not asked.id:
            raise HttpError(405, "a collection is not changed as a whole", ((b"allow", b"GET, POST"),))
        return asked

    async def _tell(self, asked: _Asked, id: str, type: str, data: Any, told: dict[str, Any]) -> None:
        """Tell subscribers, and the tenant's root chain (`TTI-86`)."""
        caller, place = asked.caller, asked.place
        await tell_subscribers(self._parts, caller.tenant, place, told)
        about = {
            "collection": "/".join(place.path),
            "primaryKey": id,
            "visibility": "app" if place.scope == SHARED else "me",
        }
        await self._parts.intake.submit([about_user(caller, type, data, about)])


async def tell_subscribers(parts: Parts, tenant: str, place: Place, told: dict[str, Any]) -> None:
    """Tell who has subscribed to a collection of one object (`TTI-S22`)."""
    await parts.redis.publish(BUS, encode((KIND, tenant, place.topic, msgspec.json.encode([told]))))


async def _found(work: Any) -> Any:
    try:
        return await work
    except NotFound as error:
        raise HttpError(404, "Object not found") from error
    except PermissionError as error:
        raise HttpError(403, "Permission denied") from error
