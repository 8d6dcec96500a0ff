"""What keeps everything bounded: old dead letters, ended alarms and silent producers go, hourly, in one process.

So do points that are older than they shall be (`retention`). Dead letters alone may come as fast as messages do, so
that their bytes are looked at every minute.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from engine.deadletters import DeadLetters
from engine.ingress import PRODUCER_KEEP_MS
from engine.message import now_ms
from engine.partitions import all_keys
from engine.retention import Retention
from engine.service import Loop
from engine.stores import alarms
from engine.wire import Argument, Wire

log = logging.getLogger("rulemill.housekeeping")

EVERY_S: Final = 3600.0
LOOK_EVERY_S: Final = 60.0
TURN_KEY: Final = "rm:{reg}:housekeeping"
ALARM_KEEP_MS: Final = 90 * 86_400_000
AT_ONCE: Final = 500


class Housekeeping:
    """One process's hourly round; the turn key lets only one of them do it."""

    def __init__(
        self,
        wire: Wire,
        partitions: int,
        tenants: Callable[[], Awaitable[Sequence[str]]],
        retention: Retention | None = None,
    ) -> None:
        self._wire, self._keys = wire, all_keys(partitions)
        self._retention = retention
        self._dead = DeadLetters(wire, partitions)
        self._tenants = tenants
        self._loops = (
            # Asked for every minute and had once an hour, also by servers that never run for an hour.
            Loop("housekeeping", LOOK_EVERY_S, self._turn),
            Loop("dead-letters", LOOK_EVERY_S, self.make_room),
        )

    async def start(self) -> None:
        """Begin; a round comes within a minute, unless there was one in the last hour."""
        for loop in self._loops:
            await loop.start()

    async def stop(self) -> None:
        """End."""
        for loop in self._loops:
            await loop.stop()

    async def make_room(self) -> None:
        """Drop the oldest dead letters where there are too many bytes of them."""
        if await self._dead.crowded():
            gone = await self._dead.make_room(await self._tenants())
            log.warning("more dead letters than there is room for: the %d oldest are gone", gone)

    async def _turn(self) -> None:
        mine = (await self._wire.execute([("SET", TURN_KEY, "1", "NX", "EX", int(EVERY_S))]))[0]
        if mine is not None:
            await self.round()
            if self._retention is not None:
                await self._retention.sweep(self._keep_turn)

    async def _keep_turn(self) -> None:
        """What takes long stays this process's."""
        await self._wire.execute([("SET", TURN_KEY, "1", "EX", int(EVERY_S))])

    async def round(self) -> dict[str, int]:
        """Clean everything once; how many of each kind went."""
        tenants = await self._tenants()
        gone = {
            "dead letters": await self._dead.trim(tenants),
            "producers": await self._producers(),
            "ended alarms": await self._alarms(tenants),
        }
        log.info("housekeeping: %s", ", ".join(f"{count} {what}" for what, count in gone.items()))
        return gone

    async def _producers(self) -> int:
        """Producers that have said nothing for a day will not repeat themselves."""
        gone = 0
        for keys in self._keys:
            flat = (await self._wire.execute([("HGETALL", keys.producers)]))[0]
            limit = now_ms() - PRODUCER_KEEP_MS
            old = [flat[i] for i in range(0, len(flat), 2) if int(flat[i + 1].split(b" ")[1]) < limit]
            if old:
                gone += (await self._wire.execute([("HDEL", keys.producers, *old)]))[0]
        return gone

    async def _alarms(self, tenants: Sequence[str]) -> int:
        """Ended alarms older than the limit; active ones stay whatever their age."""
        gone = 0
        for keys in self._keys:
            for tenant in tenants:
                index = keys.index(alarms.INDEX, tenant)
                window = ("ZRANGEBYSCORE", index, "-inf", now_ms() - ALARM_KEEP_MS, "LIMIT", 0, AT_ONCE)
                for member in (await self._wire.execute([window]))[0]:
                    device, _, id = alarms.split_member(member.decode())
                    key, field = keys.state(alarms.TABLE, device), alarms.past_field(id)
                    ended = (await self._wire.execute([("HDEL", key, field)]))[0]
                    if ended:
                        commands: list[tuple[Argument, ...]] = [("ZREM", index, member)]
                        gone += (await self._wire.execute(commands))[0]
        return gone
