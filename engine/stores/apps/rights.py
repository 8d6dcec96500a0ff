"""Who may do what with a thing in an app: its owner everything, others what they were granted.

All grants of a thing stand in one hash: who got what for which resource, from whom. What somebody may do is worked out
from it when it is asked: a grant is worth no more than its giver's own rights at that time, so that whatever is taken
from the giver is taken from everybody behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import redis.asyncio as redis

from engine.errors import BadInput, Conflict
from engine.stores.apps.keys import app_key, text

GET, POST, GRANT, PUT, DELETE = 1, 2, 4, 8, 16
ALL: Final = GET | POST | GRANT | PUT | DELETE
NAMES: Final[Mapping[str, int]] = {"get": GET, "post": POST, "grant": GRANT, "put": PUT, "delete": DELETE}
"""Rights by the names that apps use (`TTI-12`), in the order they are shown."""
MOST_GRANTS: Final = 1000
"""Grants of one thing."""
_OWNER: Final = "owner"


def named(rights: int) -> dict[str, bool]:
    """Rights as apps are shown them."""
    return {name: bool(rights & bit) for name, bit in NAMES.items()}


@dataclass(slots=True)
class ThingRights:
    """Everything granted on one thing in one app. People are named by their folded e-mail address."""

    owner: str = ""
    grants: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """(Who, resource) to givers with what they gave."""

    def of(self, who: str, resource: str) -> int:
        """What somebody may do now."""
        if who == self.owner:
            return ALL
        return self._all(resource).get(who, 0) if (who, resource) in self.grants else 0

    def _all(self, resource: str) -> dict[str, int]:
        """What everybody may do with a resource: from the owner outwards, until nothing more comes of it."""
        found = {self.owner: ALL} if self.owner else {}
        changed = True
        while changed:
            changed = False
            for (who, what), givers in self.grants.items():
                if what != resource or who == self.owner:
                    continue
                had = found.get(who, 0)
                has = had
                for giver, given in givers.items():
                    theirs = found.get(giver, 0)
                    if theirs & GRANT:
                        has |= given & theirs
                if has != had:
                    found[who] = has
                    changed = True
        return found

    def resources(self, who: str, visible: Iterable[str]) -> dict[str, int]:
        """Of the visible resources those on which somebody has any right, with what it is."""
        found = {resource: self.of(who, resource) for resource in visible}
        return {resource: rights for resource, rights in found.items() if rights}

    def people(self) -> set[str]:
        """Everybody who has, or was granted, anything."""
        return {who for who, _ in self.grants} | ({self.owner} if self.owner else set())


class Rights:
    """All reads and writes of rights. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def things(self, app: str, who: str) -> list[str]:
        """Things that somebody owns or was granted anything on, sorted; what it is worth now, `read` tells."""
        return sorted(text(thing) for thing in await self._client.smembers(_things(app, who)))

    async def read(self, app: str, things: Iterable[str]) -> dict[str, ThingRights]:
        """The rights of things, in one round trip."""
        wanted = list(things)
        async with self._client.pipeline(transaction=False) as pipe:
            for thing in wanted:
                pipe.hgetall(_rights(app, thing))
            found = await pipe.execute()
        return {thing: _decoded(table) for thing, table in zip(wanted, found, strict=True)}

    async def link(self, app: str, thing: str, who: str) -> bool:
        """Make somebody the owner; False if they are already. Conflict when the thing has another owner."""
        table = _rights(app, thing)

        async def work(pipe: Any) -> bool:
            owner = await pipe.hget(table, _OWNER)
            pipe.multi()
            if owner is None:
                pipe.hset(table, _OWNER, who)
                pipe.sadd(_things(app, who), thing)
            elif text(owner) != who:
                raise Conflict("the thing is linked to another user")
            return owner is None

        return cast(bool, await self._client.transaction(work, table, value_from_callable=True))

    async def unlink(self, app: str, thing: str, who: str) -> set[str]:
        """End what somebody has on a thing; all that hangs on an owner ends with them. Whom it concerned."""

        def end(rights: ThingRights) -> set[str]:
            if who == rights.owner:
                gone = rights.people()
                rights.owner = ""
                rights.grants.clear()
                return gone
            if not any(person == who for person, _ in rights.grants):
                return set()
            # What others have of them ends too, and does not come back with them.
            concerned = rights.people()
            for grant in [grant for grant in rights.grants if grant[0] == who]:
                del rights.grants[grant]
            for givers in rights.grants.values():
                givers.pop(who, None)
            return concerned

        return await self._change(app, thing, end)

    async def forget_thing(self, app: str, thing: str) -> set[str]:
        """The thing is no more. Whom it concerned."""

        def end(rights: ThingRights) -> set[str]:
            gone = rights.people()
            rights.owner = ""
            rights.grants.clear()
            return gone

        return await self._change(app, thing, end)

    async def grant(
        self, app: str, thing: str, giver: str, receiver: str, wanted: Mapping[str, Mapping[str, bool]]
    ) -> set[str]:
        """Give and take rights by resource (`TTI-23`): True gives, False takes back. Whom it concerned.

        The giver takes back what they gave; the owner, what anybody gave. Conflict when the giver lacks the right to
        grant, or one that they would give (`TTI-25`): then nothing is changed. BadInput over MOST_GRANTS.
        """

        def change(rights: ThingRights) -> set[str]:
            for resource, asked in wanted.items():
                has = rights.of(giver, resource)
                given = sum(NAMES[name] for name, on in asked.items() if on)
                if not has & GRANT or given & ~has:
                    raise Conflict(f"you cannot grant this on {resource!r}")
                taken = sum(NAMES[name] for name, on in asked.items() if not on)
                givers = rights.grants.setdefault((receiver, resource), {})
                givers[giver] = givers.get(giver, 0) & ~taken | given
                if giver == rights.owner:
                    for other in givers:
                        givers[other] &= ~taken
            if sum(len(givers) for givers in rights.grants.values()) > MOST_GRANTS:
                raise BadInput(f"a thing has at most {MOST_GRANTS} grants")
            return {receiver}

        return await self._change(app, thing, change)

    async def forget_person(self, app: str, who: str) -> dict[str, set[str]]:
        """Somebody is no more: end what they have on all things. Whom it concerned, by thing."""
        return {thing: await self.unlink(app, thing, who) for thing in await self.things(app, who)}

    async def _change(self, app: str, thing: str, change: Callable[[ThingRights], set[str]]) -> set[str]:
        table = _rights(app, thing)

        async def work(pipe: Any) -> set[str]:
            rights = _decoded(await pipe.hgetall(table))
            before = rights.people()
            concerned = change(rights)
            fields = _encoded(rights)
            after = rights.people()
            pipe.multi()
            pipe.delete(table)
            if fields:
                pipe.hset(table, mapping=fields)
            for who in after - before:
                pipe.sadd(_things(app, who), thing)
            for who in before - after:
                pipe.srem(_things(app, who), thing)
            return concerned

        return cast(set[str], await self._client.transaction(work, table, value_from_callable=True))


def _decoded(table: Mapping[Any, Any]) -> ThingRights:
    rights = ThingRights()
    for raw, value in table.items():
        name = text(raw)
        if name == _OWNER:
            rights.owner = text(value)
        else:
            who, resource, giver = name.split("\0")
            rights.grants.setdefault((who, resource), {})[giver] = int(value)
    return rights


def _encoded(rights: ThingRights) -> dict[str, str]:
    fields = {
        f"{who}\0{resource}\0{giver}": str(given)
        for (who, resource), givers in rights.grants.items()
        for giver, given in givers.items()
        if given
    }
    if rights.owner:
        fields[_OWNER] = rights.owner
    rights.grants = {grant: givers for grant, givers in rights.grants.items() if any(givers.values())}
    return fields


def _rights(app: str, thing: str) -> str:
    return app_key(app, "rights", thing)


def _things(app: str, who: str) -> str:
    return app_key(app, "things", who)
