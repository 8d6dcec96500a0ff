"""People of a tenant: who logs in with a password, and in which role."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine.stores.people import Person, Role

Password = Annotated[str, Meta(description="6 to 1000 characters; kept as a hash, never given out.")]


class PersonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new person."""

    username: Annotated[
        str, Meta(min_length=1, max_length=255, description="Unique over the server, whatever its case.")
    ]
    password: Password
    role: Annotated[
        Role, Meta(description="`tenant_admin` sees all of the tenant, `customer` the devices claimed as their own.")
    ] = "tenant_admin"
    enabled: bool = True


class PersonChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays. Another password or role, and disabling, end all logins of the person."""

    password: Password | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class PersonShown(msgspec.Struct, frozen=True, kw_only=True):
    """A person."""

    id: str
    tenant: str
    username: str
    role: Role
    enabled: bool
    created_ms: int


class PersonList(msgspec.Struct, frozen=True):
    """People by name; `after` continues the list, empty at its end."""

    people: list[PersonShown]
    after: str


class PersonQuery(msgspec.Struct):
    """Which part of the list."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: Annotated[str, Meta(description="People behind this name.")] = ""


def shown(person: Person) -> PersonShown:
    """A person as the API gives one: without the hash."""
    return PersonShown(
        id=person.id, tenant=person.tenant, username=person.username, role=person.role, enabled=person.enabled,
        created_ms=person.created_ms,
    )  # fmt: skip


async def list_people(parts: Parts, call: Call) -> Answer:
    """A part of the tenant's people."""
    query: PersonQuery = call.query
    found = await parts.accounts.people.of(call.tenant, limit=query.limit + 1, after=query.after)
    page = found[: query.limit]
    after = page[-1].username if len(found) > query.limit else ""
    return Answer(200, PersonList([shown(person) for person in page], after))


async def post_person(parts: Parts, call: Call) -> Answer:
    """Create a person."""
    body: PersonBody = call.body
    made = await parts.accounts.add(call.tenant, body.username, body.password, body.role, enabled=body.enabled)
    return Answer(201, shown(made), {"Location": f"{BASE}/tenants/{call.tenant}/people/{made.id}"})


async def get_person(parts: Parts, call: Call) -> Answer:
    """One person, by id or name."""
    return Answer(200, shown(await parts.accounts.people.person(call.tenant, call.path["person"])))


async def patch_person(parts: Parts, call: Call) -> Answer:
    """Change a person."""
    body: PersonChange = call.body
    person = await parts.accounts.people.person(call.tenant, call.path["person"])
    changes: dict[str, Any] = {
        name: value for name in ("role", "enabled") if (value := getattr(body, name)) is not UNSET
    }
    if body.password is not UNSET:
        changes["password"] = await parts.accounts.hashed(body.password)
    made = await parts.accounts.people.change(call.tenant, person.id, lambda known: replace(known, **changes))
    return Answer(200, shown(made))


async def delete_person(parts: Parts, call: Call) -> Answer:
    """Forget a person; all their logins end."""
    person = await parts.accounts.people.person(call.tenant, call.path["person"])
    await parts.accounts.people.delete(call.tenant, person.id)
    return Answer(204)


_ALL: Final = BASE + "/tenants/{tenant}/people"
_ONE: Final = _ALL + "/{person}"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="list_people", summary="List a tenant's people", handler=list_people,
        answers={200: PersonList}, query=PersonQuery,
    ),
    Operation(
        method="POST", path=_ALL, id="post_person", summary="Create a person who logs in with a password",
        handler=post_person, answers={201: PersonShown}, body=PersonBody, problems=(409,),
    ),
    Operation(
        method="GET", path=_ONE, id="get_person", summary="Show a person", handler=get_person,
        answers={200: PersonShown},
    ),
    Operation(
        method="PATCH", path=_ONE, id="patch_person", summary="Change a person's password, role, or whether they may",
        handler=patch_person, answers={200: PersonShown}, body=PersonChange,
    ),
    Operation(
        method="DELETE", path=_ONE, id="delete_person", summary="Delete a person", handler=delete_person,
        answers={204: None},
    ),
)  # fmt: skip
