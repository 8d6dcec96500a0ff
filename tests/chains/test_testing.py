from __future__ import annotations

import json
from typing import Any

import pytest

from chains.cases import read_cases
from chains.compiler import compile_tenant
from chains.testing import Report, run_case
from engine.errors import InvalidDocument
from nodes.catalogue import Catalogue

pytestmark = pytest.mark.asyncio

GREENHOUSE: dict[str, Any] = {
    "chain": "greenhouse",
    "start": "by type",
    "nodes": {
        "by type": {
            "kind": "message_type_switch",
            "to": {
                "Post telemetry": "fahrenheit",
                "Post attributes": "attributes",
                "RPC Request from Device": "reply",
                "RPC Request to Device": "ask",
                "Other": "later",
            },
        },
        "fahrenheit": {
            "kind": "script",
            "config": {
                "source": [
                    "if msg.busy and now() < 1700000005000 then retry(2, 'busy') end",
                    "if not msg.c then error('no temperature') end",
                    "msg.f = msg.c * 9 / 5 + 32",
                    "return {msg = msg}",
                ]
            },
            "to": {"Success": ["save", "hot?"]},
        },
        "save": {"kind": "save_timeseries"},
        "hot?": {"kind": "filter", "config": {"source": "return msg.c > 40"}, "to": {"True": "alarm"}},
        "alarm": {
            "kind": "create_alarm",
            "config": {"type": "Too hot", "severity": "CRITICAL"},
            "to": {"Created": "tell"},
        },
        "tell": {"kind": "forward_http", "config": {"url": "https://example.com/hook"}, "to": {"Failure": "note"}},
        "note": {"kind": "log"},
        "attributes": {"kind": "save_attributes"},
        "reply": {"kind": "rpc_reply"},
        "ask": {"kind": "rpc_request", "to": {"Success": "note", "Timeout": "note"}},
        "later": {"kind": "delay", "config": {"delay_s": 60}, "to": {"Success": "note"}},
    },
}

PLAN = compile_tenant("acme", 1, "greenhouse", {"greenhouse": (1, GREENHOUSE)}, Catalogue())


async def ran(case: dict[str, Any], **expect: Any) -> Report:
    (read,) = read_cases(json.dumps([{"name": "case", **case, "expect": expect}]))
    return await run_case(PLAN, read)


async def holds(case: dict[str, Any], **expect: Any) -> None:
    report = await ran(case, **expect)
    assert report.findings == [], report.outcome


async def test_points_alarms_calls_and_the_way_taken() -> None:
    await holds(
        {"messages": [{"data": {"c": 20}}, {"originator": "oven", "data": {"c": 50}, "ts_ms": 7}]},
        points=[
            {"device": "device", "key": "c", "value": 20, "ts_ms": 1_700_000_000_000},
            {"key": "f", "value": 68.0},
            {"device": "oven", "key": "c", "value": 50, "ts_ms": 7},
            {"device": "oven", "key": "f"},
        ],
        alarms={"oven": [{"type": "Too hot", "status": "ACTIVE_UNACK"}]},
        calls=[{"node": "tell", "originator": "oven"}],
        relations={"by type": ["Post telemetry", "Post telemetry"], "hot?": ["False", "True"]},
        waiting=1,
    )


async def test_state_that_was_there_before() -> None:
    await holds(
        {
            "state": {
                "alarms": {"device": [{"type": "Too hot", "acked": True}]},
                "attributes": {"device": {"SERVER": {"unit": "C"}}},
            },
            "messages": [
                {"data": {"c": 50}},
                {"type": "POST_ATTRIBUTES_REQUEST", "data": {"place": "roof"}, "metadata": {"scope": "CLIENT_SCOPE"}},
            ],
        },
        alarms={"device": [{"id": "alarm-1", "status": "ACTIVE_ACK"}]},
        attributes={"device": {"SERVER": {"unit": "C"}, "CLIENT": {"place": "roof"}}},
        calls=[],
    )


async def test_replies() -> None:
    await holds(
        {"messages": [{"type": "TO_SERVER_RPC_REQUEST", "data": {"time": 1}, "waits": True}]},
        replies=[{"data": {"time": 1}, "error": ""}],
        trace=[["by type", "RPC Request from Device"], ["reply", "Success"]],
    )


