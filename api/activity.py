"""Who is there: when devices were last heard of, when they connect and leave, and who has been silent for too long.

What is heard is kept in memory and written at most once a minute for each device, in one write for many; of a device
that was silent before at once. A process that dies takes up to a minute of that with it, and no event: those come from
timers in Redis that look at what was written.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from api.auth import DeviceAuth
from engine.message import Message, new_id, now_ms
from engine.service import Loop
from engine.stores.activity import (
    ACTIVE_STATE,
    ALARM_TIME,
    LAST_ACTIVITY,
    LAST_CONNECT,
    LAST_DISCONNECT,
    TIMEOUT,
    ActivityStore,
    Heard,
    Presence,
)
from engine.stores.products import Products
from engine.stores.registry import Device

log = logging.getLogger("rulemill.activity")

SILENCE_MS: Final = 600_000
"""How long a device may be silent unless it or its product says so (`TB-S41`)."""
FACET: Final = "inactivity_timeout_s"
"""A product's own time of silence, in seconds."""
WRITE_EVERY_MS: Final = 60_000
"""A device with a shorter time of silence than twice that is written more often: it would be taken for silent."""
LEAST_MS: Final = 1000
LOOK_EVERY_S: Final = 1.0
AT_ONCE: Final = 200
GRACE_MS: Final = 30_000
"""How long nobody is told to be silent after a start: where the server was away, devices have to come back first."""
MOST_WAITING: Final = 50_000
"""Connections and disconnections that wait for Redis; beyond them the oldest are lost, counted and told."""


class _Seen:
    """A device as this process has heard of it."""

    __slots__ = ("device", "heard_ms", "written_ms")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.heard_ms = 0
        self.written_ms = 0
        """Up to when it is written that it was heard of."""


