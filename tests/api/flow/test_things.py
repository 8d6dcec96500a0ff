"""Tenants, products, devices, attributes, points, alarms, dead letters."""

from __future__ import annotations

import pytest

from engine.errors import Unsupported
from engine.message import Point
from engine.partitions import all_keys
from engine.stores.apps.rights import Rights
from engine.stores.certificates import X509_CERTIFICATE, prints
from engine.stores.memory import MemoryTimeseries
from engine.stores.registry import ACCESS_TOKEN, CT_TOKEN, digest
from tests.api.flow.serving import FlowStack, T
from tests.api.stack import PARTITIONS, TENANT
from tests.certificates import issued

pytestmark = pytest.mark.asyncio

ALARMING = {
    "chain": "root",
    "start": "alarm",
    "nodes": {"alarm": {"kind": "create_alarm", "config": {"type": "Too hot"}}},
}
FAILING = {
    "chain": "root",
    "start": "first",
    "nodes": {
        "first": {
            "kind": "script",
            "config": {"source": "msg.n = msg.n + 1 return {msg = msg}"},
            "to": {"Success": "check"},
        },
        "check": {"kind": "script", "config": {"source": "error('too hot')"}},
    },
}
MENDED = {
    "chain": "root",
    "start": "first",
    "nodes": {
        "first": {
            "kind": "script",
            "config": {"source": "msg.n = msg.n + 1 return {msg = msg}"},
            "to": {"Success": "check"},
        },
        "check": {"kind": "save_timeseries"},
    },
}


async def test_a_new_tenant_has_the_default_chain(stack: FlowStack) -> None:
    tenant = "/flow/v1/tenants/fresh"
    made = await stack.put(tenant, {}, 201)
    assert (made["name"], made["root_chain"]) == ("fresh", "root")
    assert await stack.put(tenant, {}) == made
    assert (await stack.get(f"{tenant}/deployments/current"))["chains"] == {"root": 1}
    assert [one["name"] for one in (await stack.get("/flow/v1/tenants"))["tenants"]] == [TENANT, "fresh"]


async def test_a_tenants_root_chain_must_exist_and_is_deployed(stack: FlowStack) -> None:
    await stack.put(T, {})
    assert "nowhere" in (await stack.put(T, {"root_chain": "nowhere"}, 404))["detail"]
    await stack.put("/flow/v1/tenants/fresh", {"root_chain": "nowhere"}, 404)
    await stack.get("/flow/v1/tenants/fresh", 404)
    await stack.post(f"{T}/chains", {**ALARMING, "chain": "other"})
    assert (await stack.put(T, {"root_chain": "other"}))["root_chain"] == "other"
    assert (await stack.get(f"{T}/deployments/current"))["root"] == "other"
    await stack.post(f"{T}/rollback")
    assert (await stack.get(T))["root_chain"] == "root"


@pytest.mark.parametrize("name", ["www", "a b", "-x"])
async def test_a_tenants_name_must_hold(stack: FlowStack, name: str) -> None:
    assert (await stack.put(f"/flow/v1/tenants/{name}", {}, 400))["errors"][0]["pointer"] == "/name"


async def test_secrets_are_never_given_out(stack: FlowStack) -> None:
    await stack.put(f"{T}/secrets/smtp", {"value": "hush-hush"}, 204)
    answer = await stack.flow.get(f"{T}/secrets")
    assert answer.json() == {"secrets": ["smtp"]}
    assert await stack.registry.secrets(TENANT) == {"smtp": "hush-hush"}
    await stack.delete(f"{T}/secrets/smtp")
    await stack.delete(f"{T}/secrets/smtp", 404)


