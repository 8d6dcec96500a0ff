"""Making users the owners of things: by a thing's token or id, or by an id that both announce (`TTI-20`, `TTI-X10`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from api.auth import token_print
from api.dialects.thethingsio.bodies import read_object, success, text_of
from api.dialects.thethingsio.callers import Callers
from api.dialects.thethingsio.concerns import rights_changed
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.settings import DIALECT
from api.dialects.thethingsio.thing_calls import find_thing
from api.login_throttle import Limits, LoginThrottle, TooManyAttempts
from api.transports.http import Request, Response, Route
from api.transports.http_exchange import HttpError
from engine.errors import BadInput, Conflict
from engine.stores.apps.apps import App
from engine.stores.apps.shared_ids import Person, SharedIds, Thing
from engine.stores.apps.users import User
from engine.stores.registry import THING_TOKEN, Device

MOST_CHARACTERS: Final = 128
"""Of a shared id."""
ATTEMPTS: Final = Limits(pair=10, address=100, name=20)
"""Announcements within five minutes that linked nobody; a name is one user or one thing, who lock nobody else out."""


class LinkRoutes:
    """`POST /v2/me/things`, `POST /v2/me/things/link`, and a thing's own `POST /v2/things/{token}/link`."""

    def __init__(self, parts: Parts, callers: Callers) -> None:
        self._parts, self._callers = parts, callers
        self._shared_ids = SharedIds(parts.redis)
        self._throttle = LoginThrottle(parts.redis, "shared-id", ATTEMPTS)
        self.routes: Sequence[Route] = (
            Route("POST", "/v2/me/things", self._link),
            Route("POST", "/v2/me/things/link", self._of_user),
            Route("POST", "/v2/things/{token}/link", self._of_thing),
        )

    async def _link(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._callers.of(request)
        body = await read_object(request)
        if "thingToken" in body:
            device = await self._parts.auth.find(token_print(THING_TOKEN, text_of(body, "thingToken")))
        else:
            device = await self._parts.auth.by_id(text_of(body, "thingId"))
        return await self._linked(caller.app, caller.user, device)

    async def _of_user(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._callers.of(request)
        shared_id = await _shared_id(request)
        name = f"user/{caller.app.id}/{caller.user.key}"
        await self._count(name, request)
        found = await self._shared_ids.announce(caller.app.product, shared_id, Person(caller.app.id, caller.user.key))
        if not isinstance(found, Thing):
            return success("waiting for the thing")
        await self._throttle.succeeded(name, request.client)
        return await self._linked(caller.app, caller.user, await self._parts.auth.by_id(found.id))

    async def _of_thing(self, request: Request, names: dict[str, str]) -> Response:
        device = await find_thing(self._parts, names["token"])
        if device is None:
            raise HttpError(401, "Invalid thing token")
        if not device.product:
            raise BadInput("a thing of no product has no apps to be linked in")
        shared_id = await _shared_id(request)
        name = f"thing/{device.id}"
        await self._count(name, request)
        found = await self._shared_ids.announce(device.product, shared_id, Thing(device.id))
        if not isinstance(found, Person):
            return success("waiting for the user")
        await self._throttle.succeeded(name, request.client)
        app, user = await self._parts.apps.find(found.app), await self._parts.users.find(found.app, found.who)
        if app is None or user is None:
            raise HttpError(404, "the user who announced this id is gone")
        return await self._linked(app, user, device)

    async def _count(self, name: str, request: Request) -> None:
        """Ids are to be announced, not to be tried out."""
        try:
            await self._throttle.attempt(name, request.client)
        except TooManyAttempts as error:
            wait = b"%d" % error.retry_after_s
            raise HttpError(429, "too many shared ids, try again later", ((b"retry-after", wait),)) from error

    async def _linked(self, app: App, user: User, device: Device | None) -> Response:
        """Make a user the thing's owner; 404 for what is none of the app's, 403 if it has another owner (`TTI-S7`)."""
        if device is None or not linkable(app, device):
            raise HttpError(404, "Thing not found")
        try:
            fresh = await self._parts.rights.link(app.id, device.id, user.key)
        except Conflict as error:
            raise HttpError(403, error.reason) from error
        if fresh:
            await rights_changed(self._parts, app, [user.key])
            told = {"userId": user.id, "thingId": device.id}
            await tell_chain(self._parts, app, user, device, "ENTITY_ASSIGNED", told)
        return success("created", 201 if fresh else 200, thingId=device.id)


async def _shared_id(request: Request) -> str:
    shared_id = text_of(await read_object(request), "sharedId")
    if len(shared_id) > MOST_CHARACTERS:
        raise BadInput(f"a shared id has at most {MOST_CHARACTERS} characters", "/sharedId")
    return shared_id


def linkable(app: App, device: Device) -> bool:
    """Whether a thing is activated, and of the app's product (`TTI-21`, `TTI-S7`)."""
    activated = any(each.startswith(f"{THING_TOKEN}:") for each in device.credentials)
    return activated and device.enabled and device.product == app.product and device.tenant == app.tenant


async def tell_chain(parts: Parts, app: App, user: User, device: Device, type: str, data: dict[str, Any]) -> None:
    """Push what a user did with a thing through the tenant's root chain (`G-18`)."""
    metadata = {"userId": user.id, "appId": app.id}
    message = parts.intake.message(
        device, type, data, dialect=DIALECT, transport="http", ts_ms=parts.intake.stamp(device.id), metadata=metadata
    )
    await parts.intake.submit([message])