async def test_a_command_that_is_answered_or_not() -> None:
    command = {"type": "RPC_CALL_FROM_SERVER_TO_DEVICE", "data": {"method": "on", "params": 1}, "waits": True}
    sent = [{"originator": "device", "name": "on", "payload": 1, "oneway": False}]
    await holds(
        {"messages": [command], "then": [{"answer": {"command": "on", "data": "ok"}}]},
        commands=sent,
        replies=[{"data": "ok"}],
        waiting=0,
    )
    await holds(
        {"messages": [command], "then": [{"after_s": 59}, {"after_s": 1}]},
        commands=sent,
        replies=[{"error": "timeout"}],
        relations={"ask": ["PARKED", "Timeout"]},
    )
    report = await ran({"messages": [command], "then": [{"answer": {"command": "off"}}]})
    assert [tuple(finding) for finding in report.findings] == [
        ("/then/0/answer", "no command 'off' waits for 'device' to answer")
    ]


async def test_time_passes_by_the_virtual_clock() -> None:
    other = {"messages": [{"type": "SOMETHING"}]}
    await holds({**other, "then": [{"after_s": 59.9}]}, waiting=1, relations={"later": ["PARKED"]})
    await holds({**other, "then": [{"after_s": 60}]}, waiting=0, relations={"note": ["Success"]})


async def test_what_a_call_brings_back() -> None:
    hot = {"messages": [{"data": {"c": 50}}]}
    await holds({**hot, "then": [{"called": {"node": "tell", "emits": [{"data": "thanks"}]}}]}, waiting=0)
    await holds(
        {**hot, "then": [{"called": {"node": "tell", "error": "HTTP 500"}}]},
        trace=[
            ["by type", "Post telemetry"],
            ["fahrenheit", "Success"],
            ["save", "Success"],
            ["hot?", "True"],
            ["alarm", "Created"],
            ["tell", "PARKED"],
            ["tell", "Failure"],
            ["note", "Success"],
        ],
    )
    report = await ran({**hot, "then": [{"called": {"node": "note"}}]})
    assert [tuple(finding) for finding in report.findings] == [("/then/0/called", "no call of 'note' is under way")]


async def test_a_retry_holds_its_device_back_and_no_other() -> None:
    await holds(
        {
            "messages": [{"data": {"busy": True, "c": 1}}, {"data": {"c": 2}}, {"originator": "b", "data": {"c": 3}}],
            "then": [{"messages": [{"data": {"c": 4}}]}, {"after_s": 6}],
        },
        points=[
            {"device": "b", "value": 3},
            {"device": "b"},
            {"key": "busy", "value": True},
            {"key": "c", "value": 1},
            {"key": "f"},
            {"value": 2},
            {},
            {"value": 4},
            {},
        ],
    )


async def test_dead_letters_are_never_passed_over() -> None:
    broken = {"messages": [{"data": {}}]}
    report = await ran(broken)
    ((place, message),) = report.findings
    assert place == "/expect/dead"
    assert "no temperature" in message
    await holds(broken, dead=[{"node": "fahrenheit", "reason": "no temperature"}])


async def test_differences_name_their_place() -> None:
    report = await ran(
        {"messages": [{"data": {"c": 20}}]},
        points=[{"value": 21, "unit": "C"}, {"value": 68}],
        replies=[{}],
        waiting=1,
    )
    assert [tuple(finding) for finding in report.findings] == [
        ("/expect/points/0/value", "expected 21, but it is 20"),
        ("/expect/points/0/unit", 'expected "C", but there is none'),
        ("/expect/replies", "expected 1 entries, but there are 0: []"),
        ("/expect/waiting", "expected 1, but it is 0"),
    ]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('[{"name": "x"}]', "/0", "Object missing required field `messages`"),
        ('[{"name": "x", "messages": [{}], "expect": {"point": []}}]', "/0/expect", "unknown field `point`"),
        ('[{"name": "x", "messages": [{}], "then": [{}], "expect": {}}]', "/0/then/0", "set exactly one of after_s"),
        ('[{"name": "x", "messages": [{"data": 1, "raw_b64": ""}], "expect": {}}]', "/0/messages/0", "either data or"),
        ('[{"name": "x", "messages": [], "expect": {}}]', "/0/messages", "length >= 1"),
        ("[", "", "truncated"),
        (b'[{"name": "\xff"}]', "", "text is not UTF-8"),
        (json.dumps([{"name": "x", "messages": [{}], "expect": {}}] * 2), "/1/name", "two cases are named 'x'"),
    ],
)
async def test_cases_that_cannot_be_read(text: str | bytes, place: str, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        read_cases(text)
    ((found, reason),) = caught.value.findings
    assert found == place
    assert message in reason


async def test_bytes_are_given_as_base64() -> None:
    report = await ran({"messages": [{"type": "X", "raw_b64": "!"}]})
    assert report.findings[0].pointer == "/messages/0/raw_b64"
