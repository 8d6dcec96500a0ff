"""Tenants and their secrets."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from chains.repository import DEFAULT_ROOT
from engine.errors import BadInput, NotFound
from engine.stores.registry import NAME, Tenant


class TenantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set of a tenant."""

    root_chain: Annotated[str, Meta(description="The chain that messages start in.")] = DEFAULT_ROOT


class TenantList(msgspec.Struct, frozen=True):
    """All tenants by name."""

    tenants: list[Tenant]


class SecretBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret's value."""

    value: Annotated[str, Meta(min_length=1, max_length=10_000, description="Never given out again.")]


class SecretList(msgspec.Struct, frozen=True):
    """Names of a tenant's secrets."""

    secrets: list[str]


async def list_tenants(parts: Parts, call: Call) -> Answer:
    """All tenants."""
    return Answer(200, TenantList(await parts.registry.tenants()))


async def get_tenant(parts: Parts, call: Call) -> Answer:
    """One tenant."""
    return Answer(200, await parts.registry.tenant(call.tenant))


async def put_tenant(parts: Parts, call: Call) -> Answer:
    """Create or change a tenant; a new one gets the default chain."""
    name, wanted = call.tenant, call.body.root_chain
    try:
        known: Tenant | None = await parts.registry.tenant(name)
    except NotFound:
        known = None
    if known is None:
        if wanted != DEFAULT_ROOT and wanted not in [info.name for info in await parts.repository.list(name)]:
            raise NotFound("chain", wanted)
        known = await parts.registry.put_tenant(Tenant(name=name))
        status = 201
    else:
        status = 200
    await parts.repository.ensure_default(name)
    await set_root(parts, name, wanted)
    return Answer(status, await parts.registry.tenant(name))


async def set_root(parts: Parts, tenant: str, root: str) -> None:
    """Deploy with another root chain if it is another, and let the tenant say so."""
    current = await parts.repository.current(tenant)
    if current is None or current.root != root:
        chains = {} if current is not None and root in current.chains else {root: None}
        await parts.repository.deploy(tenant, chains, root, f"root chain {root}")
    await note_root(parts, tenant)


async def note_root(parts: Parts, tenant: str) -> None:
    """Let the tenant name the root of what is deployed now."""
    current = await parts.repository.current(tenant)
    known = await parts.registry.tenant(tenant)
    if current is not None and current.root != known.root_chain:
        await parts.registry.put_tenant(msgspec.structs.replace(known, root_chain=current.root))


async def list_secrets(parts: Parts, call: Call) -> Answer:
    """Names only."""
    return Answer(200, SecretList(sorted(await parts.registry.secrets(call.tenant))))


async def put_secret(parts: Parts, call: Call) -> Answer:
    """Set a secret; chains see the new value within moments."""
    name = call.path["secret"]
    if not NAME.fullmatch(name):
        raise BadInput("a secret's name has 1 to 64 letters, digits, _ . -")
    await parts.registry.put_secret(call.tenant, name, call.body.value)
    return Answer(204)


async def delete_secret(parts: Parts, call: Call) -> Answer:
    """Remove a secret."""
    name = call.path["secret"]
    if name not in await parts.registry.secrets(call.tenant):
        raise NotFound("secret", name)
    await parts.registry.put_secret(call.tenant, name, None)
    return Answer(204)


ONE: Final = BASE + "/tenants/{tenant}"

OPERATIONS: Final = (
    Operation(
        method="GET", path=BASE + "/tenants", id="list_tenants", summary="List all tenants",
        handler=list_tenants, answers={200: TenantList},
    ),
    Operation(
        method="GET", path=ONE, id="get_tenant", summary="Show a tenant", handler=get_tenant, answers={200: Tenant},
    ),
    Operation(
        method="PUT", path=ONE, id="put_tenant", summary="Create or change a tenant", handler=put_tenant,
        answers={200: Tenant, 201: Tenant}, body=TenantBody, makes_tenant=True, problems=(409,),
    ),
    Operation(
        method="GET", path=ONE + "/secrets", id="list_secrets", summary="List the names of a tenant's secrets",
        handler=list_secrets, answers={200: SecretList},
    ),
    Operation(
        method="PUT", path=ONE + "/secrets/{secret}", id="put_secret", summary="Set a secret", handler=put_secret,
        answers={204: None}, body=SecretBody,
    ),
    Operation(
        method="DELETE", path=ONE + "/secrets/{secret}", id="delete_secret", summary="Remove a secret",
        handler=delete_secret, answers={204: None},
    ),
)  # fmt: skip
