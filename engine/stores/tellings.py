"""What devices were told when they provisioned themselves, kept for a while: an answer may be lost on its way."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

import msgspec
import redis.asyncio as redis

from engine.message import now_ms
from engine.stores.handouts import HANDOUTS
from engine.stores.register import P
from engine.stores.registry import Credential, Device

KEPT_MS: Final = 3_600_000
"""How long an answer may be asked for again."""
AGAIN_MS: Final = 10_000
"""How long between two times that the same is told: until then the first may be under way."""


class Telling(msgspec.Struct, frozen=True, array_like=True):
    """A credential as it was told. Whoever asks again has to ask for the same: that is kept as a digest."""

    credential: Credential
    had: list[str]
    """Credentials, as digests, that the device had by then: with these it still is to be given what it was told."""
    told_ms: int
    asked: bytes

    def answers(self, asked: bytes) -> bool:
        """Whether this is the answer to what is asked."""
        return hmac.compare_digest(self.asked, hashlib.sha256(asked).digest())


_decode: Final = msgspec.msgpack.Decoder(Telling).decode


class Tellings:
    """One for each device at most; it is gone an hour later. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        # Its own types leave open whether it answers with bytes or text.
        self._client: Any = client

    async def waiting(self, device: str) -> Credential | None:
        """The credential that was set before and waits for its device, if there is one."""
        blob = await self._client.hget(HANDOUTS, device)
        return None if blob is None else msgspec.json.decode(blob, type=Credential)

    async def note(self, device: Device, credential: Credential, asked: bytes) -> None:
        """Keep what a device is about to be told, in place of what it was told before."""
        made = Telling(credential, device.credentials, now_ms(), hashlib.sha256(asked).digest())
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.set(_told(device.id), msgspec.msgpack.encode(made), px=KEPT_MS)
            pipe.set(_telling(device.id), b"", px=AGAIN_MS)
            await pipe.execute()

    async def find(self, device: str) -> Telling | None:
        """What the device was told last, if that is not too long ago."""
        blob = await self._client.get(_told(device))
        return None if blob is None else _decode(blob)

    async def again(self, device: str) -> bool:
        """Begin to tell it once more; False where that was begun less than ten seconds ago."""
        return await self._client.set(_telling(device), b"", nx=True, px=AGAIN_MS) is not None

    async def forget(self, device: str) -> None:
        """The answer has arrived."""
        await self._client.delete(_told(device))


def _told(device: str) -> str:
    return f"{P}told:{device}"


def _telling(device: str) -> str:
    return f"{P}telling:{device}"
