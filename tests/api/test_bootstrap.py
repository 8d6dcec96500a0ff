"""Bootstrap files: applied once they make everything, applied twice they change nothing; the demo does what it says."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from api.accounts import Accounts
from api.bootstrap import Stores, Summary, apply
from api.bootstrap_firmware import Packages
from api.bootstrap_schema import bootstrap_schema
from api.demo import OPERATOR, demo_document
from api.login_throttle import LoginThrottle
from api.passwords import Passwords
from engine.bus import BUS
from engine.errors import InvalidDocument, NotFound
from engine.stores.apps.activations import Activations
from engine.stores.apps.apps import Apps
from engine.stores.apps.rights import Rights
from engine.stores.people import People
from engine.stores.register import SEQUENCE
from engine.stores.registry import ACCESS_TOKEN, CT_TOKEN, Tenant, digest
from tests.api.stack import Stack

pytestmark = pytest.mark.asyncio

CHAIN = {"chain": "house", "start": "save", "nodes": {"save": {"kind": "save_timeseries"}}}
DOCUMENT: dict[str, Any] = {
    "tenants": [{"name": "one", "root_chain": "house"}, {"name": "two"}],
    "products": [
        {"id": "meter", "tenant": "one", "name": "Meter", "transform": {"lang": "js", "source": "return {a: 1};"}}
    ],
    "devices": [
        {
            "id": "m-1",
            "tenant": "one",
            "name": "Meter 1",
            "product": "meter",
            "external_id": "SoMEc0MpL1Cat3D1D",
            "credentials": [{"kind": CT_TOKEN, "value": "3xAmpLeT0K3n"}, {"kind": ACCESS_TOKEN, "value": "A1"}],
        },
        {"tenant": "two", "name": "Lamp"},
    ],
    "chains": [{"tenant": "one", **CHAIN}],
}


@pytest_asyncio.fixture
async def stack(redis_url: str) -> AsyncIterator[Stack]:
    async with Stack(redis_url) as made:
        yield made


async def put(stack: Stack, document: Any, **options: Any) -> Summary:
    passwords = Passwords()
    try:
        accounts = Accounts(People(stack.redis), passwords, LoginThrottle(stack.redis, "person"))
        packages = Packages(stack.firmware, stack.rollouts)
        stores = Stores(accounts, Apps(stack.redis, stack.registry), Activations(stack.redis), packages)
        return await apply(document, stack.registry, stack.chains, stores, **options)
    finally:
        passwords.close()


async def findings(stack: Stack, document: Any) -> dict[str, str]:
    with pytest.raises(InvalidDocument) as caught:
        await put(stack, document)
    return {finding.pointer: finding.message for finding in caught.value.findings}


def changed(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DOCUMENT), **parts}


@pytest.mark.spec("G-26")
async def test_everything_is_made(stack: Stack) -> None:
    summary = await put(stack, DOCUMENT)
    assert summary == Summary(
        tenants=["one", "two"], products=["meter"], devices=["Meter 1", "Lamp"], chains=["one/house"],
        deployments={"one": 1, "two": 1},
    )  # fmt: skip
    device = await stack.registry.device("one", "SoMEc0MpL1Cat3D1D")
    assert (device.id, device.product) == ("m-1", "meter")
    for kind, parts in ((CT_TOKEN, ("SoMEc0MpL1Cat3D1D", "3xAmpLeT0K3n")), (ACCESS_TOKEN, ("A1",))):
        assert await stack.registry.find_credential(f"{kind}:{digest(kind, *parts)}") == device
    assert (await stack.registry.product("one", "meter")).facets == {
        "transform": {"lang": "js", "source": "return {a: 1};"}
    }
    current = await stack.chains.current("one")
    assert current is not None
    assert (current.root, current.chains) == ("house", {"house": 1})
    default = await stack.chains.current("two")
    assert default is not None
    assert default.chains == {"root": 1}


async def test_a_second_time_changes_nothing(stack: Stack) -> None:
    await put(stack, DOCUMENT)
    before = await stack.redis.get(SEQUENCE)
    assert await put(stack, DOCUMENT) == Summary()
    assert await stack.redis.get(SEQUENCE) == before
    assert (await stack.registry.product("one", "meter")).revision == 1
    assert await stack.chains.versions("one", "house") == [1]


async def test_only_what_differs_is_changed(stack: Stack) -> None:
    await put(stack, DOCUMENT)
    document = copy.deepcopy(DOCUMENT)
    document["devices"][1]["enabled"] = False
    document["chains"][0]["title"] = "Second"
    del document["devices"][0]["credentials"]
    summary = await put(stack, document)
    assert summary == Summary(devices=["Lamp"], chains=["one/house"], deployments={"one": 2})
    assert len((await stack.registry.device("one", "m-1")).credentials) == 2
    edited = {**CHAIN, "title": "Mine"}
    await stack.chains.save("one", edited)
    assert await put(stack, DOCUMENT, keep_chains=True) == Summary(devices=["Lamp"])
    assert (await stack.chains.get("one", "house"))[1] == edited


@pytest.mark.spec("G-26")
async def test_what_a_gateway_calls_its_device_and_who_has_claimed_it_are_no_difference(stack: Stack) -> None:
    await put(stack, DOCUMENT)
    lamp = await stack.registry.device("two", "Lamp")
    await stack.registry.put_device(replace(lamp, type="thermostat"))
    owned = await stack.registry.set_owner("two", lamp.id, "ada")
    assert await put(stack, DOCUMENT) == Summary()
    document = copy.deepcopy(DOCUMENT)
    document["devices"][1]["enabled"] = False
    assert await put(stack, document) == Summary(devices=["Lamp"])
    assert await stack.registry.device("two", "Lamp") == replace(owned, enabled=False)


@pytest.mark.spec("TTI-6", "TTI-S15")
async def test_apps_are_told_of_a_product_that_is_changed(stack: Stack) -> None:
    document = changed(apps=[{"tenant": "one", "id": "app-meters-1", "product": "meter", "resources": ["a"]}])
    document["products"][0]["thethingsio"] = {"public": ["a"]}
    await put(stack, document)
    async with stack.redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(BUS)
        assert await heard.get_message(timeout=10) is None
        document["products"][0]["thethingsio"] = {"public": []}
        assert await put(stack, document) == Summary(products=["meter"])
        told = await heard.get_message(timeout=10)
    assert told is not None
    assert b"app:app-meters-1" in told["data"]


@pytest.mark.spec("TTI-12")
async def test_nobody_keeps_rights_on_a_device_that_gets_another_product(stack: Stack) -> None:
    rights = Rights(stack.redis)
    document = changed(apps=[{"tenant": "one", "id": "app-meters-1", "product": "meter"}])
    document["products"].append({"id": "clock", "tenant": "one"})
    await put(stack, document)
    await rights.link("app-meters-1", "m-1", "ada")
    document["devices"][0]["name"] = "Another name"
    await put(stack, document)
    assert (await rights.read("app-meters-1", ["m-1"]))["m-1"].owner == "ada"
    document["devices"][0]["product"] = "clock"
    assert await put(stack, document) == Summary(devices=["Another name"])
    assert (await rights.read("app-meters-1", ["m-1"]))["m-1"].owner == ""


async def test_every_fault_of_the_shape_is_told_in_plain_words(stack: Stack) -> None:
    found = await findings(
        stack,
        {
            "tenants": [{"name": 5}, {"nmae": "x", "name": "y"}],
            "devices": [{"tenant": "y"}, {"tenant": "y", "name": "d", "credentials": [{"value": "x"}]}],
            "chain": [],
        },
    )
    assert found == {
        "/chain": "unknown key 'chain'; did you mean 'chains'?",
        "/devices/0": "the key 'name' is missing",
        "/devices/1/credentials/0": "the key 'kind' is missing",
        "/tenants/0/name": "must be text, but is 5",
        "/tenants/1/nmae": "unknown key 'nmae' (known: 'root_chain')",
    }
    with pytest.raises(NotFound):
        await stack.registry.tenant("y")


async def test_a_document_that_is_no_object_is_refused(stack: Stack) -> None:
    assert await findings(stack, []) == {"": "must be an object, but is a list"}


async def test_faults_that_the_schema_cannot_say(stack: Stack) -> None:
    document = changed(
        products=[{"id": "p", "tenant": "nobody"}, {"id": "q", "tenant": "one", "transform": {"source": "return ("}}],
        devices=[{"tenant": "one", "name": "d"}, {"tenant": "one", "name": "d"}],
        chains=[
            {"tenant": "one", "chain": "a", "start": "x", "nodes": {"x": {"kind": "odd"}}},
            {"tenant": "one", "chain": "b", "start": "x", "nodes": {"x": {"kind": "chain", "config": {"chain": "c"}}}},
        ],
    )
    found = await findings(stack, document)
    assert set(found) >= {
        "/products/0/tenant",
        "/products/1/transform/source",
        "/devices/1",
        "/chains/0/nodes/x/kind",
    }
    assert any(place.startswith("/chains/1/nodes/x") for place in found)
    # None of it was applied.
    with pytest.raises(NotFound):
        await stack.registry.tenant("one")


async def test_what_belongs_to_others_is_told_with_its_place(stack: Stack) -> None:
    await stack.device("taken", token="A1")
    found = await findings(stack, DOCUMENT)
    assert found == {"/devices/0": "another device has the credential"}
    document = changed()
    document["devices"][0]["credentials"] = [{"kind": "ODD"}]
    assert "unknown kind" in (await findings(stack, document))["/devices/0/credentials/0/kind"]


async def test_people_are_made_and_changed_and_nothing_is_when_nothing_differs(stack: Stack) -> None:
    people = People(stack.redis)
    ada = {"tenant": "one", "username": "ada", "password": "secret-1"}
    assert (await put(stack, changed(people=[ada]))).people == ["ada"]
    made = await people.named("ada")
    assert made is not None
    assert (made.role, made.enabled) == ("tenant_admin", True)
    for change, ends in (({}, 0), ({"role": "customer"}, 1), ({"enabled": False}, 1), ({"password": "secret-2"}, 1)):
        ada |= change  # type: ignore[assignment]
        summary = await put(stack, changed(people=[ada]))
        assert summary.people == (["ada"] if change else [])
        now = await people.named("ada")
        assert now is not None
        assert now.generation == made.generation + ends
        made = now
    assert (made.role, made.enabled) == ("customer", False)


async def test_people_that_do_not_hold(stack: Stack) -> None:
    ada = {"tenant": "one", "username": "ada", "password": "secret-1"}
    assert (await findings(stack, changed(people=[ada, {**ada, "username": "ADA"}])))["/people/1"] == (
        "the user name 'ada' stands at /people/0 already"
    )
    assert "/people/0/tenant" in await findings(stack, changed(people=[{**ada, "tenant": "none"}]))
    assert "/people/0/role" in await findings(stack, changed(people=[{**ada, "role": "king"}]))
    assert await findings(stack, changed(people=[{**ada, "password": "short"}])) == {
        "/people/0/password": "a password has 6 to 1000 characters"
    }
    await put(stack, changed(people=[ada]))
    taken = await findings(stack, changed(people=[{**ada, "tenant": "two"}]))
    assert taken == {"/people/0": "another tenant's person has the name 'ada'"}
    with pytest.raises(InvalidDocument, match="cannot be made here"):
        await apply(changed(people=[ada]), stack.registry, stack.chains)


async def test_the_published_schema_takes_what_is_applied() -> None:
    schema = bootstrap_schema()
    Draft202012Validator.check_schema(schema)
    assert list(Draft202012Validator(schema).iter_errors(json.loads(json.dumps(DOCUMENT)))) == []
    assert list(Draft202012Validator(schema).iter_errors(demo_document()[0])) == []


async def test_demo_secrets_are_fresh_unless_known() -> None:
    document, secrets = demo_document()
    other = demo_document()[1]
    assert set(secrets) == {"thingsboard", "cloudthing", "operator", "thethingsio"}
    assert set(secrets["thingsboard"]) == {"token", "id"}
    assert set(secrets["cloudthing"]) == {"tenant", "device_id", "token"}
    assert secrets["thingsboard"]["token"] != other["thingsboard"]["token"]
    assert secrets["cloudthing"]["token"] != other["cloudthing"]["token"]
    assert secrets["operator"]["username"] == OPERATOR
    assert secrets["operator"]["password"] != other["operator"]["password"]
    assert demo_document(secrets) == (document, secrets)


async def test_the_demo_shows_a_point_an_alarm_and_an_answer(stack: Stack) -> None:
    document, secrets = demo_document()
    await put(stack, document, keep_chains=True)
    await put(stack, demo_document(secrets)[0], keep_chains=True)
    assert await stack.registry.tenant("demo") == Tenant(
        name="demo", root_chain="demo", created_ms=(await stack.registry.tenant("demo")).created_ms
    )
    token = secrets["thingsboard"]["token"]
    device = await stack.registry.find_credential(f"{ACCESS_TOKEN}:{digest(ACCESS_TOKEN, token)}")
    assert device is not None
    assert (device.id, device.name) == (secrets["thingsboard"]["id"], "demo-thermometer")

    async def send(type: str, data: Any, **metadata: str) -> Any:
        with stack.replies.wait() as waiting:
            message = stack.intake.message(
                device, type, data, dialect="tb", transport="http", ts_ms=stack.intake.stamp(device.id),
                metadata=metadata, reply_to=waiting.to, awaited=True,
            )  # fmt: skip
            await stack.ingress.submit([message])
            answer = await waiting.next(10)
            assert answer is not None
            assert answer.error == ""
            return answer.data

    async def alarms() -> list[str]:
        from engine.stores.alarm_store import AlarmStore
        from tests.api.stack import PARTITIONS

        page = await AlarmStore(stack.wire, PARTITIONS).list("demo")
        return [f"{alarm.type} {alarm.status}" for alarm in page.alarms]

    await send("POST_TELEMETRY_REQUEST", {"temperature": 42})
    [point] = await stack.store.latest("demo", [device.id])
    assert (point.key, point.value) == ("temperature", 42)
    assert await alarms() == ["Too hot ACTIVE_UNACK"]
    await send("POST_TELEMETRY_REQUEST", {"temperature": 20, "humidity": 80})
    assert await alarms() == ["Too hot CLEARED_UNACK"]
    await send("POST_TELEMETRY_REQUEST", {"humidity": 81})
    answer = await send("TO_SERVER_RPC_REQUEST", {"method": "getTime", "params": {}})
    assert answer["time"].endswith("Z")
    assert "getTime" in (await send("TO_SERVER_RPC_REQUEST", {"method": "odd", "params": {}}))["error"]
    device = await stack.registry.find_external(secrets["cloudthing"]["device_id"])
    assert device is not None
    await send("RAW_UPLINK", b"\x01\xa4", ct="custom", productId="demo-sensor")
    [point] = await stack.store.latest("demo", [device.id])
    assert (point.key, point.value) == ("temperature", 42.0)
    assert await stack.dead.list("demo") == []


@pytest.mark.spec("G-26", "TB-60")
async def test_firmware_and_who_has_it(stack: Stack) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["firmware"] = [
        {"tenant": "one", "product": "meter", "id": "v1", "title": "fw", "data_b64": "AAH/", "assigned": True},
        {
            "tenant": "one", "product": "meter", "id": "v2", "url": "https://example.com/v2", "devices": ["Meter 1"],
            "algorithm": "MD5", "checksum": "00ff", "size": 5,
        },
    ]  # fmt: skip
    assert (await put(stack, document)).firmware == ["meter/v1", "meter/v2"]
    first, second = await stack.firmware.list("meter")
    assert (first.title, first.version, first.size, second.url) == ("fw", "v1", 3, "https://example.com/v2")
    assert await stack.rollouts.of_product("meter") == {"FIRMWARE": "v1"}
    assert await stack.rollouts.of_device("m-1", "meter") == {"FIRMWARE": ("v2", True)}
    assert await put(stack, document) == Summary()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"data_b64": "!"}, "/firmware/0/data_b64"),
        ({"data_b64": "AAH+"}, "/firmware/0"),
        ({"product": "other"}, "/firmware/0"),
        ({"tenant": "three"}, "/firmware/0/tenant"),
        ({"devices": ["nobody"]}, "/firmware/0"),
        ({"kind": "OTHER"}, "/firmware/0/kind"),
        ({"checksum": "00"}, "/firmware/0?checksum"),
        ({"id": "v2"}, "/firmware/1"),
    ]
    for change, place in wrong:
        changed = copy.deepcopy(document)
        changed["firmware"][0] |= change
        assert list(await findings(stack, changed)) == [place], change
    document["firmware"][0]["devices"] = ["Lamp"]
    document["firmware"][0]["tenant"] = "two"
    assert list(await findings(stack, document)) == ["/firmware/0"]


async def test_networks_of_products_and_ids_of_devices(stack: Stack) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["products"][0] |= {"sigfox": {"autoGenerate": True}, "ttn": {"secret": "hush"}}
    document["devices"][0]["links"] = {"sigfox": "00ff", "lorawan": "70b3d57ed0001234"}
    await put(stack, document)
    device = await stack.registry.find_link("meter", "sigfox", "FF")
    assert device is not None
    assert device.id == "m-1"
    assert await put(stack, document) == Summary()
    document["devices"][0]["links"] = {"sigfox": "x"}
    document["products"][0]["ttn"] = {"secrets": "hush"}
    assert list(await findings(stack, document)) == ["/products/0/ttn/secrets"]
    del document["products"][0]["ttn"]
    assert list(await findings(stack, document)) == ["/devices/0/links/sigfox"]
