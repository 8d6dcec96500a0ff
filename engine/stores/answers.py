"""Answers to events that may come after the device has stopped waiting: kept under its partition until fetched.

The commit keeps them (`@answer` of commit.lua) for messages whose `reply_to` names what was asked. Who got the answer
in time forgets it; the rest waits for the device, a day and at most 100 of them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from engine.partitioned import Partitioned
from engine.wire import Wire

MAX_A_DEVICE: Final = 100
KEEP_MS: Final = 86_400_000


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it stands in Redis: to what, and when it was asked and given (Unix time in milliseconds)."""

    name: str
    data: Any
    asked_ms: int
    answered_ms: int


_decode = msgspec.msgpack.Decoder(Kept).decode


class Answers:
    """What API processes do with kept answers."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._at = Partitioned(wire, partitions)

    async def take(self, tenant: str, device: str, asked_before_ms: int) -> list[Kept]:
        """The answers to what was asked before that time, oldest question first; they are kept no longer.

        No two callers get the same one. Raises redis ConnectionError.
        """
        key = self._at.keys(tenant, device).answers(device)
        flat = (await self._at.execute([("HGETALL", key)]))[0]
        kept = {flat[i]: _decode(flat[i + 1]) for i in range(0, len(flat), 2)}
        # Ids of messages grow with time.
        late = sorted(id for id, answer in kept.items() if answer.asked_ms <= asked_before_ms)
        if not late:
            return []
        taken = await self._at.execute([("HDEL", key, id) for id in late])
        return [kept[id] for id, mine in zip(late, taken, strict=True) if mine]

    async def forget(self, tenant: str, device: str, message_id: str) -> None:
        """Keep the answer to a message no longer: who asked has it."""
        await self._at.execute([("HDEL", self._at.keys(tenant, device).answers(device), message_id)])
