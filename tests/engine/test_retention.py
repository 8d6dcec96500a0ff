"""Points are kept for as many days as their product says, and no deletion is lost or done twice for nothing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as redis

from engine import retention
from engine.errors import StoreUnavailable, Unsupported
from engine.housekeeping import TURN_KEY, Housekeeping
from engine.message import Point, now_ms
from engine.node import Product
from engine.retention import DAY_MS, FACET, Retention, Sweep, last_sweep
from engine.stores.memory import MemoryTimeseries
from engine.stores.registry import Device, Tenant
from engine.stores.registry_store import Registry
from engine.wire import Wire

pytestmark = pytest.mark.asyncio


class Store(MemoryTimeseries):
    """Notes what is deleted, and fails when told."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[list[str]] = []
        self.error: Exception | None = None

    async def delete(
        self, tenant: str, devices: Sequence[str], keys: Sequence[str] | None, start_ms: int, end_ms: int
    ) -> None:
        if self.error is not None:
            raise self.error
        self.deleted.append(sorted(devices))
        await super().delete(tenant, devices, keys, start_ms, end_ms)


class House:
    """A registry, a store, and sweeps over them."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.wire = Wire(url, "test")
        self.registry = Registry(self.client)
        self.store = Store()
        self.turns = 0

    async def product(self, id: str, days: Any) -> None:
        facets = {} if days is None else {FACET: days}
        await self.registry.put_product(Product(id=id, tenant="t", facets=facets))

    async def device(self, name: str, product: str = "", tenant: str = "t") -> None:
        """A device with a point of each of the last 10 days, half a day off."""
        made = await self.registry.put_device(Device(id="", tenant=tenant, name=name, product=product))
        at = now_ms() - DAY_MS // 2
        await self.store.write([Point(tenant, made.id, "k", at - day * DAY_MS, day) for day in range(10)])

    async def days(self, name: str, tenant: str = "t") -> int:
        """How many days of points a device has."""
        device = await self.registry.device(tenant, name)
        return len((await self.store.range(tenant, [device.id], None, 0, 2**53)).points)

    async def sweep(self, default_days: int = 0) -> Sweep | None:
        return await Retention(self.wire, self.registry, self.store, default_days).sweep(self._turn)

    async def _turn(self) -> None:
        self.turns += 1


@pytest_asyncio.fixture
async def house(redis_url: str) -> AsyncIterator[House]:
    made = House(redis_url)
    await made.registry.put_tenant(Tenant(name="t"))
    await made.store.open()
    yield made
    await made.wire.close()
    await made.client.aclose()


async def test_each_product_has_its_own_time(house: House) -> None:
    await house.product("week", 7)
    await house.product("ever", 0)
    await house.product("none", None)
    for name, product in (("a", "week"), ("b", "ever"), ("c", "none"), ("d", "")):
        await house.device(name, product)
    made = await house.sweep()
    assert made is not None
    assert (made.looked_at, made.devices, made.problem) == (4, 1, "")
    assert {name: await house.days(name) for name in "abcd"} == {"a": 7, "b": 10, "c": 10, "d": 10}
    await house.sweep(default_days=3)
    assert {name: await house.days(name) for name in "abcd"} == {"a": 7, "b": 10, "c": 3, "d": 3}


async def test_nothing_is_looked_at_where_everything_is_kept(house: House) -> None:
    await house.device("a")
    assert await house.sweep() is None
    assert await last_sweep(house.wire) is None
    await house.product("p", 1)
    await house.sweep()
    assert await last_sweep(house.wire) is not None
    await house.product("p", 0)
    assert await house.sweep() is None
    assert await last_sweep(house.wire) is None


async def test_a_sweep_a_day_and_one_when_the_rules_change(house: House) -> None:
    await house.product("p", 5)
    await house.device("a", "p")
    assert await house.sweep() is not None
    assert await house.sweep() is None
    await house.product("p", 2)
    assert await house.sweep() is not None
    assert await house.days("a") == 2
    last = await last_sweep(house.wire)
    assert last is not None
    last.began_ms -= DAY_MS
    await house.wire.execute([("SET", retention.STATE_KEY, retention.encode(last))])
    # Everything is deleted that a day more has made old, and nothing is asked of the store where nothing is.
    house.store.deleted.clear()
    assert await house.sweep() is not None
    assert house.store.deleted == []


async def test_an_interrupted_sweep_goes_on_where_it_was(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    monkeypatch.setattr(retention, "PAGE", 3)
    await house.registry.put_tenant(Tenant(name="u"))
    for name in "abcde":
        await house.device(name)
        await house.device(name, tenant="u")

    async def fail_at_third() -> None:
        house.turns += 1
        if house.turns == 3:
            house.store.error = StoreUnavailable("the store is away")

    interrupted = await Retention(house.wire, house.registry, house.store, 4).sweep(fail_at_third)
    assert interrupted is not None
    assert (interrupted.ended_ms, interrupted.problem, interrupted.looked_at) == (0, "the store is away", 5)
    house.store.error = None
    done = len(house.store.deleted)
    made = await house.sweep(default_days=4)
    assert made is not None
    assert (made.began_ms, made.looked_at, made.devices, made.problem) == (interrupted.began_ms, 10, 10, "")
    assert made.ended_ms > 0
    assert [await house.days(name, tenant) for tenant in "tu" for name in "abcde"] == [4] * 10
    swept = [id for ids in house.store.deleted for id in ids]
    assert (len(swept), len(set(swept)), done) == (10, 10, 3)


async def test_a_store_that_cannot_delete_is_told_of(house: House, caplog: pytest.LogCaptureFixture) -> None:
    await house.device("a")
    house.store.error = Unsupported("this store keeps everything")
    with caplog.at_level(logging.WARNING):
        made = await house.sweep(default_days=1)
    assert made is not None
    assert made.problem == "this store keeps everything"
    assert await house.sweep(default_days=1) is None
    assert [record.message for record in caplog.records] == [
        "retention: points are kept longer than they shall be: this store keeps everything"
    ]
    assert await house.days("a") == 10


async def test_facets_of_another_time_delete_nothing(house: House) -> None:
    await house.product("p", "soon")
    await house.product("q", 1)
    await house.device("a", "p")
    await house.sweep(default_days=1)
    assert await house.days("a") == 10


async def test_housekeeping_sweeps_when_it_has_the_turn(house: House) -> None:
    await house.product("p", 1)
    await house.device("a", "p")

    async def tenants() -> list[str]:
        return ["t"]

    house_keeping = Housekeeping(house.wire, 4, tenants, Retention(house.wire, house.registry, house.store, 0))
    await house.client.set(TURN_KEY, "another's")
    await house_keeping._turn()
    assert await house.days("a") == 10
    await house.client.delete(TURN_KEY)
    await house_keeping._turn()
    assert await house.days("a") == 1
