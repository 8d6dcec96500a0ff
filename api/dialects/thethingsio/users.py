"""Registering, logging in, and what users keep about themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from api.dialects.thethingsio.bodies import answer, read_object, success, text_of
from api.dialects.thethingsio.callers import Caller, Callers
from api.dialects.thethingsio.chain_messages import message_of
from api.dialects.thethingsio.concerns import session_ended
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.parts import Parts
from api.login_throttle import TooManyAttempts
from api.passwords import check_length
from api.transports.http import Request, Response, Route
from api.transports.http_exchange import HttpError
from engine.errors import BadInput, Conflict, NotFound
from engine.message import now_ms
from engine.stores.apps.apps import App, visible
from engine.stores.apps.rights import ALL, named
from engine.stores.apps.sessions import LIVES_S
from engine.stores.apps.users import MOST_SETTINGS_BYTES, User, folded

# What separates addresses in the header of a mail is in none of them.
_PART: Final = r"[^@\s\x00-\x1f\x7f,;:<>()\[\]\"\\]"
_EMAIL: Final = re.compile(f"{_PART}{{1,64}}@{_PART}{{1,189}}")


def email_of(body: dict[str, Any]) -> str:
    """The e-mail address in a body; BadInput."""
    email = text_of(body, "email").strip()
    if not _EMAIL.fullmatch(email):
        raise BadInput("email is not an e-mail address")
    return email


class UserRoutes:
    """`/v2/register`, `/v2/login`, `/v2/me/settings`, `/v2/utils/date`."""

    def __init__(self, parts: Parts, callers: Callers) -> None:
        self._parts, self._callers = parts, callers
        self.routes: Sequence[Route] = (
            Route("POST", "/v2/register", self._register),
            Route("POST", "/v2/login", self._login),
            Route("PUT", "/v2/me/settings", self._put_settings),
            Route("GET", "/v2/me/settings", self._get_settings),
            Route("GET", "/v2/utils/date", self._date),
        )

    async def _register(self, request: Request, names: dict[str, str]) -> Response:
        self._callers.check_tls(request)
        body = await read_object(request)
        app = await self.app(text_of(body, "app"), body)
        user = await self.register(request, app, body)
        return await self.begin(app, user, 201, status="success", message="user created")

    async def register(self, request: Request, app: App, body: dict[str, Any]) -> User:
        """Make a user of an app; BadInput."""
        email, password = email_of(body), text_of(body, "password")
        parts = self._parts
        # Counted first: who is registered is not for trying out.
        await self.count(app, email, request)
        if await parts.users.find(app.id, email) is not None:
            raise BadInput("user already exists")
        try:
            user = await parts.users.add(app.id, email, await parts.passwords.hash(password, ""))
        except Conflict as error:
            raise BadInput(error.reason) from error
        await parts.intake.submit([message_of(app, user, "USER_CREATED", {"userId": user.id, "email": user.email})])
        return user

    async def _login(self, request: Request, names: dict[str, str]) -> Response:
        self._callers.check_tls(request)
        body = await read_object(request)
        email, password, app = email_of(body), text_of(body, "password"), await self.app(text_of(body, "app"), body)
        parts = self._parts
        await self.count(app, email, request)
        user = await parts.users.find(app.id, email)
        if not await parts.passwords.verify(user.password if user else "", password) or user is None:
            raise HttpError(401, "Invalid credentials")
        await parts.throttle.succeeded(f"{app.id}/{folded(email)}", request.client)
        return await self.begin(app, user, 200)

    async def count(self, app: App, email: str, request: Request) -> None:
        """Count an attempt to be somebody; 429 after too many."""
        try:
            await self._parts.throttle.attempt(f"{app.id}/{folded(email)}", request.client)
        except TooManyAttempts as error:
            raise HttpError(429, str(error), ((b"retry-after", b"%d" % error.retry_after_s),)) from error

    async def app(self, id: str, body: dict[str, Any]) -> App:
        """The app of an id, which a body may name too; BadInput."""
        app = await self._parts.apps.find(id)
        if app is None or body.get("app", id) != id:
            raise BadInput("invalid app")
        return app

    async def begin(self, app: App, user: User, http_status: int, **more: str) -> Response:
        """Log a user in."""
        token = await self._parts.sessions.begin(user)
        roles = await self._roles(app, user)
        return answer({"token": token, "expirationDate": LIVES_S, "roles": roles, **more}, http_status)

    async def _roles(self, app: App, user: User) -> dict[str, dict[str, dict[str, bool]]]:
        """What the user may do (`TTI-12`): all with their own group, and on each thing what it is."""
        parts = self._parts
        product = await parts.registry.find_product(app.product)
        resources = visible(app, product) if product is not None and product.tenant == app.tenant else ()
        roles = {resource: {user.group: named(ALL)} for resource in resources}
        rights = await parts.rights.read(app.id, await parts.rights.things(app.id, user.key))
        for thing, each in rights.items():
            for resource, bits in each.resources(user.key, resources).items():
                roles[resource][thing] = named(bits)
        return {f"RSRC_{resource}": things for resource, things in roles.items()}

    # What users keep about themselves

    async def _put_settings(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._callers.of(request)
        values = await read_object(request, MOST_SETTINGS_BYTES + 1024)
        password = text_of(values, "password") if "password" in values else ""
        if password:
            check_length(password, "/password")
            del values["password"]
        # What may be refused comes first, so that nothing is done by halves.
        if values:
            await self._parts.users.change_settings(caller.user, values)
        if password:
            await self.change_password(caller, password)
        return success("updated")

    async def change_password(self, caller: Caller, password: str) -> None:
        """Set another password: all other sessions of the user end, this one goes on (`TTI-S6`)."""
        parts = self._parts
        try:
            changed = await parts.users.set_password(caller.user, await parts.passwords.hash(password, ""))
        except NotFound as error:
            raise HttpError(401, str(error)) from error
        await parts.sessions.go_on(caller.print_, changed)
        await session_ended(parts, caller.app, [caller.user.key])

    async def _get_settings(self, request: Request, names: dict[str, str]) -> Response:
        caller = await self._callers.of(request)
        return answer(await self._parts.users.settings(caller.user))

    async def _date(self, request: Request, names: dict[str, str]) -> Response:
        await self._callers.of(request)
        now = now_ms()
        match request.query.get("format", "UTC"):
            case "UTC":
                date: str | int = iso(now)
            case "unix_timestamp":
                date = now // 1000
            case other:
                raise BadInput(f"format is UTC or unix_timestamp, not {other[:40]!r}")
        return answer({"date": date, "values": [{"value": date}]})
