"""Chains, calls to devices, messages, dry runs, the tail, and what the server says of itself."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from api.flow.tailing import QUEUED_MOST
from engine.effects import Step
from engine.entries import encode
from engine.message import Message
from engine.tail import CHANNEL, WATCHED_KEY
from tests.api.flow.serving import FlowStack, T
from tests.api.stack import TENANT
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

SAVING = {"chain": "root", "start": "save", "nodes": {"save": {"kind": "save_timeseries"}}}
CALLED = {
    "chain": "called",
    "start": "double",
    "nodes": {
        "double": {"kind": "script", "config": {"source": "return {msg = {n = msg.n * 2}}"}, "to": {"Success": "out"}},
        "out": {"kind": "output"},
    },
}
CALLING = {
    "chain": "root",
    "start": "sub",
    "nodes": {
        "sub": {"kind": "chain", "config": {"chain": "called"}, "to": {"out": "save"}},
        "save": {"kind": "save_timeseries"},
    },
}


async def test_saving_tells_every_finding(stack: FlowStack) -> None:
    broken = {"chain": "c", "start": "nowhere", "nodes": {"a": {"kind": "odd"}, "b": {"kind": "log", "to": {"X": "z"}}}}
    problem = await stack.post(f"{T}/chains", broken, 400)
    pointers = {fault["pointer"] for fault in problem["errors"]}
    assert {"/start", "/nodes/a/kind"} <= pointers
    assert len(problem["errors"]) >= 3
    assert (await stack.get(f"{T}/chains"))["chains"] == []
    checked = await stack.post(f"{T}/chain-check", broken)
    assert {fault["pointer"] for fault in checked["errors"]} == pointers


async def test_versions_deployments_and_rollback(stack: FlowStack) -> None:
    assert (await stack.post(f"{T}/chains", SAVING))["version"] == 1
    assert (await stack.post(f"{T}/chains", SAVING))["version"] == 1
    await stack.get(f"{T}/deployments/current", 404)
    first = await stack.post(f"{T}/deployments", {"chains": {"root": None}, "note": "go"})
    assert (first["number"], first["root"], first["chains"]) == (1, "root", {"root": 1})
    assert (await stack.post(f"{T}/chains", {**SAVING, "title": "Second"}))["version"] == 2
    assert (await stack.get(f"{T}/chains"))["chains"] == [{"name": "root", "latest": 2, "deployed": 1, "root": True}]
    await stack.post(f"{T}/deployments", {"chains": {"root": 2}})
    history = await stack.get(f"{T}/deployments")
    assert ([one["number"] for one in history["deployments"]], history["current"]) == ([1, 2], 2)
    assert (await stack.post(f"{T}/rollback"))["number"] == 1
    assert (await stack.get(f"{T}/deployments/current"))["chains"] == {"root": 1}
    await stack.post(f"{T}/rollback", {"to": 9}, 404)
    assert (await stack.get(f"{T}/chains/root/versions"))["versions"] == [1, 2]
    assert (await stack.get(f"{T}/chains/root?version=1"))["document"] == SAVING
    assert (await stack.get(f"{T}/chains/root"))["document"]["title"] == "Second"
    await stack.get(f"{T}/chains/root?version=3", 404)
    await stack.get(f"{T}/chains/none/versions", 404)


async def test_deploying_what_does_not_link_changes_nothing(stack: FlowStack) -> None:
    await stack.post(f"{T}/chains", CALLING)
    problem = await stack.post(f"{T}/deployments", {"chains": {"root": None}}, 400)
    assert "called" in problem["detail"]
    await stack.get(f"{T}/deployments/current", 404)
    checked = await stack.post(f"{T}/chain-check", CALLING)
    assert "called" in checked["errors"][0]["message"]
    await stack.post(f"{T}/chains", CALLED)
    assert (await stack.post(f"{T}/chain-check", CALLING))["errors"] == []
    await stack.post(f"{T}/deployments", {"chains": {"root": None, "called": None}})


async def test_a_two_way_call_waits_for_the_device(stack: FlowStack) -> None:
    device = await stack.device("d1")
    asked = asyncio.create_task(
        stack.post(f"{T}/devices/d1/rpc", {"method": "setGpio", "params": {"pin": 7}, "timeout_ms": 20_000})
    )
    [pending] = await until(lambda: stack.commands.open(TENANT, device.id))
    [shown] = (await stack.get(f"{T}/devices/d1/commands"))["commands"]
    assert (shown["name"], shown["payload"], shown["oneway"]) == ("setGpio", {"pin": 7}, False)
    assert await stack.commands.answer(TENANT, device.id, pending.id, {"result": "ok"})
    assert (await asked)["data"] == {"result": "ok"}


async def test_a_call_without_an_answer_is_504(stack: FlowStack) -> None:
    await stack.device("d1")
    problem = await stack.post(f"{T}/devices/d1/rpc", {"method": "m", "timeout_ms": 50}, 504)
    assert problem["detail"] == "the device did not answer in time"


async def test_a_call_that_no_node_takes_up_is_told_at_once(stack: FlowStack) -> None:
    await stack.deploy({"chain": "root", "start": "log", "nodes": {"log": {"kind": "log"}}})
    await stack.device("d1")
    problem = await stack.post(f"{T}/devices/d1/rpc", {"method": "m", "timeout_ms": 60_000}, 409)
    assert "rpc_request" in problem["detail"]
    await stack.deploy(SAVING)
    problem = await stack.post(f"{T}/devices/d1/rpc", {"method": "m", "timeout_ms": 60_000}, 409)
    assert "root/save" in problem["detail"]


async def test_a_one_way_call_is_queued_for_the_device(stack: FlowStack) -> None:
    device = await stack.device("d1")
    body = {"method": "turn", "params": "ON", "oneway": True}
    assert (await stack.post(f"{T}/devices/d1/rpc", body, 202))["id"]
    [pending] = await until(lambda: stack.commands.open(TENANT, device.id))
    assert (pending.command.name, pending.command.payload, pending.command.oneway) == ("turn", "ON", True)


@pytest.mark.parametrize("timeout_ms", [0, -1, 300_001])
async def test_a_timeout_out_of_bounds_is_refused(stack: FlowStack, timeout_ms: int) -> None:
    await stack.device("d1")
    problem = await stack.post(f"{T}/devices/d1/rpc", {"method": "m", "timeout_ms": timeout_ms}, 400)
    assert problem["errors"][0]["pointer"] == "/timeout_ms"


async def test_an_injected_message_runs_like_any_other(stack: FlowStack) -> None:
    device = await stack.device("d1")
    first = await stack.post(f"{T}/messages", {"device": "d1", "data": {"t": 1}}, 202)
    assert (first["ended"], first["error"]) == (False, "")
    done = await stack.post(f"{T}/messages?sync=true", {"device": device.id, "data": {"t": 2.5}, "ts_ms": 9_000})
    assert (done["ended"], done["error"]) == (True, "")
    # The answer comes only when the point is in the store.
    assert 9_000 in [point["ts_ms"] for point in (await stack.get(f"{T}/devices/d1/points"))["points"]]
    failed = await stack.post(f"{T}/messages?sync=true", {"device": "d1", "data": 5})
    assert "root/save telemetry" in failed["error"]
    await stack.post(f"{T}/messages", {"device": "d1", "data": 1, "raw_b64": "AA=="}, 400)
    await stack.post(f"{T}/messages", {"device": "d1", "raw_b64": "?"}, 400)
    await stack.post(f"{T}/messages", {"device": "unknown"}, 404)


async def test_a_dry_run_shows_everything_and_writes_nothing(stack: FlowStack) -> None:
    hot = {
        "chain": "hot",
        "start": "save",
        "nodes": {
            "save": {"kind": "save_timeseries", "to": {"Success": ["alarm", "bad"]}},
            "alarm": {"kind": "create_alarm", "config": {"type": "Too hot"}, "to": {"Updated": "ask"}},
            "bad": {"kind": "script", "config": {"source": "error('no')"}},
            "ask": {
                "kind": "script",
                "config": {"source": "return {msg = {method = 'm', params = {}}}"},
                "to": {"Success": "rpc"},
            },
            "rpc": {"kind": "rpc_request"},
        },
    }
    body = {
        "document": hot,
        "message": {"originator": "d9", "data": {"t": 50}, "ts_ms": 1_700_000_000_000},
        "state": {"alarms": {"d9": [{"type": "Too hot"}]}},
    }
    await stack.put(T, {})
    before = sorted([key async for key in stack.redis.scan_iter("*") if b"metrics" not in key])
    found = await stack.post(f"{T}/dry-run", body)
    assert sorted([key async for key in stack.redis.scan_iter("*") if b"metrics" not in key]) == before
    assert sorted((step["node"], step["relation"]) for step in found["steps"] if step["relation"] != "END") == [
        ("alarm", "Updated"),
        ("ask", "Success"),
        ("bad", "DEAD"),
        ("rpc", "PARKED"),
        ("save", "Success"),
    ]
    assert [(point["key"], point["value"]) for point in found["points"]] == [("t", 50)]
    assert [(alarm["id"], alarm["end_ms"]) for alarm in found["alarms"]] == [("alarm-1", 1_700_000_000_000)]
    assert "no" in found["dead"][0]["reason"]
    assert [(one["node"], one["waits_for"]) for one in found["parked"]] == [("rpc", "answer")]
    assert [one["name"] for one in found["commands"]] == ["m"]


async def test_a_dry_run_of_saved_chains(stack: FlowStack) -> None:
    await stack.post(f"{T}/chains", CALLED)
    await stack.post(f"{T}/chains", CALLING)
    message = {"data": {"n": 21}}
    alone = await stack.post(f"{T}/dry-run", {"chain": "called", "message": message})
    first = alone["steps"][0]
    assert (first["node"], first["relation"], first["data"]) == ("double", "Success", {"n": 42})
    await stack.post(f"{T}/dry-run", {"message": message}, 404)
    await stack.post(f"{T}/deployments", {"chains": {"root": None, "called": None}})
    whole = await stack.post(f"{T}/dry-run", {"message": message})
    assert [(point["key"], point["value"]) for point in whole["points"]] == [("n", 42)]
    await stack.post(f"{T}/dry-run", {"chain": "none", "message": message}, 404)
    await stack.post(f"{T}/dry-run", {"document": {"chain": "x"}, "message": message}, 400)
    await stack.post(f"{T}/dry-run", {"chain": "called", "document": {}, "message": message}, 400)


async def test_a_dry_run_does_not_show_secrets(stack: FlowStack) -> None:
    await stack.put(f"{T}/secrets/key", {"value": "hush-hush"}, 204)
    document = {
        "chain": "c",
        "start": "call",
        "nodes": {
            "call": {
                "kind": "forward_http",
                "config": {"url": "https://example.org", "headers": {"X": "${secret:key}"}},
            }
        },
    }
    answer = await stack.flow.post(f"{T}/dry-run", json={"document": document, "message": {"data": {"a": 1}}})
    assert answer.status_code == 200, answer.text
    assert "hush-hush" not in answer.text
    assert answer.json()["parked"][0]["waits_for"] == "call"


async def test_the_tail_tells_what_nodes_do_with_one_devices_messages(stack: FlowStack) -> None:
    device = await stack.device("d1")
    await stack.device("d2")
    async with stack.flow.stream("GET", f"{T}/tail?device=d1") as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.aiter_lines()
        assert json.loads(await anext(lines)) == {"watching": TENANT, "device": device.id}
        assert await stack.redis.hkeys(WATCHED_KEY) == [TENANT.encode()]

        async def feed() -> None:
            while True:
                for name in ("d2", "d1"):
                    await stack.post(f"{T}/messages", {"device": name, "data": {"t": 1}}, 202)
                await asyncio.sleep(0.05)

        feeding = asyncio.create_task(feed())
        step = json.loads(await anext(lines))
        assert step["message"]["originator"] == device.id
        assert (step["node"], step["relation"]) == ("root/by type", "Post telemetry")
        assert json.loads(await anext(lines))["message"]["originator"] == device.id
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    await until(lambda: not stack.parts.tail.watchers.viewers)
    assert not stack.parts.tail.watchers.subscribed


async def test_a_tail_is_cut_when_the_server_stops(stack: FlowStack) -> None:
    async with stack.flow.stream("GET", f"{T}/tail") as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        await stack.parts.tail.stop()
        assert json.loads(await anext(lines)) == {"cut": "the server stops"}
        assert [line async for line in lines] == []


async def test_a_slow_reader_is_cut_and_told(stack: FlowStack) -> None:
    hub = stack.parts.tail
    lines = await hub.watch(TENANT)
    message = Message(id="m", ts_ms=1, tenant=TENANT, type="T", originator="d", data=b"\x00\x01")
    for _ in range(QUEUED_MOST + 1):
        await stack.redis.publish(CHANNEL, encode(Step(message, "root/save", "save_timeseries", "END")))
    await until(lambda: any(viewer.cut for viewer in hub.watchers.viewers))
    assert [json.loads(line) async for line in lines] == [
        {"watching": TENANT, "device": ""},
        {"cut": f"too slow: {QUEUED_MOST} lines were waiting"},
    ]
    assert not hub.watchers.viewers


async def test_tenants_that_nobody_renews_are_watched_no_more(stack: FlowStack) -> None:
    await stack.redis.hset(WATCHED_KEY, "left", 5)
    lines = await stack.parts.tail.watch(TENANT)
    assert await stack.redis.hkeys(WATCHED_KEY) == [TENANT.encode()]
    assert 0 < await stack.redis.pttl(WATCHED_KEY) <= 10_000
    await anext(lines)
    await lines.aclose()


async def test_another_http_server_gives_the_same(stack: FlowStack) -> None:
    base = await stack.listen("http", server="hypercorn")
    client = await stack.client(base, headers=dict(stack.flow.headers))
    assert (await client.get(T)).json()["name"] == TENANT
    assert (await client.put(f"{T}/secrets/a", json={"value": "b"})).status_code == 204
    async with client.stream("GET", f"{T}/tail") as answer:
        assert json.loads(await anext(answer.aiter_lines()))["watching"] == TENANT
    await until(lambda: not stack.parts.tail.watchers.viewers)


async def test_health_tells_what_fails(stack: FlowStack) -> None:
    assert (await stack.anonymous.get("/livez")).json()["status"] == "ok"
    await until(lambda: stack.redis.zcard("rm:{reg}:workers"))
    for path in ("/readyz", "/healthz"):
        assert (await stack.anonymous.get(path)).json() == {"status": "ok", "failing": {}}
    stack.parts.checks = {"door": lambda: "storage full"}
    await stack.redis.delete("rm:{reg}:workers")
    answer = await stack.anonymous.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["failing"]["door"] == "storage full"
    assert "no worker" in answer.json()["failing"]["workers"]


async def test_status_and_metrics_show_what_waits(redis_url: str) -> None:
    async with FlowStack(redis_url, work=False) as stack:
        await stack.device("d1")
        await stack.post(f"{T}/messages", {"device": "d1", "data": {"t": 1}}, 202)
        found = await stack.get("/flow/v1/status")
        assert (found["entries"], found["workers"], len(found["partitions"])) == (1, [], 4)
        [waiting] = [one for one in found["partitions"] if one["entries"]]
        page = await stack.flow.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        assert f'rulemill_partition_entries{{partition="{waiting["number"]}"}} 1.0' in page.text
        assert "rulemill_messages_total" in page.text


async def test_a_stopped_redis_is_503(stack: FlowStack) -> None:
    async def away(*args: object, **options: object) -> None:
        raise ConnectionRefusedError("no Redis")

    stack.redis.connection_pool.get_connection = away
    for path in (T, f"{T}/devices"):
        answer = await stack.flow.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await stack.anonymous.get("/readyz")).json()["failing"].keys() == {"redis"}
    assert isinstance(answer, httpx.Response)
    del stack.redis.connection_pool.get_connection
