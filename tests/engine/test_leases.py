"""Leases: one owner at a time, fences that only grow, and no partition that nobody works on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as redis

from engine import leases as module
from engine.leases import Leases, give_back
from engine.message import Message
from engine.outcomes import Outcomes
from engine.partitions import Keys, all_keys
from engine.redis_scripts import LEASE
from engine.wire import Wire
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import Do, Plans, Save, message, plan, until
from tests.faults.proxy import proxied

pytestmark = pytest.mark.asyncio


class Script:
    """lease.lua on one partition."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.keys: Keys = all_keys(PARTITIONS)[0]

    async def __call__(self, what: str, who: str, life_ms: int = 10_000) -> Any:
        k = self.keys
        return await self.client.eval(LEASE.text, 4, k.lease, k.fence, k.clean, k.commit, what, who, life_ms)


@pytest_asyncio.fixture
async def lease(redis_url: str) -> AsyncIterator[Script]:
    made = Script(redis_url)
    yield made
    await made.client.aclose()


async def test_a_partition_has_one_owner(lease: Script) -> None:
    assert await lease("take", "w1") == [1, b"1", 0]
    assert await lease("take", "w2") == []
    assert await lease("renew", "w2:1") == 0
    assert await lease("release", "w2:1") == 0
    assert await lease("renew", "w1:1") == 1


async def test_who_gives_back_in_order_spares_the_next_one_a_recovery(lease: Script) -> None:
    await lease("take", "w1")
    assert await lease("release", "w1:1") == 1
    assert await lease("take", "w2") == [2, b"1", 0]


async def test_a_lease_that_ran_out_is_a_death(lease: Script) -> None:
    await lease("take", "w1", 1)
    await until(lambda: _gone(lease))
    assert await lease("renew", "w1:1") == 0
    assert await lease("release", "w1:1") == 0, "a stale owner must not call its end orderly"
    assert (await lease("take", "w2"))[:2] == [2, b"0"]
    await lease("release", "w2:2")
    assert (await lease("take", "w1"))[:2] == [3, b"1"]


async def _gone(lease: Script) -> bool:
    return not await lease.client.exists(lease.keys.lease)


async def test_the_number_of_the_last_commit_comes_with_the_lease(lease: Script) -> None:
    await lease.client.set(lease.keys.commit, 41)
    assert await lease("take", "w1") == [1, b"1", 41]


async def test_a_parent_gives_back_its_dead_workers_partitions_and_no_others(redis_url: str) -> None:
    wire = Wire(redis_url, "test")
    one, other = (Leases(redis_url, name, PARTITIONS, wire) for name in ("w1", "w1-b"))
    assert len(await one.take([0, 1])) == 2
    assert len(await other.take([1, 2])) == 1
    assert await asyncio.to_thread(give_back, redis_url, "w1", PARTITIONS) == 2
    assert [owned.clean for owned in await other.take([0, 1, 2])] == [False, False]
    await wire.close()


async def test_a_loop_that_stands_still_keeps_its_leases(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script may hold the loop for longer than a lease lives: renewal has a thread of its own."""
    monkeypatch.setattr(module, "LIFE_MS", 400)
    monkeypatch.setattr(module, "RENEW_EVERY_S", 0.1)
    ran: list[int] = []

    def hold(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        ran.append(m.data["n"])
        time.sleep(1.0)
        out.discard(i)

    worker = await bench.work(plan(("hold", Do(hold), {})))
    await bench.ingress.submit([message("d", {"n": 1})])
    await until(bench.drained)
    assert ran == [1]
    assert len(worker._owned) == PARTITIONS


async def test_a_broken_connection_during_take_over_leaves_no_partition_behind(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIFE_MS", 1500)
    monkeypatch.setattr(module, "RENEW_EVERY_S", 0.3)
    async with proxied(bench.url, tmp_path) as (proxy, url):
        proxy.lose_reply_to(b"HGETALL")
        worker = await bench.work(Plans(plan(("save", Save(), {}))), url=url)
        await until(lambda: proxy.dropped)
        await until(lambda: len(worker._owned) == PARTITIONS)
        await bench.ingress.submit([message(f"d{n}", {"n": n}) for n in range(20)])
        await until(bench.drained)
        await bench.workers.pop().stop()


async def test_workers_that_come_and_go_share_all_partitions(bench: Bench) -> None:
    plans = Plans(plan(("save", Save(), {})))
    first = await bench.work(plans)
    second = await bench.work(plans, name="w2")
    third = await bench.work(plans, name="w3")
    await until(lambda: _shares(first, second, third))
    bench.workers.remove(second)
    await second.stop()
    await until(lambda: len(first._owned) + len(third._owned) == PARTITIONS)
    owned = {owned.keys.number: owned.clean for w in (first, third) for owned in w._owned.values()}
    assert owned == dict.fromkeys(range(PARTITIONS), True)


def _shares(*workers: Any) -> bool:
    shares = [len(one._owned) for one in workers]
    return sum(shares) == PARTITIONS and max(shares) <= 2
