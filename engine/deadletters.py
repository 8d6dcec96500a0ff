"""Dead letters as an operator sees them: list, show, re-drive, drop; and what keeps their number bounded."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.effects import DeadLetter
from engine.entries import pack_messages
from engine.errors import NotFound
from engine.message import now_ms
from engine.partitions import Keys, all_keys
from engine.redis_scripts import REDRIVE
from engine.stores.merged_index import MergedIndex
from engine.wire import Argument, Reply, Wire, call, failed

KEEP_MS: Final = 14 * 86_400_000
MOST_BYTES: Final = 64 << 20
"""Of all dead letters in one partition; beyond them the oldest go."""
AT_ONCE: Final = 100
"""Letters dropped in one go."""

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
        if not _told((await self._wire.execute([call(REDRIVE, names, id, entry)]))[0]):
            raise NotFound("dead letter", id)

    async def trim(self, tenants: Sequence[str]) -> int:
        """Drop what is older than KEEP_MS, and make room; how many went."""
        gone = 0
        for keys in self._keys:
            for tenant in tenants:
                window = ("ZRANGEBYSCORE", keys.index("dead", tenant), "-inf", now_ms() - KEEP_MS, "LIMIT", 0, AT_ONCE)
                while old := _told((await self._wire.execute([window]))[0]):
                    gone += await self._drop(keys, [(tenant, id) for id in old])
        return gone + await self.make_room(tenants)

    async def crowded(self) -> Sequence[Keys]:
        """Partitions whose letters take more than MOST_BYTES."""
        sizes = await self._wire.execute([("GET", keys.dead_bytes) for keys in self._keys])
        return [keys for keys, size in zip(self._keys, sizes, strict=True) if int(_told(size) or 0) > MOST_BYTES]

    async def make_room(self, tenants: Sequence[str]) -> int:
        """Drop the oldest letters, whoever's they are, until no partition has too many bytes of them; how many went."""
        gone = 0
        while tenants and (crowded := await self.crowded()):
            oldest = [await self._oldest(keys, tenants) for keys in crowded]
            if not any(oldest):
                break
            for keys, letters in zip(crowded, oldest, strict=True):
                gone += await self._drop(keys, letters)
        return gone

    async def _oldest(self, keys: Keys, tenants: Sequence[str]) -> Sequence[tuple[str, bytes]]:
        """Tenant and id of a partition's oldest letters."""
        heads: list[tuple[Argument, ...]] = [
            ("ZRANGE", keys.index("dead", tenant), 0, AT_ONCE - 1, "WITHSCORES") for tenant in tenants
        ]
        found = [
            (float(flat[i + 1]), tenant, flat[i])
            for tenant, flat in zip(tenants, map(_told, await self._wire.execute(heads)), strict=True)
            for i in range(0, len(flat), 2)
        ]
        return [(tenant, id) for _, tenant, id in heapq.nsmallest(AT_ONCE, found)]

    async def _drop(self, keys: Keys, letters: Sequence[tuple[str, bytes]]) -> int:
        commands = [
            call(REDRIVE, (keys.inbox, keys.dead, keys.index("dead", tenant), keys.dead_bytes), id, b"")
            for tenant, id in letters
        ]
        return sum(map(_told, await self._wire.execute(commands))) if commands else 0


def _told(reply: Reply) -> Any:
    """A command's reply; RedisConnectionError when it was refused."""
    if failed(reply):
        raise RedisConnectionError(str(reply))
    return reply
