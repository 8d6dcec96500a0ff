"""Dead letters as an operator sees them: list, show, re-drive, drop; and what keeps their number bounded."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from engine.effects import DeadLetter
from engine.entries import pack_messages
from engine.errors import NotFound
from engine.message import now_ms
from engine.partitions import Keys, all_keys
from engine.redis_scripts import REDRIVE
from engine.stores.merged_index import MergedIndex
from engine.wire import Argument, Wire, call

KEEP_MS: Final = 14 * 86_400_000
MOST_BYTES: Final = 64 << 20
"""Of all dead letters in one partition; beyond them the oldest go first, counted."""

_decode = msgspec.msgpack.Decoder(DeadLetter).decode


class DeadLetters:
    """All partitions' dead letters."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._wire, self._keys = wire, all_keys(partitions)

    async def list(self, tenant: str, *, limit: int = 100, before_ms: int | None = None) -> list[DeadLetter]:
        """The newest letters of a tenant, newest first; `before_ms` continues an earlier list."""
        high: Argument = "+inf" if before_ms is None else f"({before_ms}"
        replies = await self._wire.execute(
            [
                ("ZREVRANGEBYSCORE", keys.index("dead", tenant), high, "-inf", "WITHSCORES", "LIMIT", 0, limit)
                for keys in self._keys
            ]
        )
        found = [
            (float(flat[i + 1]), flat[i], keys)
            for keys, flat in zip(self._keys, replies, strict=True)
            for i in range(0, len(flat), 2)
        ]
        newest = heapq.nlargest(limit, found, key=lambda entry: entry[0])
        blobs = await self._wire.execute([("HGET", keys.dead, id) for _, id, keys in newest]) if newest else []
        return [_decode(blob) for blob in blobs if blob is not None]

    async def page(self, tenant: str, *, limit: int = 100, cursor: str = "") -> tuple[Sequence[DeadLetter], str]:
        """Letters of a tenant, newest first, and the cursor of the next page (empty: there is none).

        BadInput for a cursor that is none. Letters of one millisecond, as a batch leaves them, are not lost between
        pages.
        """
        walk = MergedIndex(self._wire, [keys.index("dead", tenant) for keys in self._keys], cursor)
        entries = await walk.next(limit + 1)
        shown, more = entries[:limit], len(entries) > limit
        commands = [("HGET", self._keys[entry.part].dead, entry.member) for entry in shown]
        blobs = await self._wire.execute(commands) if commands else []
        return [_decode(blob) for blob in blobs if blob is not None], shown[-1].cursor() if more else ""

    async def get(self, tenant: str, id: str) -> DeadLetter:
        """One letter; NotFound if the tenant has none of that id."""
        return (await self._find(tenant, id))[1]

    async def _find(self, tenant: str, id: str) -> tuple[Keys, DeadLetter]:
        blobs = await self._wire.execute([("HGET", keys.dead, id) for keys in self._keys])
        for keys, blob in zip(self._keys, blobs, strict=True):
            if blob is not None:
                letter = _decode(blob)
                if letter.message.tenant == tenant:
                    return keys, letter
        raise NotFound("dead letter", id)

    async def redrive(self, tenant: str, id: str, *, from_start: bool = False) -> None:
        """Run a letter's message again on the tenant's current deployment: from the node it failed at, or the start."""
        keys, letter = await self._find(tenant, id)
        again = replace(letter.message, deployment=0, hops=0, reply_to="", awaited=False)
        if from_start:
            again = replace(again, node="")
        await self._end(keys, tenant, id, pack_messages([again]))

    async def drop(self, tenant: str, id: str) -> None:
        """Forget a letter."""
        keys, _ = await self._find(tenant, id)
        await self._end(keys, tenant, id, b"")

    async def _end(self, keys: Keys, tenant: str, id: str, entry: bytes) -> None:
        names: Sequence[str] = (keys.inbox, keys.dead, keys.index("dead", tenant), keys.dead_bytes)
        if not (await self._wire.execute([call(REDRIVE, names, id, entry)]))[0]:
            raise NotFound("dead letter", id)

    async def trim(self, tenants: Sequence[str]) -> int:
        """Drop what is older than KEEP_MS, and the oldest where there is too much; how many went."""
        gone = 0
        for keys in self._keys:
            size = int((await self._wire.execute([("GET", keys.dead_bytes)]))[0] or 0)
            for tenant in tenants:
                index = keys.index("dead", tenant)
                old = (await self._wire.execute([("ZRANGEBYSCORE", index, "-inf", now_ms() - KEEP_MS)]))[0]
                if size > MOST_BYTES:
                    old = old or (await self._wire.execute([("ZRANGE", index, 0, 99)]))[0]
                for id in old:
                    names = (keys.inbox, keys.dead, index, keys.dead_bytes)
                    gone += (await self._wire.execute([call(REDRIVE, names, id, b"")]))[0]
        return gone