async def test_products_are_checked_as_far_as_known(stack: FlowStack) -> None:
    facets = {"transform": {"lang": "lua", "source": "return {t = msg.bytes[1]}"}, "sigfox": {"enabled": True}}
    made = await stack.put(f"{T}/products/p1", {"name": "P", "facets": facets}, 201)
    assert (made["facets"], made["revision"]) == (facets, 1)
    assert (await stack.put(f"{T}/products/p1", {"facets": facets}))["revision"] == 2
    bad = {"transform": {"lang": "lua", "source": "return ("}, "protobuf": {"descriptor_set_b64": "!", "message": "M"}}
    problem = await stack.put(f"{T}/products/p1", {"facets": bad}, 400)
    assert [fault["pointer"] for fault in problem["errors"]] == [
        "/facets/transform/source",
        "/facets/protobuf/descriptor_set_b64",
    ]
    assert (await stack.get(f"{T}/products"))["products"][0]["revision"] == 2
    for days in (0, 30, None):
        await stack.put(f"{T}/products/p1", {"facets": {"retention_days": days}})
    for days in (-1, 1.5, True, "30", 36_501):
        problem = await stack.put(f"{T}/products/p1", {"facets": {"retention_days": days}}, 400)
        assert [fault["pointer"] for fault in problem["errors"]] == ["/facets/retention_days"]


async def test_a_device_with_a_chosen_id_and_credentials(stack: FlowStack) -> None:
    wanted = {
        "name": "Boiler",
        "external_id": "SoMEc0MpL1Cat3D1D",
        "credentials": [{"kind": ACCESS_TOKEN, "value": "A1_TEST_TOKEN"}, {"kind": CT_TOKEN}],
    }
    answer = await stack.flow.put(f"{T}/devices/boiler-1", json=wanted)
    assert (answer.status_code, answer.headers["location"]) == (201, f"{T}/devices/boiler-1")
    secrets = {each["kind"]: each["value"] for each in answer.json()["secrets"]}
    assert secrets[ACCESS_TOKEN] == "A1_TEST_TOKEN"
    assert len(secrets[CT_TOKEN]) == 32
    for name in ("boiler-1", "Boiler", "SoMEc0MpL1Cat3D1D"):
        shown = await stack.get(f"{T}/devices/{name}")
        assert (shown["id"], shown["secrets"]) == ("boiler-1", [])
        assert shown["credentials"] == [ACCESS_TOKEN, CT_TOKEN]
    assert digest(ACCESS_TOKEN, "A1_TEST_TOKEN") not in (await stack.flow.get(f"{T}/devices/boiler-1")).text
    found = await stack.registry.find_credential(f"CT_TOKEN:{digest(CT_TOKEN, 'SoMEc0MpL1Cat3D1D', secrets[CT_TOKEN])}")
    assert found is not None
    assert found.id == "boiler-1"


async def test_changing_a_device_keeps_its_credentials(stack: FlowStack) -> None:
    await stack.device("d1", token="T1", ct_token="C1")
    id = (await stack.get(f"{T}/devices/d1"))["id"]
    changed = await stack.put(f"{T}/devices/{id}", {"name": "d2", "external_id": "d1", "enabled": False})
    assert (changed["name"], changed["enabled"], len(changed["credentials"])) == ("d2", False, 2)
    # A CloudThing token proves itself together with the external id, so that it cannot follow to another.
    await stack.put(f"{T}/devices/{id}", {"name": "d2", "external_id": "else"}, 409)
    assert await stack.registry.find_credential(f"ACCESS_TOKEN:{digest(ACCESS_TOKEN, 'T1')}") is not None


async def test_rotating_one_kind_leaves_the_others(stack: FlowStack) -> None:
    await stack.device("d1", token="T1", ct_token="C1")
    answer = await stack.post(f"{T}/devices/d1/credentials/rotate", {"kind": ACCESS_TOKEN})
    [secret] = answer["secrets"]
    find = stack.registry.find_credential
    assert await find(f"ACCESS_TOKEN:{digest(ACCESS_TOKEN, 'T1')}") is None
    assert await find(f"ACCESS_TOKEN:{digest(ACCESS_TOKEN, secret['value'])}") is not None
    assert await find(f"CT_TOKEN:{digest(CT_TOKEN, 'd1', 'C1')}") is not None
    await stack.post(f"{T}/devices/d1/credentials/rotate", {"kind": "MQTT_BASIC"}, 404)


