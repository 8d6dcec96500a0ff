"""The HTTP connector through real sockets, to the points in the store."""

import asyncio
import json
import subprocess

import cbor2
import httpx
import pytest

from api.dialects.cloudthing.http import MAX_BODY_BYTES
from engine.config import Tls
from engine.stores.registry import Tenant
from tests.api.dialects.cloudthing.fixtures import (
    BAD_CBOR,
    BAD_JSON,
    BAD_PROTO,
    CUSTOM,
    DOCUMENTED,
    ONE,
    ONE_CBOR,
    T0,
    as_proto,
)
from tests.api.dialects.cloudthing.site import ALL_FORMATS, DEVICE, TENANT, TOKEN, answering, call, running
from tests.engine.toy import until
from tests.services import require

pytestmark = pytest.mark.asyncio

PATH = f"/v1/{DEVICE}/data"
TYPES = {"json": "application/json", "cbor": "application/cbor", "proto": "application/octet-stream"}


async def post(site, body, content_type="application/json", path=PATH, **options):
    client = await site.stack.client(site.http_url)
    headers = {"Content-Type": content_type, **site.basic(), **options.pop("headers", {})}
    return await client.post(path, content=body, headers=headers, **options)


def is_error(response, status):
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert response.status_code == body["code"] == status, body
    assert set(body) == {"code", "message"}
    assert body["message"]
    return body["message"]


@pytest.mark.spec("CT-31", "CT-33", "CT-37")
async def test_the_documented_call_of_curl(site):
    # As printed but for the scheme, the host and the port.
    code, output = await call(
        require("curl"), "-sS", "-i", "-H", "Content-Type: application/json", "-u", f"{DEVICE}:{TOKEN}",
        "-X", "POST", f"{site.http_url}/v1/SoMEc0MpL1Cat3D1D/data", "-d", '{"r":[{"k":"temp","v":36.6}]}',
    )  # fmt: skip
    assert (code, output[:13]) == (0, b"HTTP/1.1 200 ")
    assert [point[:2] for point in await site.points()] == [("temp", 36.6)]


