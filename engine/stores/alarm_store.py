"""Alarms as an operator sees them: a tenant's list, one alarm, and the operator's word on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.errors import NotFound
from engine.message import now_ms
from engine.partitions import Keys, all_keys, partition_of
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
from engine.wire import Argument, Wire, failed

LOOK_AT_MOST: Final = 5_000
"""Entries looked at for one page: a filter that finds little gives a short page and a cursor."""

_Rows = list[list[bytes | None]]
_Found = list[Alarm | None]


class AlarmPage(NamedTuple):
    """A part of a list; `cursor` is empty at its end. A page may be short, or even empty, and still have a cursor."""

    alarms: list[Alarm]
    cursor: str


class AlarmStore:
    """Reads alarms, acknowledges and clears them."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._wire, self._partitions = wire, partitions

    async def list(
        self, tenant: str, *, statuses: Sequence[Status] = (), device: str = "", limit: int = 100, cursor: str = ""
    ) -> AlarmPage:
        """A tenant's alarms, those that began last first; BadInput for a cursor that is none.

        Only those of the given statuses (none: all) and device (empty: all).
        """
        keys = all_keys(self._partitions)
        if device:
            keys = (keys[partition_of(tenant, device, self._partitions)],)
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

    def _keys(self, tenant: str, device: str) -> Keys:
        return all_keys(self._partitions)[partition_of(tenant, device, self._partitions)]

    async def _execute(self, commands: Sequence[tuple[Argument, ...]]) -> _Rows:
        replies = await self._wire.execute(commands) if commands else []
        for reply in replies:
            if failed(reply):
                raise RedisConnectionError(str(reply))
        return replies

    async def _table(self, tenant: str, device: str) -> dict[str, bytes]:
        flat = (await self._execute([("HGETALL", self._keys(tenant, device).state(TABLE, device))]))[0]
        return {
            name.decode(): value
            for name, value in zip(flat[::2], flat[1::2], strict=True)
            if name is not None and value is not None
        }

    async def _read(self, keys: Sequence[Keys], entries: Sequence[Entry]) -> _Found:
        """The alarm of each entry, None for one that is gone meanwhile; one round trip."""
        named = [split_member(entry.member.decode()) for entry in entries]
        replies = await self._execute(
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
            await self._execute([("HSET", self._keys(tenant, device).state(TABLE, device), *kept)])
        return await self.get(tenant, device, id)


def _alarm(
    id: str, past: bytes | None, active: bytes | None, acked: bytes | None, cleared: bytes | None
) -> Alarm | None:
    """An alarm from the fields that it may stand in; the past has the last word."""
    if past is not None:
        return merge(past, acked, cleared)
    if active is None or decode_alarm(active).id != id:
        return None
    return merge(active, acked, cleared)
