"""Webhooks of LoRaWAN networks through real sockets, to the points in the store and the routes of downlinks."""

import json

import pytest

from api.dialects.cloudthing.lorawan import MAX_BODY_BYTES
from engine.stores.registry import Tenant
from engine.stores.routes import FIELD, Route, decode
from tests.api.dialects.cloudthing.networks import (
    DEV_EUI,
    JS,
    LUA,
    PRODUCT,
    RECEIVED,
    RECEIVED_MS,
    SECRET,
    chirpstack,
    put_linked,
    put_product,
    send,
    ttn,
)
from tests.api.dialects.cloudthing.site import TENANT, call, running
from tests.api.dialects.cloudthing.test_http import is_error
from tests.engine.toy import until
from tests.nodes.test_forward_http import Server
from tests.services import require

pytestmark = pytest.mark.asyncio

TTN = f"/ttn/{PRODUCT}"
CHIRPSTACK = f"/chirpstack/{PRODUCT}?event=up"
WAYS = {"ttn": (TTN, ttn, "decoded_payload"), "chirpstack": (CHIRPSTACK, chirpstack, "object")}
PORT = {"lang": "lua", "source": "return {port = metadata.fPort, temp = msg.bytes[2]}"}
DOWNLINK = {"server": "https://eu1.cloud.thethings.network", "webhook": "wh1", "apiKey": "${secret:TTN}"}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.mark.spec("CT-60", "CT-X1")
async def test_a_webhook_of_curl(site, tmp_path):
    await put_product(site, ttn={"secret": SECRET}, transform=JS)
    device = await put_linked(site)
    body = tmp_path / "up.json"
    body.write_text(json.dumps(ttn()))
    for secret, status in (("wrong", b"401"), (SECRET, b"200")):
        code, output = await call(
            require("curl"), "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: application/json",
            "-H", f"X-Connector-Secret: {secret}", "--data-binary", f"@{body}", f"{site.http_url}{TTN}/up",
        )  # fmt: skip
        assert (code, output) == (0, status)
    assert await site.points(device) == [("temp", 37, RECEIVED_MS, None)]


@pytest.mark.spec("CT-X1", "CT-X3", "CT-61", "CT-S19", "CT-71")
async def test_bytes_go_to_the_transform_function_with_the_port(site, way):
    path, uplink, _ = WAYS[way]
    await put_product(site, **{way: {}}, transform=PORT)
    device = await put_linked(site)
    answer = await send(site, path, uplink())
    assert (answer.status_code, answer.content) == (200, b"")
    assert sorted(await site.points(device)) == [("port", "15", RECEIVED_MS, None), ("temp", 37, RECEIVED_MS, None)]


@pytest.mark.spec("CT-X1", "CT-X3")
async def test_the_networks_own_decoder_wins_and_its_leaves_are_the_keys(site, way):
    path, uplink, member = WAYS[way]
    await put_product(site, **{way: {}})
    device = await put_linked(site)
    decoded = {
        "temp": 21.5,
        "n": 3,
        "ok": False,
        "door": {"open": True, "by": {"whom": "x"}},
        "b": [1, {"c": 2}],
        "no": None,
    }
    assert (await send(site, path, uplink(**{member: decoded}))).status_code == 200
    found = {(key, value, ms) for key, value, ms, _ in await site.points(device)}
    assert found == {
        (key, value, RECEIVED_MS)
        for key, value in {
            "temp": 21.5, "n": 3, "ok": False, "door_open": True, "door_by_whom": "x", "b_0": 1, "b_1_c": 2,
        }.items()
    }  # fmt: skip


@pytest.mark.spec("CT-X1", "CT-X3", "G-18")
async def test_what_the_network_knows_stands_in_the_metadata(redis_url, way):
    async with running(redis_url, work=False) as site:
        path, uplink, _ = WAYS[way]
        await put_product(site, **{way: {}}, transform=LUA)
        await put_linked(site)
        assert (await send(site, path, uplink())).status_code == 200
        (message,) = await site.stack.messages()
        metadata = message.metadata
        assert (message.type, message.data, message.ts_ms) == ("RAW_UPLINK", b"\x01\x25", RECEIVED_MS)
        assert (metadata["dialect"], metadata["transport"], metadata["ct"]) == ("ct", way, "custom")
        assert (metadata["productId"], metadata["deviceId"]) == (PRODUCT, "far away")
        assert (metadata["fPort"], metadata["devEui"].upper(), metadata["bandwidth"]) == ("15", DEV_EUI, "125000")
        nearest = {"ttn": ("near", "-35", "5.2"), "chirpstack": ("0016c001f153a14c", "-36", "10.5")}
        assert (metadata["gatewayId"], metadata["rssi"], metadata["snr"]) == nearest[way]


