"""Alarms of a batch's devices: what is stored, under what the batch itself has already decided."""

from __future__ import annotations

from collections.abc import Iterable

from engine.stores import alarms
from engine.stores.alarms import Alarm, Writes
from nodes import Context, Outcomes, Write


class AlarmState:
    """Alarm reads and writes of one `process` call: a later message sees what an earlier one wrote."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._written: dict[tuple[str, str], bytes | None] = {}

    async def load(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Read what is known of (device, alarm type) pairs in one round trip."""
        await self._ctx.load(
            (device, alarms.TABLE, field) for device, type in dict.fromkeys(wanted) for field in fields(type)
        )

    def current(self, device: str, type: str) -> Alarm | None:
        """The last alarm of the type that the worker has not moved to the past; an operator may have cleared it."""
        return alarms.merge(*(self._get(device, field) for field in fields(type)))

    def write(self, i: int, device: str, writes: Writes, out: Outcomes) -> None:
        """Write with the commit of message `i`, and at once for the rest of this batch."""
        for field, value in writes.items():
            self._written[device, field] = value
            out.effect(i, Write(alarms.TABLE, field, value))

    def _get(self, device: str, field: str) -> bytes | None:
        if (device, field) in self._written:
            return self._written[device, field]
        return self._ctx.get(device, alarms.TABLE, field)


def fields(type: str) -> tuple[str, str, str]:
    """The fields that together are the current alarm of a type."""
    return alarms.active_field(type), alarms.acked_field(type), alarms.cleared_field(type)


def declared_reads(type: str, constant: bool) -> frozenset[str]:
    """What a node of this alarm type reads, as `Node.reads` wants it; a type made per message may be any."""
    if not constant:
        return frozenset({alarms.TABLE})
    return frozenset(f"{alarms.TABLE}:{field}" for field in fields(type))


def declared_writes(type: str, constant: bool) -> frozenset[str]:
    """What a node of this alarm type writes, as `Node.writes` wants it."""
    if not constant:
        return frozenset({alarms.TABLE})
    return frozenset({f"{alarms.TABLE}:{alarms.active_field(type)}", f"{alarms.TABLE}:{alarms.past_field('*')}"})
