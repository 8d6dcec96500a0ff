"""Uplinks over the brokers of LoRaWAN networks, from a real broker to points in the store."""

import asyncio
import base64
import json

import httpx
import pytest
import pytest_asyncio

from api.dialects.cloudthing.lorawan_mqtt import LorawanBrokers
from api.transports import broker
from engine.node import Product
from engine.stores.registry import Device
from tests.api.dialects.cloudthing.site import TENANT
from tests.api.test_up import running
from tests.api.transports.mosquitto import Mosquitto
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

EUI = "70B3D57ED0001234"


def chirpstack(n, **more):
    document = {
        "deduplicationId": f"00000000-0000-4000-8000-{n:012}", "time": f"2024-01-01T00:00:{n:02}Z",
        "deviceInfo": {"applicationId": "app", "deviceName": "far", "devEui": EUI.lower()},
        "fCnt": n, "fPort": 2, "data": base64.b64encode(bytes([n])).decode(), "object": {"n": n}, **more,
    }  # fmt: skip
    return f"application/app/device/{EUI.lower()}/event/up", json.dumps(document)


def ttn(n):
    document = {
        "end_device_ids": {"device_id": "far", "application_ids": {"application_id": "app"}, "dev_eui": EUI},
        "received_at": f"2024-01-01T00:00:{n:02}Z",
        "uplink_message": {
            "session_key_id": "s", "f_port": 1, "f_cnt": n, "frm_payload": "AQ==", "decoded_payload": {"n": n},
            "received_at": f"2024-01-01T00:00:{n:02}Z",
        },
    }  # fmt: skip
    return "v3/app@ttn/devices/far/up", json.dumps(document)


NETWORKS = {"chirpstack": chirpstack, "ttn": ttn}


@pytest_asyncio.fixture
async def mosquitto(tmp_path, monkeypatch):
    monkeypatch.setenv("RULEMILL_OUTWARD_ALLOW", "127.0.0.1")
    monkeypatch.setattr(broker, "FIRST_WAIT_S", 0.1)
    made = Mosquitto(tmp_path)
    await made.start()
    yield made
    made.stop()


def brokers_of(site):
    return LorawanBrokers(site.stack.url, site.stack.redis, site.stack.registry, site.service)


@pytest_asyncio.fixture
async def brokers(site):
    made = brokers_of(site)
    await made.start()
    yield made
    await made.stop()


async def put_product(site, mosquitto, network, **facets):
    mqtt = {"host": "127.0.0.1", "port": mosquitto.port, "username": "app@ttn", "password": "${secret:KEY}"}
    await site.stack.registry.put_secret(TENANT, "KEY", "s3cret")
    facets = {network: {"mqtt": mqtt, "autoGenerate": True}, **facets}
    await site.stack.registry.put_product(Product(id="field", tenant=TENANT, facets=facets))


async def until_attached(mosquitto):
    """Long enough that the broker has the session's subscriptions: what is published from now on arrives."""
    await asyncio.sleep(2.5)


async def numbers(site):
    """Values of `n` of the one device there is besides the site's own, oldest first."""
    found = [each for each in await site.stack.registry.devices(TENANT) if each.product == "field"]
    if not found:
        return []
    return [value for key, value, *_ in await site.points(found[0]) if key == "n"]


def points_are(site, *values):
    async def look():
        return await numbers(site) == list(values)

    return until(look)


@pytest.mark.spec("CT-X2", "CT-X3", "CT-60", "CT-61", "G-9")
@pytest.mark.parametrize("network", NETWORKS)
async def test_uplinks_come_in_over_the_networks_broker(site, mosquitto, brokers, network):
    await put_product(site, mosquitto, network)
    await until_attached(mosquitto)
    await mosquitto.publish(*[NETWORKS[network](n) for n in (1, 2, 3)])
    await points_are(site, 1, 2, 3)


