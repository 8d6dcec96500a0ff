from __future__ import annotations

from typing import Any

import pytest

from nodes import Command, Park, Reply, Resumed
from nodes.rpc_reply import RpcReply
from nodes.rpc_request import RpcRequest
from tests.nodes.context import NOW_MS, DictContext, build, emitted, message, resume, run

pytestmark = pytest.mark.asyncio

TYPE = "RPC_CALL_FROM_SERVER_TO_DEVICE"
CALL = {"method": "setGpio", "params": {"pin": "23", "value": 1}}


def call(data: Any = None, **fields: Any) -> Any:
    return message(CALL if data is None else data, type=TYPE, **fields)


@pytest.mark.spec("TB-46")
async def test_reply_answers_with_the_data() -> None:
    out = await run(build(RpcReply), message({"time": "now"}, reply_to="p1/7"), message({}, reply_to="p1/8"))
    assert out.effects == [(0, Reply({"time": "now"})), (1, Reply({}))]
    assert len(emitted(out)["Success"]) == 2


async def test_reply_fails_without_a_caller_or_data() -> None:
    out = await run(build(RpcReply), message({"x": 1}), message(None, reply_to="p1/7"))
    assert "nobody waits" in out.failed[0]
    assert "no data" in out.failed[1]
    assert out.effects == []


@pytest.mark.spec("TB-41", "TB-43")
async def test_a_command_waits_for_its_answer() -> None:
    node = build(RpcRequest, timeout_s=20)
    out = await run(node, call())
    until = NOW_MS + 20_000
    assert out.parked == {0: Park(until, Command("setGpio", CALL["params"], until))}
    back = await resume(node, call(reply_to="p1/7"), Resumed("answer", {"result": "ok"}))
    assert back.effects == [(0, Reply({"result": "ok"}))]
    assert emitted(back)["Success"] == [call({"result": "ok"}, reply_to="p1/7")]
    unasked = await resume(node, call(), Resumed("answer", {"result": "ok"}))
    assert unasked.effects == []


async def test_no_answer_in_time() -> None:
    node = build(RpcRequest)
    out = await resume(node, call(reply_to="p1/7"), Resumed("timer"))
    assert out.effects == [(0, Reply(None, "timeout"))]
    assert emitted(out) == {"Timeout": [call(reply_to="p1/7")]}


async def test_an_answer_that_is_an_error_and_a_stray_event() -> None:
    node = build(RpcRequest)
    assert "broken pin" in (await resume(node, call(), Resumed("answer", None, "broken pin"))).failed[0]
    assert "call" in (await resume(node, call(), Resumed("call"))).failed[0]


@pytest.mark.spec("CT-73")
async def test_one_way_goes_on_at_once() -> None:
    out = await run(build(RpcRequest), call(metadata={"oneway": "true"}))
    assert out.parked == {}
    assert out.effects == [(0, Command("setGpio", CALL["params"], NOW_MS + 60_000, oneway=True))]
    assert list(emitted(out)) == ["Success"]


@pytest.mark.parametrize(
    ("metadata", "until_ms"),
    [
        ({"expirationTime": str(NOW_MS + 5)}, NOW_MS + 5),
        ({"timeout": "1500"}, NOW_MS + 1500),
        ({"expirationTime": str(NOW_MS + 5), "timeout": "1500"}, NOW_MS + 5),
        ({"timeout": "999999999999"}, NOW_MS + 86_400_000),
    ],
)
async def test_the_message_may_say_how_long(metadata: dict[str, str], until_ms: int) -> None:
    out = await run(build(RpcRequest), call(metadata=metadata))
    assert out.parked[0].until_ms == until_ms
    assert out.parked[0].command is not None
    assert out.parked[0].command.expires_ms == until_ms


async def test_an_expired_command_is_not_sent() -> None:
    out = await run(build(RpcRequest), call(metadata={"expirationTime": str(NOW_MS)}, reply_to="p1/7"))
    assert out.effects == [(0, Reply(None, "timeout"))]
    assert list(emitted(out)) == ["Timeout"]


@pytest.mark.parametrize(
    ("data", "metadata", "reason"),
    [
        ([], {}, "object"),
        ({"params": {}}, {}, "method"),
        ({"method": 5, "params": {}}, {}, "method"),
        ({"method": "x"}, {}, "params"),
        (CALL, {"timeout": "soon"}, "timeout"),
        (CALL, {"expirationTime": "1.5"}, "expirationTime"),
    ],
)
async def test_what_is_no_command_fails_alone(data: Any, metadata: dict[str, str], reason: str) -> None:
    out = await run(build(RpcRequest), call(), message(data, type=TYPE, metadata=metadata), ctx=DictContext())
    assert list(out.failed) == [1]
    assert reason in out.failed[1]
    assert list(out.parked) == [0]


@pytest.mark.spec("TB-X4")
@pytest.mark.parametrize("oneway", ["true", "false"])
async def test_the_command_of_a_kept_call_names_it_and_may_wait_a_month(oneway: str) -> None:
    month = 30 * 86_400_000
    metadata = {"persistent": "true", "requestUUID": "c1", "oneway": oneway, "expirationTime": str(NOW_MS + 2 * month)}
    out = await run(build(RpcRequest), call(metadata=metadata), call(metadata={**metadata, "persistent": "false"}))
    commands = [effect for _, effect in out.effects if isinstance(effect, Command)]
    commands += [park.command for park in out.parked.values() if park.command is not None]
    assert [(each.call, each.expires_ms) for each in commands] == [
        ("c1", NOW_MS + month), ("", NOW_MS + 86_400_000),
    ]  # fmt: skip
