"""Events and their answers: in time, late, and none; through the default chain and the product's functions."""

import asyncio
import json

import pytest

from tests.api.dialects.cloudthing.site import ALL_FORMATS, DEVICE, TENANT, TOKEN, answering, call
from tests.engine.toy import until
from tests.services import require

pytestmark = pytest.mark.asyncio

EVENTS = {
    "door": {"lang": "lua", "source": "return {allowed = msg.badge == 7}"},
    "echo": {"lang": "js", "source": "return msg;"},
}


async def post(site, event, body):
    client = await site.stack.client(site.http_url)
    return await client.post(f"/v1/{DEVICE}/events/{event}", content=body, headers=site.basic())


async def responses(site):
    client = await site.stack.client(site.http_url)
    return await client.get(f"/v1/{DEVICE}/responses", headers=site.basic())


def slow(source="return {msg = msg}"):
    """A chain that answers events after a third of a second."""
    document = answering(source)
    document["nodes"]["reply"] = {"kind": "delay", "config": {"delay_s": 0.3}, "to": {"Success": "really"}}
    document["nodes"]["really"] = {"kind": "rpc_reply"}
    return document


@pytest.mark.spec("CT-3", "CT-25", "CT-34", "CT-72", "CT-S5", "G-19")
async def test_the_default_chain_saves_events_and_answers_with_the_products_function(site):
    await site.put_product(**ALL_FORMATS, events=EVENTS)
    response = await post(site, "door", b'{"badge":7}')
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == {"allowed": True}
    response = await post(site, "echo", b"\xff\x00")
    assert (response.status_code, response.content) == (200, b"\xff\x00")
    assert response.headers["content-type"] == "application/octet-stream"
    assert (await post(site, "other", b"")).status_code == 204
    assert sorted(point[:2] for point in await site.points()) == [
        ("event/door", {"badge": 7}),
        ("event/echo", {"raw_b64": "/wA=", "hex": "ff00"}),
        ("event/other", {"raw_b64": "", "hex": ""}),
    ]
    assert (await responses(site)).status_code == 204


@pytest.mark.spec("CT-3", "CT-5", "CT-25", "CT-S4", "G-19")
async def test_the_same_over_mqtt_with_the_usual_programs(site):
    await site.put_product(**ALL_FORMATS, events=EVENTS)
    login = ["-h", "127.0.0.1", "-p", str(site.mqtt_port), "-u", f"{TENANT}:{DEVICE}", "-P", TOKEN]
    hearing = asyncio.create_task(
        call(require("mosquitto_sub"), *login, "-t", f"v1/{DEVICE}/responses/+", "-C", "1", "-v", "-W", "15")
    )
    await until(lambda: site.device.id in site.service.deliveries._devices)
    code, _ = await call(
        require("mosquitto_pub"), *login, "-t", f"v1/{DEVICE}/events/door", "-m", '{"badge":1}', "-q", "1"
    )
    assert code == 0
    code, output = await hearing
    topic, _, payload = output.strip().partition(b" ")
    assert (code, topic, json.loads(payload)) == (0, f"v1/{DEVICE}/responses/door".encode(), {"allowed": False})
    assert [point[:2] for point in await site.points()] == [("event/door", {"badge": 1})]


@pytest.mark.spec("G-21", "CT-S5")
async def test_a_function_that_fails_leaves_the_event_stored(site):
    await site.put_product(**ALL_FORMATS, events={"door": {"source": "error('stuck')"}})
    assert (await post(site, "door", b"1")).status_code == 204
    assert [point[:2] for point in await site.points()] == [("event/door", 1)]


@pytest.mark.spec("CT-5", "CT-S5", "CT-S7")
async def test_late_answers_are_kept_until_they_are_fetched(site):
    await site.deploy(slow())
    site.service.event_timeout_s = 0.1
    for name, body in (("a", b'{"n":1}'), ("b%2Fc", b"text"), ("raw", b"\xff")):
        response = await post(site, name, body)
        assert (response.status_code, response.content) == (202, b"")

    async def kept():
        keys = [key async for key in site.stack.redis.scan_iter("*ans:*")]
        return keys and await site.stack.redis.hlen(keys[0]) == 3

    await until(kept)
    response = await responses(site)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    listed = response.json()
    assert [(each["id"], each["payload"]) for each in listed] == [
        ("a", {"n": 1}), ("b/c", "text"), ("raw", {"$base64": "/w=="}),
    ]  # fmt: skip
    assert all(each["time"].endswith("Z") for each in listed)
    assert (await responses(site)).status_code == 204


@pytest.mark.spec("CT-S5")
async def test_an_answer_in_time_is_not_kept_and_one_under_way_is_not_shown(site):
    await site.deploy(slow())
    waiting = asyncio.create_task(post(site, "a", b"1"))
    seen = []
    while not waiting.done():
        seen.append((await responses(site)).status_code)
    assert (await waiting).json() == 1
    assert set(seen) == {204}
    site.service.event_timeout_s = 0
    assert (await responses(site)).status_code == 204


@pytest.mark.spec("CT-S5")
async def test_a_device_that_went_away_finds_the_answer_later(site):
    await site.deploy(slow())
    client = await site.stack.client(site.http_url)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15):
            await client.post(f"/v1/{DEVICE}/events/a", content=b"1", headers=site.basic())
    site.service.event_timeout_s = 0.01

    async def found():
        response = await responses(site)
        return response.status_code == 200 and response.json()

    [answer] = await until(found)
    assert (answer["id"], answer["payload"]) == ("a", 1)


@pytest.mark.spec("CT-S5")
async def test_kept_answers_are_bounded_and_go_with_the_device(site):
    await site.deploy(slow())
    site.service.event_timeout_s = 0
    for n in range(105):
        message = site.service.event(site.device, "e", b"%d" % n, "http", "", f"nobody/{n}/e")
        await site.stack.intake.submit([message])
    await site.stack.idle()

    async def answered():
        keys = [key async for key in site.stack.redis.scan_iter("*ans:*")]
        if not keys or await site.stack.redis.hlen(keys[0]) != 100:
            return False
        assert 86_000_000 < await site.stack.redis.pttl(keys[0]) <= 86_400_000
        parked = [key async for key in site.stack.redis.scan_iter("*parked")]
        return not parked

    await until(answered)
    taken = await site.stack.answers.take(TENANT, site.device.id, 2**53)
    # The oldest go; of those answered in the same millisecond, any.
    kept = {each.data for each in taken}
    assert (len(taken), len(kept), kept >= set(range(30, 105))) == (100, 100, True)


@pytest.mark.spec("CT-S5", "CT-S10")
async def test_an_error_is_no_late_answer(site):
    await site.deploy(
        {
            "chain": "asks",
            "start": "ask",
            "nodes": {"ask": {"kind": "rpc_request", "config": {"timeout_s": 0.2}}},
        }
    )
    site.service.event_timeout_s = 0.05
    client = await site.stack.client(site.http_url)
    response = await client.post(
        f"/v1/{DEVICE}/events/a", content=b'{"method":"turn","params":1}', headers=site.basic()
    )
    assert response.status_code == 202
    await asyncio.sleep(0.5)
    await site.stack.idle()
    assert (await responses(site)).status_code == 204
