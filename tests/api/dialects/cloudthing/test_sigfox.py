"""Sigfox callbacks through real sockets, to the points in the store and the downlinks in the answer."""

import asyncio
import json

import pytest

from api.dialects.cloudthing.http import CloudThingHttp
from api.dialects.cloudthing.sigfox import MAX_BODY_BYTES
from engine.config import LISTENERS
from engine.stores.registry import Tenant
from tests.api.dialects.cloudthing.networks import JS, LUA, PRODUCT, SIGFOX_ID, put_linked, put_product
from tests.api.dialects.cloudthing.site import TENANT, call, running
from tests.api.dialects.cloudthing.test_http import is_error
from tests.services import require

pytestmark = pytest.mark.asyncio

PATH = f"/sigfox/{PRODUCT}"
TIME = 1_462_281_856


async def get(site, method="POST", path=PATH, **query):
    client = await site.stack.client(site.http_url)
    return await client.request(method, path, params=query)


@pytest.fixture
def facets():
    return {"sigfox": {"enabled": True}, "transform": LUA}


@pytest.mark.spec("CT-50", "CT-51", "CT-S11", "CT-S19")
@pytest.mark.parametrize("transform", [JS, LUA], ids=["js", "lua"])
async def test_the_documented_callback_of_curl_on_its_listener(site, transform):
    assert LISTENERS["ct_sigfox"][:2] == (8082, "http")
    await put_product(site, sigfox={"enabled": True}, transform=transform)
    device = await put_linked(site)
    url = await site.stack.listen("ct_sigfox")
    # The documented address with its variables replaced, as the Sigfox backend calls it.
    code, output = await call(
        require("curl"), "-sS", "-i", "-X", "POST", f"{url}/sigfox/SoMEc0MpL1Cat3D1D?id=1A2B3C&data=0125",
    )  # fmt: skip
    assert (code, output.split(b"\r\n")[0]) == (0, b"HTTP/1.1 204 No Content")
    assert output.endswith(b"\r\n\r\n")
    assert [point[:2] for point in await site.points(device)] == [("temp", 37)]


@pytest.mark.spec("CT-S11", "CT-52")
async def test_ids_are_compared_without_case_and_leading_zeros_and_by_product(site, facets):
    await put_product(site, **facets)
    device, other = await put_linked(site), await put_linked(site, "other", sigfox="FF")
    for id in ("1a2b3c", "001A2B3C", "1A2B3C", "00fF"):
        assert (await get(site, "GET", id=id, data="0125")).status_code == 204
    assert len(await site.points(device)) == 3
    assert len(await site.points(other)) == 1
    is_error(await get(site, id="1A2B3D", data="0125"), 404)