@pytest.mark.spec("G-9")
async def test_a_certificate_is_a_credential_that_cannot_be_made_up(stack: FlowStack) -> None:
    own = issued("device")
    await stack.post(f"{T}/devices", {"name": "d1", "credentials": [{"kind": X509_CERTIFICATE, "value": own.pem}]}, 201)
    assert (await stack.get(f"{T}/devices/d1"))["credentials"] == [X509_CERTIFICATE]
    device = await stack.registry.find_credential(prints(own.der)[0])
    assert device is not None
    assert device.name == "d1"
    refused = await stack.post(f"{T}/devices/d1/credentials/rotate", {"kind": X509_CERTIFICATE}, 400)
    assert "cannot be made up" in str(refused)
    for value, reason in (("", "cannot be made up"), ("x" * 300, "PEM or base64")):
        body = {"credentials": [{"kind": X509_CERTIFICATE, "value": value}]}
        assert reason in str(await stack.put(f"{T}/devices/d1/credentials", body, 400))
    body = {"credentials": [{"kind": "MQTT_BASIC", "username": "u", "value": "x" * 256}]}
    assert "at most 255" in str(await stack.put(f"{T}/devices/d1/credentials", body, 400))


async def test_credentials_are_replaced_as_a_whole(stack: FlowStack) -> None:
    await stack.device("d1", token="T1")
    await stack.device("d2", token="T2")
    body = {"credentials": [{"kind": "MQTT_BASIC", "username": "u", "value": "p"}]}
    assert (await stack.put(f"{T}/devices/d1/credentials", body))["credentials"] == ["MQTT_BASIC"]
    assert await stack.registry.find_credential(f"ACCESS_TOKEN:{digest(ACCESS_TOKEN, 'T1')}") is None
    taken = {"credentials": [{"kind": ACCESS_TOKEN, "value": "T2"}]}
    assert "another device" in (await stack.put(f"{T}/devices/d1/credentials", taken, 409))["detail"]


async def test_devices_are_listed_in_pages(stack: FlowStack) -> None:
    for n in range(5):
        await stack.post(f"{T}/devices", {"name": f"d{n}"}, 201)
    seen: list[str] = []
    after = ""
    while True:
        page = await stack.get(f"{T}/devices?limit=2&after={after}")
        seen += [one["name"] for one in page["devices"]]
        after = page["after"]
        if not after:
            break
    assert seen == [f"d{n}" for n in range(5)]


async def test_a_deleted_device_leaves_nothing(stack: FlowStack) -> None:
    await stack.deploy(ALARMING)
    device = await stack.device("d1", token="T1")
    one = f"{T}/devices/{device.id}"
    await stack.put(f"{one}/attributes/SERVER", {"a": 1}, 204)
    await stack.store.write([Point(TENANT, device.id, "t", 1, 2)])
    await stack.post(f"{T}/messages?sync=true", {"device": "d1", "data": {"t": 99}})
    assert len((await stack.get(f"{T}/alarms"))["alarms"]) == 1
    await stack.delete(one)
    await stack.delete(one, 404)
    assert (await stack.get(f"{T}/alarms"))["alarms"] == []
    assert await stack.store.latest(TENANT, [device.id]) == []
    left = [key async for key in stack.redis.scan_iter(f"*{device.id}*") if b":gone:" not in key]
    assert left == []
    assert await stack.registry.find_credential(f"ACCESS_TOKEN:{digest(ACCESS_TOKEN, 'T1')}") is None


