"""Apps and activation codes in bootstrap files."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from engine.stores.apps.activations import Activations
from engine.stores.apps.apps import App, Apps
from engine.stores.registry_store import Registry


class AppEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An app of the thethings.iO dialect."""

    tenant: str
    id: Annotated[str, Meta(description="What its users register with: 8 to 22 letters, digits, _ -.")]
    product: Annotated[str, Meta(description="Whose things its users link.")]
    name: str = ""
    resources: Annotated[
        list[str], Meta(description="What it asks for; it gets those that its product has made public.")
    ] = []


class CodeEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code that activates one thing of a product, once. One that is used is not made again."""

    tenant: str
    product: str
    code: Annotated[str, Meta(min_length=16, max_length=128)]


async def make_app(apps: Apps, entry: AppEntry) -> bool:
    """Make an app as it is asked for; whether it was not so before."""
    known = await apps.find(entry.id)
    wanted = App(
        id=entry.id, tenant=entry.tenant, product=entry.product, name=entry.name, resources=entry.resources
    )  # fmt: skip
    if known is not None and known == replace(wanted, created_ms=known.created_ms):
        return False
    await apps.put(wanted)
    return True


async def make_code(activations: Activations, registry: Registry, entry: CodeEntry) -> bool:
    """Make a code good for a thing; whether it was not so before. NotFound for its product."""
    await registry.product(entry.tenant, entry.product)
    return await activations.offer(entry.tenant, entry.product, entry.code)