class Activity:
    """What one process hears of devices. `heard`, `came` and `went` only take notes; a loop writes them."""

    def __init__(
        self,
        store: ActivityStore,
        auth: DeviceAuth,
        products: Products,
        clock: Callable[[], int] = now_ms,
        *,
        grace_ms: int = GRACE_MS,
    ) -> None:
        self._store, self._auth, self._products, self._clock = store, auth, products, clock
        self._look_from_ms = clock() + grace_ms
        self._seen: dict[str, _Seen] = {}
        self._fresh: list[_Seen] = []
        self._later: list[tuple[int, int, _Seen]] = []
        """A heap of when to write each device again that was written."""
        self._number = 0
        self._doubtful: set[str] = set()
        """Devices that were changed or deleted since they were heard of."""
        self._sessions: Counter[str] = Counter()
        self._holding: Counter[str] = Counter()
        self._presence: deque[Presence] = deque()
        self._lost = 0
        self._loop = Loop("activity", LOOK_EVERY_S, self.flush)
        self._unwatch: Callable[[], None] = _nothing

    async def start(self) -> None:
        """Begin to write."""
        self._unwatch = self._auth.on_change(self._changed)
        await self._loop.start()

    async def stop(self) -> None:
        """Write what is not written yet, and end."""
        await self._loop.stop()
        self._unwatch()
        self._unwatch = _nothing
        # All that was heard, also what would be written later only.
        self._fresh += [seen for _, _, seen in self._later if seen.heard_ms > seen.written_ms]
        self._later = []
        try:
            await self.flush()
        except RedisError as error:
            log.warning("when devices were last heard of is lost: %s", error)

    # Taking notes

    def heard(self, device: Device) -> None:
        """A device has said something."""
        seen = self._seen.get(device.id)
        if seen is None:
            seen = self._seen[device.id] = _Seen(device)
            self._fresh.append(seen)
        seen.heard_ms = self._clock()

    def came(self, device: Device, dialect: str, transport: str, *, holds: bool = True) -> None:
        """A session of a device begins. With the first one here the device connects.

        `holds`: the session would end if the device were gone, so that it is active as long as it lasts.
        """
        self.heard(device)
        if holds:
            self._holding[device.id] += 1
        self._sessions[device.id] += 1
        if self._sessions[device.id] == 1:
            about = {"dialect": dialect, "transport": transport}
            self._note(device, "CONNECT_EVENT", LAST_CONNECT, {**about, "reason": f"{transport} session"})

    def went(self, device: Device, dialect: str, transport: str, reason: str, *, holds: bool = True) -> None:
        """A session of a device has ended. With the last one here the device disconnects."""
        if holds:
            _less(self._holding, device.id)
        if not _less(self._sessions, device.id):
            about = {"dialect": dialect, "transport": transport}
            self._note(device, "DISCONNECT_EVENT", LAST_DISCONNECT, {**about, "reason": reason})

    def _note(self, device: Device, type: str, attribute: str, metadata: dict[str, str]) -> None:
        now = self._clock()
        message = _message(device, type, {}, now, metadata)
        if len(self._presence) >= MOST_WAITING:
            self._presence.popleft()
            self._lost += 1
        self._presence.append(Presence(device.id, device.tenant, device.created_ms, attribute, now, message))

    def _changed(self, device_id: str) -> None:
        if device_id in self._seen:
            self._doubtful.add(device_id)

    # Writing

    async def flush(self) -> None:
        """Write what is to be written now. Raises redis errors; then it is written by the next flush."""
        if self._lost:
            log.error("%d connections and disconnections could not be stored in time, and are lost", self._lost)
            self._lost = 0
        await self._write_presence()
        await self._look_at_changes()
        now = self._clock()
        due, self._fresh = self._fresh, []
        while self._later and self._later[0][0] <= now:
            seen = heapq.heappop(self._later)[2]
            if seen.device.id in self._holding:
                # Its session holds, or its keep-alive would have ended it.
                seen.heard_ms = max(seen.heard_ms, now)
            if seen.heard_ms > seen.written_ms:
                due.append(seen)
            elif self._seen.get(seen.device.id) is seen:
                del self._seen[seen.device.id]
        for i in range(0, len(due), AT_ONCE):
            try:
                await self._write(due[i : i + AT_ONCE], now)
            except BaseException:
                self._fresh += due[i:]
                raise

    async def _write_presence(self) -> None:
        while self._presence:
            batch = [self._presence.popleft() for _ in range(min(AT_ONCE, len(self._presence)))]
            failed = batch
            try:
                failed = await self._store.present(batch)
            finally:
                self._presence.extendleft(reversed(failed))
            if failed:
                raise RedisConnectionError("connections of devices cannot be stored now")

    async def _look_at_changes(self) -> None:
        for id in list(self._doubtful):
            device = await self._auth.by_id(id)
            self._doubtful.discard(id)
            if device is None:
                self._seen.pop(id, None)
            elif id in self._seen:
                self._seen[id].device = device

    async def _write(self, batch: list[_Seen], now: int) -> None:
        batch = [seen for seen in batch if self._seen.get(seen.device.id) is seen]
        heard = []
        for seen in batch:
            device = seen.device
            state = {ACTIVE_STATE: True, LAST_ACTIVITY: seen.heard_ms}
            message = _message(device, "ACTIVITY_EVENT", state, now, {"scope": "SERVER_SCOPE"})
            silence_ms = await self.silence_ms(device)
            heard.append(Heard(device.id, device.tenant, device.created_ms, seen.heard_ms, silence_ms, message))
        for seen, entry, noted in zip(batch, heard, await self._store.heard(heard, now) if heard else [], strict=True):
            seen.written_ms = entry.heard_ms
            if not noted.silence_ms:
                # It was deleted.
                self._seen.pop(seen.device.id, None)
                continue
            wait_ms = min(WRITE_EVERY_MS, max(noted.silence_ms // 2, LEAST_MS))
            self._number += 1
            heapq.heappush(self._later, (now + wait_ms, self._number, seen))

    async def silence_ms(self, device: Device) -> int:
        """How long a device may be silent where its attribute does not say."""
        if not device.product:
            return SILENCE_MS
        product = await self._products.find(device.tenant, device.product)
        given = product.facets.get(FACET) if product is not None else None
        return int(given * 1000) if isinstance(given, int | float) and given > 0 else SILENCE_MS

    # Who is silent: for one process of all

    async def look(self) -> bool:
        """Tell of devices that have been silent for too long; whether there may be more of them."""
        now = self._clock()
        if now < self._look_from_ms:
            return False
        due = await self._store.due(now)
        for number, id in due:
            device = await self._auth.by_id(id)
            if device is None:
                await self._store.forget(number, id)
                continue
            silence_ms = await self.silence_ms(device)
            server = await self._store.read(device.tenant, id)
            names = (LAST_CONNECT, LAST_ACTIVITY, LAST_DISCONNECT)
            state: dict[str, Any] = {name: server[name].value if name in server else 0 for name in names}
            state |= {ACTIVE_STATE: False, ALARM_TIME: now}
            state[TIMEOUT] = server[TIMEOUT].value if TIMEOUT in server else silence_ms
            message = _message(device, "INACTIVITY_EVENT", state, now, {"scope": "SERVER_SCOPE"})
            await self._store.silent(message, now, silence_ms)
            # Many may be due at once after a pause: messages go first.
            await asyncio.sleep(0)
        return bool(due)


def _message(device: Device, type: str, data: Any, ts_ms: int, metadata: dict[str, str]) -> Message:
    return Message(
        id=new_id(), ts_ms=ts_ms, tenant=device.tenant, type=type, originator=device.id, data=data,
        metadata={
            "dialect": "flow", "transport": "http", "deviceName": device.name, "deviceType": device.shown_type,
            "ts": str(ts_ms), **metadata,
        },
    )  # fmt: skip


def _less(counter: Counter[str], id: str) -> int:
    counter[id] -= 1
    left = counter[id]
    if not left:
        del counter[id]
    return left


def _nothing() -> None:
    pass
