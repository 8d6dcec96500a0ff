"""Sessions of app users: a token for a year, kept as its SHA-256 only."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, cast

import msgspec
import redis.asyncio as redis

from engine.message import now_ms
from engine.stores.apps.keys import app_key, text
from engine.stores.apps.users import User
from engine.stores.register import P

LIVES_S: Final = 31_536_000
"""How long a session holds (`TTI-11`)."""
MOST: Final = 100
"""Sessions of one user; with one more, the oldest ends."""


class Session(msgspec.Struct, frozen=True, array_like=True):
    """What a token stands for: it holds while the user's generation is the one it names."""

    app: str
    user: str
    generation: int
    expires_ms: int


_session = msgspec.msgpack.Decoder(Session).decode


def digest(token: str) -> str:
    """How a token is kept."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


class Sessions:
    """All reads and writes of sessions. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def begin(self, user: User) -> str:
        """A new token of 27 URL-safe characters (`TTI-S6`)."""
        token = secrets.token_urlsafe(20)
        await self._keep(digest(token), user)
        index = app_key(user.app, "sessions", user.key)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zadd(index, {digest(token): now_ms()})
            pipe.expire(index, LIVES_S)
            pipe.zrange(index, 0, -(MOST + 1))
            old = (await pipe.execute())[2]
        if old:
            for each in old:
                await self._client.unlink(_key(text(each)))
            await self._client.zrem(index, *old)
        return token

    async def go_on(self, print_: str, user: User) -> None:
        """Let the session of a digest hold for a user whose password was changed in it."""
        await self._keep(print_, user)

    async def end_all(self, user: User) -> None:
        """End all sessions of a user."""
        index = app_key(user.app, "sessions", user.key)
        # They lie in slots of their own.
        for each in cast(list[bytes], await self._client.zrange(index, 0, -1)):
            await self._client.unlink(_key(text(each)))
        await self._client.unlink(index)

    async def _keep(self, print_: str, user: User) -> None:
        session = Session(user.app, user.key, user.generation, now_ms() + LIVES_S * 1000)
        await self._client.set(_key(print_), msgspec.msgpack.encode(session), ex=LIVES_S)

    async def find(self, print_: str) -> Session | None:
        """What a token of this digest stands for; whether it still holds is for who knows the user."""
        blob = cast(bytes | None, await self._client.get(_key(print_)))
        session = None if blob is None else _session(blob)
        return session if session is not None and session.expires_ms > now_ms() else None


def _key(print_: str) -> str:
    return f"{P}app-session:{print_}"
