"""What is assigned to whom, and which work is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
import redis.asyncio as redis

from engine.node import Product
from engine.stores.registry import Device, Tenant
from engine.stores.registry_store import Registry
from engine.stores.rollouts import ASSIGNED, DUE, Assignment, Rollout, Rollouts
from tests.services import start_redis

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    made = redis.Redis.from_url(redis_url)
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def registry(client: redis.Redis) -> Registry:
    made = Registry(client)
    await made.put_tenant(Tenant(name="acme"))
    for id in ("p", "q"):
        await made.put_product(Product(id=id, tenant="acme"))
    return made


@pytest.fixture
def rollouts(client: redis.Redis) -> Rollouts:
    return Rollouts(client)


@pytest.mark.spec("TB-S36", "TB-S38")
async def test_a_devices_own_image_counts_more_than_its_products(rollouts: Rollouts) -> None:
    assert await rollouts.of_device("d", "p") == {}
    await rollouts.assign_product("acme", "p", "FIRMWARE", "v1")
    await rollouts.assign_product("acme", "p", "SOFTWARE", "s1")
    await rollouts.assign_device("d", "p", "FIRMWARE", "v2")
    assert await rollouts.of_device("d", "p") == {
        "FIRMWARE": Assignment("v2", True),
        "SOFTWARE": Assignment("s1", False),
    }
    assert await rollouts.of_device("e", "p") == {
        "FIRMWARE": Assignment("v1", False),
        "SOFTWARE": Assignment("s1", False),
    }
    # In another product, what it was assigned there is none of its images.
    assert await rollouts.of_device("d", "q") == {}
    assert await rollouts.of_device("d", "") == {}
    assert await rollouts.of_product("p") == {"FIRMWARE": "v1", "SOFTWARE": "s1"}
    assigned = [await rollouts.is_assigned("p", image) for image in ("v1", "v2", "s1", "v3")]
    assert (assigned, await rollouts.is_assigned("q", "v2")) == ([True, True, True, False], False)
    await rollouts.assign_device("d", "p", "FIRMWARE", "")
    await rollouts.assign_product("acme", "p", "SOFTWARE", "")
    assert await rollouts.of_device("d", "p") == {"FIRMWARE": Assignment("v1", False)}


async def test_a_newer_rollout_takes_the_place_of_an_older(rollouts: Rollouts) -> None:
    first = await rollouts.assign_product("acme", "p", "FIRMWARE", "v1")
    assert await rollouts.save(msgspec.structs.replace(first, scanned=3))
    second = await rollouts.assign_product("acme", "p", "FIRMWARE", "v2")
    assert not await rollouts.save(msgspec.structs.replace(first, scanned=4))
    assert await rollouts.of("p") == [second]
    other = await rollouts.assign_product("acme", "p", "SOFTWARE", "s1")
    assert sorted(each.kind for each in await rollouts.all()) == ["FIRMWARE", "SOFTWARE"]
    assert await asyncio.gather(rollouts.save(second), rollouts.save(other)) == [True, True]


async def test_all_devices_come_up(rollouts: Rollouts, registry: Registry) -> None:
    made = {(await registry.put_device(Device(id="", tenant="acme", name=f"n{i}"))).id for i in range(700)}
    rollout = await rollouts.assign_product("acme", "p", "FIRMWARE", "v1")
    assert rollout.of == 700
    seen: set[str] = set()
    while True:
        rollout, ids = await rollouts.devices(rollout, 50)
        seen |= set(ids)
        if not rollout.cursor:
            break
    assert seen == made


async def test_all_devices_come_up_though_redis_is_started_anew(tmp_path: Path) -> None:
    made = {f"name {i}": f"id {i}" for i in range(1500)}
    seen: set[str] = set()

    async def go_on(url: str, known: Rollout | None, most: int) -> Rollout:
        """The rollout after so many devices, or at its end, as somebody finds it who has to go on with it."""
        async with redis.Redis.from_url(url) as client:
            rollouts = Rollouts(client)
            if known is None:
                await client.hset("rm:{reg}:names:acme", mapping=made)
                await rollouts.assign_product("acme", "p", "FIRMWARE", "v1")
            (rollout,) = await rollouts.of("p")
            while True:
                rollout, ids = await rollouts.devices(rollout, 50)
                assert await rollouts.save(rollout)
                seen.update(ids)
                if len(seen) >= most or not rollout.cursor:
                    return rollout

    process, url = start_redis(tmp_path, appendonly=True)
    try:
        left = await go_on(url, None, 600)
        assert (left.cursor > 0, left.scanned) == (True, len(seen))
        process.kill()
        process.wait()
        (tmp_path / "redis.sock").unlink()
        process, url = start_redis(tmp_path, appendonly=True)
        done = await go_on(url, left, len(made) + 1)
    finally:
        process.kill()
        process.wait()
    assert seen == set(made.values())
    assert (done.cursor, done.scanned >= len(made)) == (0, True)


async def test_devices_are_due_when_they_are_made_moved_or_assigned_something(
    rollouts: Rollouts, registry: Registry, client: redis.Redis
) -> None:
    async def due() -> list[str]:
        ids = sorted(await rollouts.take_due(10))
        if ids:
            await rollouts.done(ids)
        return ids

    device = await registry.put_device(Device(id="d", tenant="acme", name="d", product="p"))
    await registry.put_device(Device(id="e", tenant="acme", name="e"))
    assert await due() == ["d"]
    await registry.put_device(msgspec.structs.replace(device, name="renamed"))
    assert await due() == []
    for product in ("q", ""):
        await registry.put_device(msgspec.structs.replace(device, product=product))
        assert await due() == ["d"]
    await rollouts.assign_device("e", "p", "FIRMWARE", "v1")
    await registry.delete_device("acme", "e")
    assert (await due(), await client.hgetall(ASSIGNED)) == ([], {})


async def test_what_was_in_hand_when_somebody_died_is_due_again(rollouts: Rollouts, client: redis.Redis) -> None:
    await client.sadd(DUE, "a", "b", "c")
    taken = await rollouts.take_due(2)
    assert len(taken) == 2
    await client.sadd(DUE, taken[0])  # due anew while it is in hand
    await rollouts.done(taken)
    assert sorted(await rollouts.take_due(5)) == sorted({"a", "b", "c"} - {taken[1]})
    await rollouts.take_back()
    assert sorted(await rollouts.take_due(5)) == sorted({"a", "b", "c"} - {taken[1]})
