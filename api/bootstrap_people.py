"""People in bootstrap files."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from api.accounts import Accounts
from engine.errors import Conflict
from engine.stores.people import Role


class PersonEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who logs in with a password."""

    tenant: str
    username: Annotated[str, Meta(description="Unique over the server, whatever its case.")]
    password: str
    role: Annotated[Role, Meta(description="`customer` sees the devices that they claimed.")] = "tenant_admin"
    enabled: bool = True


async def put_person(accounts: Accounts, entry: PersonEntry) -> bool:
    """Make a person as they are asked for; whether they were not so before. BadInput, Conflict."""
    wanted = {"role": entry.role, "enabled": entry.enabled}
    known = await accounts.people.named(entry.username)
    if known is None:
        await accounts.add(entry.tenant, entry.username, entry.password, entry.role, enabled=entry.enabled)
    elif known.tenant != entry.tenant:
        raise Conflict(f"another tenant's person has the name {entry.username!r}")
    elif not await accounts.is_password(known, entry.password):
        kept = await accounts.hashed(entry.password)
        await accounts.people.change(known.tenant, known.id, lambda old: replace(old, password=kept, **wanted))
    elif (known.role, known.enabled) != (entry.role, entry.enabled):
        await accounts.people.change(known.tenant, known.id, lambda old: replace(old, **wanted))
    else:
        return False
    return True
