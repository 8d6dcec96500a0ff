"""What users may see of things, unlinking, and sharing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.dialects.thethingsio.bodies import answer, read_object, success
from api.dialects.thethingsio.callers import Caller, Callers
from api.dialects.thethingsio.concerns import rights_changed
from api.dialects.thethingsio.linking import tell_chain
from api.dialects.thethingsio.mails import grant_notice
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.users import email_of
from api.transports.http import Request, Response, Route
from api.transports.http_exchange import HttpError
from engine.errors import BadInput, Conflict
from engine.stores.apps.rights import NAMES
from engine.stores.apps.users import folded

MOST_PERMISSIONS: Final = 1000
"""Of one grant."""


class ThingRoutes:
    """`DELETE /v2/me/things/{thing}`, `/v2/me/resources` (which there are), `/v2/me/grant`."""

    def __init__(self, parts: Parts, callers: Callers) -> None:
        self._parts, self._callers = parts, callers
        self.routes: Sequence[Route] = (
            Route("DELETE", "/v2/me/things/{thing}", self._unlink),
            Route("GET", "/v2/me/resources", self._resources),
            Route("PUT", "/v2/me/grant", self._grant),
        )

    async def _unlink(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._callers.of(request)
        concerned = await self._parts.rights.unlink(caller.app.id, names["thing"], caller.user.key)
        if not concerned:
            raise HttpError(404, "Thing not found")
        await rights_changed(self._parts, caller.app, concerned)
        return success("deleted")

    async def _resources(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._callers.of(request)
        things = await self._callers.things(caller)
        found: dict[str, list[str]] = {}
        for thing, rights in things.items():
            for resource in rights.resources(caller.user.key, caller.resources):
                found.setdefault(resource, []).append(thing)
        return answer([{"name": name, "things": found[name]} for name in sorted(found)])

    async def _grant(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._callers.of(request)
        body = await read_object(request)
        friend = email_of(body)
        if folded(friend) == caller.user.key:
            raise BadInput("you cannot grant anything to yourself")
        wanted = _by_thing(body.get("permissions"))
        for thing, resources in wanted.items():
            await self._callers.thing(caller, thing)
            for resource in resources:
                self._callers.check_resource(caller, resource)
        # Looked at as a whole first: what fails for one thing shall not be half done.
        rights = await self._parts.rights.read(caller.app.id, wanted)
        for thing, resources in wanted.items():
            for resource in resources:
                _check_grantable(rights[thing].of(caller.user.key, resource), resources[resource])
        for thing, resources in wanted.items():
            try:
                await self._parts.rights.grant(caller.app.id, thing, caller.user.key, folded(friend), resources)
            except Conflict as error:
                raise HttpError(403, "Permission denied") from error
        await rights_changed(self._parts, caller.app, await self._concerned(caller, wanted, folded(friend)))
        for thing, resources in wanted.items():
            device, _ = await self._callers.thing(caller, thing)
            data = {"userId": caller.user.id, "email": friend, "thingId": thing, "permissions": resources}
            await tell_chain(self._parts, caller.app, caller.user, device, "PERMISSION_GRANTED", data)
        await self._parts.mail.send(*grant_notice(caller.user, friend, wanted))
        return success("granted")

    async def _concerned(self, caller: Caller, things: Mapping[str, Any], friend: str) -> set[str]:
        """Everybody whose rights may hang on those of the friend."""
        concerned = {friend}
        for rights in (await self._parts.rights.read(caller.app.id, things)).values():
            concerned |= rights.people()
        return concerned


def _check_grantable(has: int, asked: Mapping[str, bool]) -> None:
    """403 for somebody who may not grant, or would grant what they have not themselves (`TTI-25`)."""
    given = sum(NAMES[name] for name, on in asked.items() if on)
    if not has & NAMES["grant"] or given & ~has:
        raise HttpError(403, "Permission denied")


def _by_thing(permissions: Any) -> dict[str, dict[str, dict[str, bool]]]:
    """`{resource: {thing: {right: bool}}}` as `{thing: {resource: {right: bool}}}`; BadInput."""
    if not isinstance(permissions, dict) or not permissions:
        raise BadInput("permissions must be an object of resources")
    found: dict[str, dict[str, dict[str, bool]]] = {}
    count = 0
    for resource, things in permissions.items():
        if not isinstance(things, dict) or not things:
            raise BadInput(f"permissions of {resource[:40]!r} must be an object of things")
        for thing, asked in things.items():
            if not isinstance(asked, dict) or not asked:
                raise BadInput(f"permissions on {thing[:40]!r} must be an object of {', '.join(NAMES)}")
            for name, on in asked.items():
                if name not in NAMES or not isinstance(on, bool):
                    raise BadInput(f"a permission is one of {', '.join(NAMES)}, with true or false")
            found.setdefault(thing, {})[resource] = asked
            count += 1
    if count > MOST_PERMISSIONS:
        raise BadInput(f"at most {MOST_PERMISSIONS} permissions can be granted at once")
    return found