@pytest.mark.spec("CT-S11")
async def test_what_is_refused(site, facets):
    await put_product(site, **facets)
    await put_linked(site)
    for query, place in [
        ({"data": "01"}, "/id"),
        ({"id": "", "data": "01"}, "/id"),
        ({"id": "{device}", "data": "01"}, "/id"),
        ({"id": "1" * 17, "data": "01"}, "/id"),
        ({"id": SIGFOX_ID}, "/data"),
        ({"id": SIGFOX_ID, "data": "012"}, "/data"),
        ({"id": SIGFOX_ID, "data": "{data}"}, "/data"),
        ({"id": SIGFOX_ID, "data": "0x"}, "/data"),
        ({"id": SIGFOX_ID, "data": "00" * 13}, "/data"),
        ({"id": SIGFOX_ID, "data": "٠١"}, "/data"),
        ({"id": SIGFOX_ID, "data": "01", "time": "yesterday"}, "/time"),
        ({"id": SIGFOX_ID, "data": "01", "time": "6"}, "/time"),
        ({"id": SIGFOX_ID, "data": "01", "time": "9" * 15}, "/time"),
    ]:
        for method in ("POST", "GET"):
            assert place in is_error(await get(site, method, **query), 400)
    client = await site.stack.client(site.http_url)
    for body, kind in [
        (b"{", "application/json"),
        (b"[1]", ""),
        (b"\xff\xfe", "application/json"),
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"id=%ff", "application/x-www-form-urlencoded"),
        (b"a=&" * 300, ""),
        (b"[" * 100_000, ""),
        (b'{"id":"1A2B3C","data":null}', ""),
        (b'{"id":["1A2B3C"],"data":"01"}', ""),
        (b'{"id":"\\ud800","data":"01"}', ""),
    ]:
        is_error(await client.post(PATH, content=body, headers={"Content-Type": kind}), 400)
    is_error(await client.post(PATH, content=b" " * (MAX_BODY_BYTES + 1)), 413)
    client = await site.stack.client(site.http_url)  # the server closes after a body that it did not read
    is_error(await client.post("/sigfox/%FF%00?id=1&data=00"), 404)
    is_error(await get(site, path="/sigfox/nothing", id=SIGFOX_ID, data="01"), 404)
    for facet in (None, {"enabled": False}, "broken"):
        await put_product(site, **facets | {"sigfox": facet})
        is_error(await get(site, id=SIGFOX_ID, data="01"), 403)
    await put_product(site, sigfox={})
    assert "transform function" in is_error(await get(site, id=SIGFOX_ID, data="01"), 400)
    assert await site.points(await site.stack.registry.device(TENANT, "far-away")) == []


@pytest.mark.spec("CT-S10", "G-8")
async def test_a_disabled_device_and_the_host_of_another_tenant(site, facets):
    await put_product(site, **facets)
    device = await put_linked(site)
    await site.stack.registry.put_tenant(Tenant(name="vanilla-ice"))
    client = await site.stack.client(site.http_url)
    for host, status in (("vanilla-ice.cloudthing.io:82", 401), (f"{TENANT}.cloudthing.io:82", 204)):
        answer = await client.post(PATH + "?id=1A2B3C&data=0125", headers={"Host": host})
        assert answer.status_code == status
    await site.stack.registry.put_device(
        type(device)(id=device.id, tenant=TENANT, name=device.name, product=PRODUCT, links=device.links, enabled=False)
    )
    is_error(await get(site, id=SIGFOX_ID, data="0125"), 403)


@pytest.mark.spec("CT-S11")
async def test_an_unknown_device_is_made_once_where_the_product_wants_that(site, facets):
    await put_product(site, **facets | {"sigfox": {"autoGenerate": True}})
    taken = await put_linked(site, "ABC", sigfox="1")
    client = await site.stack.client(site.http_url)
    answers = await asyncio.gather(*(client.get(f"{PATH}?id=0abc&data=01{i:02x}") for i in range(8)))
    assert {answer.status_code for answer in answers} == {204}
    made = await site.stack.registry.find_link(PRODUCT, "sigfox", "ABC")
    assert (made.tenant, made.product, made.links) == (TENANT, PRODUCT, {"sigfox": "ABC"})
    assert made.id != taken.id
    assert made.name == f"{PRODUCT} ABC"
    assert sorted(point[1] for point in await site.points(made)) == list(range(8))
    assert len(await site.stack.registry.devices(TENANT)) == 3


