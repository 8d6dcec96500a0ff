"""Tenants, products, devices, credentials: what may exist beside what, and who is found by what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
import redis.asyncio as redis

from engine.errors import BadInput, Conflict, NotFound
from engine.node import Product
from engine.stores.register import CHANNEL
from engine.stores.registry import (
    ACCESS_TOKEN,
    CT_TOKEN,
    MQTT_BASIC,
    RESERVED_TENANTS,
    Credential,
    Device,
    Tenant,
    digest,
)
from engine.stores.registry_store import Registry

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    made = redis.Redis.from_url(redis_url)
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def registry(client: redis.Redis) -> Registry:
    made = Registry(client)
    for name in ("acme", "other"):
        await made.put_tenant(Tenant(name=name))
    return made


def token(value: str) -> Credential:
    return Credential(kind=ACCESS_TOKEN, value=value)


@pytest.mark.spec("G-6")
@pytest.mark.parametrize("name", [*sorted(RESERVED_TENANTS), "", "a/b", "a{b}", "-a", "a" * 65, "a\nb"])
async def test_names_that_no_tenant_may_have(registry: Registry, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        await registry.put_tenant(Tenant(name=name))
    assert caught.value.pointer == "/name"


@pytest.mark.spec("G-6")
@pytest.mark.parametrize("value", ["provision", "", "a/b", "a?b", "a#b", "a+b", "a" * 65])
async def test_tokens_that_no_device_may_have(registry: Registry, value: str) -> None:
    with pytest.raises(BadInput):
        await registry.put_device(Device(id="", tenant="acme", name="d"), [token(value)])
    with pytest.raises(NotFound):
        await registry.device("acme", "d")


@pytest.mark.spec("G-6")
@pytest.mark.parametrize("external", ["devices", "gateway", "a/b", "a+b", "a#b", "a?b", "a:b"])
async def test_external_ids_that_would_collide_with_topics_and_paths(registry: Registry, external: str) -> None:
    with pytest.raises(BadInput) as caught:
        await registry.put_device(Device(id="", tenant="acme", name="d", external_id=external))
    assert caught.value.pointer == "/external_id"


@pytest.mark.spec("G-13", "G-15")
async def test_one_device_holds_credentials_of_several_dialects(registry: Registry) -> None:
    device = await registry.put_device(
        Device(id="", tenant="acme", name="d", external_id="X1"),
        [token("T1"), Credential(kind=CT_TOKEN, value="T2"), Credential(kind=MQTT_BASIC, username="u", value="p")],
    )
    for kind, parts in ((ACCESS_TOKEN, ("T1",)), (CT_TOKEN, ("X1", "T2")), (MQTT_BASIC, ("", "u", "p"))):
        found = await registry.find_credential(f"{kind}:{digest(kind, *parts)}")
        assert found is not None
        assert found.id == device.id


async def test_tokens_are_nowhere_in_redis(registry: Registry, client: redis.Redis) -> None:
    await registry.put_device(Device(id="", tenant="acme", name="d"), [token("very-secret-token")])
    for key in await client.keys("*"):
        assert b"very-secret-token" not in await client.dump(key)


async def test_what_belongs_to_another_device_is_a_conflict(registry: Registry) -> None:
    await registry.put_device(Device(id="one", tenant="acme", name="d", external_id="X"), [token("T")])
    for device, credentials in (
        (Device(id="two", tenant="acme", name="d"), []),
        (Device(id="two", tenant="other", name="e", external_id="X"), []),
        (Device(id="two", tenant="other", name="e"), [token("T")]),
        (Device(id="one", tenant="other", name="e"), []),
    ):
        with pytest.raises(Conflict):
            await registry.put_device(device, credentials)
    assert await registry.find_device("two") is None
    await registry.put_device(Device(id="two", tenant="other", name="d"))


async def test_a_changed_device_leaves_nothing_behind(registry: Registry) -> None:
    await registry.put_device(Device(id="one", tenant="acme", name="old", external_id="X"), [token("T")])
    await registry.put_device(Device(id="one", tenant="acme", name="new"), [token("U")])
    assert await registry.find_credential(f"{ACCESS_TOKEN}:{digest(ACCESS_TOKEN, 'T')}") is None
    assert await registry.find_external("X") is None
    assert [device.name for device in await registry.devices("acme")] == ["new"]
    await registry.put_device(Device(id="two", tenant="acme", name="old", external_id="X"), [token("T")])


async def test_a_deleted_device_is_found_by_nothing(registry: Registry) -> None:
    await registry.put_device(Device(id="one", tenant="acme", name="d", external_id="X"), [token("T")])
    await registry.delete_device("acme", "d")
    assert await registry.find_device("one") is None
    assert await registry.find_external("X") is None
    assert await registry.find_credential(f"{ACCESS_TOKEN}:{digest(ACCESS_TOKEN, 'T')}") is None
    with pytest.raises(NotFound):
        await registry.delete_device("acme", "d")


@pytest.mark.spec("G-17")
async def test_a_credential_that_is_taken_away_while_it_is_looked_up_is_nobodys(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await registry.put_device(Device(id="d", tenant="acme", name="d"), [token("old")])
    find = registry.find_device

    async def later(id: str) -> Device | None:
        monkeypatch.setattr(registry, "find_device", find)
        await registry.put_device(device, [token("new")])
        return await find(id)

    monkeypatch.setattr(registry, "find_device", later)
    assert await registry.find_credential(device.credentials[0]) is None


@pytest.mark.spec("CT-S14")
async def test_activation_undoes_no_other_change(registry: Registry) -> None:
    device = await registry.put_device(Device(id="d", tenant="acme", name="d"), [token("old")])
    changed = await registry.put_device(Device(id="d", tenant="acme", name="other", enabled=False), [token("new")])
    await registry.activate(device)
    found = await registry.find_device("d")
    assert found is not None
    assert (found.name, found.enabled, found.credentials) == ("other", False, changed.credentials)
    assert found.activated_ms
    await registry.activate(device)
    assert await registry.find_device("d") == found
    await registry.delete_device("acme", "d")
    await registry.activate(device)
    assert await registry.find_device("d") is None


async def test_tenants_see_their_own_devices_and_products_only(registry: Registry) -> None:
    await registry.put_device(Device(id="one", tenant="acme", name="d", external_id="X"))
    await registry.put_product(Product(id="p", tenant="acme"))
    for name in ("one", "d", "X"):
        with pytest.raises(NotFound):
            await registry.device("other", name)
    with pytest.raises(NotFound):
        await registry.product("other", "p")
    with pytest.raises(Conflict):
        await registry.put_product(Product(id="p", tenant="other"))
    with pytest.raises(NotFound):
        await registry.put_device(Device(id="two", tenant="other", name="e", product="p"))


async def test_devices_are_paged_by_name(registry: Registry) -> None:
    for n in range(25):
        await registry.put_device(Device(id="", tenant="acme", name=f"d{n:02}"))
    names: list[str] = []
    while page := await registry.devices("acme", limit=10, after=names[-1] if names else ""):
        names += [device.name for device in page]
    assert names == [f"d{n:02}" for n in range(25)]


async def test_every_change_is_told_with_a_running_number(registry: Registry, client: redis.Redis) -> None:
    async with client.pubsub() as heard:
        await heard.subscribe(CHANNEL)
        await registry.put_device(Device(id="one", tenant="acme", name="d"))
        await registry.put_secret("acme", "KEY", "v")
        told = []
        while len(told) < 2:
            message = await heard.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is not None:
                told.append(message["data"].decode().split(" ", 2))
    assert [what[1:] for what in told] == [["device", "one"], ["secret", "acme"]]
    assert int(told[1][0]) == int(told[0][0]) + 1
    assert await registry.secrets("acme") == {"KEY": "v"}


@pytest.mark.spec("TB-S32")
async def test_of_many_who_want_one_name_or_one_credential_at_once_one_gets_it(registry: Registry) -> None:
    async def make(name: str, value: str) -> Device | Conflict:
        try:
            return await registry.put_device(Device(id="", tenant="acme", name=name), [token(value)])
        except Conflict as error:
            return error

    for made in (
        await asyncio.gather(*[make("one", f"t{i}") for i in range(20)]),
        await asyncio.gather(*[make(f"n{i}", "secret") for i in range(20)]),
    ):
        winners = [each for each in made if isinstance(each, Device)]
        assert len(winners) == 1
        assert await registry.device("acme", winners[0].name) == winners[0]
    assert len(await registry.devices("acme")) == 2


async def test_changes_of_one_device_at_once_leave_no_stale_name(registry: Registry, client: redis.Redis) -> None:
    device = await registry.put_device(Device(id="d", tenant="acme", name="d"), [token("t")])
    rename = [registry.put_device(msgspec.structs.replace(device, name=f"n{i}")) for i in range(10)]
    await asyncio.gather(*rename, *[registry.put_device(device, [token(f"t{i}")]) for i in range(10)])
    now = await registry.device("acme", "d")
    assert await client.hgetall("rm:{reg}:names:acme") == {now.name.encode(): b"d"}
    tokens = [await client.hgetall(key) for key in await client.keys("rm:{reg}:tokens:*")]
    assert [list(each) for each in tokens] == [[now.credentials[0].encode()]]


@pytest.mark.spec("TB-S26")
async def test_a_device_has_one_owner_whatever_else_is_changed(registry: Registry) -> None:
    device = await registry.put_device(Device(id="d", tenant="acme", name="d", owner="nobody"))
    assert device.owner == ""

    async def claim(user: str) -> bool:
        try:
            return (await registry.set_owner("acme", "d", user, was="")).owner == user
        except Conflict:
            return False

    won = await asyncio.gather(*[claim(f"u{i}") for i in range(10)])
    assert sum(won) == 1
    owner = f"u{won.index(True)}"
    assert (await registry.put_device(msgspec.structs.replace(device, name="e"))).owner == owner
    with pytest.raises(NotFound):
        await registry.set_owner("other", "d", "u")
    assert (await registry.set_owner("acme", "d", "")).owner == ""


def provisioned(id: str, tenant: str = "acme", **facet: str) -> Product:
    return Product(id=id, tenant=tenant, facets={"provision": facet} if facet else {})


@pytest.mark.spec("TB-55", "TB-S32")
async def test_a_provisioning_key_leads_to_its_product_through_every_change(registry: Registry) -> None:
    made = await registry.put_product(provisioned("p", key="one", secret="s"))
    assert await registry.find_provision_key("one") == made
    for other in (provisioned("q", key="one"), provisioned("q", "other", key="one")):
        with pytest.raises(Conflict) as caught:
            await registry.put_product(other)
        assert "one" not in caught.value.reason
    made = await registry.put_product(provisioned("p", key="two", secret="s"))
    assert await registry.find_provision_key("one") is None
    assert await registry.find_provision_key("two") == made
    await registry.put_product(provisioned("q", "other", key="one"))
    await registry.put_product(provisioned("p"))
    assert await registry.find_provision_key("two") is None


@pytest.mark.spec("TB-S32")
async def test_a_credential_waits_for_its_device_until_it_was_told(registry: Registry, client: redis.Redis) -> None:
    await registry.put_product(provisioned("p", key="k", secret="s", strategy="check_pre_provisioned"))
    await registry.put_product(provisioned("q", key="l", secret="s", strategy="allow_new"))
    device = await registry.put_device(Device(id="", tenant="acme", name="d", product="p"), [token("one")])
    await registry.put_device(msgspec.structs.replace(device, enabled=False))
    await registry.put_device(device, [token("two")])
    assert await registry.take_handout(device.id) == token("two")
    assert await registry.take_handout(device.id) is None
    # Told once, it is not kept again.
    await registry.put_device(device, [token("three")])
    other = await registry.put_device(Device(id="", tenant="acme", name="e", product="q"), [token("four")])
    gone = await registry.put_device(Device(id="", tenant="acme", name="f", product="p"), [token("five")])
    await registry.delete_device("acme", gone.id)
    moved = await registry.put_device(Device(id="", tenant="acme", name="g", product="p"), [token("six")])
    await registry.put_device(msgspec.structs.replace(moved, product="q"))
    assert await registry.take_handout(other.id) is None
    assert await client.hgetall("rm:{reg}:handouts") == {}


async def test_devices_are_found_by_many_names_at_once_within_their_tenant(registry: Registry) -> None:
    await registry.put_tenant(Tenant(name="other"))
    for tenant, name in (("acme", "a"), ("acme", "b"), ("other", "a"), ("other", "c")):
        await registry.put_device(Device(id=f"{tenant}-{name}", tenant=tenant, name=name))
    found = await registry.find_names("acme", ["a", "b", "c", ""])
    assert {name: device.id for name, device in found.items()} == {"a": "acme-a", "b": "acme-b"}
    assert await registry.find_names("acme", []) == {}


async def test_a_gateway_has_the_children_that_name_it(registry: Registry) -> None:
    for id, parent in (("a", "g1"), ("b", "g1"), ("c", "g2"), ("d", "")):
        await registry.put_device(Device(id=id, tenant="acme", name=id, parent=parent))

    async def counts() -> list[int]:
        return [await registry.count_children(gateway) for gateway in ("g1", "g2")]

    assert await counts() == [2, 1]
    assert (await registry.set_parent("acme", "a", "g2")).parent == "g2"
    await registry.set_parent("acme", "d", "g1")
    assert await counts() == [2, 2]
    await registry.put_device(Device(id="b", tenant="acme", name="b"))
    await registry.delete_device("acme", "a")
    assert await counts() == [1, 1]
    with pytest.raises(NotFound):
        await registry.set_parent("other", "b", "g1")


async def test_what_no_chain_was_told_of_is_noted_until_it_was(registry: Registry) -> None:
    for id in ("a", "b", "c"):
        await registry.put_device(Device(id=id, tenant="acme", name=id), unannounced=id != "c")
    assert await registry.unannounced(["a", "b", "c", "nobody"]) == {"a", "b"}
    await registry.announced(["a"])
    await registry.delete_device("acme", "b")
    assert await registry.unannounced(["a", "b", "c"]) == set()
    assert await registry.unannounced([]) == set()


async def test_the_type_a_gateway_gave_stays_and_is_shown_before_the_product(registry: Registry) -> None:
    await registry.put_product(Product(id="p1", tenant="acme"))
    made = await registry.put_device(Device(id="a", tenant="acme", name="a", type="thermostat"))
    assert made.shown_type == "thermostat"
    changed = await registry.put_device(Device(id="a", tenant="acme", name="a", product="p1"))
    assert (changed.type, changed.shown_type) == ("thermostat", "thermostat")
    assert Device(id="b", tenant="acme", name="b", product="p1").shown_type == "p1"
    assert Device(id="b", tenant="acme", name="b").shown_type == "default"