@pytest.mark.spec("CT-30")
async def test_the_documented_call_over_tls_and_by_the_other_server(site, tmp_path):
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        [require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-subj", "/CN=short-name.localhost", "-addext", "subjectAltName=DNS:short-name.localhost",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = Tls(certificate=str(certificate), key=str(key))
    url = await site.stack.listen("ct_https", server="hypercorn", tls=tls)
    port = url.rpartition(":")[2]
    code, output = await call(
        require("curl"), "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", str(certificate),
        "--resolve", f"short-name.localhost:{port}:127.0.0.1",
        "-H", "Content-Type: application/json", "-u", f"{DEVICE}:{TOKEN}",
        "-X", "POST", f"https://short-name.localhost:{port}{PATH}", "-d", ONE.decode(),
    )  # fmt: skip
    assert (code, output) == (0, b"200")
    assert [point[:2] for point in await site.points()] == [("temp", 36.6)]


@pytest.mark.parametrize("ct", TYPES)
@pytest.mark.parametrize(("name", "document", "expected"), DOCUMENTED, ids=[each[0] for each in DOCUMENTED])
@pytest.mark.spec("CT-7", "CT-8", "CT-9", "CT-10", "CT-11", "CT-12", "CT-13", "CT-14", "CT-15", "CT-32", "CT-70")
async def test_documented_examples_store_the_same_points_in_every_format(site, name, document, expected, ct):
    bodies = {"json": json.dumps(document).encode(), "cbor": cbor2.dumps(document), "proto": as_proto(document)}
    before = site.service.intake.stamp(site.device.id)
    response = await post(site, bodies[ct], TYPES[ct])
    assert (response.status_code, response.content) == (200, b"")
    found = {key: (value, ms, place) for key, value, ms, place in await site.points()}
    assert {key: (value, place) for key, (value, _, place) in found.items()} == {
        key: (value, place) for key, value, _, place in expected
    }
    for key, _, ms, _ in expected:
        stored = found[key][1]
        if ms is None:
            assert before < stored <= before + 10_000
            assert stored == next(iter(found.values()))[1]  # all at one instant
        else:
            assert stored == T0 + ms


@pytest.mark.spec("CT-9", "CT-S1", "CT-S18")
async def test_values_keep_their_type_and_new_keys_need_no_declaration(site):
    document = {"r": [{"k": k, "v": v} for k, v in (("d", 36.0), ("l", 3), ("s", "x"), ("b", True), ("j", {"a": [1]}))]}
    for ct, body in (("json", json.dumps(document).encode()), ("cbor", cbor2.dumps(document))):
        assert (await post(site, body, TYPES[ct])).status_code == 200
    points = await site.points()
    assert len(points) == 10
    for key, value, *_ in points:
        expected = next(entry["v"] for entry in document["r"] if entry["k"] == key)
        assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded"])
@pytest.mark.spec("CT-16", "CT-32", "CT-71")
async def test_custom_data_goes_through_the_transform_function(site, content_type):
    assert (await post(site, CUSTOM, content_type)).status_code == 200
    assert sorted(point[:2] for point in await site.points()) == [("bat", 3.5), ("temp", 36.6)]


@pytest.mark.spec("CT-32", "G-27")
@pytest.mark.parametrize("content_type", ["Application/JSON;charset=utf-8", "application/json ; x=y"])
async def test_parameters_case_and_a_trailing_slash_do_not_matter(site, content_type):
    assert (await post(site, ONE, content_type, path=PATH + "/?unknown=1")).status_code == 200
    assert len(await site.points()) == 1


@pytest.mark.spec("CT-S10", "CT-10", "CT-12")
async def test_bad_data_is_refused_with_the_place_and_nothing_is_stored(site):
    cases = [
        *[(TYPES["json"], *each) for each in BAD_JSON],
        *[(TYPES["cbor"], *each) for each in BAD_CBOR],
        *[(TYPES["proto"], *each) for each in BAD_PROTO],
        *[(TYPES["cbor"], ONE_CBOR[:length], "") for length in range(len(ONE_CBOR))],
    ]
    for content_type, body, why in cases:
        assert why in is_error(await post(site, body, content_type), 400)
    good = {"r": [{"k": "a", "v": 1}] * 100}
    good["r"][-1] = {"k": "a", "v": 1, "t": "never"}
    assert "/r/99/t" in is_error(await post(site, json.dumps(good)), 400)
    assert await site.points() == []


@pytest.mark.spec("CT-S6", "CT-S12")
async def test_what_the_product_lacks_is_refused_from_the_moment_it_lacks_it(site):
    proto = as_proto(json.loads(ONE))
    for facets, custom, wanted in (
        (ALL_FORMATS, 200, 200),
        ({}, 400, 400),
        ({"transform": ALL_FORMATS["transform"]}, 200, 400),
        ({"protobuf": ALL_FORMATS["protobuf"]}, 400, 200),
    ):
        await site.put_product(**facets)

        async def status(body, content_type):
            return (await post(site, body, content_type)).status_code

        async def seen(custom=custom, wanted=wanted, status=status):
            return (await status(CUSTOM, "x/y"), await status(proto, TYPES["proto"])) == (custom, wanted)

        await until(seen)
    assert "transform function" in is_error(await post(site, CUSTOM, "x/y"), 400)
    await site.put_product()

    async def neither():
        response = await post(site, proto, TYPES["proto"])
        return response.status_code == 400 and "message definition" in is_error(response, 400)

    await until(neither)


@pytest.mark.spec("CT-S10", "CT-31")
async def test_credentials_that_cannot_be_read_are_401(site):
    client = await site.stack.client(site.http_url)
    for header in (
        None,
        "",
        "Basic",
        "Basic ?",
        "Basic !!!!",
        "Bearer x",
        "Basic QQ==",
        "Basic /////w==",
        "Basic Og==",
    ):
        response = await client.post(PATH, content=ONE, headers={} if header is None else {"Authorization": header})
        is_error(response, 401)
        assert response.headers["www-authenticate"] == 'Basic realm="cloudthing"'


@pytest.mark.spec("CT-S10", "CT-S15", "CT-31")
async def test_who_may_and_who_may_not(site):
    await site.put_device("other", "T2")
    client = await site.stack.client(site.http_url)

    async def get(user, password, path=PATH):
        return await client.get(path, headers=site.basic(user, password))

    accepted = await get(DEVICE, TOKEN)
    assert (accepted.status_code, accepted.content) == (200, b"")
    for user, password in (
        (DEVICE, "wrong"),
        (DEVICE, ""),
        ("nobody", TOKEN),
        ("other", TOKEN),
        (DEVICE.lower(), TOKEN),
    ):
        response = await get(user, password)
        is_error(response, 401)
        assert "www-authenticate" in response.headers
    is_error(await get("other", "T2"), 403)
    assert (await get("other", "T2", "/v1/other/data")).status_code == 200
    await site.disable()

    async def disabled():
        return (await get(DEVICE, TOKEN)).status_code == 403

    await until(disabled)
    is_error(await post(site, ONE), 403)
    is_error(await get(DEVICE, "wrong"), 401)


@pytest.mark.spec("CT-21", "G-14")
async def test_a_new_token_is_good_and_the_old_one_is_not(site):
    assert (await post(site, ONE)).status_code == 200
    await site.put_device(id=site.device.id, token="another")

    async def refused():
        return (await post(site, ONE)).status_code == 401

    await until(refused)
    assert (await post(site, ONE, headers=site.basic(DEVICE, "another"))).status_code == 200


@pytest.mark.spec("G-8")
async def test_the_host_may_name_the_tenant_and_no_other(site):
    await site.stack.registry.put_tenant(Tenant(name="vanilla-ice"))
    for host, status in [
        ("short-name.cloudthing.io:81", 200),
        ("Short-Name.cloudthing.io", 200),
        ("vanilla-ice.cloudthing.io:81", 401),
        ("vanilla-ice", 401),
        ("nobody.cloudthing.io", 200),
        ("127.0.0.1:81", 200),
        ("[::1]:81", 200),
        ("localhost", 200),
        ("", 200),
    ]:
        response = await post(site, ONE, headers={"Host": host})
        assert response.status_code == status, host
        if status != 200:
            is_error(response, status)


@pytest.mark.spec("CT-S10", "G-7")
async def test_unknown_paths_and_methods_have_the_shape_of_the_dialect(site):
    client = await site.stack.client(site.http_url)
    for method, path, allow in [
        ("GET", "/v1", None),
        ("GET", "/v1/x", None),
        ("POST", f"/v1/{DEVICE}/unknown", None),
        ("POST", f"{PATH}/more", None),
        ("GET", f"/v1/{DEVICE}/fw/dl/f1", None),
        ("POST", "/sigfox/nothing?id=1&data=00", None),
        ("POST", "/ttn/nothing/up", None),
        ("POST", "/chirpstack/nothing?event=up", None),
        ("PUT", "/sigfox/p1", "GET, POST"),
        ("GET", "/ttn/p1", "POST"),
        ("PUT", PATH, "GET, POST"),
        ("DELETE", f"/v1/{DEVICE}/events/e", "POST"),
        ("POST", f"/v1/{DEVICE}/commands", "GET"),
    ]:
        response = await client.request(method, path, headers=site.basic())
        is_error(response, 405 if allow else 404)
        assert response.headers.get("allow") == allow


@pytest.mark.spec("CT-S10", "G-12")
async def test_a_body_of_a_mebibyte_is_taken_and_one_more_byte_is_not(site):
    filler = b'{"r":[{"k":"a","v":"%s"}]}'
    fits = filler % (b"x" * (MAX_BODY_BYTES - len(filler) + 2))
    assert (await post(site, fits)).status_code == 200
    is_error(await post(site, fits + b" "), 413)

    async def pieces():
        for _ in range(65):
            yield b" " * 16_384

    is_error(await post(site, pieces()), 413)
    assert len(await site.points()) == 1


@pytest.mark.spec("CT-S14")
async def test_the_first_message_that_is_accepted_activates_the_device(site):
    registry = site.stack.registry
    is_error(await post(site, b"{"), 400)
    assert not (await registry.find_device(site.device.id)).activated_ms
    await post(site, ONE)

    async def activated():
        return (await registry.find_device(site.device.id)).activated_ms

    first = await until(activated)
    await post(site, ONE)
    await site.points()
    assert await activated() == first


@pytest.mark.spec("G-20")
@pytest.mark.parametrize(("ct", "body"), [("json", ONE), ("cbor", ONE_CBOR)])
async def test_sync_answers_when_the_points_can_be_read(site, ct, body):
    response = await post(site, body, TYPES[ct], path=PATH + "?sync=true")
    assert (response.status_code, response.content) == (200, b"")
    assert [point.value for point in await site.stack.store.latest(TENANT, [site.device.id])] == [36.6]


@pytest.mark.spec("G-20", "G-21")
async def test_a_failure_in_the_chain_shows_with_sync_only(site):
    await site.deploy(
        {
            "chain": "fails",
            "start": "fail",
            "nodes": {"fail": {"kind": "script", "config": {"lang": "lua", "source": "error('too hot')"}}},
        }
    )
    assert (await post(site, ONE)).status_code == 200
    assert "too hot" in is_error(await post(site, ONE, path=PATH + "?sync=true"), 500)


@pytest.mark.spec("G-7", "G-20")
async def test_without_storage_the_device_is_told_to_come_back(site):
    site.stack.ingress.closed_reason = "storage is full"
    response = await post(site, ONE)
    assert "storage is full" in is_error(response, 503)
    assert int(response.headers["retry-after"]) >= 1
    site.stack.ingress.closed_reason = ""
    assert (await post(site, ONE)).status_code == 200


@pytest.mark.spec("CT-2", "CT-70", "G-18")
async def test_messages_tell_how_they_came(redis_url):
    async with running(redis_url, work=False) as site:
        document = {"r": [{"k": "a", "v": 1, "t": T0, "g": {"lt": 1, "ln": 2}}]}
        await post(site, json.dumps(document))
        await post(site, ONE_CBOR, TYPES["cbor"])
        told, raw = sorted(await site.stack.messages(), key=lambda message: message.type)
        common = {"dialect": "ct", "transport": "http", "deviceName": DEVICE, "deviceType": "p1"}
        assert (told.type, told.data, told.ts_ms, told.originator) == (
            "POST_TELEMETRY_REQUEST", {"a": 1}, T0, site.device.id,
        )  # fmt: skip
        assert told.metadata == common | {"ct": "json", "ts": str(T0), "geo": '{"a":{"lat":1.0,"lon":2.0}}'}
        assert (raw.type, raw.data) == ("RAW_UPLINK", ONE_CBOR)
        assert raw.metadata == common | {"ct": "cbor", "deviceId": DEVICE, "productId": "p1"}


@pytest.mark.spec("CT-3", "CT-34", "CT-72", "CT-S5")
@pytest.mark.parametrize(
    ("source", "body", "status", "content_type", "answer"),
    [
        ("return {msg = {got = msg.n + 1, id = metadata.eventId}}", b'{"n":1}', 200, "application/json",
         b'{"got":2,"id":"open"}'),
        ("return {msg = msg}", b"\xff\x00raw", 200, "application/octet-stream", b"\xff\x00raw"),
        ("return {msg = 'plain'}", b"", 200, "application/octet-stream", b"plain"),
    ],
)  # fmt: skip
async def test_the_chains_answer_to_an_event_is_the_response(site, source, body, status, content_type, answer):
    await site.deploy(answering(source))
    response = await post(site, body, "", path=f"/v1/{DEVICE}/events/open")
    assert (response.status_code, response.headers["content-type"]) == (status, content_type)
    if content_type == "application/json":
        assert response.json() == json.loads(answer)
    else:
        assert response.content == answer


@pytest.mark.spec("CT-S5")
async def test_an_event_that_nobody_answers(site):
    response = await post(site, b"hello", path=f"/v1/{DEVICE}/events/open")
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.spec("CT-S5")
async def test_an_event_that_takes_too_long(site):
    document = answering("return {msg = msg}")
    document["nodes"]["think"] = {"kind": "delay", "config": {"delay_s": 30}, "to": {"Success": "reply"}}
    await site.deploy(document)
    site.service.event_timeout_s = 0.2
    response = await post(site, b"hello", path=f"/v1/{DEVICE}/events/open")
    assert (response.status_code, response.content) == (202, b"")


@pytest.mark.spec("CT-5", "CT-26", "CT-35", "CT-42", "CT-S7")
async def test_queued_commands_are_listed_once_oldest_first(site):
    client = await site.stack.client(site.http_url)
    path = f"/v1/{DEVICE}/commands"
    assert (await client.get(path, headers=site.basic())).status_code == 204
    for name, payload in (("turn", "ON"), ("set", {"a": 1}), ("turn", "OFF")):
        await site.command(name, payload)
    response = await client.get(path, headers=site.basic())
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    listed = response.json()
    assert [(each["id"], each["payload"]) for each in listed] == [("turn", "ON"), ("set", {"a": 1}), ("turn", "OFF")]
    assert all(each["time"].endswith("Z") for each in listed)
    assert (await client.get(path, headers=site.basic())).status_code == 204


@pytest.mark.spec("CT-5", "CT-S4", "CT-S5")
async def test_a_device_answers_the_oldest_open_command_of_a_name(site):
    await site.deploy(answering("return {msg = msg}"))
    with site.stack.replies.wait() as first, site.stack.replies.wait() as second:
        for waiting in (first, second):
            message = site.stack.intake.message(
                site.device, "RPC_CALL_FROM_SERVER_TO_DEVICE", {"method": "turn", "params": "ON"},
                dialect="test", transport="test", ts_ms=1, reply_to=waiting.to,
            )  # fmt: skip
            await site.stack.intake.submit([message])
            await site.stack.idle()
        client = await site.stack.client(site.http_url)
        assert len((await client.get(f"/v1/{DEVICE}/commands", headers=site.basic())).json()) == 2
        for body in (b'{"was":1}', b"done"):
            response = await post(site, body, path=f"/v1/{DEVICE}/responses/turn")
            assert (response.status_code, response.content) == (204, b"")
        assert (await first.next(10)).data == {"was": 1}
        assert (await second.next(10)).data == {"raw_b64": "ZG9uZQ==", "hex": "646f6e65"}
    assert (await post(site, b"late", path=f"/v1/{DEVICE}/responses/turn")).status_code == 204


async def test_many_at_once_are_all_stored_in_their_own_millisecond(site):
    async with httpx.AsyncClient(base_url=site.http_url, headers=site.basic()) as client:
        responses = await asyncio.gather(
            *[client.post(PATH, content=ONE, headers={"Content-Type": "application/json"}) for _ in range(200)]
        )
    assert {response.status_code for response in responses} == {200}
    assert len(await site.points()) == 200
