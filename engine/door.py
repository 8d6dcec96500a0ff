"""The door: refuses messages while there is no room for them, so that nothing is ever buffered without a bound.

Looked at twice a second. Commits must always have room, so the door closes at 80 % of Redis' memory. What closed at a
limit opens below it, so that a door which opens stays open for a while.
"""

from __future__ import annotations

import logging

from redis.exceptions import ConnectionError as RedisConnectionError

from engine import metrics
from engine.ingress import Ingress
from engine.partitions import all_keys
from engine.service import Loop
from engine.wire import Argument, Reply, Wire, failed

log = logging.getLogger("rulemill.door")

LOOK_EVERY_S = 0.5
MEMORY_SHARE = 0.8
MEMORY_OPENS, SPOOL_OPENS = 0.95, 0.8
"""Share of the limit at which the door opens again. Memory holds much that never drains, the spool nothing."""
COME_BACK_S = 5
"""What callers are told to wait for where draining takes its time."""

UNREACHABLE, FULL, BEHIND = "storage unreachable", "storage full", "telemetry store behind"


class Door:
    """Opens and closes one process's ingress."""

    def __init__(self, wire: Wire, partitions: int, ingress: Ingress, spool_bytes: int) -> None:
        self._wire, self._keys = wire, all_keys(partitions)
        self._ingress = ingress
        self._spool_bytes = spool_bytes
        metrics.SPOOL_LIMIT.set(spool_bytes)
        self._loop = Loop("door", LOOK_EVERY_S, self.look)

    async def start(self) -> None:
        """Look once, then go on looking."""
        await self.look()
        await self._loop.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._loop.stop()

    async def look(self) -> None:
        """Open or close the door by what Redis says now."""
        try:
            reason = await self._reason()
        except RedisConnectionError:
            reason = UNREACHABLE
        if reason != self._ingress.closed_reason:
            if reason:
                log.warning("door closed: %s; devices are told to try again", reason)
            else:
                log.warning("door open again")
            self._ingress.closed_reason = reason
            self._ingress.closed_for_s = COME_BACK_S if reason in (FULL, BEHIND) else 1
        metrics.DOOR.labels("ingress").set(0 if reason else 1)

    async def _reason(self) -> str:
        commands: list[tuple[Argument, ...]] = [("INFO", "memory")]
        commands += [("GET", keys.spooled) for keys in self._keys]
        commands += [("XLEN", keys.inbox) for keys in self._keys]
        replies = await self._wire.execute(commands, timeout_s=2.0)
        for reply in replies:
            if failed(reply):
                raise RedisConnectionError(str(reply))
        count, closed = len(self._keys), self._ingress.closed_reason
        spooled = sum(int(reply or 0) for reply in replies[1 : count + 1])
        metrics.SPOOLED.set(spooled)
        for keys, length in zip(self._keys, replies[count + 1 :], strict=True):
            metrics.BACKLOG.labels(str(keys.number)).set(length)
        used, most = _memory(replies[0])
        if most and used > MEMORY_SHARE * most * (MEMORY_OPENS if closed == FULL else 1):
            return FULL
        if spooled > self._spool_bytes * (SPOOL_OPENS if closed == BEHIND else 1):
            return BEHIND
        return ""


def _memory(info: Reply) -> tuple[int, int]:
    """Bytes in use and the limit (0: none), from INFO memory."""
    facts = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
    return int(facts.get(b"used_memory", 0)), int(facts.get(b"maxmemory", 0))
