from __future__ import annotations

from typing import Any

import pytest

from engine.stores import alarms
from nodes import BadInput, Index, Message
from nodes.clear_alarm import ClearAlarm
from nodes.create_alarm import CreateAlarm
from tests.nodes.context import DictContext, build, emitted, message, run

pytestmark = pytest.mark.asyncio


def at(ts_ms: int, data: Any = None, **fields: Any) -> Message:
    return message({"t": ts_ms} if data is None else data, id=f"m{ts_ms}", ts_ms=ts_ms, **fields)


def stored(ctx: DictContext, device: str = "dev1") -> list[alarms.Alarm]:
    return alarms.visible({field: raw for (owner, _, field), raw in ctx.state.items() if owner == device})


def mark(ctx: DictContext, function: Any, alarm_id: str, device: str = "dev1") -> None:
    fields = {field: raw for (owner, _, field), raw in ctx.state.items() if owner == device}
    for field, raw in function(fields, alarm_id, 5000, "ann").items():
        ctx.state[device, "alarm", field] = raw


async def test_a_new_alarm() -> None:
    ctx = DictContext()
    node = build(CreateAlarm, type="Too hot", severity="MAJOR")
    out = await run(node, at(10, {"t": 41}), ctx=ctx)
    (alarm,) = stored(ctx)
    assert (alarm.tenant, alarm.device, alarm.type, alarm.severity) == ("acme", "dev1", "Too hot", "MAJOR")
    assert (alarm.start_ms, alarm.end_ms, alarm.details, alarm.status) == (10, 10, {"t": 41}, "ACTIVE_UNACK")
    (sent,) = emitted(out)["Created"]
    assert sent.type == "ALARM"
    assert sent.data == alarms.as_json(alarm)
    assert sent.metadata == {"isNewAlarm": "true"}
    indexed = [effect for _, effect in out.effects if isinstance(effect, Index)]
    assert indexed == [Index("alarms", alarms.member("dev1", "Too hot", alarm.id), 10.0)]


async def test_messages_of_one_batch_see_each_other_and_devices_do_not() -> None:
    ctx = DictContext()
    node = build(CreateAlarm, type="hot")
    out = await run(node, at(10), at(20), at(15, originator="dev2"), at(30), ctx=ctx)
    assert [sent.originator for sent in emitted(out)["Created"]] == ["dev1", "dev2"]
    assert [sent.metadata for sent in emitted(out)["Updated"]] == [{"isExistingAlarm": "true"}] * 2
    (alarm,) = stored(ctx)
    assert (alarm.start_ms, alarm.end_ms, alarm.details) == (10, 30, {"t": 30})
    assert len(stored(ctx, "dev2")) == 1
    assert ctx.loads == 1


async def test_a_changed_severity_is_told() -> None:
    ctx = DictContext()
    node = build(CreateAlarm, type="hot", severity="${level}")
    await run(node, at(10, metadata={"level": "MINOR"}), ctx=ctx)
    out = await run(node, at(20, metadata={"level": "CRITICAL"}), ctx=ctx)
    assert emitted(out)["Updated"][0].metadata == {
        "level": "CRITICAL",
        "isExistingAlarm": "true",
        "isSeverityUpdated": "true",
    }
    assert stored(ctx)[0].severity == "CRITICAL"


async def test_clearing_and_raising_again() -> None:
    ctx = DictContext()
    create, clear = build(CreateAlarm, type="hot"), build(ClearAlarm, type="hot", details="back at $[t]")
    await run(create, at(10), ctx=ctx)
    out = await run(clear, at(20), at(30), ctx=ctx)
    (sent,) = emitted(out)["Cleared"]
    assert (sent.type, sent.metadata, sent.data["status"]) == ("ALARM", {"isClearedAlarm": "true"}, "CLEARED_UNACK")
    assert emitted(out)["False"] == [at(30)]
    await run(create, at(40), ctx=ctx)
    second, first = stored(ctx)
    assert (first.status, first.cleared_ms, first.details) == ("CLEARED_UNACK", 20, "back at 20")
    assert (second.status, second.start_ms) == ("ACTIVE_UNACK", 40)
    assert first.id != second.id


