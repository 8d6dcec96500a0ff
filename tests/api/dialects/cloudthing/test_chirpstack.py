"""ChirpStack's events in Protocol Buffers, its other events, and its queue of downlinks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.cloudthing import chirpstack
from engine.errors import BadInput
from tests.api.dialects.cloudthing.networks import (
    CHIRPSTACK_EVENTS,
    DEV_EUI,
    LUA,
    PRODUCT,
    RECEIVED_MS,
    put_linked,
    put_product,
    send,
)
from tests.api.dialects.cloudthing.networks import chirpstack as uplink
from tests.api.dialects.cloudthing.site import running
from tests.api.dialects.cloudthing.test_http import is_error
from tests.engine.toy import until
from tests.nodes.test_forward_http import Server

PATH = f"/chirpstack/{PRODUCT}"
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.mark.asyncio
@pytest.mark.spec("CT-61", "CT-X3", "CT-32")
async def test_uplinks_in_protocol_buffers(site):
    await put_product(site, chirpstack={}, transform=LUA)
    device = await put_linked(site)
    assert (await send(site, PATH + "?event=up", CHIRPSTACK_EVENTS["up"], **OCTETS)).status_code == 200
    assert await site.points(device) == [("temp", 37, RECEIVED_MS, None)]
    await put_product(site, chirpstack={})
    other = CHIRPSTACK_EVENTS["up_object"].replace(b"3ac7e3c4", b"3ac7e3c5")
    assert (await send(site, PATH + "?event=up", other, **OCTETS)).status_code == 200
    assert {point[:2] for point in await site.points(device)} == {("temp", 21.5), ("door_open", True)}


@pytest.mark.asyncio
@pytest.mark.spec("CT-X3")
async def test_both_encodings_say_the_same(redis_url):
    async with running(redis_url, work=False) as site:
        await put_product(site, chirpstack={}, transform=LUA)
        await put_linked(site)
        document = uplink(deduplicationId="another", confirmed=True)
        document["deviceInfo"].update(applicationId="17c82e96", deviceProfileName="profile")
        assert (await send(site, PATH + "?event=up", document)).status_code == 200
        assert (await send(site, PATH + "?event=up", CHIRPSTACK_EVENTS["up"], **OCTETS)).status_code == 200
        one, other = await site.stack.messages()
        assert (one.type, one.data, one.ts_ms) == (other.type, other.data, other.ts_ms)
        assert one.metadata == other.metadata
        assert one.id != other.id


EXPECTED = {
    "join": {"devAddr": "00189440"},
    "status": {"margin": -5, "batteryLevel": 75.5, "externalPowerSource": False},
    "ack": {"queueItemId": "q1", "acknowledged": True, "fCntDown": 9},
    "txack": {"downlinkId": 5, "queueItemId": "q1", "fCntDown": 9, "gatewayId": "g1"},
    "log": {"level": "ERROR", "code": "UPLINK_MIC", "description": "bad", "context": {"a": "b"}},
    "location": {"location": {"latitude": 52.25, "longitude": 26.5, "altitude": 0.0, "accuracy": 0.0}},
    "integration": {"integrationName": "loracloud", "eventType": "x", "object": {"n": 1.0}},
}


@pytest.mark.asyncio
@pytest.mark.spec("CT-61", "CT-X3")
async def test_the_other_events(redis_url):
    async with running(redis_url, work=False) as site:
        await put_product(site, chirpstack={})
        await put_linked(site)
        for event in EXPECTED:
            assert (await send(site, f"{PATH}?event={event}", CHIRPSTACK_EVENTS[event], **OCTETS)).status_code == 200
        found = {message.metadata["eventId"]: message for message in await site.stack.messages()}
        assert set(found) == set(EXPECTED)
        for event, expected in EXPECTED.items():
            message = found[event]
            assert (message.type, message.ts_ms) == ("DEVICE_EVENT", RECEIVED_MS)
            assert expected.items() <= message.data.items()
            assert message.data["deviceInfo"]["tags"] == {"key": "value"}


@pytest.mark.asyncio
@pytest.mark.spec("CT-X3", "CT-S10")
async def test_what_is_no_event_is_refused(site):
    await put_product(site, chirpstack={}, transform=LUA)
    device = await put_linked(site)
    for query in ("", "?event=", "?event=UP", "?event=uplink"):
        assert "/event" in is_error(await send(site, PATH + query, uplink()), 400)
    good = CHIRPSTACK_EVENTS["up"]
    for body in (b"", b"\xff", good[:-1], good[:40], b"{}", good.replace(b"70b3d57e", b"xxxxxxxx"), b"\x12" * 50_000):
        is_error(await send(site, PATH + "?event=up", body, **OCTETS), 400)
    is_error(await send(site, PATH + "?event=up", good), 400)
    assert await site.points(device) == []


@given(st.sampled_from(chirpstack.EVENTS), st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_are_read_or_refused(event, noise, at):
    whole = CHIRPSTACK_EVENTS[event]
    for body in (noise, whole[:at] + noise + whole[at:], whole[:at]):
        try:
            delivery = chirpstack.read(event, chirpstack.decode(event, body, protobuf=True))
        except BadInput:
            continue
        assert delivery.dev_eui


@pytest.mark.asyncio
@pytest.mark.spec("CT-X3")
async def test_downlinks_go_into_the_queue_of_its_api(site, monkeypatch):
    monkeypatch.setenv("RULEMILL_OUTWARD_ALLOW", "127.0.0.0/8")
    network = Server()
    await network.open()
    try:
        server = f"http://127.0.0.1:{network.port}"
        await put_product(site, chirpstack={"downlink": {"server": server, "apiKey": "KEY"}}, transform=LUA)
        site.device = await put_linked(site)
        await site.deploy(
            {
                "chain": "down",
                "start": "send",
                "nodes": {
                    "send": {
                        "kind": "message_type_switch",
                        "to": {"RPC Request to Device": "down", "Raw uplink": "log"},
                    },
                    "down": {"kind": "lorawan_downlink", "config": {"allow_private": True, "f_port": 10}},
                    "log": {"kind": "log"},
                },
            }
        )
        await send(site, PATH + "?event=up", uplink())
        await site.command("set", {"hex": "0125"})

        async def seen():
            return network.seen

        ((line, headers, body),) = await until(seen)
    finally:
        await network.close()
    assert line == f"POST /api/devices/{DEV_EUI.lower()}/queue HTTP/1.1"
    assert headers["grpc-metadata-authorization"] == "Bearer KEY"
    assert json.loads(body) == {"queueItem": {"confirmed": False, "fPort": 10, "data": "ASU="}}