@pytest.mark.parametrize("how", ["deleted", "moved"])
async def test_nobody_has_rights_on_a_thing_that_is_gone_from_its_product(stack: FlowStack, how: str) -> None:
    for product in ("weather", "other"):
        await stack.put(f"{T}/products/{product}", {}, 201)
    await stack.put(f"{T}/apps/weather-app", {"product": "weather"}, 201)
    device = {"name": "d1", "product": "weather"}
    await stack.put(f"{T}/devices/d1", device, 201)
    rights = Rights(stack.redis)
    await rights.link("weather-app", "d1", "ann@x.org")
    await rights.grant("weather-app", "d1", "ann@x.org", "bob@x.org", {"temperature": {"get": True}})
    await stack.put(f"{T}/devices/d1", {**device, "name": "still the same"})
    assert await rights.things("weather-app", "bob@x.org") == ["d1"]
    if how == "deleted":
        await stack.delete(f"{T}/devices/d1")
    else:
        await stack.put(f"{T}/devices/d1", {**device, "product": "other"})
    for who in ("ann@x.org", "bob@x.org"):
        assert await rights.things("weather-app", who) == []
    assert (await rights.read("weather-app", ["d1"]))["d1"].people() == set()


async def test_a_deleted_device_is_gone_where_the_store_cannot_delete(stack: FlowStack) -> None:
    class Keeping(MemoryTimeseries):
        async def delete_device(self, tenant: str, device: str) -> None:
            raise Unsupported("this store keeps everything")

    await stack.device("d1", token="T1")
    stack.parts.store = Keeping()
    assert await stack.delete(f"{T}/devices/d1", 200) == {"left": ["its points: this store keeps everything"]}
    await stack.get(f"{T}/devices/d1", 404)


async def test_attributes_by_scope(stack: FlowStack) -> None:
    await stack.device("d1")
    one = f"{T}/devices/d1/attributes"
    await stack.put(f"{one}/SHARED_SCOPE", {"limit": 42.0, "on": True, "tree": {"a": [1]}}, 204)
    await stack.put(f"{one}/SERVER", {"limit": 7}, 204)
    found = (await stack.get(one))["attributes"]
    assert found["SHARED"]["limit"]["value"] == 42.0
    assert isinstance(found["SHARED"]["limit"]["value"], float)
    assert found["SHARED"]["tree"]["value"] == {"a": [1]}
    assert found["CLIENT"] == {}
    assert set((await stack.get(f"{one}?scope=SERVER&scope=CLIENT"))["attributes"]) == {"SERVER", "CLIENT"}
    await stack.delete(f"{one}/SHARED?key=limit&key=on")
    assert set((await stack.get(one))["attributes"]["SHARED"]) == {"tree"}
    assert (await stack.put(f"{one}/SHARED", {"a/b": None}, 400))["errors"][0]["pointer"] == "/a~1b"
    await stack.put(f"{one}/ODD", {"a": 1}, 400)


async def test_points_latest_and_ranges(stack: FlowStack) -> None:
    device = await stack.device("d1")
    await stack.store.write([Point(TENANT, device.id, key, ts, ts * 1.0) for key in ("a", "b") for ts in range(1, 6)])
    one = f"{T}/devices/d1/points"
    latest = (await stack.get(f"{one}/latest"))["points"]
    assert [(point["key"], point["ts_ms"], point["value"]) for point in latest] == [("a", 5, 5.0), ("b", 5, 5.0)]
    assert [point["key"] for point in (await stack.get(f"{one}/latest?key=b&key=c"))["points"]] == ["b"]
    seen = []
    cursor = ""
    while True:
        page = await stack.get(f"{one}?key=a&start_ms=2&end_ms=5&limit=2&order=desc&cursor={cursor}")
        seen += [point["ts_ms"] for point in page["points"]]
        cursor = page["cursor"]
        if not cursor:
            break
    assert seen == [4, 3, 2]
    await stack.get(f"{one}?cursor=nonsense", 400)


