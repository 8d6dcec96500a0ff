"""Things over MQTT, with a real client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiomqtt
import pytest

from api.dialects.thethingsio import mqtt
from tests.api.dialects.thethingsio.world import PRODUCT, World, world
from tests.api.stack import TENANT
from tests.engine.toy import until
from tests.services import require

pytestmark = pytest.mark.asyncio


async def port(w: World) -> int:
    return await w.stack.mqtt(w.dialect.mqtt)


async def heard(client: aiomqtt.Client) -> tuple[str, Any]:
    async with asyncio.timeout(10):
        message = await anext(aiter(client.messages))
    return str(message.topic), json.loads(message.payload)


@pytest.mark.spec("TTI-X8", "G-9")
async def test_a_thing_writes_and_hears_what_others_write(redis_url: str) -> None:
    async with world(redis_url) as w:
        (device, token), (_, other) = await w.thing("t1"), await w.thing("t2")
        topic = f"v2/things/{token}"
        async with aiomqtt.Client("127.0.0.1", await port(w)) as client:
            await client.subscribe(topic, qos=1)
            values = {
                "values": [{"key": "a", "value": 1, "datetime": "20140101000000"}, {"key": "$geo", "value": [1, 2]}]
            }
            await client.publish(topic, json.dumps(values), qos=1)
            assert await heard(client) == (topic, [{"key": "a", "value": 1, "datetime": "2014-01-01T00:00:00.000Z"}])
            for to, payload in (
                (f"v2/things/{'x' * 43}", json.dumps(values)), (topic, "no JSON"), (topic, "{}"), ("elsewhere", "1"),
                (topic, json.dumps({"values": [{"key": "$no", "value": 1}]})), (f"{topic}/x", json.dumps(values)),
            ):  # fmt: skip
                await client.publish(to, payload, qos=1)
            await w.call("POST", f"/v2/things/{other}", body={"values": [{"key": "a", "value": "not mine"}]})
            await w.call("POST", f"/v2/things/{token}", body={"values": [{"key": "a", "value": 2}]})
            assert (await heard(client))[1][0]["value"] == 2
        assert await w.stack.latest(device) == {"a": 2}
        assert (await w.stack.attributes_of(device))["SERVER"]["$geo"]["coordinates"] == [1, 2]


@pytest.mark.spec("TTI-X8", "TTI-X1")
async def test_a_code_makes_a_thing(redis_url: str) -> None:
    async with world(redis_url) as w:
        [code] = await w.parts.activations.make(TENANT, PRODUCT, 1)
        async with aiomqtt.Client("127.0.0.1", await port(w)) as client:
            topic = f"v2/activations/{code}/1"
            await client.subscribe(topic, qos=1)
            said, told = await heard(client)
            assert (said, told["status"]) == (topic, "created")
            await client.subscribe(topic.removesuffix("1") + "2", qos=1)
            assert (await heard(client))[1] == {"status": "error", "code": 400, "message": "Invalid activation code"}
            await client.publish(f"v2/things/{told['thingToken']}", '{"values": [{"key": "a", "value": 1}]}', qos=1)
        [device] = await w.stack.registry.devices(TENANT)
        assert device.id == told["thingId"]
        assert await w.stack.latest(device) == {"a": 1}


@pytest.mark.spec("G-9", "TTI-X8")
@pytest.mark.parametrize("topic", ["v2/things/+", "v2/things/#", "#", "v2/activations/+/1", "v2/things/x/y", "other"])
async def test_nobody_hears_what_they_have_no_token_of(redis_url: str, topic: str) -> None:
    async with world(redis_url) as w, aiomqtt.Client("127.0.0.1", await port(w)) as client:
        [granted] = await client.subscribe(topic, qos=1)
        assert getattr(granted, "value", granted) == 128


@pytest.mark.spec("TTI-X8", "G-11")
async def test_a_last_will_is_a_value(redis_url: str) -> None:
    async with world(redis_url) as w:
        device, token = await w.thing("t1")
        will, topic = json.dumps({"values": [{"key": "online", "value": False}]}), f"v2/things/{token}"
        client = await asyncio.create_subprocess_exec(
            require("mosquitto_sub"), "-p", str(await port(w)), "-t", topic, "-q", "1",
            "--will-topic", topic, "--will-payload", will,
        )  # fmt: skip
        await until(lambda: w.dialect.mqtt._subscriptions._by_thing)
        client.kill()
        await client.wait()

        async def told() -> bool:
            return await w.stack.latest(device) == {"online": False}

        await until(told)


@pytest.mark.spec("TTI-X8")
async def test_a_thing_that_is_deleted_is_followed_no_more(redis_url: str) -> None:
    async with world(redis_url) as w:
        device, token = await w.thing("t1")
        async with aiomqtt.Client("127.0.0.1", await port(w)) as client:
            await client.subscribe(f"v2/things/{token}", qos=1)
            await w.stack.registry.delete_device(TENANT, device.id)
            await until(lambda: not w.dialect.mqtt._subscriptions._by_thing)
            await client.publish(f"v2/things/{token}", '{"values": [{"key": "a", "value": 1}]}', qos=1)
        assert await w.stack.latest(device) == {}


@pytest.mark.spec("TTI-X8")
async def test_one_packet_cannot_ask_for_more_than_one_by_one(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "MOST_FOLLOWED", 2)
    async with world(redis_url) as w, aiomqtt.Client("127.0.0.1", await port(w)) as client:
        topics = [f"v2/things/{(await w.thing(f't{i}'))[1]}" for i in range(3)]
        granted = await client.subscribe([(topic, 1) for topic in topics])
        assert [int(getattr(each, "value", each)) for each in granted] == [1, 1, 0x80]
        await client.unsubscribe(topics[0])
        [granted_now] = await client.subscribe(topics[2], qos=1)
        assert int(getattr(granted_now, "value", granted_now)) == 1
        for topic in (topics[0], topics[2]):
            await client.publish(topic, '{"values": [{"key": "a", "value": 1}]}', qos=1)
        assert (await heard(client))[0] == topics[2]
