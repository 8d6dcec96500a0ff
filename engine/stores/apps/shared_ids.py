"""Ids that a thing and its user both announce, so that they find each other (`TTI-X10`).

An id such as a serial number is easily guessed, so it counts only among the things and the users of one product, once,
for a day, and only while nobody else announces it: what is ambiguous links nobody.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

import redis.asyncio as redis

from engine.errors import BadInput
from engine.message import now_ms
from engine.stores.apps.keys import text
from engine.stores.apps.sessions import digest
from engine.stores.register import P

LIVES_S: Final = 86_400
"""How long an announcement holds."""
MOST: Final = 4
"""Announcements of one id that are kept on each side: from two on nobody is linked, so more need not be told apart."""
_SEPARATOR: Final = "\0"
_THING, _PERSON = "t", "p"


class Thing(NamedTuple):
    """A thing that announces an id."""

    id: str


class Person(NamedTuple):
    """A user of an app that does; by their folded address."""

    app: str
    who: str


Announcer = Thing | Person


class SharedIds:
    """All announcements. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def announce(self, product: str, shared_id: str, announcer: Announcer) -> Announcer | None:
        """Who announced the id on the other side; None: nobody yet, and this announcement waits for a day.

        The id is used up by that: of several who would complete it, one does. BadInput when more than one announced it
        on either side; then all of them have to begin anew.
        """
        key = f"{P}shared-id:{digest(product + _SEPARATOR + shared_id)}"
        mine = _field(announcer)

        async def work(pipe: Any) -> Announcer | None:
            now = now_ms()
            kept = {text(name): int(until) for name, until in (await pipe.hgetall(key)).items()}
            live = {name for name, until in kept.items() if until > now}
            own = {name for name in live if name[0] == mine[0]} | {mine}
            others = live - own
            pipe.multi()
            if others:
                pipe.delete(key)
                return _announcer(others.pop()) if len(own) == len(others) == 1 else None
            if stale := kept.keys() - live:
                pipe.hdel(key, *stale)
            if mine in live or len(own) <= MOST:
                pipe.hset(key, mine, now + LIVES_S * 1000)
                pipe.expire(key, LIVES_S)
            return announcer

        found = cast(Announcer | None, await self._client.transaction(work, key, value_from_callable=True))
        if found is None:
            raise BadInput("several have announced this id: nobody is linked; announce it again")
        return None if found == announcer else found


def _field(announcer: Announcer) -> str:
    return _SEPARATOR.join((_THING if isinstance(announcer, Thing) else _PERSON, *announcer))


def _announcer(field: str) -> Announcer:
    kind, *names = field.split(_SEPARATOR)
    return Thing(*names) if kind == _THING else Person(*names)
