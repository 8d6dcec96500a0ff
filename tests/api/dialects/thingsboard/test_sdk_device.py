"""The device class of ThingsBoard's own SDK, which speaks MQTT 5, works unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.api.dialects.thingsboard.sdk import Sdk, callback, sdk
from tests.api.dialects.thingsboard.site import TOKEN, Site
from tests.api.dialects.thingsboard.test_http_polls import answering
from tests.api.stack import TENANT

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("TB-X1")]


@asynccontextmanager
async def connected(site: Site) -> AsyncIterator[Sdk]:
    async with sdk(host="127.0.0.1", port=site.mqtt_port, username=TOKEN) as device:
        await device.connect()
        yield device


async def test_uploads(site: Site) -> None:
    async with connected(site) as device:
        assert await device.call("send_telemetry", {"temperature": 42.0, "open": True}) == 0
        assert await device.call("send_telemetry", {"ts": 1451649600512, "values": {"old": 73}}) == 0
        assert await device.call("send_attributes", {"serial": "A 1", "nested": {"a": [1, 2]}}) == 0
        await device.call("disconnect")
    assert await site.latest(site.d1) == {"temperature": 42.0, "open": True, "old": 73}
    assert ("old", 1451649600512, 73) in await site.points(site.d1)
    assert (await site.attributes_of(site.d1))["CLIENT"] == {"serial": "A 1", "nested": {"a": [1, 2]}}


async def test_more_telemetry_than_fits_into_one_publication(site: Site) -> None:
    async with connected(site) as device:
        # The limits that it was told are what it divides by.
        assert await device.call("max_payload_size") == int(65_536 * 0.8)
        assert await device.call("send_telemetry", {f"key{i}": "x" * 1000 for i in range(100)}) == 0
    assert len(await site.latest(site.d1)) == 100


async def test_attributes_are_asked_for(site: Site) -> None:
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"interval": 60, "unasked": 1})
    await site.attributes.write(TENANT, site.d1.id, "CLIENT", {"serial": "A 1"})
    async with connected(site) as device:
        await device.call("request_attributes", ["serial", "none"], ["interval"], callback("answer"))
        assert await device.event("answer") == [{"client": {"serial": "A 1"}, "shared": {"interval": 60}}, None]


async def test_changes_of_attributes_are_told(site: Site) -> None:
    async with connected(site) as device:
        await device.call("subscribe_to_attribute", "interval", callback("interval"))
        await device.call("subscribe_to_all_attributes", callback("all"))
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"other": 1})
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"interval": 30})
        assert await device.event("interval") == [{"interval": 30}, None]
        assert [(await device.event("all"))[0] for _ in range(2)] == [{"other": 1}, {"interval": 30}]


async def test_a_command_is_answered(site: Site) -> None:
    async with connected(site) as device:
        await device.call("set_server_side_rpc_request_handler", callback("command"))
        operator = await site.command("setGpio", {"pin": "23", "value": 1})
        assert await device.event("command") == ["1", {"method": "setGpio", "params": {"pin": "23", "value": 1}}]
        await device.call("send_rpc_reply", "1", {"result": "ok"})
        answer = await operator.next(5)
        assert answer is not None
        assert answer.data == {"result": "ok"}
        operator.__exit__()


async def test_a_call_is_answered(site: Site) -> None:
    await site.deploy(answering("lua", "return {msg = {got = msg.params.n}}"))
    async with connected(site) as device:
        await device.call("send_rpc_call", "getTime", {"n": 7}, callback("time"))
        # The first call asked for the limits of the session.
        assert await device.event("time") == [2, {"got": 7}, None]
