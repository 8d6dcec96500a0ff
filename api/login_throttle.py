"""How often somebody may try to log in: counted in Redis, so that all processes share it."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import redis.asyncio as redis

from engine.errors import RulemillError
from engine.stores.register import P

WINDOW_S: Final = 300


class Limits(NamedTuple):
    """Failed attempts within five minutes."""

    pair: int = 10
    """Of one name from one address."""
    address: int = 100
    name: int = 1000
    """Of one name from anywhere: high, so that strangers cannot easily lock somebody out."""


_LIMITS: Final = Limits()


class TooManyAttempts(RulemillError):
    """Nothing is looked at for `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many login attempts, try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class LoginThrottle:
    """Counts attempts of one kind of people (`kind` names whose: they never share a count)."""

    def __init__(self, client: redis.Redis, kind: str, limits: Limits = _LIMITS) -> None:
        self._client, self._kind, self._limits = client, kind, limits

    async def attempt(self, name: str, address: str) -> None:
        """Count an attempt, before anything is done for it; TooManyAttempts over a limit. Raises redis errors."""
        keys = self._keys(name, address)
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.incr(key)
                pipe.expire(key, WINDOW_S, nx=True)
                pipe.ttl(key)
            replies = await pipe.execute()
        waits = [
            max(left_s, 1)
            for count, left_s, most in zip(replies[::3], replies[2::3], self._limits, strict=True)
            if count > most
        ]
        if waits:
            raise TooManyAttempts(max(waits))

    async def succeeded(self, name: str, address: str) -> None:
        """The attempt was a login: it counts no more, and those of this name from this address begin anew."""
        pair, from_address, of_name = self._keys(name, address)
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.delete(pair)
            pipe.decr(from_address)
            pipe.decr(of_name)
            # Where the window ended meanwhile, a count without an end was just made.
            pipe.expire(from_address, WINDOW_S, nx=True)
            pipe.expire(of_name, WINDOW_S, nx=True)
            await pipe.execute()

    async def withdraw(self, name: str, address: str) -> None:
        """The attempt came to nothing, through no fault of whoever made it: it counts no more."""
        async with self._client.pipeline(transaction=False) as pipe:
            for key in self._keys(name, address):
                pipe.decr(key)
                # Where the window ended meanwhile, a count without an end was just made.
                pipe.expire(key, WINDOW_S, nx=True)
            await pipe.execute()

    def _keys(self, name: str, address: str) -> tuple[str, str, str]:
        # Names are what people typed: of any length, and sometimes a password.
        who = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]
        head = f"{P}attempts:{self._kind}:"
        return f"{head}{address}/{who}", f"{head}{address}", f"{head}/{who}"