@pytest.mark.spec("CT-X6", "CT-S11", "CT-S19")
@pytest.mark.parametrize("way", ["query", "form", "json"])
async def test_variables_reach_the_parser_wherever_they_stand(site, way):
    source = (
        "return {seq = metadata.seqNumber, rssi = metadata.rssi, id = metadata.deviceId, ct = metadata.ct,"
        " place = metadata.computedLocation, product = metadata.productId, named = metadata.deviceName}"
    )
    await put_product(site, sigfox={}, transform={"lang": "lua", "source": source})
    device = await put_linked(site)
    given = {
        "device": SIGFOX_ID, "time": str(TIME), "data": "0125", "seqNumber": "64", "rssi": "-121.00", "station": "0E5A",
        "productId": "another", "deviceName": "another", "ct": "json", "dialect": "another", "ts": "1",
    }  # fmt: skip
    client = await site.stack.client(site.http_url)
    if way == "query":
        answer = await client.post(PATH, params={**given, "computedLocation": '{"lat":1}'})
    elif way == "form":
        answer = await client.post(PATH, data={**given, "computedLocation": '{"lat":1}'})
    else:
        body = given | {"time": TIME, "seqNumber": 64, "computedLocation": {"lat": 1}, "avgSnr": None, "ack": False}
        answer = await client.post(PATH, content=json.dumps(body), headers={"Content-Type": "x/y"})
    assert answer.status_code == 204
    assert {(key, value) for key, value, *_ in await site.points(device)} == {
        ("seq", "64"), ("rssi", "-121.00"), ("id", "far away"), ("ct", "custom"), ("place", '{"lat":1}'),
        ("product", PRODUCT), ("named", "far away"),
    }  # fmt: skip
    assert {point[2] for point in await site.points(device)} == {TIME * 1000}


@pytest.mark.spec("CT-X6")
async def test_a_message_is_stored_once_however_often_it_is_delivered(redis_url, facets):
    async with running(redis_url, work=False) as site:
        await put_product(site, **facets)
        await put_linked(site)
        for query in (
            {"data": "0125", "time": TIME, "seqNumber": 64},
            {"data": "0125", "time": TIME, "seqNumber": 64},
            {"data": "0125", "time": TIME, "seqNumber": 64, "duplicate": "true"},
            {"data": "0125", "duplicate": "true"},
            {"data": "0125", "time": TIME + 600, "seqNumber": 65},
            {"data": "0125"},
            {"data": "0125"},
        ):
            assert (await get(site, id=SIGFOX_ID, **query)).status_code == 204
        messages = await site.stack.messages()
        assert sorted(message.ts_ms - TIME * 1000 for message in messages)[:2] == [0, 600_000]
        assert len(messages) == 4
        # Another process has no memory of it, and gives it the same id and time.
        site.stack.surfaces[:] = [CloudThingHttp(site.service)]
        site.stack.serve()
        site.http_url = await site.stack.listen()
        assert (await get(site, id=SIGFOX_ID, data="0125", time=TIME, seqNumber=64)).status_code == 204
        ids = [message.id for message in await site.stack.messages()]
        assert (len(ids), set(ids)) == (5, {message.id for message in messages})


@pytest.mark.spec("CT-S11", "CT-71")
async def test_what_the_parser_cannot_read_is_accepted_and_kept_as_a_dead_letter(site, facets):
    await put_product(site, sigfox={}, transform={"lang": "lua", "source": "error('no frame of ours')"})
    device = await put_linked(site)
    await site.deploy(
        {
            "chain": "plain",
            "start": "decode",
            "nodes": {"decode": {"kind": "decode", "to": {"Success": "save"}}, "save": {"kind": "save_timeseries"}},
        }
    )
    for more in ({}, {"ack": "true"}):
        answer = await get(site, id=SIGFOX_ID, data="0125", **more)
        assert (answer.status_code, answer.content) == (204, b"")
    await site.stack.idle()
    letters = await site.stack.dead.list(TENANT)
    assert [letter.message.data for letter in letters] == [b"\x01\x25"] * 2
    assert all("no frame of ours" in letter.reason for letter in letters)
    assert await site.points(device) == []


