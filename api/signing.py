"""Keys that this server signs with: made at the first start, kept in Redis, the same for all processes."""

from __future__ import annotations

import secrets

import redis.asyncio as redis

from engine.stores.register import P

KEY_BYTES = 48


async def signing_key(client: redis.Redis, purpose: str) -> bytes:
    """The key for one purpose; each has its own, so that what was signed for one is worth nothing for another."""
    key = f"{P}signing:{purpose}"
    await client.set(key, secrets.token_bytes(KEY_BYTES), nx=True)
    kept = await client.get(key)
    assert isinstance(kept, bytes)
    return kept
