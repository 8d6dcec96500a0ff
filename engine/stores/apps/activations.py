"""Activation codes of products: each makes one thing, once (`TTI-X1`)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

import msgspec
import redis.asyncio as redis

from engine.errors import BadInput
from engine.stores.apps.sessions import digest
from engine.stores.register import P

MOST: Final = 10_000
"""Unused codes of one product."""
_CODES: Final = P + "activations"
_OFFERED: Final = P + "activations-offered"
"""Codes that somebody chose; those made here are never seen again."""


class Code(NamedTuple):
    """What a code is good for."""

    tenant: str
    product: str


_decode = msgspec.msgpack.Decoder(Code).decode


class Activations:
    """All reads and writes of codes. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def make(self, tenant: str, product: str, count: int) -> list[str]:
        """New codes of 43 URL-safe characters; this is the only time they are told. BadInput over MOST."""
        if await self.left(product) + count > MOST:
            raise BadInput(f"a product has at most {MOST} unused activation codes", "/count")
        codes = [secrets.token_urlsafe(32) for _ in range(count)]
        await self.keep(tenant, product, codes)
        return codes

    async def keep(self, tenant: str, product: str, codes: Sequence[str]) -> None:
        """Accept these codes, unless they are used already."""
        kept = msgspec.msgpack.encode(Code(tenant, product))
        async with self._client.pipeline(transaction=True) as pipe:
            for code in codes:
                pipe.hset(_CODES, digest(code), kept)
                pipe.sadd(_index(product), digest(code))
            await pipe.execute()

    async def offer(self, tenant: str, product: str, code: str) -> bool:
        """Accept a chosen code, unless it was accepted before, be it used by now or not; whether it is new."""
        if not await self._client.hsetnx(_OFFERED, digest(code), product):
            return False
        await self.keep(tenant, product, [code])
        return True

    async def left(self, product: str) -> int:
        """How many codes of a product are not used."""
        return int(await self._client.scard(_index(product)))

    async def find(self, code: str) -> Code | None:
        """What an unused code is good for."""
        blob = cast(bytes | None, await self._client.hget(_CODES, digest(code)))
        return None if blob is None else _decode(blob)

    async def use(self, code: str, product: str) -> bool:
        """Use a code up; of several at once, one is told True."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hdel(_CODES, digest(code))
            pipe.srem(_index(product), digest(code))
            used, _ = await pipe.execute()
        return bool(used)


def _index(product: str) -> str:
    return f"{P}activations:{product}"
