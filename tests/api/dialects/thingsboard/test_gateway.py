"""Gateways: devices made on first use, what is said of them and what they are sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from api.device_record import device_record
from api.dialects.thingsboard.settings import Settings
from engine.node import Product
from engine.stores.registry import Device, Tenant
from tests.api.dialects.thingsboard.gateways import GW, NEWS, child, command, gateway, gateway_device, say, told
from tests.api.dialects.thingsboard.site import Site
from tests.api.dialects.thingsboard.test_http_polls import answering
from tests.api.dialects.thingsboard.test_http_uploads import FIXTURE, TS, same
from tests.api.dialects.thingsboard.test_mqtt import ME, connected, said, subscribed
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def gw(site: Site) -> AsyncIterator[Device]:
    yield await gateway_device(site)


# Devices made on first use


@pytest.mark.spec("TB-X2", "TB-8", "TB-4")
async def test_telemetry_of_devices_that_are_made_for_it(site: Site, gw: Device) -> None:
    async with gateway(site) as client:
        await say(client, "telemetry", {
            "Device A": [{"ts": TS, "values": FIXTURE}, {"now": 1}],
            "Device B": [{"temperature": "42"}],
        })  # fmt: skip
    a, b = await child(site, "Device A"), await child(site, "Device B")
    assert same(await site.latest(a), {**FIXTURE, "now": 1})
    assert same(await site.latest(b), {"temperature": 42})
    assert {(key, ts_ms) for key, ts_ms, _ in await site.points(a) if key != "now"} == {(key, TS) for key in FIXTURE}
    for device in (a, b):
        assert (device.parent, device.tenant, device.product, device.shown_type) == (gw.id, TENANT, "", "default")
        assert not device.credentials
    assert await site.registry.count_children(gw.id) == 2


@pytest.mark.spec("TB-X2", "TB-13", "G-18", "G-20")
async def test_the_acknowledgement_comes_when_the_news_of_a_device_and_then_its_data_are_durable(
    redis_url: str,
) -> None:
    async with Site(redis_url, work=False) as site:
        gw = await gateway_device(site)
        async with gateway(site) as client:
            await say(client, "telemetry", {"A": [{"a": 1}, {"b": 2, "ts": 5}]})
            news, data = await site.messages()
            device = await child(site, "A")
            common = {"dialect": "tb", "transport": "mqtt", "deviceName": "A", "deviceType": "default"}
            assert (news.type, news.originator, news.data) == (NEWS, device.id, device_record(device))
            assert news.metadata == {**common, "gatewayId": gw.id, "gatewayName": "gw"}
            assert (data.type, data.originator) == ("POST_TELEMETRY_REQUEST", device.id)
            assert data.data == {"a": 1, "b": 2, "ts": 5}
            assert data.metadata == {**common, "ts": str(data.ts_ms)}
            await say(client, "attributes", {"A": {"model": "x"}, "B": {}})
            assert told(await site.messages(), "A")[2:] == [("POST_ATTRIBUTES_REQUEST", {"model": "x"})]
            assert told(await site.messages(), "B") == [(NEWS, "B")]


@pytest.mark.spec("TB-X2")
async def test_connecting_makes_a_device_of_its_type_once(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        await site.registry.put_product(Product(id="meter", tenant=TENANT))
        async with gateway(site) as client:
            for name, type in (("A", "thermostat"), ("B", "meter"), ("C", "default"), ("D", None), ("A", "other")):
                await say(client, "connect", {"device": name, "type": type})
            await say(client, "connect", {"device": "E"})
            await say(client, "telemetry", {"A": [{"a": 1}]})
        types = {name: (await child(site, name)).shown_type for name in "ABCDE"}
        assert types == {"A": "thermostat", "B": "meter", "C": "default", "D": "default", "E": "default"}
        assert (await child(site, "B")).product == "meter"
        messages = await site.messages()
        assert sorted(message.data["name"] for message in messages if message.type == NEWS) == list("ABCDE")
        [telemetry] = [message for message in messages if message.type == "POST_TELEMETRY_REQUEST"]
        assert telemetry.metadata["deviceType"] == "thermostat"


@pytest.mark.spec("TB-X2")
async def test_what_is_said_of_a_device_keeps_its_order_while_others_are_made(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        async with gateway(site) as client:
            await asyncio.gather(*[
                client.publish(GW + "telemetry", json.dumps({"A": [{"n": n}], f"D{n}": [{"n": n}]}), 1)
                for n in range(30)
            ])  # fmt: skip
        messages = await site.messages()
        assert told(messages, "A") == [(NEWS, "A"), *[("POST_TELEMETRY_REQUEST", {"n": n}) for n in range(30)]]
        for n in range(30):
            assert told(messages, f"D{n}") == [(NEWS, f"D{n}"), ("POST_TELEMETRY_REQUEST", {"n": n})]


@pytest.mark.spec("TB-X2")
async def test_two_gateways_that_name_the_same_new_device_make_one(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        await gateway_device(site, "gw2", "GW2")
        async with gateway(site) as one, gateway(site, "GW2") as two:
            names = [f"D{n}" for n in range(10)]
            await asyncio.gather(*[say(each, "telemetry", {n: [{"a": 1}] for n in names}) for each in (one, two)])
        messages = await site.messages()
        devices = {message.metadata["deviceName"]: message.originator for message in messages}
        assert set(devices) == set(names)
        for message in messages:
            assert message.originator == devices[message.metadata["deviceName"]]
        assert sum(message.type == "POST_TELEMETRY_REQUEST" for message in messages) == 20


@pytest.mark.spec("TB-X2")
async def test_a_device_that_nobody_was_told_of_is_told_of_when_it_is_next_used(redis_url: str) -> None:
    """As a process leaves it that dies between making a device and storing the news of it."""
    async with Site(redis_url, work=False) as site:
        gw = await gateway_device(site)
        made = await site.registry.put_device(Device(id="", tenant=TENANT, name="A", parent=gw.id), unannounced=True)
        async with gateway(site) as client:
            await say(client, "telemetry", {"A": [{"a": 1}]})
            await say(client, "telemetry", {"A": [{"a": 2}]})
            wanted = [(NEWS, "A"), ("POST_TELEMETRY_REQUEST", {"a": 1}), ("POST_TELEMETRY_REQUEST", {"a": 2})]
            assert told(await site.messages(), "A") == wanted
            await until(lambda: _is_announced(site, made))
        async with gateway(site) as client:
            await say(client, "telemetry", {"A": [{"a": 3}]})
        assert told(await site.messages(), "A")[3:] == [("POST_TELEMETRY_REQUEST", {"a": 3})]


async def _is_announced(site: Site, device: Device) -> bool:
    return not await site.registry.unannounced([device.id])


# Whom a gateway may speak for


@pytest.mark.spec("TB-X2")
async def test_any_device_of_the_tenant_belongs_to_the_gateway_that_spoke_for_it_last(site: Site, gw: Device) -> None:
    other = await gateway_device(site, "gw2", "GW2")
    plain = await site.device("plain", token="PLAIN")
    async with gateway(site) as client, gateway(site, "GW2") as second:
        await say(client, "telemetry", {"plain": [{"a": 1}], "gw": [{"own": 1}], "new": [{"a": 1}]})
        assert (await child(site, "plain")).parent == gw.id
        await say(second, "telemetry", {"plain": [{"a": 2}], "new": [{"a": 2}]})
        assert {(await child(site, name)).parent for name in ("plain", "new")} == {other.id}
        for n in range(3, 6):
            await say(client, "telemetry", {"plain": [{"a": n}]})
        # Neither takes it back for every message.
        assert (await child(site, "plain")).parent == other.id
    assert await site.latest(plain) == {"a": 5}
    assert await site.latest(gw) == {"own": 1}
    assert (await child(site, "gw")).parent == ""
    found = await child(site, "plain")
    assert found.credentials == plain.credentials


@pytest.mark.spec("TB-X2")
async def test_a_gateway_can_be_kept_to_its_own_devices(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Site(redis_url, work=False, settings=Settings(gateway_devices="own")) as site:
        gw = await gateway_device(site)
        await site.device("plain")
        await site.device("own", parent=gw.id)
        async with gateway(site) as client:
            await say(client, "telemetry", {"plain": [{"a": 1}], "own": [{"a": 1}], "new": [{"a": 1}]})
        names = {message.metadata["deviceName"] for message in await site.messages()}
        assert names == {"own", "new"}
        assert (await child(site, "plain")).parent == ""
        assert "'plain': the device is not one of this gateway's" in caplog.text


@pytest.mark.spec("TB-X2", "G-18")
async def test_names_of_another_tenants_devices_mean_devices_of_its_own(site: Site, gw: Device) -> None:
    await site.registry.put_tenant(Tenant(name="other"))
    theirs = await site.registry.put_device(Device(id="", tenant="other", name="A", external_id="ext"))
    await site.attributes.write("other", theirs.id, "SHARED", {"secret": 1})
    async with gateway(site) as client:
        await subscribed(site, client, GW + "rpc", GW + "attributes", GW + "attributes/response")
        for name in ("A", theirs.id, "ext"):
            await say(client, "telemetry", {name: [{"a": 1}]})
            await say(client, "attributes", {name: {"b": 1}})
            await say(client, "attributes/request", {"id": 1, "device": name, "client": False, "key": "secret"})
            assert await said(client) == (GW + "attributes/response", {"id": 1, "device": name})
            await say(client, "rpc", {"device": name, "id": 1, "data": {}})
            mine = await site.registry.find_names(TENANT, [name])
            assert mine[name].tenant == TENANT
            assert mine[name].id != theirs.id
        await site.attributes.write("other", theirs.id, "SHARED", {"secret": 2})
        await site.attributes.write(TENANT, (await child(site, "A")).id, "SHARED", {"mine": 1})
        assert await said(client) == (GW + "attributes", {"device": "A", "data": {"mine": 1}})
    await site.idle()
    assert await site.store.latest("other", theirs.id) == []
    assert await site.registry.find_device(theirs.id) == theirs


@pytest.mark.spec("TB-X2", "TB-S40")
async def test_devices_that_are_disabled_renamed_or_deleted_meanwhile(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Site(redis_url, work=False) as site:
        await gateway_device(site)
        async with gateway(site) as client:
            for name in "ABC":
                await say(client, "telemetry", {name: [{"n": 1}]})
            a, b, c = [await child(site, name) for name in "ABC"]
            await site.registry.put_device(msgspec.structs.replace(a, enabled=False))
            await site.registry.put_device(msgspec.structs.replace(b, name="B2"))
            await site.registry.delete_device(TENANT, c.id)
            await asyncio.sleep(0.1)
            await say(client, "telemetry", {name: [{"n": 2}] for name in ("A", "B", "B2", "C")})
        seen = [(each.originator, each.data["n"]) for each in await site.messages() if "n" in each.data]
        new_b, new_c = await child(site, "B"), await child(site, "C")
        assert sorted(seen) == sorted([(a.id, 1), (b.id, 1), (c.id, 1), (b.id, 2), (new_b.id, 2), (new_c.id, 2)])
        assert "1 of 4 devices: 'A': the device is disabled" in caplog.text


# What the devices are sent


@pytest.mark.spec("TB-X2", "TB-34", "TB-S19")
async def test_changes_of_shared_attributes_name_the_device(site: Site, gw: Device) -> None:
    topic = GW + "attributes"
    other = await site.device("not connected")
    async with gateway(site) as client:
        await say(client, "connect", {"device": "A"})
        await subscribed(site, client, topic)
        await say(client, "connect", {"device": "B"})
        for name in "AB":
            device = await child(site, name)
            await site.attributes.write(TENANT, other.id, "SHARED", {"unheard": 1})
            await site.attributes.write(TENANT, device.id, "CLIENT", {"unheard": 1})
            await site.attributes.write(TENANT, device.id, "SHARED", {"a": 1, "b": 42.0})
            assert same(await said(client), (topic, {"device": name, "data": {"a": 1, "b": 42.0}}))
            await site.attributes.delete(TENANT, device.id, "SHARED", ["a", "b"])
            assert await said(client) == (topic, {"device": name, "data": {"deleted": ["a", "b"]}})
        await say(client, "disconnect", {"device": "A"})
        await site.attributes.write(TENANT, (await child(site, "A")).id, "SHARED", {"unheard": 1})
        await site.attributes.write(TENANT, (await child(site, "B")).id, "SHARED", {"heard": 1})
        assert await said(client) == (topic, {"device": "B", "data": {"heard": 1}})
        await client.unsubscribe(topic)
        await asyncio.sleep(0.05)
        assert len(site.live._listeners) == 0


@pytest.mark.spec("TB-X2")
async def test_asking_for_attributes_of_a_device(site: Site, gw: Device) -> None:
    device = await site.device("A")
    for scope in ("CLIENT", "SHARED", "SERVER"):
        await site.attributes.write(TENANT, device.id, scope, {"a": scope, "b": {"c": [1, 2.0]}})
    topic = GW + "attributes/response"
    async with gateway(site) as client:
        await subscribed(site, client, topic)
        for id, (asked, answer) in enumerate(
            [
                ({"client": True, "key": "a"}, {"value": "CLIENT"}),
                ({"client": False, "key": "a"}, {"value": "SHARED"}),
                ({"key": "a"}, {"value": "SHARED"}),
                ({"client": True, "keys": ["a", "b", "x"]}, {"values": {"a": "CLIENT", "b": {"c": [1, 2.0]}}}),
                ({"client": False, "keys": ["b"]}, {"value": {"c": [1, 2.0]}}),
                ({"client": True, "key": "x"}, {}),
                ({"client": True, "keys": ["x", "y"]}, {"values": {}}),
                ({"client": True, "keys": []}, {"values": {}}),
            ]
        ):
            await say(client, "attributes/request", {"id": id, "device": "A", **asked})
            assert same(await said(client), (topic, {"id": id, "device": "A", **answer}))
        await say(client, "attributes/request", {"id": "99", "device": "new", "client": True, "key": "a"})
        assert await said(client) == (topic, {"id": 99, "device": "new"})
    assert (await child(site, "new")).parent == gw.id


@pytest.mark.spec("TB-X2", "TB-S17", "TB-S20")
async def test_commands_that_wait_and_those_that_come(site: Site, gw: Device) -> None:
    topic = GW + "rpc"
    a, b = [await site.device(name, token=name, parent=gw.id) for name in "AB"]
    waiting = await command(site, a, "first", {"pin": "23"})
    await site.idle()
    async with gateway(site) as client, connected(site, "A") as itself:
        await subscribed(site, itself, ME + "rpc/request/+")
        assert await said(itself) == (ME + "rpc/request/1", {"method": "first", "params": {"pin": "23"}})
        await subscribed(site, client, topic)
        await say(client, "telemetry", {"A": [{"a": 1}], "B": []})
        second, third = await command(site, b, "second", None), await command(site, a, "third", 3)
        got = [(await said(client))[1] for _ in range(2)]
        assert {"device": "B", "data": {"id": 1, "method": "second", "params": None}} in got
        assert {"device": "A", "data": {"id": 2, "method": "third", "params": 3}} in got
        assert (await said(itself))[0] == ME + "rpc/request/2"
        await say(client, "rpc", {"device": "B", "id": 1, "data": {"success": True}})
        await say(client, "rpc", {"device": "A", "id": "2", "data": [1, 42.0]})
        await say(client, "rpc", {"device": "A", "id": 1})
        await say(client, "rpc", {"device": "A", "id": 77, "data": "nobody asked"})
        await say(client, "rpc", {"device": "unknown", "id": 1, "data": 1})
        assert [(await each.next(5)).data for each in (second, third, waiting)] == [{"success": True}, [1, 42.0], None]
        for each in (second, third, waiting):
            each.__exit__()
    assert await site.registry.find_names(TENANT, ["unknown"]) == {}


@pytest.mark.spec("TB-X2", "TB-S17")
async def test_commands_that_waited_come_when_their_device_connects(site: Site, gw: Device) -> None:
    a = await site.device("A", parent=gw.id)
    for method in ("one", "two"):
        await command(site, a, method, {})
        await site.idle()
    async with gateway(site) as client:
        await subscribed(site, client, GW + "rpc")
        await say(client, "connect", {"device": "A"})
        assert [(await said(client))[1]["data"]["method"] for _ in range(2)] == ["one", "two"]
        await say(client, "disconnect", {"device": "A"})
        await command(site, a, "three", {})
        await site.idle()
        await say(client, "connect", {"device": "A"})
        assert (await said(client))[1]["data"]["method"] == "three"


@pytest.mark.spec("TB-X2", "G-11")
async def test_changes_while_a_persistent_gateway_is_away_are_told_when_its_device_is_back(
    site: Site, gw: Device
) -> None:
    topic = GW + "attributes"
    options: dict[str, Any] = {"identifier": "kept", "clean_session": False}
    a = await site.device("A", parent=gw.id)
    await site.attributes.write(TENANT, a.id, "SHARED", {"before": 1})
    await asyncio.sleep(0.01)
    async with gateway(site, **options) as client:
        await subscribed(site, client, topic)
        await say(client, "connect", {"device": "A"})
    await asyncio.sleep(0.05)
    await site.attributes.write(TENANT, a.id, "SHARED", {"away": 1})
    async with gateway(site, **options) as client:
        await say(client, "connect", {"device": "A"})
        assert await said(client) == (topic, {"device": "A", "data": {"away": 1}})


async def test_what_the_bus_did_not_tell_of_a_device_is_given_when_it_is_back(site: Site, gw: Device) -> None:
    async with gateway(site) as client:
        await subscribed(site, client, GW + "rpc", GW + "attributes")
        await say(client, "connect", {"device": "A"})
        a = await child(site, "A")
        await asyncio.sleep(0.01)
        await site.live.stop()
        await command(site, a, "unheard", {})
        await site.attributes.write(TENANT, a.id, "SHARED", {"unheard": 1})
        await site.idle()
        await site.live.start()
        site.live._tell_lost()
        got = {topic: value["data"] for topic, value in [await said(client) for _ in range(2)]}
        assert got == {GW + "rpc": {"id": 1, "method": "unheard", "params": {}}, GW + "attributes": {"unheard": 1}}


@pytest.mark.spec("TB-X2", "TB-50", "TB-S25")
async def test_devices_let_themselves_be_claimed(site: Site, gw: Device) -> None:
    async with gateway(site) as client:
        await say(client, "claim", {"A": {"secretKey": "s", "durationMs": 60000}, "B": {}, "C": 1})
    for name, secret in (("A", "s"), ("B", "")):
        assert await site.parts.claims.matches((await child(site, name)).id, secret) is True
    assert await site.registry.find_names(TENANT, ["C"]) == {}


# The gateway itself


@pytest.mark.spec("TB-X2", "TB-X1", "TB-46")
async def test_a_gateway_is_a_device_too_and_is_told_the_limits_of_both(site: Site, gw: Device) -> None:
    await site.deploy(answering("lua", "return {msg = {got = msg.params.n}}"))
    async with gateway(site) as client:
        await subscribed(site, client, ME + "rpc/response/+", ME + "attributes")
        await client.publish(ME + "rpc/request/1", '{"method":"getSessionLimits","params":{}}', 1)
        limits = {"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": {}, "gatewayRateLimits": {}}
        assert await said(client) == (ME + "rpc/response/1", limits)
        await client.publish(ME + "rpc/request/2", '{"method":"m","params":{"n":1}}', 1)
        assert await said(client) == (ME + "rpc/response/2", {"got": 1})
        await site.attributes.write(TENANT, gw.id, "SHARED", {"a": 1})
        assert await said(client) == (ME + "attributes", {"a": 1})


async def test_a_session_ends_when_its_device_becomes_a_gateway_or_is_none_any_more(site: Site, gw: Device) -> None:
    for device, token in ((gw, "GATEWAY_TOKEN"), (site.d1, "A1_TEST_TOKEN")):
        client = await RawClient.open(site.mqtt_port)
        assert (await client.login(username=token)).code == 0
        await site.registry.put_device(msgspec.structs.replace(device, is_gateway=not device.is_gateway))
        assert await client.hear() is None
        await client.close()


async def test_who_leaves_is_not_listened_for(site: Site, gw: Device) -> None:
    async with gateway(site) as client:
        await subscribed(site, client, GW + "rpc", GW + "attributes")
        await say(client, "telemetry", {f"D{n}": [{"a": 1}] for n in range(5)})
        assert len(site.live._listeners) == 5
    await until(lambda: len(site.live._listeners) == 0)
