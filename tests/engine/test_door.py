"""The door: closes where there is no room left, says so, and opens again with some room to spare."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio as redis

from engine.door import BEHIND, COME_BACK_S, FULL, UNREACHABLE, Door
from engine.errors import Refused
from engine.ingress import Ingress
from engine.partitions import all_keys
from engine.wire import Wire
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import message

pytestmark = pytest.mark.asyncio

LIMIT = 1000


@pytest_asyncio.fixture
async def door(bench: Bench) -> AsyncIterator[Door]:
    made = Door(bench.wire, PARTITIONS, bench.ingress, LIMIT)
    yield made
    await made.stop()


async def spool(client: redis.Redis, *sizes: int) -> None:
    for keys, size in zip(all_keys(PARTITIONS), sizes, strict=False):
        await client.set(keys.spooled, size)


async def test_a_spool_over_its_quota_closes_until_it_has_drained_well_below(bench: Bench, door: Door) -> None:
    await spool(bench.client, 400, 600)
    await door.look()
    assert bench.ingress.closed_reason == ""
    await spool(bench.client, 400, 601)
    await door.look()
    assert bench.ingress.closed_reason == BEHIND
    with pytest.raises(Refused, match=BEHIND) as refused:
        await bench.ingress.submit([message("d", {"n": 1})])
    assert refused.value.retry_after_s == COME_BACK_S
    for sizes, reason in (((400, 599), BEHIND), ((801, 0), BEHIND), ((800, 0), ""), ((400, 600), "")):
        await spool(bench.client, *sizes)
        await door.look()
        assert bench.ingress.closed_reason == reason
    await bench.ingress.submit([message("d", {"n": 1})])


async def test_memory_closes_before_commits_have_no_room(bench: Bench, door: Door) -> None:
    used = (await bench.client.info("memory"))["used_memory"]
    try:
        await bench.client.config_set("maxmemory", int(used / 0.9))
        await door.look()
        assert bench.ingress.closed_reason == FULL
        await bench.client.config_set("maxmemory", int(used * 10))
        await door.look()
        assert bench.ingress.closed_reason == ""
    finally:
        await bench.client.config_set("maxmemory", 0)


async def test_a_redis_out_of_reach_closes_and_its_return_opens(bench: Bench) -> None:
    wire = Wire("unix:///nonexistent/redis.sock", "door")
    lost = Door(wire, PARTITIONS, bench.ingress, LIMIT)
    await lost.look()
    assert bench.ingress.closed_reason == UNREACHABLE
    assert bench.ingress.closed_for_s == 1
    await Door(bench.wire, PARTITIONS, bench.ingress, LIMIT).look()
    assert bench.ingress.closed_reason == ""


async def test_a_count_that_cannot_be_read_closes_too(bench: Bench, door: Door) -> None:
    await bench.client.rpush(all_keys(PARTITIONS)[0].spooled, "not a count")
    await door.look()
    assert bench.ingress.closed_reason == UNREACHABLE


async def test_doors_of_other_processes_see_the_same(bench: Bench) -> None:
    other = Ingress(bench.wire, PARTITIONS)
    await spool(bench.client, 2000)
    for ingress in (bench.ingress, other):
        await Door(bench.wire, PARTITIONS, ingress, LIMIT).look()
        assert ingress.closed_reason == BEHIND
