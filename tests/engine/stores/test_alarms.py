from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.stores import alarms
from engine.stores.alarms import Alarm, Writes

FIRST = Alarm(
    id="a1", tenant="t", device="d", type="hot/|x", severity="MAJOR", start_ms=10, end_ms=20, details={"t": 41}
)


def state(*records: Writes) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    for writes in records:
        for name, value in writes.items():
            if value is None:
                fields.pop(name, None)
            else:
                fields[name] = value
    return fields


def after(fields: dict[str, bytes], writes: Writes | None) -> dict[str, bytes]:
    assert writes is not None
    return state(dict(fields), writes)


ACTIVE = state({alarms.active_field(FIRST.type): alarms.encode(FIRST)})


def seen(fields: dict[str, bytes]) -> dict[str, str]:
    return {alarm.id: alarm.status for alarm in alarms.visible(fields)}


def move(fields: dict[str, bytes], cleared_ms: int) -> dict[str, bytes]:
    """What the worker does when its chain clears the alarm."""
    names = (alarms.active_field(FIRST.type), alarms.acked_field(FIRST.type), alarms.cleared_field(FIRST.type))
    alarm = alarms.merge(*(fields.get(name) for name in names))
    assert alarm is not None
    return after(fields, alarms.ended(msgspec.structs.replace(alarm, cleared_ms=cleared_ms)))


def test_an_alarm_comes_back_whole() -> None:
    assert alarms.visible(ACTIVE) == [FIRST]
    assert FIRST.active


def test_status_follows_both_marks_in_any_order() -> None:
    acked = after(ACTIVE, alarms.acknowledge(ACTIVE, "a1", 30, "ann"))
    cleared = after(ACTIVE, alarms.clear(ACTIVE, "a1", 40, "bob"))
    assert seen(ACTIVE) == {"a1": "ACTIVE_UNACK"}
    assert seen(acked) == {"a1": "ACTIVE_ACK"}
    assert seen(cleared) == {"a1": "CLEARED_UNACK"}
    both = after(acked, alarms.clear(acked, "a1", 40, "bob"))
    assert both == after(cleared, alarms.acknowledge(cleared, "a1", 30, "ann"))
    (alarm,) = alarms.visible(both)
    assert (alarm.status, alarm.acked_ms, alarm.acked_by) == ("CLEARED_ACK", 30, "ann")
    assert (alarm.cleared_ms, alarm.cleared_by) == (40, "bob")


def test_an_update_of_the_worker_does_not_undo_the_operator() -> None:
    acked = after(ACTIVE, alarms.acknowledge(ACTIVE, "a1", 30, "ann"))
    stale_update = state(acked, ACTIVE)
    assert seen(stale_update) == {"a1": "ACTIVE_ACK"}


def test_an_ended_alarm_keeps_its_marks_and_takes_a_late_one() -> None:
    acked = after(ACTIVE, alarms.acknowledge(ACTIVE, "a1", 30, "ann"))
    assert seen(move(acked, 50)) == {"a1": "CLEARED_ACK"}
    late = move(ACTIVE, 50)
    assert seen(late) == {"a1": "CLEARED_UNACK"}
    assert seen(after(late, alarms.acknowledge(late, "a1", 60, "ann"))) == {"a1": "CLEARED_ACK"}


def test_marks_of_one_alarm_do_not_touch_the_next() -> None:
    acked = after(ACTIVE, alarms.acknowledge(ACTIVE, "a1", 30, "ann"))
    second = Alarm(id="a2", tenant="t", device="d", type=FIRST.type, severity="MINOR", start_ms=70, end_ms=70)
    fields = state(move(acked, 50), {alarms.active_field(second.type): alarms.encode(second)})
    assert seen(fields) == {"a2": "ACTIVE_UNACK", "a1": "CLEARED_ACK"}
    assert [alarm.id for alarm in alarms.visible(fields)] == ["a2", "a1"]


def test_a_mark_given_while_the_alarm_ended_is_not_lost_to_the_next_mark() -> None:
    raced = state(move(ACTIVE, 50), after(ACTIVE, alarms.acknowledge(ACTIVE, "a1", 49, "ann")))
    del raced[alarms.active_field(FIRST.type)]
    assert seen(raced) == {"a1": "CLEARED_ACK"}
    second = Alarm(id="a2", tenant="t", device="d", type=FIRST.type, severity="MINOR", start_ms=70, end_ms=70)
    fields = state(raced, {alarms.active_field(second.type): alarms.encode(second)})
    fields = after(fields, alarms.acknowledge(fields, "a2", 80, "bob"))
    assert seen(fields) == {"a2": "ACTIVE_ACK", "a1": "CLEARED_ACK"}


def test_marking_twice_and_marking_nothing() -> None:
    acked = after(ACTIVE, alarms.acknowledge(ACTIVE, "a1", 30, "ann"))
    assert alarms.acknowledge(acked, "a1", 99, "bob") == {}
    assert alarms.clear(move(ACTIVE, 50), "a1", 99, "bob") == {}
    assert alarms.acknowledge(ACTIVE, "a9", 30, "ann") is None
    assert alarms.clear({}, "a1", 30, "ann") is None


def test_foreign_fields_are_named() -> None:
    with pytest.raises(BadInput, match="odd"):
        alarms.visible({"odd/field": b""})


@given(st.text(), st.text(), st.text())
def test_index_members_are_unambiguous(device: str, type: str, alarm_id: str) -> None:
    assert alarms.split_member(alarms.member(device, type, alarm_id)) == (device, type, alarm_id)


def test_foreign_members_are_refused() -> None:
    with pytest.raises(BadInput):
        alarms.split_member("a|b")


def test_json_form() -> None:
    shown = alarms.as_json(FIRST)
    assert shown["status"] == "ACTIVE_UNACK"
    assert shown["originator"] == "d"
    assert shown["details"] == {"t": 41}
