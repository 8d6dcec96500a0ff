"""Devices from memory: found, forgotten at every change, and never believed when the registry cannot be heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis.asyncio as redis

from api import auth as auth_module
from api.auth import UNKNOWN, DeviceAuth, token_print
from engine.node import Product
from engine.stores.register import SEQUENCE
from engine.stores.registry import ACCESS_TOKEN, Credential, Device, Tenant
from engine.stores.registry_store import Registry
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

PRINT = token_print(ACCESS_TOKEN, "T1")
OTHER = token_print(ACCESS_TOKEN, "T2")


class Site:
    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url)
        self.registry = Registry(self.redis)
        self.auth = DeviceAuth(self.registry, url, most=3)
        self.told: list[str] = []

    async def put(self, name: str, *tokens: str, **fields: Any) -> Device:
        credentials = [Credential(kind=ACCESS_TOKEN, value=token) for token in tokens]
        return await self.registry.put_device(Device(id=name, tenant="acme", name=name, **fields), credentials)


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    made = Site(redis_url)
    await made.registry.put_tenant(Tenant(name="acme"))
    await made.put("d1", "T1")
    await made.auth.start()
    made.auth.on_change(made.told.append)
    yield made
    await made.auth.stop()
    await made.redis.aclose()


async def test_a_device_is_known_after_it_was_found(site: Site) -> None:
    assert site.auth.known(PRINT) is UNKNOWN
    found = await site.auth.find(PRINT)
    assert found is not None
    assert found.name == "d1"
    assert site.auth.known(PRINT) is found
    assert await site.auth.by_id("d1") is found
    assert await site.auth.by_id("nobody") is None


async def test_a_stranger_is_remembered_until_anything_changes(site: Site) -> None:
    assert await site.auth.find(OTHER) is None
    assert site.auth.known(OTHER) is None
    await site.put("d2", "T2")
    await until(lambda: site.auth.known(OTHER) is UNKNOWN)
    assert (await site.auth.find(OTHER)).name == "d2"


async def test_changes_and_deletions_are_seen(site: Site) -> None:
    for change in (
        lambda: site.put("d1", "T1", enabled=False),
        lambda: site.put("d1", "T2"),
        lambda: site.registry.delete_device("acme", "d1"),
    ):
        await site.auth.find(PRINT)
        await site.auth.by_id("d1")
        site.told.clear()
        await change()
        await until(lambda: site.told == ["d1"])
        assert site.auth.known(PRINT) is UNKNOWN
        device = await site.registry.find_device("d1")
        assert await site.auth.by_id("d1") == device
        assert await site.auth.find(PRINT) == (device if device and PRINT in device.credentials else None)


async def test_memory_is_bounded(site: Site) -> None:
    for i in range(10):
        await site.put(f"e{i}", f"E{i}")
    await asyncio.sleep(0.1)
    prints = [token_print(ACCESS_TOKEN, f"{kind}{i}") for kind in "EX" for i in range(10)]
    for print_ in prints:
        await site.auth.find(print_)
    assert [site.auth.known(print_) is UNKNOWN for print_ in prints] == ([True] * 7 + [False] * 3) * 2


async def test_a_change_that_was_not_told_is_noticed_by_its_number(site: Site) -> None:
    await site.auth.find(PRINT)
    await site.redis.incr(SEQUENCE)  # and its announcement is lost
    await until(lambda: site.auth.known(PRINT) is UNKNOWN, 3)
    assert "" in site.told
    await site.auth.find(PRINT)
    await asyncio.sleep(1.3)
    assert site.auth.known(PRINT) is not UNKNOWN


async def test_a_gap_in_what_is_told_is_noticed_at_once(site: Site) -> None:
    await site.auth.find(PRINT)
    await site.redis.incr(SEQUENCE)
    await site.registry.put_tenant(Tenant(name="other"))
    await until(lambda: site.auth.known(PRINT) is UNKNOWN, 0.4)
    assert site.told == [""]


async def test_a_break_of_the_connection_forgets_everything(site: Site) -> None:
    await site.auth.find(PRINT)
    for client in await site.redis.client_list():
        if client["name"] == "auth-changes":
            await site.redis.client_kill_filter(_id=client["id"])
    await until(lambda: "" in site.told, 3)
    assert site.auth.known(PRINT) is UNKNOWN
    await site.put("d1", "T1", enabled=False)
    await until(lambda: "d1" in site.told, 3)
    assert (await site.auth.find(PRINT)).enabled is False


async def test_silence_forgets_everything(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.auth.find(PRINT)
    await site.auth._beats.stop()
    monkeypatch.setattr(auth_module, "SILENCE_S", 0.05)
    await asyncio.sleep(0.1)
    assert site.auth.known(PRINT) is UNKNOWN
    assert (await site.auth.find(PRINT)).name == "d1"
    assert site.auth.known(PRINT) is UNKNOWN


async def test_what_was_read_before_a_change_is_not_remembered_after(site: Site, monkeypatch: Any) -> None:
    read = site.registry.find_credential

    async def slow(print_: str) -> Device | None:
        device = await read(print_)
        await site.put("d1", "T1", enabled=False)
        await until(lambda: site.told == ["d1"])
        return device

    monkeypatch.setattr(site.registry, "find_credential", slow)
    assert (await site.auth.find(PRINT)).enabled
    assert site.auth.known(PRINT) is UNKNOWN
    monkeypatch.undo()
    assert (await site.auth.find(PRINT)).enabled is False


async def test_every_credential_of_a_device_is_forgotten_with_it(site: Site) -> None:
    await site.put("d1", "T1", "T2")
    await until(lambda: site.told == ["d1"])
    for print_ in (PRINT, OTHER):
        await site.auth.find(print_)
    await site.registry.put_device(msgspec.structs.replace(await site.registry.device("acme", "d1"), enabled=False))
    await until(lambda: site.told == ["d1", "d1"])
    assert [site.auth.known(print_) for print_ in (PRINT, OTHER)] == [UNKNOWN, UNKNOWN]


async def test_a_credential_is_not_remembered_longer_than_its_device(site: Site) -> None:
    for i in range(3):
        await site.put(f"e{i}", f"E{i}")
    await until(lambda: len(site.told) == 3)
    await site.auth.find(PRINT)
    for i in range(3):
        await site.auth.by_id(f"e{i}")  # which pushes the device of PRINT out
    await site.registry.delete_device("acme", "d1")
    await until(lambda: site.told[-1] == "d1")
    assert await site.auth.find(PRINT) is None


async def test_a_replaced_credential_is_forgotten_although_the_change_was_read_before_it_was_told(site: Site) -> None:
    await site.auth.find(PRINT)
    await site.auth._beats.stop()
    await site.auth._subscriber.stop()
    await site.put("d1", "T2")
    await site.auth.find(OTHER)
    site.auth._change("", b"%d device d1" % int(await site.redis.get(SEQUENCE)))
    assert site.auth.known(PRINT) is UNKNOWN


async def test_names_are_known_within_their_tenant_until_the_device_changes(site: Site) -> None:
    await site.registry.put_tenant(Tenant(name="other"))
    theirs = await site.registry.put_device(Device(id="x1", tenant="other", name="d1"))
    mine = await site.registry.find_device("d1")
    assert site.auth.known_name("acme", "d1") is UNKNOWN
    assert await site.auth.find_names("acme", ["d1", "nobody"]) == {"d1": mine}
    assert await site.auth.find_names("other", ["d1"]) == {"d1": theirs}
    assert await site.auth.find_names("nobody", ["d1"]) == {}
    assert (site.auth.known_name("acme", "d1"), site.auth.known_name("other", "d1")) == (mine, theirs)
    await site.registry.put_device(msgspec.structs.replace(mine, name="renamed"))
    await until(lambda: site.auth.known_name("acme", "d1") is UNKNOWN)
    assert site.auth.known_name("other", "d1") == theirs
    renamed = await site.registry.find_device("d1")
    assert await site.auth.find_names("acme", ["d1", "renamed"]) == {"renamed": renamed}
    await site.registry.delete_device("acme", "d1")
    await until(lambda: site.auth.known_name("acme", "renamed") is UNKNOWN)
    site.auth._lost()
    assert site.auth.known_name("other", "d1") is UNKNOWN


async def test_names_are_not_remembered_longer_than_their_devices(site: Site) -> None:
    for i in range(5):
        await site.put(f"n{i}")
        await site.auth.find_names("acme", [f"n{i}"])
    known = [site.auth.known_name("acme", f"n{i}") is not UNKNOWN for i in range(5)]
    assert known == [False, False, True, True, True]


async def test_products_are_known_to_their_tenant_until_they_change(site: Site) -> None:
    assert site.auth.known_product("acme", "p1") is UNKNOWN
    assert await site.auth.find_product("acme", "p1") is None
    assert site.auth.known_product("acme", "p1") is None
    first = await site.registry.put_product(Product(id="p1", tenant="acme"))
    await until(lambda: site.auth.known_product("acme", "p1") is UNKNOWN)
    assert await site.auth.find_product("acme", "p1") == first
    assert site.auth.known_product("acme", "p1") == first
    assert site.auth.known_product("other", "p1") is None
    assert await site.auth.find_product("other", "p1") is None
    second = await site.registry.put_product(Product(id="p1", tenant="acme", facets={"payload": "json"}))
    await until(lambda: site.auth.known_product("acme", "p1") is UNKNOWN)
    assert await site.auth.find_product("acme", "p1") == second
    site.auth._lost()
    assert site.auth.known_product("acme", "p1") is UNKNOWN
