"""Parked messages of a worker's partitions: near timers in memory, and the one way back into the stream.

`take.lua` appends what comes next and removes the parked message, if it is still there: of timer, answer and call
result, or of two workers, exactly one wins.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Iterable

from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError

from engine import metrics
from engine.entries import Parked, decode_parked, encode
from engine.leases import Owned
from engine.message import now_ms
from engine.node import Resumed
from engine.redis_scripts import POSTPONE, TAKE
from engine.service import end_all
from engine.wire import Wire, call, failed

log = logging.getLogger("rulemill.parked")

HORIZON_MS = 60_000
"""Timers due later than this are left in Redis until they come near."""
READ_AT_ONCE = 1000
_TIMER = encode(Resumed("timer"))


class Timers:
    """Fires the timers of owned partitions. Fed by commits, and from Redis at take-over and every half horizon."""

    def __init__(self, wire: Wire, calls: Callable[[Owned, Parked], None], called: Callable[[int, str], bool]) -> None:
        """`calls` takes a parked call over, `called` tells whether it has (partition, id)."""
        self._wire = wire
        self._calls, self._called = calls, called
        self._near: list[tuple[int, str, int]] = []
        self._known: set[tuple[int, str]] = set()
        self._owned: dict[int, Owned] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin firing."""
        self._tasks = [
            asyncio.create_task(self._run(), name="timers"),
            asyncio.create_task(self._refresh(), name="timers-refresh"),
        ]

    async def stop(self) -> None:
        """End; what is parked stays parked."""
        await end_all(self._tasks)
        self._tasks = []

    async def own(self, owned: Owned) -> None:
        """Watch a partition that was just taken; after an unclean end each call that was due counts an attempt more."""
        self._owned[owned.keys.number] = owned
        await self._read(owned, crashed=not owned.clean)

    def disown(self, number: int) -> None:
        """Forget a partition."""
        self._owned.pop(number, None)
        self._near = [entry for entry in self._near if entry[2] != number]
        heapq.heapify(self._near)
        self._known = {known for known in self._known if known[0] != number}

    def add(self, owned: Owned, parked: Iterable[Parked]) -> None:
        """Watch what a commit has parked."""
        horizon = now_ms() + HORIZON_MS
        for entry in parked:
            if entry.kind == "call":
                self._calls(owned, entry)
            elif entry.due_ms <= horizon:
                self._push(owned.keys.number, entry.id, entry.due_ms)

    def _push(self, number: int, id: str, due_ms: int) -> None:
        if (number, id) not in self._known:
            self._known.add((number, id))
            heapq.heappush(self._near, (due_ms, id, number))
            metrics.PARKED.labels("timer").set(len(self._near))
            if self._near[0][1] == id:
                self._wake.set()

    async def _run(self) -> None:
        while True:
            wait_s = max(self._near[0][0] - now_ms(), 0) / 1000 if self._near else 30.0
            try:
                async with asyncio.timeout(min(wait_s, 30.0)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._fire()
            except RedisConnectionError as error:
                log.warning("timers wait for Redis: %s", error)
                await asyncio.sleep(0.25)
            except Exception:
                # What is due stands in Redis: whatever it was, the next look may do better.
                log.exception("timers: not fired")
                await asyncio.sleep(0.25)

    async def _fire(self) -> None:
        now = now_ms()
        due: list[tuple[int, str, int]] = []
        while self._near and self._near[0][0] <= now and len(due) < READ_AT_ONCE:
            due.append(heapq.heappop(self._near))
        if not due:
            return
        commands = []
        for _, id, number in due:
            owned = self._owned.get(number)
            if owned is not None:
                commands.append(call(TAKE, (owned.keys.inbox, owned.keys.parked, owned.keys.due), id, _TIMER))
        try:
            replies = await self._wire.execute(commands) if commands else []
        except Exception:
            for entry in due:
                heapq.heappush(self._near, entry)
            raise
        for _, id, number in due:
            self._known.discard((number, id))
        for reply in replies:
            if failed(reply):
                # At maxmemory the entry cannot be written: the refresh finds the timer again.
                log.warning("a timer could not fire yet: %s", reply)
        metrics.PARKED.labels("timer").set(len(self._near))

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(HORIZON_MS / 2000)
            for owned in list(self._owned.values()):
                try:
                    await self._read(owned, crashed=False)
                except RedisConnectionError as error:
                    log.warning("timers are not read: %s", error)
                except Exception:
                    log.exception("timers of partition %d are not read", owned.keys.number)

    def _has(self, number: int, id: str) -> bool:
        return (number, id) in self._known or self._called(number, id)

    def _owns(self, owned: Owned) -> bool:
        """Whether a partition is still ours: lost while it was read, what is parked there is its next owner's."""
        return self._owned.get(owned.keys.number) is owned

    async def _read(self, owned: Owned, crashed: bool) -> None:
        """Read what is due within the horizon and not in memory yet; after a crash, count it for calls under way."""
        keys, horizon, offset = owned.keys, now_ms() + HORIZON_MS, 0
        calls: list[Parked] = []
        while True:
            window = ("ZRANGEBYSCORE", keys.due, "-inf", horizon, "WITHSCORES", "LIMIT", offset, READ_AT_ONCE)
            flat = (await self._wire.execute([window]))[0]
            ids = [(flat[i].decode(), int(float(flat[i + 1]))) for i in range(0, len(flat), 2)]
            unknown = [pair for pair in ids if not self._has(keys.number, pair[0])]
            if unknown:
                blobs = (await self._wire.execute([("HMGET", keys.parked, *[id for id, _ in unknown])]))[0]
                if not self._owns(owned):
                    return
                for (id, due_ms), blob in zip(unknown, blobs, strict=True):
                    if blob is None:
                        continue
                    entry = decode_parked(blob)
                    if entry.kind == "call":
                        calls.append(entry)
                    else:
                        self._push(keys.number, id, due_ms)
            if len(ids) < READ_AT_ONCE:
                break
            offset += READ_AT_ONCE
        calls.sort(key=lambda entry: entry.order)
        if crashed:
            calls = await self._count_crash(owned, calls)
        if not self._owns(owned):
            return
        for entry in calls:
            self._calls(owned, entry)

    async def _count_crash(self, owned: Owned, calls: list[Parked]) -> list[Parked]:
        """One attempt more, durably, for each call that may have been under way: those at the head of their line."""
        now, heads, commands = now_ms(), set(), []
        for i, entry in enumerate(calls):
            line = (entry.message.tenant, entry.message.node, entry.message.originator)
            if line in heads:
                continue
            heads.add(line)
            if entry.due_ms <= now:
                calls[i] = entry = replace(entry, attempts=entry.attempts + 1)
                commands.append(call(POSTPONE, (owned.keys.parked, owned.keys.due), entry.id, encode(entry), now))
        if commands:
            await self._wire.execute(commands)
        return calls
