"""Provisioning, over HTTP and MQTT."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiomqtt
import msgspec
import pytest
import pytest_asyncio

from api.dialects.thingsboard import mqtt_provision
from api.flow.facets import check_facets
from api.transports.mqtt.packets import Publish
from engine.errors import Finding
from engine.node import Product
from engine.stores.certificates import prints
from engine.stores.registry import MQTT_BASIC, Credential, Device, Tenant
from tests.api.dialects.thingsboard.provision_site import ASK, FAILURE, KEY, NOT_FOUND, SECRET, ProvisionSite
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient
from tests.certificates import issued

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[ProvisionSite]:
    async with ProvisionSite(redis_url, work=False) as made:
        yield made


@pytest.mark.spec("TB-55", "TB-S30", "TB-S33", "G-17", "G-18")
async def test_a_new_device_gets_a_token_that_works(site: ProvisionSite) -> None:
    await site.product()
    answer = await site.ask()
    token = answer.pop("credentialsValue")
    assert answer == {"credentialsType": "ACCESS_TOKEN", "status": "SUCCESS"}
    assert (len(token), token.isalnum()) == (20, True)
    assert (await site.http.post(f"/api/v1/{token}/telemetry", content="{}")).status_code == 200
    device = await site.registry.device(TENANT, "DEVICE_NAME")
    assert (device.product, device.is_gateway) == ("p", False)
    assert await site.server_attributes(device) == {"provisionState": "provisioned"}
    created, success = await site.messages()
    assert (created.type, created.originator, created.data["name"]) == ("ENTITY_CREATED", device.id, "DEVICE_NAME")
    assert (success.type, success.originator) == ("PROVISION_SUCCESS", device.id)
    assert success.data == {"deviceName": "DEVICE_NAME", "provisionDeviceKey": KEY}
    assert (success.metadata["deviceName"], success.metadata["transport"]) == ("DEVICE_NAME", "http")
    assert token not in msgspec.json.encode([created, success]).decode()


@pytest.mark.spec("TB-S30", "TB-S32", "TB-S33")
async def test_a_name_that_is_taken_fails(site: ProvisionSite) -> None:
    await site.product()
    assert await site.ask(deviceName="d1") == FAILURE
    assert await site.kinds() == [("PROVISION_FAILURE", "DEVICE", site.d1.id)]
    assert SECRET not in repr(await site.messages())
    assert await site.server_attributes(site.d1) == {}


@pytest.mark.spec("TB-S30", "TB-S32")
async def test_a_stolen_or_unknown_pair_finds_nothing(site: ProvisionSite) -> None:
    await site.product()
    await site.product("disabled", "q", key="disabled")
    for changes in (
        {"provisionDeviceSecret": "wrong"},
        {"provisionDeviceSecret": SECRET[:-1]},
        {"provisionDeviceSecret": SECRET.upper()},
        {"provisionDeviceSecret": "ü€"},
        {"provisionDeviceKey": "nobody"},
        {"provisionDeviceKey": "k" * 10_000},
        {"provisionDeviceKey": SECRET, "provisionDeviceSecret": KEY},
        {"provisionDeviceKey": "disabled"},
    ):
        assert await site.ask(**changes) == NOT_FOUND, changes
    await site.registry.put_product(Product(id="p", tenant=TENANT))
    assert await site.ask() == NOT_FOUND
    assert await site.messages() == []


@pytest.mark.spec("TB-S32")
async def test_names(site: ProvisionSite) -> None:
    await site.product()
    for name in ("", "   ", "\t", "n" * 256, "a\u0001b"):
        assert await site.ask(deviceName=name) == FAILURE, name
    assert (await site.ask(deviceName="n" * 255))["status"] == "SUCCESS"
    assert (await site.ask(deviceName="  trimmed  "))["status"] == "SUCCESS"
    assert (await site.ask(deviceName=12345))["status"] == "SUCCESS"
    assert (await site.ask(deviceName=None))["status"] == "SUCCESS"
    names = {device.name for device in await site.registry.devices(TENANT)} - {"d1"}
    (made_up,) = names - {"n" * 255, "trimmed", "12345"}
    assert (len(made_up), made_up.isalnum()) == (20, True)
    told = [each.data["deviceName"] for each in await site.messages() if each.type == "PROVISION_SUCCESS"]
    assert made_up in told


@pytest.mark.spec("TB-S31", "TB-3")
@pytest.mark.parametrize(
    "body",
    [
        "", "{", "[]", "null", "5", "{}", b"\xff", b'{"deviceName":"\xff"}',
        json.dumps({**ASK, "provisionDeviceKey": None}),
        json.dumps({**ASK, "provisionDeviceSecret": ""}),
        json.dumps({**ASK, "provisionDeviceSecret": {}}),
        json.dumps({**ASK, "deviceName": []}),
        json.dumps({**ASK, "gateway": "yes"}),
        json.dumps({**ASK, "credentialsType": "PASSWORD"}),
        json.dumps({**ASK, "credentialsType": "MQTT_BASIC", "username": {}}),
        json.dumps({**ASK, "credentialsType": "X509_CERTIFICATE"}),
        json.dumps({**ASK, "token": ["a"]}),
    ],
)  # fmt: skip
async def test_a_request_that_cannot_be_read(site: ProvisionSite, body: Any) -> None:
    await site.product()
    answer = await site.http.post("/api/v1/provision", content=body)
    assert (answer.status_code, answer.json()["status"]) == (400, 400)
    assert await site.messages() == []
    assert (await site.http.get("/api/v1/provision")).status_code == 405


@pytest.mark.spec("TB-S9", "G-12")
async def test_a_request_that_is_too_large(site: ProvisionSite) -> None:
    host, _, port = site.address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /api/v1/provision HTTP/1.1\r\nHost: x\r\nContent-Length: 52428801\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413 ")
    writer.close()


@pytest.mark.spec("TB-S32", "TB-X1")
async def test_a_device_chooses_its_credential(site: ProvisionSite) -> None:
    await site.product()
    answer = await site.ask(deviceName="a", credentialsType="ACCESS_TOKEN", token="mine")
    assert answer == {"credentialsValue": "mine", "credentialsType": "ACCESS_TOKEN", "status": "SUCCESS"}
    assert await site.login(username="mine")
    basic = {"credentialsType": "MQTT_BASIC", "clientId": "c", "username": "u", "password": "pw"}
    answer = await site.ask(deviceName="b", **basic)
    value = {"clientId": "c", "userName": "u", "password": "pw"}
    assert answer == {"credentialsValue": value, "credentialsType": "MQTT_BASIC", "status": "SUCCESS"}
    assert await site.login(username="u", identifier="c", password="pw")
    assert not await site.login(username="u", identifier="c", password="other")
    for changes in (
        {"token": "mine"},
        {"token": "provision"},
        {"token": "a/b"},
        {"token": "t" * 65},
        {"credentialsType": "MQTT_BASIC", "password": "pw"},
        basic,
    ):
        assert await site.ask(deviceName="c", **changes) == FAILURE, changes
    assert (await site.kinds()).count(("PROVISION_FAILURE", "PRODUCT", "p")) == 6
    assert "pw" not in repr([each.data for each in await site.messages()])


@pytest.mark.spec("TB-S32", "TB-X1")
async def test_a_device_brings_its_certificate(site: ProvisionSite) -> None:
    await site.product()
    made = issued("device")
    pem, der = made.pem, made.der
    asked = {"credentialsType": "X509_CERTIFICATE", "hash": pem}
    answer = await site.ask(**asked)
    assert answer == {"credentialsValue": pem, "credentialsType": "X509_CERTIFICATE", "status": "SUCCESS"}
    device = await site.registry.device(TENANT, "DEVICE_NAME")
    assert device.credentials == [prints(der)[0]]
    # The same certificate in another form is the same, and nobody else's.
    for other in (pem, hashlib.sha256(der).hexdigest(), base64.b64encode(der).decode(), "not a certificate", "00"):
        assert await site.ask(**{**asked, "hash": other}, deviceName="other") == FAILURE
    assert (await site.ask(**{**asked, "hash": "ab" * 32}, deviceName="other"))["credentialsValue"] == "ab" * 32


@pytest.mark.spec("TB-S32", "TB-X2")
async def test_a_gateway_says_so(site: ProvisionSite) -> None:
    await site.product()
    assert (await site.ask(gateway=True))["status"] == "SUCCESS"
    assert (await site.registry.device(TENANT, "DEVICE_NAME")).is_gateway


@pytest.mark.spec("TB-S32")
async def test_a_device_that_was_made_before_is_told_its_credential_once(site: ProvisionSite) -> None:
    await site.product("check_pre_provisioned")
    device = await site.device("DEVICE_NAME", token="chosen", product="p")
    await site.product("check_pre_provisioned", "other", key="other")
    assert await site.ask(provisionDeviceKey="other") == FAILURE  # not of that product
    assert await site.ask(deviceName="unknown") == FAILURE
    assert await site.ask(deviceName=device.id) == FAILURE
    assert await site.ask(deviceName=None) == FAILURE
    answer = await site.ask()
    assert answer == {"credentialsValue": "chosen", "credentialsType": "ACCESS_TOKEN", "status": "SUCCESS"}
    assert await site.server_attributes(device) == {"provisionState": "provisioned"}
    assert await site.ask() == FAILURE
    kinds = [kind for kind, type, id in await site.kinds() if (type, id) == ("DEVICE", device.id)]
    assert kinds == ["PROVISION_FAILURE", "PROVISION_SUCCESS", "PROVISION_FAILURE"]
    # Asked to do it again by an operator: what is not kept any more cannot be told, so the token is a new one.
    await site.attributes.delete(TENANT, device.id, "SERVER", ["provisionState"])
    again = await site.ask()
    assert again["status"] == "SUCCESS"
    assert again["credentialsValue"] != "chosen"
    assert (await site.http.get(f"/api/v1/{again['credentialsValue']}/attributes")).status_code == 200


@pytest.mark.spec("TB-S32")
async def test_a_device_made_before_is_told_user_name_and_password(site: ProvisionSite) -> None:
    await site.product("check_pre_provisioned")
    basic = Credential(kind=MQTT_BASIC, username="u", client_id="c", value="pw")
    await site.device("DEVICE_NAME", credentials=[basic], product="p")
    answer = await site.ask()
    assert answer["credentialsValue"] == {"clientId": "c", "userName": "u", "password": "pw"}
    assert answer["credentialsType"] == "MQTT_BASIC"


@pytest.mark.spec("TB-S32")
@pytest.mark.parametrize("strategy", ["allow_new", "check_pre_provisioned"])
async def test_of_many_requests_for_one_name_at_once_one_succeeds(site: ProvisionSite, strategy: str) -> None:
    await site.product(strategy)
    if strategy == "check_pre_provisioned":
        await site.device("DEVICE_NAME", token="chosen", product="p")
    answers = await asyncio.gather(*[site.ask() for _ in range(10)])
    assert sorted(each["status"] for each in answers) == ["FAILURE"] * 9 + ["SUCCESS"]
    kinds = [kind for kind, *_ in await site.kinds()]
    assert (kinds.count("PROVISION_SUCCESS"), kinds.count("PROVISION_FAILURE")) == (1, 9)


async def test_tenants_may_use_the_same_names(site: ProvisionSite) -> None:
    await site.product()
    await site.registry.put_tenant(Tenant(name="other"))
    await site.registry.put_device(Device(id="", tenant="other", name="DEVICE_NAME"))
    assert (await site.ask())["status"] == "SUCCESS"


@pytest.mark.spec("TB-S32")
async def test_the_secret_may_be_one_of_the_tenants(site: ProvisionSite) -> None:
    await site.product(secret="${secret:FACTORY}")
    for asked in (SECRET, "${secret:FACTORY}"):
        assert await site.ask(provisionDeviceSecret=asked) == NOT_FOUND
    await site.registry.put_secret(TENANT, "FACTORY", SECRET)
    assert (await site.ask())["status"] == "SUCCESS"


async def test_what_the_chain_cannot_be_told_has_not_been(site: ProvisionSite) -> None:
    await site.product()
    site.ingress.closed_reason = "backlog full"
    answer = await site.http.post("/api/v1/provision", content=json.dumps(ASK))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert [device.name for device in await site.registry.devices(TENANT)] == ["d1"]
    site.ingress.closed_reason = ""
    assert (await site.ask())["status"] == "SUCCESS"
    await site.product("check_pre_provisioned", "q", key="q")
    device = await site.device("made", token="chosen", product="q")
    site.ingress.closed_reason = "backlog full"
    asked = json.dumps({**ASK, "deviceName": "made", "provisionDeviceKey": "q"})
    assert (await site.http.post("/api/v1/provision", content=asked)).status_code == 503
    assert await site.server_attributes(device) == {}


# MQTT


async def provision(site: ProvisionSite, body: Any = None, **login: Any) -> Any:
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, timeout=5, **login) as client:
        await client.subscribe("/provision/response", qos=1)
        await client.publish("/provision/request", json.dumps(body or ASK), qos=1)
        async with asyncio.timeout(5):
            message = await anext(aiter(client.messages))
        assert str(message.topic) == "/provision/response"
        assert isinstance(message.payload, bytes)
        return json.loads(message.payload)


@pytest.mark.spec("TB-X1", "TB-55", "G-9")
@pytest.mark.parametrize(
    "login",
    [
        {"username": "provision"},
        {"identifier": "provision"},
        {"username": "provision", "password": "x", "protocol": aiomqtt.ProtocolVersion.V5},
    ],
)
async def test_a_device_provisions_itself_over_mqtt(site: ProvisionSite, login: Any) -> None:
    await site.product()
    answer = await provision(site, **login)
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    assert await site.login(username=answer["credentialsValue"])
    assert await provision(site, **login) == FAILURE
    assert [each.metadata["transport"] for each in await site.messages()] == ["mqtt"] * 3


@pytest.mark.spec("G-9", "G-10", "TB-X1")
@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("v1/devices/me/telemetry", "{}"),
        ("/provision/response", "{}"),
        ("/provision/request", "{"),
        ("/provision/request", "{}"),
        ("/provision/request", b"\xff"),
        ("/provision/request", "[" * 65_000),
        ("/provision/request", " " * 65_537),
    ],
)
async def test_a_provisioning_session_may_do_nothing_else(site: ProvisionSite, topic: str, payload: Any) -> None:
    client = await RawClient.open(site.mqtt_port)
    assert (await client.login(username="provision")).code == 0
    for topic_filter in ("#", "v1/devices/me/attributes", "/provision/+", "/provision/request"):
        assert (await client.subscribe(topic_filter)).codes == b"\x80"
    body = payload if isinstance(payload, bytes) else payload.encode()
    client.say(Publish(topic, body, 1, 1))
    assert await client.hear() is None
    await client.close()


@pytest.mark.spec("G-29")
async def test_many_devices_provision_themselves_under_one_client_id(site: ProvisionSite) -> None:
    await site.product()
    login = {"identifier": "provision"}
    asked = [provision(site, {**ASK, "deviceName": f"n{i}"}, **login) for i in range(10)]
    assert [each["status"] for each in await asyncio.gather(*asked)] == ["SUCCESS"] * 10


async def test_a_session_that_only_waits_is_ended(site: ProvisionSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_provision, "LIFE_S", 0.1)
    client = await RawClient.open(site.mqtt_port)
    assert (await client.login(username="provision")).code == 0
    async with asyncio.timeout(5):
        assert await client.hear() is None
    await client.close()


# The facet


@pytest.mark.spec("TB-S32", "G-26")
@pytest.mark.parametrize(
    ("facet", "pointer"),
    [
        (5, "/provision"),
        ({}, "/provision"),
        ({"key": "k"}, "/provision"),
        ({"key": "", "secret": "s"}, "/provision/key"),
        ({"key": "k", "secret": "s", "strategy": "any"}, "/provision/strategy"),
        ({"key": "k", "secret": "s", "other": 1}, "/provision"),
    ],
)
async def test_a_facet_that_does_not_hold_is_told(facet: Any, pointer: str) -> None:
    (found,) = check_facets({"provision": facet})
    assert (type(found), found.pointer) == (Finding, pointer)


async def test_a_product_without_a_strategy_provisions_nobody(site: ProvisionSite) -> None:
    facets = {"provision": {"key": KEY, "secret": SECRET}}
    await site.registry.put_product(Product(id="p", tenant=TENANT, facets=facets))
    assert await site.ask() == NOT_FOUND
