"""Windows in which a device may be claimed, in Redis: opened by the device for a time, with a secret known to both."""

from __future__ import annotations

import hashlib
from typing import Final

import redis.asyncio as redis

from engine.stores.register import P

MAX_MS: Final = 10 * 365 * 86_400_000
"""Longest window; a longer one that is asked for is as long as this."""
BEGUN_MS: Final = 10_000
"""After this a user's claim that has not ended died with its process."""


class Claims:
    """One window per device at most. Secrets are kept as digests. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def open(self, device: str, secret: str, duration_ms: int) -> bool:
        """Open the window of a device; False if one is open already, which stays as it is (`TB-S25`)."""
        made = await self._client.set(key(device), _print(device, secret), nx=True, px=min(duration_ms, MAX_MS))
        return made is not None

    async def matches(self, device: str, secret: str) -> bool | None:
        """Whether the secret is that of the open window; None if none is open."""
        print_ = await self._client.get(key(device))
        return None if print_ is None else print_ == _print(device, secret)

    async def close(self, device: str) -> None:
        """End the window, if one is open."""
        await self._client.delete(key(device))

    async def begin(self, device: str) -> bool:
        """Begin a user's claim, to be ended with `end`; False while another one is under way."""
        return await self._client.set(_begun(device), b"", nx=True, px=BEGUN_MS) is not None

    async def end(self, device: str) -> None:
        """The user's claim has ended."""
        await self._client.delete(_begun(device))


def key(device: str) -> str:
    """Where the window of a device stands."""
    return f"{P}claim:{device}"


def _begun(device: str) -> str:
    return f"{P}claiming:{device}"


def _print(device: str, secret: str) -> bytes:
    return hashlib.sha256(f"{device}\0{secret}".encode()).digest()
