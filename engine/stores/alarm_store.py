"""Alarms as an operator sees them: a tenant's list, one alarm, and the operator's word on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from engine.errors import NotFound
from engine.message import now_ms
from engine.partitioned import Partitioned
from engine.partitions import Keys
from engine.stores.alarms import (
    INDEX,
    TABLE,
    Alarm,
    Status,
    Writes,
    acked_field,
    acknowledge,
    active_field,
    clear,
    cleared_field,
    decode_alarm,
    merge,
    past_field,
    split_member,
    visible,
)
from engine.stores.merged_index import Entry, MergedIndex
from engine.wire import Wire

LOOK_AT_MOST: Final = 5_000
"""Entries looked at for one page: a filter that finds little gives a short page and a cursor."""

DEVICES_AT_ONCE: Final = 50
FIELDS_AT_ONCE: Final = 500
"""Of one device read in one go, about."""

_Found = list[Alarm | None]
Alarms = list[Alarm]


class AlarmPage(NamedTuple):
    """A part of a list; `cursor` is empty at its end. A page may be short, or even empty, and still have a cursor."""

    alarms: list[Alarm]
    cursor: str


class AlarmStore:
    """Reads alarms, acknowledges and clears them."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._wire, self._at = wire, Partitioned(wire, partitions)

    async def list(
        self, tenant: str, *, statuses: Sequence[Status] = (), device: str = "", limit: int = 100, cursor: str = ""
    ) -> AlarmPage:
        """A tenant's alarms, those that began last first; BadInput for a cursor that is none.

        Only those of the given statuses (none: all) and device (empty: all).
        """
        keys = self._at.every
        if device:
            keys = (self._at.keys(tenant, device),)
        walk = MergedIndex(self._wire, [each.index(INDEX, tenant) for each in keys], cursor)
        found: list[Alarm] = []
        looked = 0
        while looked < LOOK_AT_MOST:
            entries = await walk.next(limit)
            for entry, alarm in zip(entries, await self._read(keys, entries), strict=True):
                looked += 1
                if alarm is None or (device and alarm.device != device) or (statuses and alarm.status not in statuses):
                    continue
                found.append(alarm)
                if len(found) == limit:
                    return AlarmPage(found, entry.cursor())
            if len(entries) < limit:
                return AlarmPage(found, "")
        return AlarmPage(found, entries[-1].cursor())

    async def of_devices(
        self, tenant: str, devices: Sequence[str], count: int, wanted: Callable[[Alarm], bool]
    ) -> Alarms:
        """The `count` newest wanted alarms of some devices, and all that began in the last one's millisecond.

        So a list that goes on before that time misses none. Everything that the devices have is read, in parts, and
        kept no longer than it is among the newest.
        """
        found: Alarms = []
        for i in range(0, len(devices), DEVICES_AT_ONCE):
            tables = await self._scanned(tenant, devices[i : i + DEVICES_AT_ONCE], count, wanted)
            more = [alarm for table in tables for alarm in visible(table) if wanted(alarm)]
            found = _newest([*found, *more], count)
        return found

    async def get(self, tenant: str, device: str, id: str) -> Alarm:
        """One alarm of a device; NotFound."""
        alarm = next((alarm for alarm in visible(await self._table(tenant, device)) if alarm.id == id), None)
        if alarm is None:
            raise NotFound("alarm", id)
        return alarm

    async def acknowledge(self, tenant: str, device: str, id: str, by: str = "") -> Alarm:
        """Note that somebody has seen the alarm; a second time changes nothing. NotFound."""
        return await self._write(tenant, device, id, acknowledge(await self._table(tenant, device), id, now_ms(), by))

    async def clear(self, tenant: str, device: str, id: str, by: str = "") -> Alarm:
        """End the alarm; a second time changes nothing. NotFound."""
        return await self._write(tenant, device, id, clear(await self._table(tenant, device), id, now_ms(), by))

    async def _table(self, tenant: str, device: str) -> dict[str, bytes]:
        flat = (await self._at.execute([("HGETALL", self._at.keys(tenant, device).state(TABLE, device))]))[0]
        return {
            name.decode(): value
            for name, value in zip(flat[::2], flat[1::2], strict=True)
            if name is not None and value is not None
        }

    async def _scanned(
        self, tenant: str, devices: Sequence[str], count: int, wanted: Callable[[Alarm], bool]
    ) -> Sequence[Mapping[str, bytes]]:
        """The tables of devices; of those that take several readings, past alarms only as far as `_thinned` keeps."""
        tables: dict[str, dict[str, bytes]] = {device: {} for device in devices}
        at: dict[str, Any] = dict.fromkeys(tables, 0)
        while at:
            replies = await self._at.execute(
                [
                    ("HSCAN", self._at.keys(tenant, device).state(TABLE, device), cursor, "COUNT", FIELDS_AT_ONCE)
                    for device, cursor in at.items()
                ]
            )
            for device, (cursor, flat) in zip(tuple(at), replies, strict=True):
                tables[device].update((name.decode(), value) for name, value in zip(flat[::2], flat[1::2], strict=True))
                if int(cursor):
                    at[device] = cursor
                    tables[device] = _thinned(tables[device], count, wanted)
                else:
                    del at[device]
        return tuple(tables.values())

    async def _read(self, keys: Sequence[Keys], entries: Sequence[Entry]) -> _Found:
        """The alarm of each entry, None for one that is gone meanwhile; one round trip."""
        named = [split_member(entry.member.decode()) for entry in entries]
        replies = await self._at.execute(
            [
                (
                    "HMGET", keys[entry.part].state(TABLE, device), past_field(id), active_field(type),
                    acked_field(type), cleared_field(type),
                )
                for entry, (device, type, id) in zip(entries, named, strict=True)
            ]
        )  # fmt: skip
        return [_alarm(id, *reply) for (_, _, id), reply in zip(named, replies, strict=True)]

    async def _write(self, tenant: str, device: str, id: str, writes: Writes | None) -> Alarm:
        if writes is None:
            raise NotFound("alarm", id)
        kept = [part for name, value in writes.items() if value is not None for part in (name, value)]
        if kept:
            await self._at.execute([("HSET", self._at.keys(tenant, device).state(TABLE, device), *kept)])
        return await self.get(tenant, device, id)


def _newest(found: Alarms, count: int) -> Alarms:
    """The newest so many, and those that began when the last of them did."""
    found.sort(key=lambda alarm: (-alarm.start_ms, alarm.id))
    if len(found) <= count:
        return found
    return [alarm for alarm in found if alarm.start_ms >= found[count - 1].start_ms]


def _thinned(table: Mapping[str, bytes], count: int, wanted: Callable[[Alarm], bool]) -> dict[str, bytes]:
    """A table without those past alarms that are not among the newest wanted ones."""
    past = [alarm for alarm in visible(table) if past_field(alarm.id) in table and wanted(alarm)]
    kept = {past_field(alarm.id) for alarm in _newest(past, count)}
    return {name: value for name, value in table.items() if name in kept or not name.startswith(past_field(""))}


def _alarm(
    id: str, past: bytes | None, active: bytes | None, acked: bytes | None, cleared: bytes | None
) -> Alarm | None:
    """An alarm from the fields that it may stand in; the past has the last word."""
    if past is not None:
        return merge(past, acked, cleared)
    if active is None or decode_alarm(active).id != id:
        return None
    return merge(active, acked, cleared)
