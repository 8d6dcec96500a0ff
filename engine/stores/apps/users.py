"""Users of apps, found by their e-mail address within the app, whatever its case; and their settings."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
import redis.asyncio as redis
from msgspec.structs import replace

from engine.errors import BadInput, Conflict, NotFound
from engine.message import now_ms
from engine.stores.apps.keys import app_key, text

MOST_SETTINGS_BYTES: Final = 64 * 1024
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user of one app."""

    app: str
    email: str
    """As it was given."""
    id: str = ""
    group: str = ""
    """The id under which they have every right of their own (`TTI-S5`)."""
    password: str = ""
    """The hash."""
    generation: int = 1
    """Another one with every change of the password: sessions name it."""
    created_ms: int = 0

    @property
    def key(self) -> str:
        """What the user is known by in rights and settings."""
        return folded(self.email)


_user = msgspec.json.Decoder(User).decode


def folded(email: str) -> str:
    """The one spelling that an address is found by (`TTI-S4`)."""
    return email.strip().casefold()


class Users:
    """All reads and writes of users. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def add(self, app: str, email: str, password: str) -> User:
        """Create a user with the hash of a password; Conflict for an address that is registered."""
        user = User(
            app=app, email=email.strip(), id=secrets.token_hex(12),
            group="OTLoG_" + "".join(secrets.choice(_LETTERS) for _ in range(8)), password=password,
            # Drawn, so that no session of somebody who had the address before holds for its next owner.
            generation=secrets.randbits(48), created_ms=now_ms(),
        )  # fmt: skip
        # The id first: one that leads nowhere does no harm.
        await self._client.hset(app_key(app, "user-ids"), user.id, user.key)
        if not await self._client.hsetnx(app_key(app, "users"), user.key, msgspec.json.encode(user)):
            await self._client.hdel(app_key(app, "user-ids"), user.id)
            raise Conflict("user already exists")
        return user

    async def find(self, app: str, email: str) -> User | None:
        """The user of an address."""
        blob = await self._client.hget(app_key(app, "users"), folded(email))
        return None if blob is None else _user(blob)

    async def by_id(self, app: str, id: str) -> User:
        """The user of an id; NotFound."""
        key = await self._client.hget(app_key(app, "user-ids"), id)
        user = None if key is None else await self.find(app, text(key))
        if user is None:
            raise NotFound("user", id)
        return user

    async def of(self, app: str) -> list[User]:
        """All users of an app, by address."""
        blobs = await self._client.hvals(app_key(app, "users"))
        return sorted((_user(blob) for blob in blobs), key=lambda user: user.key)

    async def set_password(self, user: User, password: str) -> User:
        """Keep another hash; sessions of before end. NotFound when the user was deleted meanwhile."""
        return await self._change(user, lambda now: replace(now, password=password, generation=now.generation + 1))

    async def _change(self, user: User, change: Callable[[User], User]) -> User:
        table = app_key(user.app, "users")

        async def work(pipe: Any) -> User:
            blob = await pipe.hget(table, user.key)
            if blob is None:
                raise NotFound("user", user.email)
            changed = change(_user(blob))
            pipe.multi()
            pipe.hset(table, user.key, msgspec.json.encode(changed))
            return changed

        return cast(User, await self._client.transaction(work, table, value_from_callable=True))

    async def delete(self, user: User) -> None:
        """Forget a user and their settings; sessions, rights and objects are others' to forget."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hdel(app_key(user.app, "users"), user.key)
            pipe.hdel(app_key(user.app, "user-ids"), user.id)
            pipe.hdel(app_key(user.app, "settings"), user.key)
            await pipe.execute()

    async def settings(self, user: User) -> dict[str, Any]:
        """The user's settings (`TTI-56`)."""
        blob = await self._client.hget(app_key(user.app, "settings"), user.key)
        return {} if blob is None else msgspec.json.decode(blob)

    async def change_settings(self, user: User, values: dict[str, Any]) -> None:
        """Set keys of the settings; None deletes one (`TTI-S17`). BadInput when they get too large."""
        table = app_key(user.app, "settings")

        async def work(pipe: Any) -> None:
            blob = await pipe.hget(table, user.key)
            merged = {**(msgspec.json.decode(blob) if blob else {}), **values}
            kept = msgspec.json.encode({key: value for key, value in merged.items() if value is not None})
            if len(kept) > MOST_SETTINGS_BYTES:
                raise BadInput(f"settings have at most {MOST_SETTINGS_BYTES} bytes")
            pipe.multi()
            pipe.hset(table, user.key, kept)

        await self._client.transaction(work, table)
