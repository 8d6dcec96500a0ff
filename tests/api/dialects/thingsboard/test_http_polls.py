"""Long polls and calls in both directions over HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiomqtt
import httpx
import msgspec
import pytest

from api.dialects.thingsboard.settings import Settings
from tests.api.dialects.thingsboard.site import TOKEN, Site
from tests.api.stack import TENANT
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


async def polling(site: Site, what: str, count: int = 1) -> list[asyncio.Task[httpx.Response]]:
    """Polls that are open on the server."""
    assert site.front is not None
    held = site.front._held.waiting
    before = len(held)
    tasks = [asyncio.create_task(site.get(what)) for _ in range(count)]
    await until(lambda: len(held) == before + count)
    return tasks


async def share(site: Site, **values: Any) -> None:
    await site.attributes.write(TENANT, site.d1.id, "SHARED", values)


# Attribute updates


@pytest.mark.spec("TB-14", "TB-30", "TB-31", "TB-34", "TB-S19", "TB-35")
async def test_a_poll_is_answered_with_all_keys_of_a_change(site: Site) -> None:
    [poll] = await polling(site, "attributes/updates?timeout=20000")
    await share(site, attribute1="value1", attribute2=True, attribute3={"a": [1]})
    answer = await poll
    assert answer.status_code == 200
    assert answer.json() == {"attribute1": "value1", "attribute2": True, "attribute3": {"a": [1]}}


@pytest.mark.spec("TB-30")
async def test_a_chain_that_saves_shared_attributes_wakes_the_poll(site: Site) -> None:
    node = {"kind": "save_attributes", "config": {"scope": "SHARED_SCOPE"}}
    await site.deploy({"chain": "root", "start": "save", "nodes": {"save": node}})
    [poll] = await polling(site, "attributes/updates")
    message = site.intake.message(
        site.d1, "POST_ATTRIBUTES_REQUEST", {"target": 21}, dialect="tb", transport="http", ts_ms=1
    )
    await site.ingress.submit([message])
    assert (await poll).json() == {"target": 21}


@pytest.mark.spec("TB-34")
async def test_deletions_are_told_by_key(site: Site) -> None:
    await share(site, attribute1=1, attribute2=2)
    [poll] = await polling(site, "attributes/updates")
    await site.attributes.delete(TENANT, site.d1.id, "SHARED", ["attribute1"])
    assert (await poll).json() == {"deleted": ["attribute1"]}


@pytest.mark.spec("TB-34")
async def test_the_format_of_the_documentation_can_be_had(redis_url: str) -> None:
    async with Site(redis_url, settings=Settings(attribute_update_format="seed")) as site:
        [poll] = await polling(site, "attributes/updates")
        await share(site, attribute1="value1", attribute2=True)
        assert (await poll).json() == {"client": {"attribute1": "value1", "attribute2": True}}


@pytest.mark.spec("TB-S17", "TB-S19")
async def test_what_changed_between_two_polls_and_what_is_not_shared_wakes_nobody(site: Site) -> None:
    await share(site, before=1)
    poll = asyncio.create_task(site.get("attributes/updates?timeout=1500"))
    await asyncio.sleep(0.2)
    await site.attributes.write(TENANT, site.d1.id, "CLIENT", {"own": 1})
    await site.attributes.write(TENANT, site.d1.id, "SERVER", {"hidden": 1})
    assert (await poll).status_code == 408


@pytest.mark.spec("TB-S17")
async def test_every_open_poll_gets_the_change(site: Site) -> None:
    polls = await polling(site, "attributes/updates", 3)
    await share(site, a=1)
    assert [answer.json() for answer in await asyncio.gather(*polls)] == [{"a": 1}] * 3


@pytest.mark.spec("TB-S15", "TB-S16")
@pytest.mark.parametrize("what", ["attributes/updates", "rpc"])
async def test_the_time_of_a_poll_runs_out(site: Site, what: str) -> None:
    for timeout in ("150", "-1", "%2B1"):
        answer = await site.get(f"{what}?timeout={timeout}", timeout=5)
        assert (answer.status_code, answer.content) == (408, b"")


@pytest.mark.spec("TB-S16")
async def test_a_poll_that_names_no_time_gets_the_default_and_none_more_than_the_most(redis_url: str) -> None:
    async with Site(redis_url, settings=Settings(poll_s=0.2, max_poll_s=0.4)) as site:
        for query in ("", "?timeout=", "?timeout=0", "?timeout=999999999"):
            assert (await site.get(f"attributes/updates{query}", timeout=5)).status_code == 408
    assert (Settings().poll_s, Settings().max_poll_s) == (60, 300)


@pytest.mark.spec("TB-S18")
@pytest.mark.parametrize("what", ["attributes/updates", "rpc"])
@pytest.mark.parametrize("begun", [False, True])
async def test_deleting_the_device_ends_its_polls(site: Site, what: str, begun: bool) -> None:
    [poll] = await polling(site, what)
    if begun:  # nothing may come in while the rest of it is deleted
        await site.registry.put_device(msgspec.structs.replace(site.d1, enabled=False, leaving=True))
    else:
        await site.registry.delete_device(TENANT, site.d1.id)
    answer = await poll
    assert (answer.status_code, answer.content) == (403, b"Device was deleted!")


# Commands to the device


@pytest.mark.spec("TB-40", "TB-41", "TB-42", "TB-43", "TB-S20", "TB-S1")
async def test_the_documented_walk_through(site: Site) -> None:
    [poll] = await polling(site, "rpc?timeout=20000")
    operator = await site.command("setGpio", {"pin": "23", "value": 1})
    answer = await poll
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"id": 1, "method": "setGpio", "params": {"pin": "23", "value": 1}}
    reply = await site.post("rpc/1", '{"result":"ok"}')
    assert (reply.status_code, reply.content) == (200, b"")
    got = await operator.next(5)
    assert (got.data, got.error) == ({"result": "ok"}, "")
    operator.__exit__()


@pytest.mark.spec("TB-S17", "TB-S20")
async def test_queued_commands_are_given_oldest_first_one_to_a_poll(site: Site) -> None:
    for method in ("a", "b", "c"):
        await site.command(method, None)
        await site.idle()
    got = [(await site.get("rpc?timeout=2000")).json() for _ in range(3)]
    assert [(each["id"], each["method"]) for each in got] == [(1, "a"), (2, "b"), (3, "c")]
    assert (await site.get("rpc?timeout=100")).status_code == 408


@pytest.mark.spec("TB-S17")
async def test_two_polls_at_once_share_the_queue(site: Site) -> None:
    for method in ("a", "b"):
        await site.command(method, None)
        await site.idle()
    answers = await asyncio.gather(site.get("rpc?timeout=2000"), site.get("rpc?timeout=2000"))
    assert sorted(answer.json()["method"] for answer in answers) == ["a", "b"]


@pytest.mark.spec("TB-S17")
@pytest.mark.parametrize("oneway", [False, True])
async def test_a_new_command_goes_to_every_open_poll(site: Site, oneway: bool) -> None:
    polls = await polling(site, "rpc", 3)
    await site.command("hello", [1, 2.0], oneway=oneway)
    answers = [answer.json() for answer in await asyncio.gather(*polls)]
    assert answers == [{"id": 1, "method": "hello", "params": [1, 2.0]}] * 3
    assert (await site.get("rpc?timeout=150")).status_code == 408


@pytest.mark.spec("TB-S21")
async def test_an_answer_nobody_waits_for_is_fine(site: Site) -> None:
    for id in ("7", "-1", "2147483647"):
        assert (await site.post(f"rpc/{id}", '{"result":"ok"}')).status_code == 200


@pytest.mark.spec("TB-42", "G-7")
async def test_an_answer_that_storage_has_no_room_for_is_refused_and_may_be_given_again(site: Site) -> None:
    operator = await site.command("get", {})
    await site.get("rpc")
    await site.redis.config_set("maxmemory", 1)
    try:
        assert (await site.post("rpc/1", '{"result":"ok"}')).status_code == 503
    finally:
        await site.redis.config_set("maxmemory", 0)
    assert (await site.post("rpc/1", '{"result":"ok"}')).status_code == 200
    assert (await operator.next(5)).data == {"result": "ok"}
    operator.__exit__()


@pytest.mark.spec("TB-S21", "TB-42")
@pytest.mark.parametrize(("body", "value"), [("[1, 42.0]", [1, 42.0]), ('"text"', "text"), ("true", True), ("5", 5)])
async def test_an_answer_may_be_any_json(site: Site, body: str, value: Any) -> None:
    operator = await site.command("get", {})
    await site.get("rpc")
    assert (await site.post("rpc/1", body)).status_code == 200
    assert (await operator.next(5)).data == value
    operator.__exit__()


async def test_a_poll_whose_client_went_away_takes_no_command(site: Site) -> None:
    [poll] = await polling(site, "rpc")
    poll.cancel()
    assert site.front is not None
    held = site.front._held.waiting
    await until(lambda: not held)
    await site.command("late", {})
    assert (await site.get("rpc?timeout=3000")).json()["method"] == "late"


async def test_commands_queued_while_the_bus_was_away_are_found(site: Site) -> None:
    [commands] = await polling(site, "rpc")
    [updates] = await polling(site, "attributes/updates")
    await site.live.stop()  # deaf, like a connection that hangs
    await site.command("unheard", {})
    await share(site, unheard=1)
    await site.idle()
    assert not commands.done()
    await site.live.start()
    site.live._tell_lost()
    assert (await commands).json()["method"] == "unheard"
    assert (await updates).json() == {"unheard": 1}


async def test_two_thousand_open_polls_ask_redis_nothing(site: Site) -> None:
    reader_writers = []
    host, port = site.address.removeprefix("http://").split(":")
    devices = [await site.device(f"p{i}", token=f"P{i}") for i in range(20)]
    assert site.front is not None
    for i in range(2000):
        reader, writer = await asyncio.open_connection(host, int(port))
        what = "rpc" if i % 2 else "attributes/updates"
        writer.write(f"GET /api/v1/P{i % 20}/{what} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        reader_writers.append((reader, writer))
    await until(lambda: len(site.front._held.waiting) == 2000, 30)
    before = (await site.redis.info("commandstats")).get("cmdstat_hgetall", {}).get("calls", 0)
    await asyncio.sleep(1.5)
    after = (await site.redis.info("commandstats")).get("cmdstat_hgetall", {}).get("calls", 0)
    assert after == before
    await site.attributes.write(TENANT, devices[0].id, "SHARED", {"a": 1})
    head = await asyncio.wait_for(reader_writers[0][0].readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200")
    for _, writer in reader_writers:
        writer.close()
    await until(lambda: not site.front._held.waiting, 30)


# Calls of the device

SCRIPT = "return {msg: {time:String(new Date())}, metadata: metadata, msgType: msgType};"
LUA = 'return {msg = {time = os.date("%Y %m %d %H:%M:%S")}, metadata = metadata, msgType = msgType}'


def answering(lang: str, source: str) -> dict[str, Any]:
    """A root chain that answers calls of devices."""
    switch = {"kind": "message_type_switch", "to": {"RPC Request from Device": "time"}}
    script = {"kind": "script", "config": {"lang": lang, "source": source}, "to": {"Success": "reply"}}
    return {"chain": "root", "start": "by type", "nodes": {
        "by type": switch, "time": script, "reply": {"kind": "rpc_reply"},
    }}  # fmt: skip


@pytest.mark.spec("TB-45", "TB-46", "TB-47", "G-23")
@pytest.mark.parametrize(("lang", "source"), [("js", SCRIPT), ("lua", LUA)])
async def test_the_documented_script_answers_a_call(site: Site, lang: str, source: str) -> None:
    await site.deploy(answering(lang, source))
    answer = await site.post("rpc", '{"method":"getTime","params":{}}', headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["time"]
    assert isinstance(answer.json()["time"], str)


@pytest.mark.spec("TB-46", "TB-S23", "G-18")
async def test_a_call_is_a_message_with_three_ids(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        calls = [asyncio.create_task(site.post("rpc?timeout=300", '{"method":"m","params":[1]}')) for _ in range(2)]
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {408}
        messages = await site.messages()
        for message in messages:
            assert message.type == "TO_SERVER_RPC_REQUEST"
            assert message.data == {"method": "m", "params": [1]}
            assert message.metadata["serviceId"] == site.replies.process
            assert message.metadata["sessionId"]
        assert len({message.metadata["requestId"] for message in messages}) == 2


@pytest.mark.spec("TB-S23")
@pytest.mark.parametrize("over", ["http", "mqtt"])
async def test_another_message_with_the_three_ids_answers_later(site: Site, over: str) -> None:
    kinds = {"RPC Request from Device": "save ids", "Post telemetry": "ids"}
    await site.deploy({"chain": "root", "start": "by type", "nodes": {
        "by type": {"kind": "message_type_switch", "to": kinds},
        "save ids": {"kind": "script", "config": {"source": """
            return {msg = {serviceId = metadata.serviceId, sessionId = metadata.sessionId,
                           requestId = metadata.requestId}, msgType = "POST_ATTRIBUTES_REQUEST"}
        """}, "to": {"Success": "keep"}},
        "keep": {"kind": "save_attributes", "config": {"scope": "SERVER_SCOPE"}},
        "ids": {"kind": "script", "config": {"source": """
            for key, value in pairs(msg.ids) do metadata[key] = value end
            return {msg = {answer = msg.answer}, metadata = metadata}
        """}, "to": {"Success": "reply"}},
        "reply": {"kind": "rpc_reply"},
    }})  # fmt: skip
    other = await site.device("other", token="OTHER")
    body = '{"method":"getTime","params":{}}'

    async def ids() -> dict[str, Any]:
        """The ids of the call, once the chain has seen it."""
        found = (await site.attributes.read(TENANT, site.d1.id))["SERVER"]
        return {key: each.value for key, each in found.items()}

    async def answer() -> None:
        await until(ids)
        await site.http.post(f"/api/v1/{other.name.upper()}/telemetry", json={"ids": await ids(), "answer": 42})

    if over == "http":
        calling = asyncio.create_task(site.post("rpc?timeout=9000", body))
        await answer()
        told = await calling
        assert (told.status_code, told.json()) == (200, {"answer": 42})
    else:
        async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=TOKEN, timeout=5) as client:
            await client.subscribe("v1/devices/me/rpc/response/+", qos=1)
            await client.publish("v1/devices/me/rpc/request/7", body, qos=1)
            await answer()
            async with asyncio.timeout(9):
                message = await anext(aiter(client.messages))
            assert (str(message.topic), message.payload) == ("v1/devices/me/rpc/response/7", b'{"answer":42}')
    # Whoever answers once more finds nobody.
    assert site.replies.named == {}


@pytest.mark.spec("TB-S22", "TB-S15")
async def test_a_call_that_the_chain_does_not_answer_times_out(site: Site) -> None:
    answer = await site.post("rpc?timeout=300", '{"method":"getTime","params":{}}')
    assert (answer.status_code, answer.content) == (408, b"")
    assert (await site.post("rpc?timeout=-5", '{"method":"getTime","params":{}}')).status_code == 408


@pytest.mark.spec("TB-S22")
async def test_an_error_of_the_reply_is_told_with_200(redis_url: str) -> None:
    async with Site(redis_url) as site:
        await site.deploy({"chain": "root", "start": "ask", "nodes": {
            "ask": {"kind": "rpc_request", "config": {"timeout_s": 0.2}},
        }})  # fmt: skip
        answer = await site.post("rpc", '{"method":"getTime","params":{}}')
        assert (answer.status_code, answer.json()) == (200, {"error": "timeout"})


@pytest.mark.spec("TB-S22")
@pytest.mark.parametrize("body", ["[]", "5", "{}", '{"method":"a"}', '{"params":{}}', '{"method":1,"params":{}}', ""])
async def test_what_is_no_call_is_refused(site: Site, body: str) -> None:
    assert (await site.post("rpc", body)).status_code == 400


@pytest.mark.spec("TB-X1")
async def test_the_transport_tells_the_limits_of_a_session_itself(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        answer = await site.post("rpc", '{"method":"getSessionLimits","params":{"timeout":5000}}')
        assert answer.json() == {"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": {}}
        assert await site.messages() == []


async def test_a_server_that_stops_sends_polls_elsewhere(site: Site) -> None:
    [poll] = await polling(site, "rpc")
    assert site.front is not None
    site.front.drain()
    answer = await poll
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert time.time() * 1000 - answer.json()["timestamp"] < 60_000