@pytest.mark.spec("CT-X1", "CT-X3")
async def test_an_uplink_is_stored_once_however_often_it_is_delivered(redis_url, way):
    async with running(redis_url, work=False) as site:
        path, uplink, _ = WAYS[way]
        await put_product(site, **{way: {}}, transform=LUA)
        await put_linked(site)
        number = "f_cnt" if way == "ttn" else "deduplicationId"
        for value in (1, 1, 2, 1):
            assert (
                await send(site, path, uplink(**{number: value if way == "ttn" else f"d{value}"}))
            ).status_code == 200
        messages = await site.stack.messages()
        assert len({message.id for message in messages}) == len(messages) == 2


@pytest.mark.spec("CT-X1", "CT-X3")
async def test_what_holds_nothing_is_accepted_and_nothing_is_stored(redis_url, way):
    async with running(redis_url, work=False) as site:
        path, uplink, member = WAYS[way]
        await put_product(site, **{way: {}})
        await put_linked(site)
        assert (await send(site, path, uplink(b""))).status_code == 200
        assert (await send(site, path, uplink(b"", **{member: {}}))).status_code == 200
        assert await site.stack.messages() == []


@pytest.mark.spec("CT-X1", "CT-X3", "CT-S10")
async def test_who_may_send(site, way):
    path, uplink, _ = WAYS[way]
    await site.stack.registry.put_secret(TENANT, "HOOK", SECRET)
    device = await put_linked(site) if await put_product(site) else None
    for facet, given, status in [
        (None, SECRET, 403),
        ({"enabled": False}, SECRET, 403),
        ({"secret": SECRET}, None, 401),
        ({"secret": SECRET}, "", 401),
        ({"secret": SECRET}, SECRET.upper(), 401),
        ({"secret": SECRET}, "ü", 401),
        ({"secret": SECRET}, SECRET, 200),
        ({"secret": "${secret:HOOK}"}, SECRET, 200),
        ({"secret": "${secret:HOOK}"}, "${secret:HOOK}", 401),
        ({"secret": "${secret:NONE}"}, "", 401),
        ({}, None, 200),
    ]:
        await put_product(site, **{way: facet}, transform=LUA)
        headers = {} if given is None else {"X-Connector-Secret": given.encode("latin-1")}
        answer = await send(site, path, uplink(), **headers)
        assert answer.status_code == status, (facet, given)
        if status != 200:
            is_error(answer, status)
    assert len(await site.points(device)) == 1
    await site.stack.registry.put_tenant(Tenant(name="vanilla-ice"))
    is_error(await send(site, path, uplink(), Host="vanilla-ice.cloudthing.io"), 401)
    is_error(await send(site, path.replace(PRODUCT, "nothing"), uplink()), 404)


@pytest.mark.spec("CT-X1", "CT-X3", "CT-52")
async def test_unknown_devices(site, way):
    path, uplink, _ = WAYS[way]
    await put_product(site, **{way: {}}, transform=LUA)
    assert DEV_EUI in is_error(await send(site, path, uplink()), 404)
    await put_product(site, **{way: {"autoGenerate": True}}, transform=LUA)
    assert (await send(site, path, uplink())).status_code == 200
    device = await site.stack.registry.find_link(PRODUCT, "lorawan", DEV_EUI)
    assert (device.name, device.product) == (DEV_EUI, PRODUCT)
    assert len(await site.points(device)) == 1


