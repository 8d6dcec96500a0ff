"""Users by the paths of their app, another password, and leaving (`TTI-X11`).

Nobody sees anybody else: an app's list of users has the caller alone, and only they can delete themselves. All users
are for operators, in the management API.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.dialects.thethingsio.bodies import answer, read_object, success, text_of
from api.dialects.thethingsio.callers import Caller, Callers
from api.dialects.thethingsio.concerns import rights_changed, session_ended
from api.dialects.thethingsio.objects import tell_subscribers
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.users import UserRoutes
from api.transports.http import Request, Response, Route
from api.transports.http_exchange import HttpError
from engine.errors import BadInput


class AccountRoutes:
    """`PUT /v2/me`, `/v2/apps/{app}/register` and `/v2/apps/{app}/users`."""

    def __init__(self, parts: Parts, callers: Callers, users: UserRoutes) -> None:
        self._parts, self._callers, self._users = parts, callers, users
        app = "/v2/apps/{app}"
        self.routes: Sequence[Route] = (
            Route("PUT", "/v2/me", self._password),
            Route("POST", app + "/register", self._register),
            Route("POST", app + "/users", self._add),
            Route("GET", app + "/users", self._list),
            Route("DELETE", app + "/users/{user}", self._delete),
        )

    async def _password(self, request: Request, names: dict[str, str]) -> Response:
        """Change the password, knowing the one that holds; other sessions end."""
        caller = await self._callers.of(request)
        body = await read_object(request)
        if body.get("appId", caller.app.id) != caller.app.id:
            raise BadInput("invalid app", "/appId")
        now, wanted = text_of(body, "currentPassword"), text_of(body, "password")
        if text_of(body, "confirmationPassword") != wanted:
            raise BadInput("the passwords are not the same", "/confirmationPassword")
        parts = self._parts
        await self._users.count(caller.app, caller.user.email, request)
        if not await parts.passwords.verify(caller.user.password, now):
            raise HttpError(403, "Invalid credentials")
        await parts.throttle.succeeded(f"{caller.app.id}/{caller.user.key}", request.client)
        await self._users.change_password(caller, wanted)
        return success("updated")

    async def _register(self, request: Request, names: dict[str, str]) -> Response:
        self._callers.check_tls(request)
        body = await read_object(request)
        app = await self._users.app(names["app"], body)
        user = await self._users.register(request, app, body)
        return await self._users.begin(app, user, 201, status="success", message="user created")

    async def _add(self, request: Request, names: dict[str, str]) -> Response:
        """Register without logging in."""
        self._callers.check_tls(request)
        body = await read_object(request)
        user = await self._users.register(request, await self._users.app(names["app"], body), body)
        return success("user created", 201, id=user.id)

    async def _list(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._caller(request, names)
        return answer([{"id": caller.user.id, "email": caller.user.email}])

    async def _delete(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._caller(request, names)
        # Of others not even whether there are any of that id is told.
        if names["user"] != caller.user.id:
            raise HttpError(403, "Permission denied")
        await forget(self._parts, caller)
        return success("deleted")

    async def _caller(self, request: Request, names: dict[str, str]) -> Caller:
        caller = await self._callers.of(request)
        if names["app"] != caller.app.id:
            raise HttpError(403, "Permission denied")
        return caller


async def forget(parts: Parts, caller: Caller) -> None:
    """Forget a user with everything of theirs. What they shared with all users of the app goes too.

    What is the user's goes first, so that whoever asked can ask again when storage fails meanwhile; and once more when
    they can add nothing any longer.
    """
    await _sweep(parts, caller)
    await parts.users.delete(caller.user)
    await session_ended(parts, caller.app, [caller.user.key])
    await _sweep(parts, caller)
    await parts.sessions.end_all(caller.user)


async def _sweep(parts: Parts, caller: Caller) -> None:
    app, who = caller.app, caller.user.key
    for concerned in (await parts.rights.forget_person(app.id, who)).values():
        await rights_changed(parts, app, concerned)
    for place, id in await parts.objects.forget_person(app.id, who):
        await tell_subscribers(parts, app.tenant, place, {"_id": id, "deleted": True})
