"""Who calls: the session of a token with its user, app and product, as they are now."""

from __future__ import annotations

from typing import Final, NamedTuple

from api.dialects.thethingsio.parts import Parts
from api.transports.http_exchange import HttpError, Request
from engine.node import Product
from engine.stores.apps.apps import App, visible
from engine.stores.apps.rights import ThingRights
from engine.stores.apps.sessions import digest
from engine.stores.apps.users import User
from engine.stores.registry import Device

INVALID_SESSION: Final = "Invalid session token"
"""Of every call without a session that holds (`TTI-3`)."""


class Caller(NamedTuple):
    """A user of an app. `resources` are those that the app may see; a right on any other counts nothing."""

    app: App
    product: Product
    user: User
    print_: str
    """The session's digest."""
    resources: tuple[str, ...]

    @property
    def tenant(self) -> str:
        """Whose app it is."""
        return self.app.tenant


class Callers:
    """Finds callers, and what they may see."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def check_tls(self, request: Request) -> None:
        """Refuse an app without TLS (`TTI-S1`)."""
        if self._parts.settings.require_tls and not request.tls:
            raise HttpError(403, "HTTPS required")

    async def of(self, request: Request) -> Caller:
        """The caller of a request; 403 without TLS, 401 without a session that holds."""
        self.check_tls(request)
        token = request.header("authorization") or ""
        # Some clients put a scheme before it (TTI-S6).
        caller = await self.by_token(token.removeprefix("Bearer ").strip())
        if caller is None:
            raise HttpError(401, INVALID_SESSION)
        return caller

    async def by_token(self, token: str) -> Caller | None:
        """The caller of a session token."""
        return await self.by_print(digest(token)) if token else None

    async def by_print(self, print_: str) -> Caller | None:
        """The caller of a session's digest, None once it has expired, or the user, the password or the app is gone."""
        parts = self._parts
        session = await parts.sessions.find(print_)
        if session is None:
            return None
        user = await parts.users.find(session.app, session.user)
        app = await parts.apps.find(session.app)
        if user is None or app is None or user.generation != session.generation:
            return None
        product = await parts.registry.find_product(app.product)
        if product is None or product.tenant != app.tenant:
            product = Product(id=app.product, tenant=app.tenant)
        return Caller(app, product, user, print_, visible(app, product))

    async def things(self, caller: Caller) -> dict[str, ThingRights]:
        """Things on which the caller has any right on any visible resource, with the rights of all, by id."""
        parts = self._parts
        rights = await parts.rights.read(caller.app.id, await parts.rights.things(caller.app.id, caller.user.key))
        return {thing: each for thing, each in rights.items() if each.resources(caller.user.key, caller.resources)}

    async def thing(self, caller: Caller, id: str) -> tuple[Device, ThingRights]:
        """A thing of the app's product and its rights; 404 for one that is not (`TTI-S8`)."""
        device = await self._parts.auth.by_id(id)
        if device is None or device.tenant != caller.tenant or device.product != caller.app.product:
            raise HttpError(404, "Thing not found")
        return device, (await self._parts.rights.read(caller.app.id, [id]))[id]

    def check_resource(self, caller: Caller, resource: str) -> None:
        """404 for a resource that the app has not, or that is private (`TTI-6`, `TTI-S9`)."""
        if resource not in caller.resources:
            raise HttpError(404, "Resource not found")


def check_right(rights: ThingRights, caller: Caller, resource: str, wanted: int) -> None:
    """403 unless the caller has all the wanted rights (bits of `rights`) on the resource of a thing."""
    if wanted & ~rights.of(caller.user.key, resource):
        raise HttpError(403, "Permission denied")
