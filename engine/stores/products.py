"""Products and secrets as a worker sees them: kept in memory, at most a second old."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from engine.errors import NotFound
from engine.node import Product
from engine.stores.registry_store import Registry

FRESH_S: Final = 1.0
MOST: Final = 10_000


class Products:
    """A tenant's products by id."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: OrderedDict[tuple[str, str], tuple[Product | None, float]] = OrderedDict()

    async def find(self, tenant: str, id: str) -> Product | None:
        """A product of the tenant, None if there is none."""
        key, now = (tenant, id), time.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[1] < FRESH_S:
            return known[0]
        try:
            found: Product | None = await self._registry.product(tenant, id)
        except NotFound:
            found = None
        self._known[key] = (found, now)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return found


class Secrets:
    """Tenants' secrets: read when a plan is compiled, looked up while it runs."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, Mapping[str, str]] = {}

    async def of(self, tenant: str) -> Mapping[str, str]:
        """All secrets of a tenant, read now."""
        found = self._known[tenant] = await self._registry.secrets(tenant)
        return found

    def get(self, tenant: str, name: str) -> str | None:
        """A secret, as it was when last read."""
        return self._known.get(tenant, {}).get(name)
