"""Objects that users of apps keep: in collections, by primary key; private to their user, or for all users of the app.

A collection is one hash, named by its whole path: listing one reads nothing of any other, and an object may lie below
one that was never made (`TTI-79`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, cast

import msgspec
import redis.asyncio as redis

from engine.errors import BadInput, Conflict, NotFound
from engine.stores.apps.keys import app_key, text

MOST_OBJECT_BYTES: Final = 256 * 1024
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of all objects of one user, and of all that the users of an app share."""
SHARED: Final = "app"
_END: Final = "\0"
"""Behind a scope: neither an address nor a name of a path may have it, so that no two places have one key."""


class Place(NamedTuple):
    """A collection: of an app, in a scope (`app`, or `me:` with the user), by its path without the last key."""

    app: str
    scope: str
    path: tuple[str, ...]

    @property
    def key(self) -> str:
        """Where it stands."""
        return _collections(self.app, self.scope) + "/".join(self.path)

    @property
    def topic(self) -> str:
        """What its changes are told under, on the bus."""
        return f"objects:{self.app}:{self.scope}{_END}{'/'.join(self.path)}"


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """An object as it is kept: whose it is, and the whole of it, its `_id` first, as JSON."""

    owner: str
    body: bytes


_decode = msgspec.msgpack.Decoder(Stored).decode


class Objects:
    """All reads and writes of objects. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def create(self, place: Place, id: str, owner: str, body: dict[str, Any]) -> None:
        """Keep a new object; Conflict if the collection has one of that id, BadInput when there is no room."""
        blob = _encoded(owner, body)

        async def work(pipe: Any) -> None:
            if await pipe.hexists(place.key, id):
                raise Conflict("object already exists")
            await _make_room(pipe, place, len(blob))
            pipe.multi()
            pipe.hset(place.key, id, blob)
            pipe.hincrby(_sizes(place.app), place.scope, len(blob))

        await self._client.transaction(work, place.key)

    async def merge(self, place: Place, id: str, who: str, values: dict[str, Any]) -> dict[str, Any]:
        """Set members of an object and give the whole; NotFound, PermissionError for a shared one of somebody else."""

        async def work(pipe: Any) -> dict[str, Any]:
            blob = await pipe.hget(place.key, id)
            stored = _own(blob, id, who)
            body = {**msgspec.json.decode(stored.body), **values}
            made = _encoded(stored.owner, body)
            await _make_room(pipe, place, len(made) - len(blob))
            pipe.multi()
            pipe.hset(place.key, id, made)
            pipe.hincrby(_sizes(place.app), place.scope, len(made) - len(blob))
            return body

        return cast(dict[str, Any], await self._client.transaction(work, place.key, value_from_callable=True))

    async def delete(self, place: Place, id: str, who: str) -> Any:
        """Forget an object, not those below it, and give its `_id`; NotFound, PermissionError as for `merge`."""

        async def work(pipe: Any) -> Any:
            blob = await pipe.hget(place.key, id)
            stored = _own(blob, id, who)
            pipe.multi()
            pipe.hdel(place.key, id)
            pipe.hincrby(_sizes(place.app), place.scope, -len(blob))
            return msgspec.json.decode(stored.body)["_id"]

        return await self._client.transaction(work, place.key, value_from_callable=True)

    async def get(self, place: Place, id: str) -> msgspec.Raw:
        """An object as JSON; NotFound."""
        blob = cast(bytes | None, await self._client.hget(place.key, id))
        if blob is None:
            raise NotFound("object", id)
        return msgspec.Raw(_decode(blob).body)

    async def list(self, place: Place) -> list[msgspec.Raw]:
        """All objects of a collection as JSON, by id descending (`TTI-72`, `TTI-S19`)."""
        found = cast(dict[bytes, bytes], await self._client.hgetall(place.key))
        ordered = sorted(((_rank(text(id)), blob) for id, blob in found.items()), key=lambda one: one[0], reverse=True)
        return [msgspec.Raw(_decode(blob).body) for _, blob in ordered]

    async def forget_person(self, app: str, who: str) -> Sequence[tuple[Place, Any]]:
        """Forget all private objects of a user, and those that they shared; gives places and `_id` of the latter."""
        scope = private(who)
        async for key in self._client.scan_iter(match=_escaped(_collections(app, scope)) + "*", count=1000):
            await self._client.unlink(key)
        await self._client.hdel(_sizes(app), scope)
        gone = []
        prefix = _collections(app, SHARED)
        async for key in self._client.scan_iter(match=_escaped(prefix) + "*", count=1000):
            place = Place(app, SHARED, tuple(text(key).removeprefix(prefix).split("/")))
            async for id, blob in self._client.hscan_iter(key, count=100):
                if _decode(blob).owner == who:
                    with suppress(NotFound, PermissionError):  # somebody was quicker
                        gone.append((place, await self.delete(place, text(id), who)))
        return gone


def private(who: str) -> str:
    """The scope of a user's own objects."""
    return f"me:{who}"


def _own(blob: bytes | None, id: str, who: str) -> Stored:
    if blob is None:
        raise NotFound("object", id)
    stored = _decode(blob)
    if stored.owner != who:
        raise PermissionError("the object is somebody else's")
    return stored


def _encoded(owner: str, body: dict[str, Any]) -> bytes:
    made = msgspec.json.encode(body)
    if len(made) > MOST_OBJECT_BYTES:
        raise BadInput(f"an object has at most {MOST_OBJECT_BYTES} bytes")
    return msgspec.msgpack.encode(Stored(owner, made))


async def _make_room(pipe: Any, place: Place, more: int) -> None:
    held = int(await pipe.hget(_sizes(place.app), place.scope) or 0)
    if more > 0 and held + more > MOST_BYTES:
        raise BadInput(f"there is no room: all objects together have at most {MOST_BYTES} bytes")


def _rank(id: str) -> tuple[bool, int, str]:
    """Whole numbers by their value, before all others, which go by code point."""
    number = id.isascii() and (id.isdecimal() or (id[:1] == "-" and id[1:].isdecimal())) and len(id) <= 100
    return (not number, int(id) if number else 0, id)


def _collections(app: str, scope: str) -> str:
    """What keys of collections of a scope begin with."""
    return app_key(app, "class", scope) + _END


def _sizes(app: str) -> str:
    return app_key(app, "class-bytes")


def _escaped(pattern: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in pattern)


def path_of(segments: Sequence[str]) -> tuple[str, ...]:
    """Names of a path; BadInput for one that cannot be (`TTI-S20`)."""
    if len(segments) > 64:
        raise BadInput("a path has at most 64 parts")
    for each in segments:
        if not 0 < len(each) <= 128 or "/" in each or "\0" in each:
            raise BadInput(f"names have 1 to 128 characters without /: {each[:40]!r}")
    return tuple(segments)