async def test_what_cannot_be_used_does_not_hold_up_the_rest(site, mosquitto, brokers):
    await put_product(site, mosquitto, "chirpstack")
    await until_attached(mosquitto)
    topic, _ = chirpstack(1)
    await mosquitto.publish(
        (topic, b"{"), (topic, b"\xff\xff"), (topic.replace("/up", "/nothing"), b"{}"), chirpstack(5)
    )
    await points_are(site, 5)


async def test_a_connection_ends_with_its_facet_and_begins_with_a_new_one(site, mosquitto, brokers):
    await put_product(site, mosquitto, "chirpstack")
    await until_attached(mosquitto)
    await put_product(site, mosquitto, "chirpstack", chirpstack={"enabled": False})
    await asyncio.sleep(0.5)
    assert not brokers._attached
    await mosquitto.publish(chirpstack(1))
    await asyncio.sleep(0.5)
    assert await numbers(site) == []
    await put_product(site, mosquitto, "chirpstack")
    # The session waited at the broker.
    await points_are(site, 1)


async def test_of_two_processes_one_is_attached_and_the_other_takes_over(site, mosquitto):
    one, two = brokers_of(site), brokers_of(site)
    await put_product(site, mosquitto, "chirpstack")
    await one.start()
    await until_attached(mosquitto)
    await two.start()
    await mosquitto.publish(chirpstack(1))
    await points_are(site, 1)
    await one.stop()
    await mosquitto.publish(chirpstack(2))
    await points_are(site, 1, 2)
    await two.stop()


async def test_redelivered_in_another_process_it_is_the_same_message(site, mosquitto, brokers):
    await site.stack.registry.put_product(Product(id="field", tenant=TENANT, facets={"chirpstack": {}}))
    await site.stack.registry.put_device(
        Device(id="", tenant=TENANT, name="far", product="field", links={"lorawan": EUI})
    )
    seen = []
    submit = site.stack.ingress.submit
    site.stack.ingress.submit = lambda messages: (seen.extend(each.id for each in messages), submit(messages))[1]
    for each in (brokers_of(site), brokers_of(site)):
        await each.take(
            "field", "chirpstack", *[part if i == 0 else part.encode() for i, part in enumerate(chirpstack(7))]
        )
    assert len(seen) == 2
    assert len(set(seen)) == 1
    assert await numbers(site) == [7]


@pytest.mark.slow
@pytest.mark.spec("G-9")
async def test_a_process_killed_between_storing_and_acknowledging_loses_and_doubles_nothing(mosquitto, tmp_path):
    bootstrap = tmp_path / "bootstrap.json"
    mqtt = {"host": "127.0.0.1", "port": mosquitto.port}
    bootstrap.write_text(json.dumps({
        "tenants": [{"name": "demo"}],
        "products": [{"id": "field", "tenant": "demo", "chirpstack": {"mqtt": mqtt}}],
        "devices": [{"tenant": "demo", "name": "far", "product": "field", "links": {"lorawan": EUI}}],
    }))  # fmt: skip
    # Each uplink passes there twice, when it is stored and in front of its acknowledgement. So the API dies in front of
    # the second acknowledgement, and the next one has the second uplink again, as its first.
    more = {"RULEMILL_OUTWARD_ALLOW": "127.0.0.1", "RULEMILL_FAILPOINTS": "before-ack=kill@4"}
    with running(tmp_path / "data", "--bootstrap", str(bootstrap), **more) as (_, facts):
        await until_attached(mosquitto)
        await mosquitto.publish(chirpstack(1), chirpstack(2), chirpstack(3))
        async with asyncio.timeout(60):
            while await asyncio.to_thread(stored, facts) != [1, 2, 3]:
                await asyncio.sleep(0.2)


def stored(facts):
    headers = {"Authorization": f"Bearer {facts['operator_token']}"}
    url = f"{facts['http']}/flow/v1/tenants/demo/devices/far/points"
    try:
        found = httpx.get(url, headers=headers, params={"key": "n", "start_ms": 0}, timeout=5)
    except httpx.HTTPError:
        return None  # the API is dead just now
    return [point["value"] for point in found.json()["points"]]
