"""The gateway class of ThingsBoard's own SDK, which speaks MQTT 5, works unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.api.dialects.thingsboard.gateways import GATEWAY_TOKEN, child, command, gateway_device
from tests.api.dialects.thingsboard.sdk import Sdk, callback, sdk
from tests.api.dialects.thingsboard.site import Site
from tests.api.dialects.thingsboard.test_http_polls import answering
from tests.api.stack import TENANT

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("TB-X2", "TB-X1")]


@asynccontextmanager
async def connected(site: Site) -> AsyncIterator[Sdk]:
    """A gateway with a device "A" of type "thermostat" that it has connected."""
    await gateway_device(site)
    async with sdk("TBGatewayMqttClient", host="127.0.0.1", port=site.mqtt_port, username=GATEWAY_TOKEN) as gateway:
        await gateway.connect()
        assert await gateway.call("gw_connect_device", "A", "thermostat") == 0
        yield gateway


async def test_uploads_of_devices(site: Site) -> None:
    async with connected(site) as gateway:
        assert await gateway.call("gw_send_telemetry", "A", {"ts": 1451649600512, "values": {"a": 42.0}}) == 0
        assert await gateway.call("gw_send_telemetry", "B", [{"a": 1}, {"b": True}]) == 0
        assert await gateway.call("gw_send_attributes", "A", {"serial": "x"}) == 0
        assert await gateway.call("gw_disconnect_device", "A") == 0
        assert await gateway.call("send_telemetry", {"own": 1}) == 0
        await gateway.call("disconnect")
    a, b = await child(site, "A"), await child(site, "B")
    assert (a.shown_type, b.shown_type) == ("thermostat", "default")
    assert await site.latest(b) == {"a": 1, "b": True}
    assert await site.points(a) == [("a", 1451649600512, 42.0)]
    assert (await site.attributes_of(a))["CLIENT"] == {"serial": "x"}
    assert await site.latest(await child(site, "gw")) == {"own": 1}


async def test_more_telemetry_of_a_device_than_fits_into_one_publication(site: Site) -> None:
    async with connected(site) as gateway:
        values = {f"key{i}": "x" * 1000 for i in range(100)}
        assert await gateway.call("gw_send_telemetry", "A", {"ts": 1451649600512, "values": values}) == 0
    assert len(await site.latest(await child(site, "A"))) == 100


async def test_attributes_of_a_device_are_asked_for(site: Site) -> None:
    async with connected(site) as gateway:
        device = await child(site, "A")
        for scope in ("SHARED", "CLIENT"):
            await site.attributes.write(TENANT, device.id, scope, {"a": scope, "b": 1})
        await gateway.call("gw_request_shared_attributes", "A", ["a", "b"], callback("shared"))
        assert (await gateway.event("shared"))[0]["values"] == {"a": "SHARED", "b": 1}
        await gateway.call("gw_request_client_attributes", "A", ["a"], callback("client"))
        answer = (await gateway.event("client"))[0]
        assert (answer["device"], answer["value"]) == ("A", "CLIENT")


async def test_changes_of_a_devices_attributes_are_told(site: Site) -> None:
    async with connected(site) as gateway:
        device = await child(site, "A")
        await gateway.call("gw_subscribe_to_attribute", "A", "interval", callback("interval"))
        await gateway.call("gw_subscribe_to_all_attributes", callback("all"))
        await site.attributes.write(TENANT, device.id, "SHARED", {"other": 1})
        await site.attributes.write(TENANT, device.id, "SHARED", {"interval": 30})
        assert await gateway.event("interval") == [{"device": "A", "data": {"interval": 30}}]
        assert [(await gateway.event("all"))[0]["data"] for _ in range(2)] == [{"other": 1}, {"interval": 30}]


async def test_commands_to_a_device_are_answered(site: Site) -> None:
    async with connected(site) as gateway:
        await gateway.call("gw_set_server_side_rpc_request_handler", callback("command"))
        operator = await command(site, await child(site, "A"), "setGpio", {"pin": "23"})
        told = (await gateway.event("command"))[1]
        assert told == {"device": "A", "data": {"id": 1, "method": "setGpio", "params": {"pin": "23"}}}
        assert await gateway.call("gw_send_rpc_reply", "A", told["data"]["id"], {"result": "ok"}) == 0
        answer = await operator.next(5)
        assert answer is not None
        assert answer.data == {"result": "ok"}
        operator.__exit__()


async def test_calls_of_the_gateway_itself(site: Site) -> None:
    await site.deploy(answering("lua", "return {msg = {got = msg.params.n}}"))
    async with connected(site) as gateway:
        await gateway.call("send_rpc_call", "getTime", {"n": 7}, callback("time"))
        assert (await gateway.event("time"))[1] == {"got": 7}


@pytest.mark.spec("TB-50")
async def test_a_device_lets_itself_be_claimed(site: Site) -> None:
    async with connected(site) as gateway:
        assert await gateway.call("gw_claim", "A", "secret", 60_000) == 0
    assert await site.parts.claims.matches((await child(site, "A")).id, "secret") is True
