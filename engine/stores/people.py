"""People in Redis: who may log in as a person, of which tenant, in which role.

Names are unique over the server, whatever their case, since a login names no tenant.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeVar

import msgspec
import redis.asyncio as redis

from engine.errors import BadInput, Conflict, NotFound
from engine.message import now_ms
from engine.stores.register import P

T = TypeVar("T")

Role = Literal["tenant_admin", "customer"]
"""`tenant_admin` sees all of the tenant, `customer` the devices that they own."""

_PEOPLE: Final = P + "people"
_NAMES: Final = P + "people-names"


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who logs in with a password."""

    id: str = ""
    tenant: str
    username: str
    """As it was given; an e-mail address as a rule."""
    role: Role
    enabled: bool = True
    created_ms: int = 0
    password: str = ""
    """The hash; empty: nobody can log in."""
    generation: int = 1
    """Grows with every change that ends what was given to this person before: tokens name it."""


_person = msgspec.json.Decoder(Person).decode


def folded(username: str) -> str:
    """The one spelling that a name is found by."""
    return username.strip().casefold()


class People:
    """All reads and writes of people. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def add(self, person: Person) -> Person:
        """Create a person; the id is made up. BadInput, Conflict for a name that is taken."""
        name = folded(person.username)
        if not name or len(person.username) > 255 or any(ord(c) < 32 for c in person.username):
            raise BadInput("a user name has 1 to 255 characters, none of them a control character", "/username")
        person = msgspec.structs.replace(
            person, id=str(uuid.uuid4()), username=person.username.strip(), created_ms=now_ms()
        )

        async def work(pipe: Any) -> Person:
            if await pipe.hexists(_NAMES, name):
                raise Conflict(f"another person has the name {person.username!r}")
            pipe.multi()
            pipe.hset(_PEOPLE, person.id, msgspec.json.encode(person))
            pipe.hset(_NAMES, name, person.id)
            pipe.hset(_index(person.tenant), name, person.id)
            return person

        return await self._alone(work)

    async def find(self, id: str) -> Person | None:
        """A person of any tenant by id."""
        blob = await self._client.hget(_PEOPLE, id)
        return None if blob is None else _person(blob)

    async def named(self, username: str) -> Person | None:
        """A person of any tenant by name."""
        id = await self._client.hget(_NAMES, folded(username))
        return None if id is None else await self.find(_text(id))

    async def person(self, tenant: str, id: str) -> Person:
        """A person of the tenant, by id or name; NotFound."""
        found = await self.find(id) or await self.named(id)
        if found is None or found.tenant != tenant:
            raise NotFound("person", id)
        return found

    async def of(self, tenant: str, *, limit: int = 100, after: str = "") -> list[Person]:
        """A tenant's people by name, those after the name `after`."""
        names = sorted((_text(name), id) for name, id in (await self._client.hgetall(_index(tenant))).items())
        ids = [_text(id) for name, id in names if name > folded(after)][:limit]
        return [_person(blob) for blob in await self._client.hmget(_PEOPLE, ids) if blob] if ids else []

    async def change(self, tenant: str, id: str, change: Callable[[Person], Person]) -> Person:
        """Make a change of one person, none lost between two at once; NotFound.

        Everything but the id, the tenant and the name may change. One that takes something away (another password or
        role, disabling) ends what was given before.
        """
        known = await self.person(tenant, id)

        async def work(pipe: Any) -> Person:
            blob = await pipe.hget(_PEOPLE, known.id)
            if blob is None:
                raise NotFound("person", id)
            before = _person(blob)
            after = change(before)
            kept = msgspec.structs.replace(
                after, id=before.id, tenant=before.tenant, username=before.username, created_ms=before.created_ms,
                generation=before.generation + _ends(before, after),
            )  # fmt: skip
            pipe.multi()
            pipe.hset(_PEOPLE, kept.id, msgspec.json.encode(kept))
            return kept

        return await self._alone(work)

    async def delete(self, tenant: str, id: str) -> Person:
        """Forget a person; NotFound."""
        known = await self.person(tenant, id)
        name = folded(known.username)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hdel(_PEOPLE, known.id)
            pipe.hdel(_NAMES, name)
            pipe.hdel(_index(tenant), name)
            await pipe.execute()
        return known

    async def _alone(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run work that reads and then queues its writes, again whenever another writer came between."""
        async with self._client.pipeline(transaction=True) as pipe:
            while True:
                try:
                    await pipe.watch(_PEOPLE, _NAMES)
                    made = await work(pipe)
                    await pipe.execute()
                    return made
                except redis.WatchError:
                    continue


def _ends(before: Person, after: Person) -> bool:
    taken = before.enabled and not after.enabled
    return taken or (before.password, before.role) != (after.password, after.role)


def _index(tenant: str) -> str:
    return f"{P}people:{tenant}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
