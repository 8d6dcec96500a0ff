"""Products in bootstrap files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.errors import NotFound
from engine.node import Product
from engine.stores.apps.apps import Apps
from engine.stores.registry_store import Registry

_KEYS: Final = ("id", "tenant", "name")


def product_of(entry: Mapping[str, Any]) -> Product:
    """The product that an entry of the right shape describes: all but its own keys are facets."""
    facets = {key: value for key, value in entry.items() if key not in _KEYS}
    return Product(id=entry["id"], tenant=entry["tenant"], name=entry.get("name", ""), facets=facets)


async def put_product(registry: Registry, apps: Apps | None, wanted: Product) -> bool:
    """Make a product as it is asked for; whether it was not so before. Conflict for another tenant's id."""
    try:
        known = await registry.product(wanted.tenant, wanted.id)
    except NotFound:
        known = None
    if known is not None and (known.name, known.facets) == (wanted.name, wanted.facets):
        return False
    kept = await registry.put_product(wanted)
    if apps is not None:
        await apps.product_changed(kept)
    return True
