"""The format of alarm state, and the rules that keep a worker's and an operator's word apart.

A device has at most one active alarm of a type. In its state table stand:

- `active/{type}`: the alarm as the worker sees it. Only the worker writes it.
- `acked/{type}`, `cleared/{type}`: a `Mark`, an operator's word on the alarm it names. Only the API writes them,
  so a worker that updates the alarm at the same time overwrites nothing.
- `past/{id}`: an alarm that has ended, with the marks it had. The worker writes it once; from then on it is the API's.

All functions here are pure: what they return as writes maps field names to bytes, None meaning: delete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from engine.errors import BadInput

TABLE: Final = "alarm"
INDEX: Final = "alarms"
"""Tenant-wide index: `member` of each alarm by the time it started."""

Severity = Literal["CRITICAL", "MAJOR", "MINOR", "WARNING", "INDETERMINATE"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)

Status = Literal["ACTIVE_UNACK", "ACTIVE_ACK", "CLEARED_UNACK", "CLEARED_ACK"]

MAX_TYPE: Final = 255


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """An operator's word on one alarm: which, when, who."""

    alarm_id: str
    ts_ms: int
    by: str = ""


class Alarm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alarm from its first trigger to its end. Times are milliseconds, 0 meaning: has not happened."""

    id: str
    tenant: str
    device: str
    type: str
    severity: Severity
    start_ms: int
    end_ms: int
    """The last time it was triggered."""
    acked_ms: int = 0
    acked_by: str = ""
    cleared_ms: int = 0
    cleared_by: str = ""
    """Who cleared it; empty: a chain."""
    details: Any = None

    @property
    def status(self) -> Status:
        """Both halves of its life in one word."""
        if self.cleared_ms:
            return "CLEARED_ACK" if self.acked_ms else "CLEARED_UNACK"
        return "ACTIVE_ACK" if self.acked_ms else "ACTIVE_UNACK"

    @property
    def active(self) -> bool:
        """Nobody has cleared it yet."""
        return not self.cleared_ms


Writes = dict[str, bytes | None]

_encoder = msgspec.msgpack.Encoder()
_alarms = msgspec.msgpack.Decoder(Alarm)
_marks = msgspec.msgpack.Decoder(Mark)


def active_field(type: str) -> str:
    """Where the active alarm of a type stands."""
    return f"active/{type}"


def acked_field(type: str) -> str:
    """Where the operator's acknowledgement stands."""
    return f"acked/{type}"


def cleared_field(type: str) -> str:
    """Where the operator's clearing stands."""
    return f"cleared/{type}"


def past_field(alarm_id: str) -> str:
    """Where an ended alarm stands."""
    return f"past/{alarm_id}"


def encode(record: Alarm | Mark) -> bytes:
    """What stands in a field."""
    return _encoder.encode(record)


def decode_alarm(raw: bytes) -> Alarm:
    """An `active/` or `past/` field."""
    return _alarms.decode(raw)


def decode_mark(raw: bytes) -> Mark:
    """An `acked/` or `cleared/` field."""
    return _marks.decode(raw)


def merge(raw: bytes | None, acked: bytes | None, cleared: bytes | None) -> Alarm | None:
    """The alarm in `raw` as everybody sees it: with the marks that name it. None when there is no alarm."""
    if raw is None:
        return None
    alarm = decode_alarm(raw)
    if acked is not None and not alarm.acked_ms:
        mark = decode_mark(acked)
        if mark.alarm_id == alarm.id:
            alarm = msgspec.structs.replace(alarm, acked_ms=mark.ts_ms, acked_by=mark.by)
    if cleared is not None and not alarm.cleared_ms:
        mark = decode_mark(cleared)
        if mark.alarm_id == alarm.id:
            alarm = msgspec.structs.replace(alarm, cleared_ms=mark.ts_ms, cleared_by=mark.by)
    return alarm


def ended(alarm: Alarm) -> Writes:
    """Writes that move a merged, cleared alarm to the past."""
    return {active_field(alarm.type): None, past_field(alarm.id): encode(alarm)}


def visible(fields: Mapping[str, bytes]) -> list[Alarm]:
    """All alarms of a device, as its whole table gives them, the newest first."""
    found = {}
    for name in fields:
        kind, _, rest = name.partition("/")
        if kind == "past" or kind == "active":
            alarm = _seen(fields, name)
            # While an alarm is moved both may be read; the past one has the last word.
            if alarm.id not in found or kind == "past":
                found[alarm.id] = alarm
        elif kind not in ("acked", "cleared") or not rest:
            raise BadInput(f"not an alarm field: {name!r}")
    return sorted(found.values(), key=lambda alarm: (-alarm.start_ms, alarm.id))


def acknowledge(fields: Mapping[str, bytes], alarm_id: str, ts_ms: int, by: str) -> Writes | None:
    """The operator's writes that acknowledge an alarm; None if the device has no such alarm, {} if it is done."""
    return _mark(fields, alarm_id, Mark(alarm_id, ts_ms, by), "acked")


def clear(fields: Mapping[str, bytes], alarm_id: str, ts_ms: int, by: str) -> Writes | None:
    """The operator's writes that clear an alarm; None if the device has no such alarm, {} if it is done."""
    return _mark(fields, alarm_id, Mark(alarm_id, ts_ms, by), "cleared")


def member(device: str, type: str, alarm_id: str) -> str:
    """The index member of an alarm: the three parts joined by `|`, with `%` and `|` inside them escaped."""
    return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in (device, type, alarm_id))


def split_member(text: str) -> tuple[str, str, str]:
    """Device, type and id of an index member."""
    parts = [part.replace("%7C", "|").replace("%25", "%") for part in text.split("|")]
    if len(parts) != 3:
        raise BadInput(f"not a member of the alarm index: {text!r}")
    return parts[0], parts[1], parts[2]


def as_json(alarm: Alarm) -> dict[str, Any]:
    """The alarm as a message's data and as the API shows it."""
    return {
        "id": alarm.id,
        "type": alarm.type,
        "originator": alarm.device,
        "severity": alarm.severity,
        "status": alarm.status,
        "start_ms": alarm.start_ms,
        "end_ms": alarm.end_ms,
        "acked_ms": alarm.acked_ms,
        "acked_by": alarm.acked_by,
        "cleared_ms": alarm.cleared_ms,
        "cleared_by": alarm.cleared_by,
        "details": alarm.details,
    }


def _seen(fields: Mapping[str, bytes], name: str) -> Alarm:
    named = decode_alarm(fields[name]).type
    alarm = merge(fields[name], fields.get(acked_field(named)), fields.get(cleared_field(named)))
    assert alarm is not None
    return alarm


def _mark(fields: Mapping[str, bytes], alarm_id: str, mark: Mark, what: Literal["acked", "cleared"]) -> Writes | None:
    alarm = next((alarm for alarm in visible(fields) if alarm.id == alarm_id), None)
    if alarm is None:
        return None
    if alarm.acked_ms if what == "acked" else alarm.cleared_ms:
        return {}
    if past_field(alarm_id) in fields:
        return {past_field(alarm_id): encode(msgspec.structs.replace(alarm, acked_ms=mark.ts_ms, acked_by=mark.by))}
    name = acked_field(alarm.type) if what == "acked" else cleared_field(alarm.type)
    writes: Writes = {name: encode(mark)}
    # The mark in the way may be of an alarm that ended in the very moment it was given: keep it with that alarm.
    older = fields.get(name)
    if older is not None:
        place = past_field(decode_mark(older).alarm_id)
        if place in fields:
            writes[place] = encode(_seen(fields, place))
    return writes