async def test_an_operators_clearing_ends_the_alarm_for_both_nodes() -> None:
    ctx = DictContext()
    create, clear = build(CreateAlarm, type="hot"), build(ClearAlarm, type="hot")
    await run(create, at(10), ctx=ctx)
    mark(ctx, alarms.clear, stored(ctx)[0].id)
    assert list(emitted(await run(clear, at(20), ctx=ctx))) == ["False"]
    out = await run(create, at(30), ctx=ctx)
    assert list(emitted(out)) == ["Created"]
    second, first = stored(ctx)
    assert (first.cleared_by, first.cleared_ms, second.active) == ("ann", 5000, True)


async def test_an_acknowledgement_outlives_updates_and_the_end() -> None:
    ctx = DictContext()
    create, clear = build(CreateAlarm, type="hot"), build(ClearAlarm, type="hot")
    await run(create, at(10), ctx=ctx)
    mark(ctx, alarms.acknowledge, stored(ctx)[0].id)
    out = await run(create, at(20), ctx=ctx)
    assert emitted(out)["Updated"][0].data["status"] == "ACTIVE_ACK"
    await run(clear, at(30), ctx=ctx)
    await run(create, at(40), ctx=ctx)
    assert [alarm.status for alarm in stored(ctx)] == ["ACTIVE_UNACK", "CLEARED_ACK"]


async def test_the_same_message_again_gives_the_same_alarm_id() -> None:
    node = build(CreateAlarm, type="hot")
    ids = []
    for _ in range(2):
        ctx = DictContext()
        await run(node, at(10), ctx=ctx)
        ids.append(stored(ctx)[0].id)
    assert ids[0] == ids[1]


async def test_one_alarm_per_type() -> None:
    ctx = DictContext()
    node = build(CreateAlarm, type="hot ${room}", details="$[t] in ${room}")
    await run(node, at(10, metadata={"room": "a"}), at(20, metadata={"room": "b"}), ctx=ctx)
    assert [(alarm.type, alarm.details) for alarm in stored(ctx)] == [("hot b", "20 in b"), ("hot a", "10 in a")]


@pytest.mark.parametrize(
    ("config", "bad", "reason"),
    [
        ({"type": "${room}"}, at(1), "room"),
        ({"severity": "${level}"}, at(1, metadata={"level": "BAD"}), "BAD"),
        ({"type": "${room}"}, at(1, metadata={"room": "x" * 256}), "255"),
        ({"details": "$[nothing]"}, at(1), "nothing"),
        ({}, at(1, b"\x00"), "bytes"),
        ({}, at(1, metadata={"ts": "x"}), "ts"),
    ],
)
async def test_a_bad_message_fails_alone(config: dict[str, str], bad: Message, reason: str) -> None:
    good = at(2, metadata={"room": "r", "level": "MINOR"}, data={"nothing": 1})
    out = await run(build(CreateAlarm, **config), bad, good)
    assert list(out.failed) == [0]
    assert reason in out.failed[0]
    assert {i for i, _ in out.effects} == {1}


async def test_clear_fails_on_a_missing_key_and_clears_nothing() -> None:
    ctx = DictContext()
    await run(build(CreateAlarm, type="hot"), at(10), ctx=ctx)
    out = await run(build(ClearAlarm, type="hot", details="${gone}"), at(20), ctx=ctx)
    assert "gone" in out.failed[0]
    assert (await run(build(ClearAlarm, type="${x}"), at(20), ctx=ctx)).failed
    assert stored(ctx)[0].active


async def test_wrong_configurations() -> None:
    for kind, config in (
        (CreateAlarm, {"severity": "BAD"}),
        (CreateAlarm, {"type": "${"}),
        (CreateAlarm, {"details": "${secret:X}"}),
        (ClearAlarm, {"details": "$["}),
    ):
        with pytest.raises(BadInput):
            build(kind, **config)


async def test_they_say_what_they_touch() -> None:
    create, clear = build(CreateAlarm, type="hot"), build(ClearAlarm, type="hot")
    assert create.reads() == clear.reads() == {"alarm:active/hot", "alarm:acked/hot", "alarm:cleared/hot"}
    assert "alarm:active/hot" in create.writes() & clear.writes()
    assert build(CreateAlarm, type="${x}").reads() == build(ClearAlarm, type="${x}").writes() == {"alarm"}
