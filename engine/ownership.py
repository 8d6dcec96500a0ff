"""Which partitions a worker owns: taking them over, dropping what was lost, giving back the surplus."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.entries import UnknownEntryError
from engine.errors import Fenced
from engine.lanes import decode_lane
from engine.leases import Leases, Owned
from engine.outward import Outward
from engine.parked import Timers
from engine.points import PointsWriter
from engine.wire import Wire

log = logging.getLogger("rulemill.ownership")

ADJUST_EVERY_S = 1.0
SHUN_S = 60.0


class Ownership:
    """The partitions of one worker. Changed between batches only, by the worker's loop."""

    def __init__(
        self,
        partitions: int,
        leases: Leases,
        wire: Wire,
        timers: Timers,
        outward: Outward,
        writer: PointsWriter,
        recover: Callable[[Owned], Awaitable[None]],
    ) -> None:
        self._partitions, self._leases, self._side = partitions, leases, wire
        self._timers, self._outward, self._writer = timers, outward, writer
        self._recover = recover
        self.owned: dict[int, Owned] = {}
        self._taking: set[int] = set()
        """Partitions whose take-over is not finished: not to be given back as if all were in order."""
        self.shunned: dict[int, float] = {}
        """Partitions that hold an entry which this release cannot read, and until when they are left alone."""
        self.adjusted = 0.0

    def shun(self, owned: Owned, id: bytes, error: Exception) -> None:
        """An entry that cannot be read blocks its partition: leave it, untouched, to a release that can."""
        log.error("partition %d stops at entry %s: %s", owned.keys.number, id.decode(), error)
        self.shunned[owned.keys.number] = time.monotonic() + SHUN_S

    def still_ours(self, owned: Owned) -> None:
        """Raise Fenced if the partition was lost meanwhile."""
        if self.owned.get(owned.keys.number) is not owned:
            raise Fenced(owned.keys.number)

    async def release_all(self) -> None:
        """Give everything back in order; the worker ends."""
        for owned in list(self.owned.values()):
            if owned.keys.number not in self._taking:
                await self._leases.release(owned)

    async def adjust(self) -> None:
        """Drop what was lost, take what is free, let go of the surplus; between batches, once a second."""
        for number in self._leases.lost():
            if number in self.owned:
                log.warning("partition %d: the lease was lost", number)
                self.disown(self.owned[number])
        now = time.monotonic()
        for number, until in list(self.shunned.items()):
            if number in self.owned:
                await self._give_back(self.owned[number])
            if until < now:
                del self.shunned[number]
        if now - self.adjusted < ADJUST_EVERY_S:
            return
        self.adjusted = now
        share = self._leases.share()
        surplus = len(self.owned) - share
        for owned in list(self.owned.values())[: max(surplus, 0)]:
            await self._give_back(owned)
        if surplus >= 0:
            return
        count = self._partitions
        free = [number for number in range(count) if number not in self.owned and number not in self.shunned]
        random.shuffle(free)
        wanted = -surplus
        while free and wanted > 0:
            asked, free = free[:wanted], free[wanted:]
            for owned in await self._leases.take(asked):
                wanted -= 1
                await self._own(owned)

    async def _own(self, owned: Owned) -> None:
        """Take a partition over. Half a take-over is none: its lease runs out, and the next owner begins again."""
        self._taking.add(owned.keys.number)
        try:
            await self._take_over(owned)
        except (RedisConnectionError, UnknownEntryError, Fenced) as error:
            log.error("partition %d is not taken over: %s", owned.keys.number, error)
            self.disown(owned)
        self._taking.discard(owned.keys.number)

    async def _take_over(self, owned: Owned) -> None:
        keys = owned.keys
        flat = (await self._side.execute([("HGETALL", keys.lanes)]))[0]
        for i in range(0, len(flat), 2):
            lane = decode_lane(flat[i + 1])
            lane.length = (await self._side.execute([("LLEN", keys.lane(flat[i].decode()))]))[0]
            owned.lanes[flat[i].decode()] = lane
        self.owned[keys.number] = owned
        self._writer.own(owned)
        if not owned.clean:
            log.warning("partition %d: its last owner died; recovering", keys.number)
            await self._recover(owned)
        await self._timers.own(owned)

    def disown(self, owned: Owned) -> None:
        """Forget a partition that is not ours any more; what it holds goes to its next owner."""
        number = owned.keys.number
        self.owned.pop(number, None)
        self._leases.drop(owned)
        self._timers.disown(number)
        self._outward.disown(number)
        self._writer.disown(number)

    async def _give_back(self, owned: Owned) -> None:
        self.disown(owned)
        await self._leases.release(owned)