BAD_TTN = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"[]", "expected an object"),
    (b"\xff", "not JSON"),
    (b"[" * 100_000, ""),
    ({}, "/end_device_ids/dev_eui"),
    ({"end_device_ids": 1}, "/end_device_ids"),
    ({"end_device_ids": {"dev_eui": 7}}, "/end_device_ids/dev_eui"),
    ({**ttn(), "end_device_ids": {"dev_eui": "70B3"}}, "/end_device_ids/dev_eui"),
    ({"end_device_ids": {"dev_eui": DEV_EUI}}, "uplink_message"),
    ({**ttn(), "uplink_message": [1]}, "/uplink_message"),
    (ttn(frm_payload="?"), "/uplink_message/frm_payload: not base64"),
    (ttn(frm_payload="AQ"), "/uplink_message/frm_payload: not base64"),
    (ttn(frm_payload="ü"), "/uplink_message/frm_payload: not base64"),
    (ttn(frm_payload=5), "/uplink_message/frm_payload"),
    (ttn(f_port="1"), "/uplink_message/f_port"),
    (ttn(f_cnt=True), "/uplink_message/f_cnt"),
    (ttn(received_at="now"), "/uplink_message/received_at"),
    (ttn(received_at=1), "/uplink_message/received_at"),
    (ttn(session_key_id={}), "/uplink_message/session_key_id"),
    (ttn(decoded_payload=[1]), "/uplink_message/decoded_payload"),
    (ttn(decoded_payload={"a" * 300: 1}), "longer than"),
    (ttn(decoded_payload={"a" * 200: {"b" * 200: 1}}), "longer than"),
    (
        b'{"end_device_ids":{"dev_eui":"%s"},"uplink_message":{"decoded_payload":{"a":1e999}}}' % DEV_EUI.encode(),
        "finite",
    ),
]
BAD_CHIRPSTACK = [
    *BAD_TTN[:5],
    ({}, "/deviceInfo/devEui"),
    (chirpstack(deviceInfo={"devEui": "x" * 16}), "/deviceInfo/devEui"),
    (chirpstack(deviceInfo=[]), "/deviceInfo"),
    (chirpstack(data="?"), "/data: not base64"),
    (chirpstack(fPort=1.5), "/fPort"),
    (chirpstack(time="now"), "/time"),
    (chirpstack(object=7), "/object"),
    (chirpstack(deduplicationId=7), "/deduplicationId"),
]


@pytest.mark.spec("CT-X1", "CT-X3", "CT-S10", "G-12")
async def test_what_cannot_be_read_is_refused_with_the_place(site, way):
    path = WAYS[way][0]
    await put_product(site, **{way: {}}, transform=LUA)
    device = await put_linked(site)
    for document, why in {"ttn": BAD_TTN, "chirpstack": BAD_CHIRPSTACK}[way]:
        assert why in is_error(await send(site, path, document), 400), document
    # What only describes the uplink may look however it likes.
    odd = {"rx_metadata": 7, "settings": [1]} if way == "ttn" else {"rxInfo": "x", "txInfo": [1]}
    await put_product(site, **{way: {}})
    assert "transform function" in is_error(await send(site, path, WAYS[way][1](**odd)), 400)
    is_error(await send(site, path, b" " * (MAX_BODY_BYTES + 1)), 413)
    assert await site.points(device) == []
    await put_product(site, **{way: {}}, transform=LUA)
    assert (await send(site, path, WAYS[way][1](**odd))).status_code == 200
    assert len(await site.points(device)) == 1


@pytest.mark.spec("CT-60", "CT-X1")
async def test_joins_and_the_fate_of_downlinks_are_events(redis_url):
    async with running(redis_url, work=False) as site:
        await put_product(site, ttn={})
        await put_linked(site)
        ids = ttn()["end_device_ids"]
        join = {"session_key_id": "AXBS", "received_at": RECEIVED}
        for path, told in [
            ("/join", {"join_accept": join}),
            ("/join", {"join_accept": join}),
            ("/down/ack", {"downlink_ack": {"f_port": 15, "frm_payload": "AQ=="}, "received_at": RECEIVED}),
            ("/whatever", {"downlink_queued": {"f_port": 15}}),
        ]:
            assert (await send(site, TTN + path, {"end_device_ids": ids, **told})).status_code == 200
        found = {message.metadata["eventId"]: message for message in await site.stack.messages()}
        assert sorted(found) == ["downlink_ack", "downlink_queued", "join_accept"]
        accepted = found["join_accept"]
        assert (accepted.type, accepted.data, accepted.ts_ms) == ("DEVICE_EVENT", join, RECEIVED_MS)
        assert found["downlink_ack"].ts_ms == RECEIVED_MS
        assert len(await site.stack.messages()) == 3


