"""Tenants in bootstrap files."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from chains.repository import DEFAULT_ROOT
from engine.errors import NotFound
from engine.stores.registry import Tenant
from engine.stores.registry_store import Registry


class TenantEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant."""

    name: str
    root_chain: Annotated[str, Meta(description="The chain that its messages start in.")] = DEFAULT_ROOT


async def put_tenant(registry: Registry, entry: TenantEntry) -> bool:
    """Make a tenant as it is asked for; whether it was not so before. BadInput for its name."""
    try:
        known = await registry.tenant(entry.name)
    except NotFound:
        known = None
    if known is not None and known.root_chain == entry.root_chain:
        return False
    await registry.put_tenant(Tenant(name=entry.name, root_chain=entry.root_chain))
    return True