@pytest.mark.spec("CT-X5")
async def test_the_oldest_command_that_fits_is_the_answer(site, facets):
    await put_product(site, **facets)
    site.device = await put_linked(site)
    for payload in ("not hex", "0102", "0102030405060708", {"raw_b64": "CAcGBQQDAgE="}, {"hex": "FF" * 8}):
        await site.command("set", payload)
    query = {"id": "001a2b3c", "data": "0125", "ack": "true"}
    answer = await get(site, **query, seqNumber=1)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"001A2B3C": {"downlinkData": "0102030405060708"}}
    # The same callback again, as after an answer that was lost, has the same answer and takes no further command.
    assert (await get(site, **query, seqNumber=1)).content == answer.content
    assert (await get(site, **query | {"ack": "false"}, seqNumber=2)).status_code == 204
    answer = await get(site, "GET", **query, seqNumber=3)
    assert answer.json() == {"001A2B3C": {"downlinkData": "0807060504030201"}}
    client = await site.stack.client(site.http_url)
    answer = await client.post(PATH, json={"device": SIGFOX_ID, "data": "0125", "ack": True, "seqNumber": 4})
    assert answer.json() == {SIGFOX_ID: {"downlinkData": "ff" * 8}}
    assert (await get(site, **query, seqNumber=5)).status_code == 204
    left = await site.stack.commands.undelivered(TENANT, site.device.id)
    assert [entry.command.payload for entry in left] == ["not hex", "0102"]
    assert len(await site.points()) == 5


@pytest.mark.spec("CT-X5")
@pytest.mark.parametrize("data", ['"1122334455667788"', '{downlinkData = "1122334455667788", temp = 37}'])
async def test_the_chains_own_answer_goes_down_first(site, facets, data):
    await put_product(site, **facets)
    site.device = await put_linked(site)
    await site.command("set", "0102030405060708")
    await site.deploy(
        {
            "chain": "answers",
            "start": "think",
            "nodes": {
                "think": {
                    "kind": "script",
                    "config": {"lang": "lua", "source": f"return {{msg = {data}}}"},
                    "to": {"Success": "reply"},
                },
                "reply": {"kind": "rpc_reply"},
            },
        }
    )
    answer = await get(site, id=SIGFOX_ID, data="0125", ack="true")
    assert answer.json() == {SIGFOX_ID: {"downlinkData": "1122334455667788"}}
    assert len(await site.stack.commands.undelivered(TENANT, site.device.id)) == 1


@pytest.mark.spec("CT-X6")
async def test_service_callbacks_are_events(redis_url):
    async with running(redis_url, work=False) as site:
        await put_product(site, sigfox={})
        await put_linked(site)
        for given in (
            {"time": str(TIME), "temp": "21.5", "batt": "3.2"},
            {"time": str(TIME), "lat": "52.2", "lng": "26", "radius": "1200", "computedLocation": '{"lat":52.2}'},
            {"infoCode": "0", "infoMessage": "Acked", "downlinkAck": "true"},
        ):
            assert (await get(site, id=SIGFOX_ID, **given)).status_code == 204
        found = {message.metadata["eventId"]: message for message in await site.stack.messages()}
        assert set(found) == {"status", "geoloc", "acknowledge"}
        status = found["status"]
        assert (status.type, status.ts_ms, status.metadata["transport"]) == ("DEVICE_EVENT", TIME * 1000, "sigfox")
        assert (status.data["temp"], status.data["batt"]) == (21.5, 3.2)
        assert found["geoloc"].data["computedLocation"] == {"lat": 52.2}
        assert found["acknowledge"].data["infoCode"] == 0


@pytest.mark.spec("G-20", "CT-S10")
async def test_without_storage_the_backend_is_told_to_come_back_and_is_heard_then(site, facets):
    await put_product(site, **facets)
    device = await put_linked(site)
    for more in ({}, {"ack": "true"}):
        site.stack.ingress.closed_reason = "storage is full"
        answer = await get(site, id=SIGFOX_ID, data="0125", seqNumber=1, **more)
        assert "storage is full" in is_error(answer, 503)
        assert "retry-after" in answer.headers
    site.stack.ingress.closed_reason = ""
    assert (await get(site, id=SIGFOX_ID, data="0125", seqNumber=1)).status_code == 204
    assert len(await site.points(device)) == 1
