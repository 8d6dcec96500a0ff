"""Apps: programs of a tenant whose users read and write things of one product."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
import redis.asyncio as redis

from engine.errors import BadInput, Conflict, NotFound
from engine.message import now_ms
from engine.node import Product
from engine.stores.apps.changes import EVERYBODY, tell
from engine.stores.apps.keys import text
from engine.stores.apps.rights import Rights
from engine.stores.register import P
from engine.stores.registry_store import Registry

FACET: Final = "thethingsio"
"""Of a product: `{"public": [resource, …]}`."""
DESCRIPTION: Final = "description"
"""The resource that every app has (`TTI-S5`)."""
MOST_RESOURCES: Final = 100

_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,22}")
_APPS: Final = P + "apps"


class App(msgspec.Struct, frozen=True, kw_only=True):
    """An app. `resources` are what it asks for; what it gets of them are those that its product has made public."""

    id: str
    tenant: str
    product: str
    name: str = ""
    resources: list[str] = []
    created_ms: int = 0


_app = msgspec.json.Decoder(App).decode


def resource_fault(name: Any) -> str:
    """Why something cannot be the name of a resource; empty when it can."""
    if not isinstance(name, str) or not 0 < len(name) <= 255 or name.startswith("$") or "/" in name or "\0" in name:
        return "a resource has 1 to 255 characters without /, and does not begin with $"
    return ""


def public_resources(product: Product) -> frozenset[str]:
    """The resources of a product that apps may have; all others are private (`TTI-6`)."""
    facet = product.facets.get(FACET)
    listed = facet.get("public", []) if isinstance(facet, dict) else []
    return frozenset(name for name in listed if isinstance(name, str))


def visible(app: App, product: Product) -> tuple[str, ...]:
    """The resources that an app's users may have rights on, sorted; `description` always."""
    return tuple(sorted({DESCRIPTION, *(public_resources(product) & set(app.resources))}))


class Apps:
    """All reads and writes of apps. Raises redis errors."""

    def __init__(self, client: redis.Redis, registry: Registry) -> None:
        self._client, self._registry = client, registry

    async def put(self, app: App) -> App:
        """Create or change an app. BadInput, NotFound for its product, Conflict for the id of another tenant's app."""
        if not _ID.fullmatch(app.id):
            raise BadInput("an app's id has 8 to 22 letters, digits, _ -", "/id")
        if len(app.resources) > MOST_RESOURCES:
            raise BadInput(f"an app has at most {MOST_RESOURCES} resources", "/resources")
        for i, name in enumerate(app.resources):
            if fault := resource_fault(name):
                raise BadInput(fault, f"/resources/{i}")
        await self._registry.product(app.tenant, app.product)
        known = await self.find(app.id)
        if known is not None and known.tenant != app.tenant:
            raise Conflict(f"app {app.id!r} exists already")
        if known is not None and known.product != app.product:
            raise Conflict(f"app {app.id!r} is of the product {known.product!r}, whose things its users have linked")
        made = msgspec.structs.replace(app, created_ms=known.created_ms if known else now_ms())
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(_APPS, made.id, msgspec.json.encode(made))
            pipe.sadd(_index(made.tenant), made.id)
            await pipe.execute()
        await tell(self._client, made.tenant, made.id, [EVERYBODY])
        return made

    async def find(self, id: str) -> App | None:
        """An app of any tenant."""
        blob = await self._client.hget(_APPS, id)
        return None if blob is None else _app(blob)

    async def app(self, tenant: str, id: str) -> App:
        """An app of the tenant; NotFound."""
        found = await self.find(id)
        if found is None or found.tenant != tenant:
            raise NotFound("app", id)
        return found

    async def of(self, tenant: str) -> list[App]:
        """A tenant's apps by id."""
        ids = sorted(text(id) for id in await self._client.smembers(_index(tenant)))
        return [_app(blob) for blob in await self._client.hmget(_APPS, ids) if blob] if ids else []

    async def product_changed(self, product: Product) -> None:
        """Have all that follows resources of a product look again whether they are public."""
        for app in await self.of(product.tenant):
            if app.product == product.id:
                await tell(self._client, app.tenant, app.id, [EVERYBODY])

    async def delete(self, tenant: str, id: str) -> App:
        """Forget an app and, with it, its users, rights and objects; NotFound."""
        found = await self.app(tenant, id)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hdel(_APPS, id)
            pipe.srem(_index(tenant), id)
            await pipe.execute()
        # Nobody gets in any more; what is left is found by its hash tag.
        async for key in self._client.scan_iter(match=f"rm:{{app-{id}}}:*", count=1000):
            await self._client.unlink(key)
        await tell(self._client, tenant, id, [EVERYBODY])
        return found

    async def forget_thing(self, tenant: str, thing: str) -> None:
        """A device is gone, or of another product: nobody has rights on it in any app of the tenant."""
        rights = Rights(self._client)
        for app in await self.of(tenant):
            if concerned := await rights.forget_thing(app.id, thing):
                await tell(self._client, tenant, app.id, concerned)


def _index(tenant: str) -> str:
    return f"{P}apps:{tenant}"
