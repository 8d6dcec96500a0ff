"""Gateways that say what cannot be read, that say too much, and that are none."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.dialects.thingsboard.settings import Settings
from api.transports.mqtt.packets import Puback, Publish
from api.transports.mqtt.reasons import Reason
from tests.api.dialects.thingsboard.gateways import (
    GATEWAY_TOKEN,
    GW,
    NEWS,
    child,
    gateway,
    gateway_device,
    say,
    told,
)
from tests.api.dialects.thingsboard.site import TOKEN, Site
from tests.api.dialects.thingsboard.test_mqtt import failing_once
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient

pytestmark = pytest.mark.asyncio

TOPICS = ("connect", "disconnect", "telemetry", "attributes", "attributes/request", "rpc", "claim")

DEEP = '{"A":' + "[" * 2000 + "]" * 2000 + "}"
NO_OBJECTS = ["", " ", "{", "[]", "5", "null", '"text"', "{} x", b"\xff", '{"\\ud800":[]}', "[" * 5000]
WRONG = [
    *[(topic, body) for topic in TOPICS for body in NO_OBJECTS],
    *[(topic, body) for topic in ("connect", "disconnect") for body in ("{}", '{"device":null}', '{"device":[]}')],
    ("connect", '{"device":"A","type":{}}'),
    ("connect", '{"device":""}'),
    ("rpc", "{}"),
    ("rpc", '{"device":"A"}'),
    ("rpc", '{"device":"A","id":"x","data":1}'),
    ("rpc", '{"device":"A","id":1.5,"data":1}'),
    ("rpc", '{"device":"A","id":4294967296,"data":1}'),
    ("rpc", '{"device":"A","id":true,"data":1}'),
    ("attributes/request", "{}"),
    ("attributes/request", '{"device":"A","client":true,"key":"k"}'),
    ("attributes/request", '{"id":1,"client":true,"key":"k"}'),
    ("attributes/request", '{"id":1,"device":"A","client":true}'),
    ("attributes/request", '{"id":1,"device":"A","client":"yes","key":"k"}'),
    ("attributes/request", '{"id":1,"device":"A","client":true,"key":5}'),
    ("attributes/request", '{"id":1,"device":"A","client":true,"keys":"k"}'),
    ("attributes/request", '{"id":1,"device":"A","client":true,"keys":[1]}'),
    ("nothing", "{}"),
    ("telemetry/x", "{}"),
    ("attributes/response", "{}"),
    ("", "{}"),
]


async def gateway_of_level_5(site: Site) -> RawClient:
    client = await RawClient.open(site.mqtt_port)
    assert (await client.login(username=GATEWAY_TOKEN, level=5)).code == 0
    return client


def said_to(topic: str, value: Any, packet_id: int = 1) -> Publish:
    payload = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value)
    payload = payload if isinstance(payload, bytes) else payload.encode()
    return Publish(GW + topic, payload, 1, packet_id, False, False)


@pytest.mark.spec("TB-X2", "G-10")
async def test_what_cannot_be_read_at_all_closes_the_connection(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        for topic, body in WRONG:
            client = await RawClient.open(site.mqtt_port)
            await client.login(username=GATEWAY_TOKEN)
            client.say(said_to(topic, body))
            assert await client.hear() is None, (topic, body)
            await client.close()
        assert await site.messages() == []
        assert {device.name for device in await site.registry.devices(TENANT)} == {"d1", "gw"}


@pytest.mark.spec("TB-X2", "TB-S4", "TB-S5", "TB-S10")
@pytest.mark.parametrize("level", [4, 5])
async def test_what_is_wrong_with_one_device_is_no_harm_to_the_others(
    redis_url: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {
        "scalar": 5, "text": "x", "none": None, "of scalars": [1], "of arrays": [[]], "empty key": [{"": 1}],
        "bad ts": [{"ts": "x", "values": {}}], "bad values": [{"ts": 1, "values": 5}], "long key": [{"k" * 256: 1}],
        "n" * 256: [{"a": 1}], "": [{"a": 1}], "control\u0001": [{"a": 1}],
    }  # fmt: skip
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        client = await RawClient.open(site.mqtt_port)
        await client.login(username=GATEWAY_TOKEN, level=level)
        both = {"good": [{"a": 1}], **bad, "n" * 255: [{"a": 2}]}
        for attempt in (1, 2):
            # The first time the devices are made, the second time they are known.
            client.say(said_to("telemetry", both, attempt))
            answer = await client.hear()
            assert isinstance(answer, Puback)
            assert (answer.packet_id, answer.reason) == (attempt, Reason.PAYLOAD_FORMAT_INVALID if level == 5 else 0)
            if level == 5:
                assert answer.properties is not None
                assert answer.properties.reason is not None
                assert answer.properties.reason.startswith(f"{len(bad)} of {len(both)} devices: 'scalar': ")
            assert f"{len(bad)} of {len(both)} devices: 'scalar': Can't parse value" in caplog.text
            caplog.clear()
        messages = await site.messages()
        assert told(messages, "good") == [(NEWS, "good"), *[("POST_TELEMETRY_REQUEST", {"a": 1})] * 2]
        assert {message.metadata["deviceName"] for message in messages} == {"good", "n" * 255}
        client.say(said_to("attributes", {"good": {"a": 1}, "x": [], "y": 1, "z": {"k" * 256: 1}}, 3))
        client.say(said_to("claim", {"good": {}, "x": [], "y": {"durationMs": "long"}}, 4))
        for packet_id in (3, 4):
            answer = await client.hear()
            assert isinstance(answer, Puback)
            assert (answer.packet_id, answer.reason != 0) == (packet_id, level == 5)
        assert {device.name for device in await site.registry.devices(TENANT)} == {"d1", "gw", "good", "n" * 255}
        await client.close()


async def test_what_is_nested_too_deeply_is_the_fault_of_its_device(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        async with gateway(site) as client:
            for depth in (40, 500):
                await say(client, "telemetry", '{"A":[{"a":' + "[" * depth + "]" * depth + '}],"B":[{"b":1}]}')
        assert {message.metadata["deviceName"] for message in await site.messages()} == {"B"}


@pytest.mark.spec("TB-X2")
async def test_ten_thousand_devices_at_once_do_not_fill_the_registry(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Site(redis_url, work=False, settings=Settings(gateway_max_devices=20)) as site:
        gw = await gateway_device(site)
        client = await gateway_of_level_5(site)
        body = b"{%s}" % b",".join(b"%d:[]" % n for n in range(8000))
        assert len(body) < 65_536
        client.say(said_to("telemetry", body, 1), said_to("telemetry", {"7": [{"a": 1}]}, 2))
        first, second = await client.hear(), await client.hear()
        assert isinstance(first, Puback)
        assert (first.reason, second) == (Reason.PAYLOAD_FORMAT_INVALID, Puback(2))
        assert await site.registry.count_children(gw.id) == 20
        assert len(await site.registry.devices(TENANT)) == 22
        assert "7980 of 8000 devices: '20': the gateway has its most devices, 20" in caplog.text
        await client.close()


@pytest.mark.spec("TB-X2")
async def test_one_session_speaks_for_so_many_devices(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Site(redis_url, work=False, settings=Settings(gateway_max_devices=3)) as site:
        await gateway_device(site)
        for n in range(5):
            await site.device(f"D{n}")
        async with gateway(site) as client:
            await say(client, "telemetry", {f"D{n}": [{"a": 1}] for n in range(5)})
            assert "2 of 5 devices" in caplog.text
            await say(client, "disconnect", {"device": "D0"})
            await say(client, "telemetry", {"D4": [{"a": 1}]})
        names = {message.metadata["deviceName"] for message in await site.messages()}
        assert names == {"D0", "D1", "D2", "D4"}


@pytest.mark.spec("TB-X2")
async def test_a_gateway_that_makes_devices_too_fast_waits_and_nothing_is_lost(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    fast = Settings(gateway_new_burst=5, gateway_new_per_s=5)
    async with Site(redis_url, work=False, settings=fast) as site:
        await gateway_device(site)
        async with gateway(site) as client:
            await say(client, "telemetry", {f"D{n}": [{"n": n}] for n in range(8)})
        messages = await site.messages()
        for n in range(8):
            assert told(messages, f"D{n}") == [(NEWS, f"D{n}"), ("POST_TELEMETRY_REQUEST", {"n": n})]
        assert "makes too many devices at a time" in caplog.text


async def test_what_redis_cannot_answer_is_asked_again_before_the_acknowledgement(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        failures = [1]
        monkeypatch.setattr(site.registry, "unannounced", failing_once(site.registry.unannounced, failures))
        async with gateway(site) as client:
            await say(client, "telemetry", {"A": [{"a": 1}]})
        assert failures == []
        assert told(await site.messages(), "A") == [(NEWS, "A"), ("POST_TELEMETRY_REQUEST", {"a": 1})]


@pytest.mark.spec("TB-X2", "G-10")
@pytest.mark.parametrize("topic", TOPICS)
async def test_who_is_no_gateway_may_use_none_of_its_topics(redis_url: str, topic: str) -> None:
    async with Site(redis_url, work=False) as site:
        client = await RawClient.open(site.mqtt_port)
        await client.login(username=TOKEN)
        assert (await client.subscribe(GW + topic)).codes == b"\x80"
        client.say(said_to(topic, {"device": "A", "id": 1, "key": "k", "data": 1}))
        assert await client.hear() is None
        assert await site.messages() == []
        assert {device.name for device in await site.registry.devices(TENANT)} == {"d1"}
        await client.close()


@pytest.mark.spec("TB-X2", "G-10")
@pytest.mark.parametrize(
    ("topic", "granted"),
    [
        ("rpc", 1), ("attributes", 1), ("attributes/response", 1), ("telemetry", 128), ("connect", 128), ("+", 128),
        ("#", 128), ("rpc/+", 128), ("attributes/request", 128),
    ],
)  # fmt: skip
async def test_what_a_gateway_may_subscribe_to(redis_url: str, topic: str, granted: int) -> None:
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        client = await RawClient.open(site.mqtt_port)
        await client.login(username=GATEWAY_TOKEN)
        assert (await client.subscribe(GW + topic, 2)).codes == bytes([granted])
        await client.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


async def test_whatever_a_gateway_says_the_server_goes_on(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Any JSON on any topic is acknowledged or closes the connection, and nobody else notices."""
    caplog.set_level(logging.ERROR)
    async with Site(redis_url, work=False, settings=Settings(gateway_max_devices=40)) as site:
        await gateway_device(site)
        loop = asyncio.get_running_loop()

        async def speak(topic: str, value: Any) -> None:
            client = await RawClient.open(site.mqtt_port)
            await client.login(username=GATEWAY_TOKEN)
            client.say(said_to(topic, json.dumps(value)))
            assert await client.hear() in (None, Puback(1))
            await client.close()

        members = st.dictionaries(st.sampled_from(["device", "id", "data", "key", "keys", "client", "type", "A"]), JSON)

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(TOPICS), JSON | members)
        def run(topic: str, value: Any) -> None:
            asyncio.run_coroutine_threadsafe(speak(topic, value), loop).result(30)

        await asyncio.to_thread(run)
        async with gateway(site) as client:
            await say(client, "telemetry", {"gw": [{"a": 1}]})
        assert caplog.records == []
        assert (await child(site, "gw")).is_gateway