async def route_of(site, document, **headers):
    """The route that is known after an uplink."""
    assert (await send(site, TTN, document, **headers)).status_code == 200
    keys = await site.stack.redis.keys("rm:*}:node:*")
    return [decode(await site.stack.redis.hget(key, FIELD)) for key in keys]


@pytest.mark.spec("CT-X2")
async def test_whose_word_on_downlinks_is_believed(site):
    await site.stack.registry.put_secret(TENANT, "TTN", "NNSXS.KEY")
    api = "https://eu1.cloud.thethings.network/api/v3/as/applications/app1/webhooks/wh1/devices/dev1/down"
    own = {"X-Downlink-Push": f"{api}/push", "X-Downlink-Replace": f"{api}/replace"}
    foreign = {"X-Downlink-Push": "https://evil.example/push", "X-Downlink-Replace": "https://other.example/replace"}
    proof = {"X-Connector-Secret": SECRET}
    key = {"X-Downlink-Apikey": "GIVEN"}
    cases = [
        ({}, {**foreign, **key}, None),
        ({"secret": SECRET}, proof, None),
        ({"downlink": DOWNLINK}, {}, Route("ttn", f"{api}/push", f"{api}/replace", "NNSXS.KEY")),
        ({"downlink": DOWNLINK}, foreign, Route("ttn", f"{api}/push", f"{api}/replace", "NNSXS.KEY")),
        ({"downlink": DOWNLINK}, own, Route("ttn", f"{api}/push", f"{api}/replace", "NNSXS.KEY")),
        ({"downlink": DOWNLINK}, {**own, **key}, Route("ttn", f"{api}/push", f"{api}/replace", "GIVEN")),
        ({"secret": SECRET}, {**proof, **own, **key}, Route("ttn", f"{api}/push", f"{api}/replace", "GIVEN")),
        ({"secret": SECRET, "downlink": DOWNLINK}, {**proof, **foreign}, Route("ttn", foreign["X-Downlink-Push"])),
        ({"secret": SECRET}, {**proof, "X-Downlink-Push": "//["}, Route("ttn", "//[")),
    ]  # fmt: skip
    for count, (facet, headers, expected) in enumerate(cases):
        await site.stack.redis.delete(*await site.stack.redis.keys("rm:*}:node:*") or ["none"])
        await put_product(site, ttn=facet, transform=LUA)
        await put_linked(site)
        found = await route_of(site, ttn(f_cnt=count), **headers)
        assert found == ([] if expected is None else [expected]), (facet, headers)


@pytest.mark.spec("CT-X2")
async def test_a_command_goes_to_where_the_last_uplink_said(site, monkeypatch):
    monkeypatch.setenv("RULEMILL_OUTWARD_ALLOW", "127.0.0.0/8")
    await put_product(site, ttn={"secret": SECRET}, transform=LUA)
    site.device = await put_linked(site)
    config = {"f_port": 15, "allow_private": True}
    await site.deploy(
        {
            "chain": "down",
            "start": "by type",
            "nodes": {
                "by type": {
                    "kind": "message_type_switch",
                    "to": {"Raw uplink": "decode", "RPC Request to Device": "send"},
                },
                "decode": {"kind": "decode", "to": {"Success": "save"}},
                "save": {"kind": "save_timeseries"},
                "send": {"kind": "lorawan_downlink", "config": config},
            },
        }
    )
    await site.command("set", "0125")

    async def letters():
        return await site.stack.dead.list(TENANT)

    (letter,) = await until(letters)
    assert "no uplink" in letter.reason
    network = Server()
    await network.open()
    try:
        url = f"http://127.0.0.1:{network.port}/api/v3/as/applications/app1/webhooks/wh1/devices/dev1/down/push"
        headers = {"X-Connector-Secret": SECRET, "X-Downlink-Push": url, "X-Downlink-Apikey": "NNSXS.KEY"}
        assert (await send(site, f"{TTN}/up", ttn(), **headers)).status_code == 200
        await site.command("set", "0125")

        async def seen():
            return network.seen

        ((line, sent, body),) = await until(seen)
    finally:
        await network.close()
    assert line == "POST /api/v3/as/applications/app1/webhooks/wh1/devices/dev1/down/push HTTP/1.1"
    assert sent["authorization"] == "Bearer NNSXS.KEY"
    assert json.loads(body) == {
        "downlinks": [{"frm_payload": "ASU=", "f_port": 15, "priority": "NORMAL", "confirmed": False}]
    }