async def test_alarms_are_listed_acknowledged_and_cleared(stack: FlowStack) -> None:
    await stack.deploy(ALARMING)
    device = await stack.device("d1")
    await stack.post(f"{T}/messages?sync=true", {"device": "d1", "data": {"temperature": 99}})
    [alarm] = (await stack.get(f"{T}/alarms?status=ACTIVE_UNACK&device=d1"))["alarms"]
    assert (alarm["type"], alarm["originator"], alarm["details"]) == ("Too hot", device.id, {"temperature": 99})
    one = f"{T}/devices/d1/alarms/{alarm['id']}"
    assert await stack.get(one) == alarm
    assert (await stack.post(f"{one}/acknowledge?by=ann"))["acked_by"] == "ann"
    assert (await stack.post(f"{one}/clear"))["status"] == "CLEARED_ACK"
    assert (await stack.get(f"{T}/alarms?status=ACTIVE_UNACK&status=ACTIVE_ACK"))["alarms"] == []
    await stack.get(f"{T}/devices/d1/alarms/unknown", 404)


async def test_dead_letters_of_one_batch_are_all_listed_and_run_again(stack: FlowStack) -> None:
    await stack.deploy(FAILING)
    device = await stack.device("d1")
    messages = [stack.intake.message(device, "POST_TELEMETRY_REQUEST", {"n": n}, dialect="tb", transport="http",
                                     ts_ms=n + 1) for n in range(7)]  # fmt: skip
    await stack.ingress.submit(messages)
    await stack.idle()
    seen: list[dict] = []
    cursor = ""
    while True:
        page = await stack.get(f"{T}/dead-letters?limit=3&cursor={cursor}")
        seen += page["dead_letters"]
        cursor = page["cursor"]
        if not cursor:
            break
    assert sorted(letter["data"]["n"] for letter in seen) == [1, 2, 3, 4, 5, 6, 7]
    assert {(letter["node"], letter["chain"]) for letter in seen} == {("root/check", "root")}
    by_n = {letter["data"]["n"]: letter["id"] for letter in seen}
    assert "too hot" in (await stack.get(f"{T}/dead-letters/{by_n[1]}"))["reason"]
    await stack.deploy(MENDED)
    await stack.post(f"{T}/dead-letters/{by_n[1]}/redrive", status=204)
    assert await stack.latest(device) == {"n": 1}
    await stack.post(f"{T}/dead-letters/{by_n[2]}/redrive", {"from_start": True}, 204)
    assert await stack.latest(device) == {"n": 3}
    await stack.delete(f"{T}/dead-letters/{by_n[3]}")
    await stack.delete(f"{T}/dead-letters/{by_n[3]}", 404)
    assert len((await stack.get(f"{T}/dead-letters"))["dead_letters"]) == 4
    sizes = await stack.wire.execute([("GET", keys.dead_bytes) for keys in all_keys(PARTITIONS)])
    assert sum(int(size or 0) for size in sizes) > 0


async def test_ids_in_radio_networks(stack: FlowStack) -> None:
    facets = {"sigfox": {"enabled": "yes"}, "ttn": {"downlink": {"server": "here", "webhook": "w"}}}
    problem = await stack.put(f"{T}/products/p1", {"facets": facets}, 400)
    assert [fault["pointer"] for fault in problem["errors"]] == [
        "/facets/sigfox/enabled",
        "/facets/ttn/downlink/server",
    ]
    await stack.put(f"{T}/products/p1", {"facets": {"sigfox": {}}}, 201)
    made = await stack.put(f"{T}/devices/d1", {"name": "d", "product": "p1", "links": {"sigfox": "00ff"}}, 201)
    assert made["links"] == {"sigfox": "FF"}
    assert (await stack.get(f"{T}/devices/d1"))["links"] == {"sigfox": "FF"}
    problem = await stack.put(f"{T}/devices/d2", {"name": "e", "product": "p1", "links": {"lorawan": "1"}}, 400)
    assert problem["errors"][0]["pointer"] == "/links/lorawan"
    await stack.put(f"{T}/devices/d2", {"name": "e", "product": "p1", "links": {"sigfox": "FF"}}, 409)
