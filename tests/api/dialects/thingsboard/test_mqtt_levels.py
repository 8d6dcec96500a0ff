"""The device API is the same at every level of MQTT; level 5 says why besides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes

from api.transports.mqtt.packets import Disconnect, Publish
from api.transports.mqtt.reasons import Reason
from tests.api.dialects.thingsboard.site import TOKEN, Site
from tests.api.dialects.thingsboard.test_http_polls import answering
from tests.api.dialects.thingsboard.test_mqtt import said
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("TB-X1", "G-9")]

ME = "v1/devices/me/"
LEVELS = [aiomqtt.ProtocolVersion.V31, aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5]


@asynccontextmanager
async def connected(site: Site, protocol: aiomqtt.ProtocolVersion, **options: Any) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client(
        "127.0.0.1", site.mqtt_port, username=TOKEN, identifier="device", protocol=protocol, **options
    ) as client:
        yield client


@pytest.mark.parametrize("protocol", LEVELS)
async def test_everything_a_device_does(site: Site, protocol: aiomqtt.ProtocolVersion) -> None:
    await site.deploy(answering("lua", "return {msg = {got = msg.params.n}}"))
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"interval": 60})
    async with connected(site, protocol) as client:
        for topic in ("attributes", "attributes/response/+", "rpc/request/+", "rpc/response/+"):
            await client.subscribe(ME + topic, qos=1)
        await client.publish(ME + "attributes/request/1", '{"sharedKeys":"interval"}', 1)
        assert await said(client) == (ME + "attributes/response/1", {"shared": {"interval": 60}})
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"interval": 30})
        assert await said(client) == (ME + "attributes", {"interval": 30})
        await client.publish(ME + "rpc/request/2", '{"method":"m","params":{"n":7}}', 1)
        assert await said(client) == (ME + "rpc/response/2", {"got": 7})
    await site.deploy({"chain": "root", "start": "by type", "nodes": {
        "by type": {"kind": "message_type_switch", "to": {
            "Post telemetry": "save", "Post attributes": "keep", "RPC Request to Device": "ask",
        }},
        "save": {"kind": "save_timeseries"}, "keep": {"kind": "save_attributes"}, "ask": {"kind": "rpc_request"},
    }})  # fmt: skip
    async with connected(site, protocol) as client:
        await client.subscribe(ME + "rpc/request/+", qos=1)
        operator = await site.command("setGpio", {"pin": 1})
        assert await said(client) == (ME + "rpc/request/1", {"method": "setGpio", "params": {"pin": 1}})
        await client.publish(ME + "rpc/response/1", '{"result":"ok"}', 1)
        answer = await operator.next(5)
        assert answer is not None
        assert answer.data == {"result": "ok"}
        operator.__exit__()
        for qos in range(3):
            await client.publish(ME + "telemetry", f'{{"t{qos}":{qos}}}', qos)
        await client.publish(ME + "attributes", '{"serial":"A 1"}', 1)
    assert await site.latest(site.d1) == {"t0": 0, "t1": 1, "t2": 2}
    assert (await site.attributes_of(site.d1))["CLIENT"] == {"serial": "A 1"}


@pytest.mark.spec("G-11")
async def test_changes_while_a_session_of_level_5_waits_are_told_when_it_is_back(site: Site) -> None:
    kept = paho.Properties(PacketTypes.CONNECT)
    kept.SessionExpiryInterval = 3600
    options: dict[str, Any] = {"clean_start": False, "properties": kept}
    async with connected(site, aiomqtt.ProtocolVersion.V5, **options) as client:
        await client.subscribe(ME + "attributes", qos=1)
    await asyncio.sleep(0.05)
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"away": 1})
    async with connected(site, aiomqtt.ProtocolVersion.V5, **options) as client:
        assert await said(client) == (ME + "attributes", {"away": 1})


@pytest.mark.spec("G-10", "G-12")
@pytest.mark.parametrize(
    ("topic", "payload", "code", "words"),
    [
        (ME + "telemetry", b'{"temperature":', Reason.PAYLOAD_FORMAT_INVALID, "v1/devices/me/telemetry: line 1"),
        (ME + "telemetry", b"5", Reason.PAYLOAD_FORMAT_INVALID, "v1/devices/me/telemetry: "),
        (ME + "nothing", b"{}", Reason.NOT_AUTHORISED, "a device may not publish to 'v1/devices/me/nothing'"),
        (ME + "telemetry", b"x" * 65_537, Reason.PACKET_TOO_LARGE, "over the limit of 65536"),
    ],
)
async def test_level_5_says_why_it_closes(site: Site, topic: str, payload: bytes, code: int, words: str) -> None:
    client = await RawClient.open(site.mqtt_port)
    connack = await client.login(username=TOKEN, level=5)
    assert connack.properties.maximum_packet_bytes == 65_536
    client.say(Publish(topic, payload, 1, 1))
    goodbye = await client.hear()
    assert isinstance(goodbye, Disconnect)
    assert goodbye.reason == code
    assert goodbye.properties is not None
    assert words in (goodbye.properties.reason or "")
    assert await client.hear() is None
    await client.close()


@pytest.mark.spec("G-10")
async def test_logins_are_refused_with_the_codes_of_level_5(site: Site) -> None:
    await site.registry.put_device(msgspec.structs.replace(site.d1, enabled=False))
    await asyncio.sleep(0.1)
    for username in (TOKEN, "nobody"):
        client = await RawClient.open(site.mqtt_port)
        assert (await client.login(username=username, level=5)).code == Reason.NOT_AUTHORISED
        await client.close()
