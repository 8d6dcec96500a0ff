"""The end of a batch: all of it or nothing, once, by the owner alone, whatever the wire loses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError

from engine import worker as worker_module
from engine.commit import Commit
from engine.leases import Owned
from engine.message import Message, now_ms
from engine.outcomes import Command, Outcomes, Write
from engine.partitions import Keys, all_keys
from engine.redis_scripts import COMMIT
from engine.wire import Wire
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import Do, Plans, Save, message, plan, until
from tests.faults.proxy import Proxy, proxied

pytestmark = pytest.mark.asyncio


class Partition:
    """One partition with a lease, and commits made by hand."""

    def __init__(self, url: str) -> None:
        self.wire = Wire(url, "test")
        self.client = redis.Redis.from_url(url)
        self.keys: Keys = all_keys(PARTITIONS)[0]
        self.owned = Owned(self.keys, "w1:1", True, 0)

    async def commit(self, *lines: tuple[Any, ...], next_id: bytes = b"") -> list[Any]:
        return (await self.wire.execute([Commit(self.owned, next_id, list(lines)).command()]))[0]


@pytest_asyncio.fixture
async def partition(redis_url: str) -> AsyncIterator[Partition]:
    made = Partition(redis_url)
    await made.client.set(made.keys.lease, "w1:1")
    yield made
    await made.wire.close()
    await made.client.aclose()


async def test_only_the_owner_commits(partition: Partition) -> None:
    await partition.client.set(partition.keys.lease, "w2:2")
    assert (await partition.commit(("SET", "x", "1")))[0] == b"fenced"
    await partition.client.delete(partition.keys.lease)
    assert (await partition.commit(("SET", "x", "1")))[0] == b"fenced"
    assert await partition.client.get("x") is None


async def test_a_repeat_does_nothing_and_a_gap_is_fenced(partition: Partition) -> None:
    assert (await partition.commit(("RPUSH", "x", "1")))[0] == b"ok"
    assert (await partition.commit(("RPUSH", "x", "1")))[0] == b"done"
    partition.owned.commit = 2
    assert (await partition.commit(("RPUSH", "x", "1")))[0] == b"fenced"
    partition.owned.commit = 1
    assert (await partition.commit(("RPUSH", "x", "2")))[0] == b"ok"
    assert await partition.client.lrange("x", 0, -1) == [b"1", b"2"]


async def test_a_commit_trims_what_it_finished_and_no_more(partition: Partition) -> None:
    ids = [await partition.client.xadd(partition.keys.inbox, {"m": b"x"}) for _ in range(5)]
    await partition.commit(next_id=ids[2])
    assert [id for id, _ in await partition.client.xrange(partition.keys.inbox)] == ids[2:]
    partition.owned.commit = 1
    await partition.commit()
    assert await partition.client.xlen(partition.keys.inbox) == 3


async def test_points_are_spooled_and_counted(partition: Partition) -> None:
    status, id = await partition.commit(("@points", b"12345"), ("@points", b"678"))
    assert status == b"ok"
    assert (await partition.client.xrange(partition.keys.points))[-1] == (id, {b"b": b"678"})
    assert await partition.client.get(partition.keys.spooled) == b"8"


async def test_commands_are_numbered_per_device_and_the_oldest_give_way(partition: Partition) -> None:
    key = partition.keys.commands("d")
    async with partition.client.pubsub() as bus:
        await bus.subscribe("rm:bus")
        queue = [("@command", key, "acme", "d", b"%d" % n, 4102444800000, 100) for n in range(130)]
        assert (await partition.commit(*queue))[0] == b"ok"
        heard = 0
        while heard < 130:
            heard += (await bus.get_message(timeout=5))["type"] == "message"
    held = await partition.client.hgetall(key)
    assert sorted(map(int, held)) == list(range(31, 131))
    assert held[b"130"] == b"129"
    assert await partition.client.pttl(key) > 0


async def test_a_commit_takes_thousands_of_commands_and_fields(partition: Partition) -> None:
    lines = [("HSET", "h", f"f{n}", b"x") for n in range(10_000)]
    assert (await partition.commit(*lines))[0] == b"ok"
    assert await partition.client.hlen("h") == 10_000


async def test_a_message_may_write_and_delete_more_fields_than_one_command_takes(bench: Bench) -> None:
    count = 20_000

    def write(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        value = b"1" if m.data["set"] else None
        for n in range(count):
            out.effect(i, Write("attr", f"f{n}", value))
        out.emit(i, "Success", m)

    await bench.work(plan(("write", Do(write), {})))
    key = bench.keys("d").state("attr", "d")
    await bench.ingress.submit([message("d", {"set": True})])
    await until(bench.drained)
    assert await bench.client.hlen(key) == count
    await bench.ingress.submit([message("d", {"set": False})])
    await until(bench.drained)
    assert await bench.client.hlen(key) == 0


def counting(counts: Counter[int]) -> Plans:
    """A chain that counts each message in the device's state: an effect that shows when it happens twice."""

    async def count(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        counts[m.data["n"]] += 1
        await ctx.load([(m.originator, "attr", "n")])
        seen = int(ctx.get(m.originator, "attr", "n") or 0)
        out.effect(i, Write("attr", "n", b"%d" % (seen + 1)))
        out.emit(i, "Success", m)

    return Plans(plan(("count", Do(count), {"Success": ["save"]}), ("save", Save(), {}), rounds=True))


@pytest.mark.parametrize("marker", [COMMIT.sha.encode(), b"XREAD", b"HMGET"])
async def test_a_lost_reply_makes_no_effect_happen_twice(bench: Bench, tmp_path: Path, marker: bytes) -> None:
    ran: Counter[int] = Counter()
    async with proxied(bench.url, tmp_path) as (proxy, url):
        await bench.work(counting(ran), url=url)
        for n in range(40):
            if n % 8 == 0:
                proxy.lose_reply_to(marker)
            await bench.ingress.submit([message("d", {"n": n})])
            await until(bench.drained)
        assert proxy.dropped >= 4
        assert await bench.client.hget(bench.keys("d").state("attr", "d"), "n") == b"40"
        assert sorted(ran) == list(range(40))
        assert await bench.dead.list("acme") == []
        await _stop(bench)


async def _stop(bench: Bench) -> None:
    """End the workers while what they speak through is still there."""
    while bench.workers:
        await bench.workers.pop().stop()


async def test_nothing_is_lost_or_doubled_while_the_connection_breaks_all_the_time(
    bench: Bench, tmp_path: Path
) -> None:
    ran: Counter[int] = Counter()
    stop = asyncio.Event()

    async def trouble(proxy: Proxy) -> None:
        while not stop.is_set():
            await asyncio.sleep(0.15)
            proxy.cut()
            await asyncio.sleep(0.05)
            proxy.open = True

    async with proxied(bench.url, tmp_path) as (proxy, url):
        await bench.work(counting(ran), url=url)
        cutting = asyncio.create_task(trouble(proxy))
        for n in range(200):
            await bench.ingress.submit([message(f"d{n % 5}", {"n": n})])
            await asyncio.sleep(0.01)
        stop.set()
        await cutting
        await until(bench.drained, 30)
        states = [await bench.client.hget(bench.keys(f"d{n}").state("attr", f"d{n}"), "n") for n in range(5)]
        assert states == [b"40"] * 5
        assert await bench.dead.list("acme") == []
        await _stop(bench)


async def test_a_read_that_fails_beside_a_commit_does_not_commit_again(bench: Bench) -> None:
    """The commit and the next read travel together; an error of the read says nothing against the commit."""

    def order(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        out.effect(i, Command("turn", m.data, now_ms() + 60_000))
        out.emit(i, "Success", m)

    worker = await bench.work(plan(("order", Do(order), {})))
    broken = 0
    entries, batch = worker._entries, worker._batch

    def fail(reply: Any) -> Any:
        nonlocal broken
        broken += 1
        worker._entries = entries
        raise RedisConnectionError("read refused")

    async def arm(found: Any) -> Any:
        worker._entries = fail
        return await batch(found)

    worker._batch = arm
    for n in range(3):
        await bench.ingress.submit([message("d", {"n": n})])
        await until(bench.drained)
        await until(lambda n=n: broken == n + 1)
    waiting = await until(lambda: bench.commands.undelivered("acme", "d"))
    await asyncio.sleep(0.1)
    waiting = await bench.commands.undelivered("acme", "d")
    assert [entry.command.payload["n"] for entry in waiting] == [0, 1, 2]


async def test_a_batch_stays_bounded_when_a_backlog_comes_after_quiet_times(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be in hand is what a recovery looks through: a backlog must not make a batch beyond it."""
    monkeypatch.setattr(worker_module, "MAX_BATCH", 500)
    sizes: list[int] = []
    order: dict[str, list[int]] = {}

    class Noting(Save):
        async def process(self, batch: Any, out: Outcomes, ctx: Any) -> None:
            sizes.append(len(batch))
            for i, m in enumerate(batch):
                order.setdefault(m.originator, []).append(m.data["n"])
                out.discard(i)

    plans = Plans(plan(("note", Noting(), {})))
    worker = await bench.work(plans)
    for n in range(30):
        await bench.ingress.submit([message("quiet", {"n": n})])
    await until(bench.drained)
    blocked = asyncio.Event()
    released = asyncio.Event()
    run = worker._batch

    async def slow(entries: Any) -> Any:
        blocked.set()
        await released.wait()
        return await run(entries)

    worker._batch = slow
    await bench.ingress.submit([message("quiet", {"n": 30})])
    await blocked.wait()
    for n in range(100):
        await bench.ingress.submit([message(f"d{d}", {"n": n}) for d in range(60)])
    released.set()
    await until(bench.drained, 20)
    assert max(sizes) <= 500 + 100
    assert order["quiet"] == list(range(31))
    assert all(order[f"d{d}"] == list(range(100)) for d in range(60))
