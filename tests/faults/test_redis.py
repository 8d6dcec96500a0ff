"""Redis full, frozen, killed, or with nothing left in it: refused or kept, never half, and going on afterwards."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine import ingress, wire
from engine.errors import Refused, Unconfirmed
from engine.message import Message
from engine.outcomes import Outcomes, Write
from engine.wire import Wire
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import Delay, Do, Plans, Save, message, plan, until
from tests.faults.proxy import proxied
from tests.services import start_redis

pytestmark = pytest.mark.asyncio


class Own:
    """A Redis of our own with its log on, to be frozen, killed and started again; and a bench on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process, self.url = start_redis(folder, appendonly=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        (self.folder / "redis.sock").unlink()

    def start(self) -> None:
        self.process, _ = start_redis(self.folder, appendonly=True)


@pytest_asyncio.fixture
async def own(tmp_path: Path) -> AsyncIterator[tuple[Own, Bench]]:
    server = Own(tmp_path)
    try:
        async with Bench(server.url) as bench:
            yield server, bench
    finally:
        server.process.send_signal(signal.SIGCONT)
        server.process.kill()
        server.process.wait()


class Counting:
    """Counts every message in its device's state, where twice would show, and keeps the order it saw."""

    def __init__(self) -> None:
        self.order: dict[str, list[int]] = {}

    async def __call__(self, i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        self.order.setdefault(m.originator, []).append(m.data["n"])
        await ctx.load([(m.originator, "attr", "n")])
        seen = int(ctx.get(m.originator, "attr", "n") or 0)
        out.effect(i, Write("attr", "n", b"%d" % (seen + 1)))
        out.emit(i, "Success", m)

    def plans(self) -> Plans:
        return Plans(plan(("count", Do(self), {"Success": ["save"]}), ("save", Save(), {}), rounds=True))

    def first(self, device: str) -> list[int]:
        return list(dict.fromkeys(self.order[device]))


async def count_of(bench: Bench, device: str) -> int:
    return int(await bench.client.hget(bench.keys(device).state("attr", device), "n") or 0)


async def offer(bench: Bench, n: int) -> None:
    """Send one message of each device until it is stored, as devices do."""
    for device in ("a", "b", "c"):
        while True:
            try:
                await bench.ingress.submit([message(device, {"n": n})])
            except Refused:
                await asyncio.sleep(0.05)
            else:
                break


async def test_a_killed_redis_comes_back_with_all_that_was_confirmed(own: tuple[Own, Bench]) -> None:
    server, bench = own
    counting = Counting()
    await bench.work(counting.plans())

    async def trouble() -> None:
        for _ in range(3):
            await asyncio.sleep(0.4)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)

    killing = asyncio.create_task(trouble())
    for n in range(120):
        await offer(bench, n)
        await asyncio.sleep(0.01)
    await killing
    await until(bench.drained, 20)
    for device in ("a", "b", "c"):
        assert counting.first(device) == list(range(120))
        assert await count_of(bench, device) == 120
    assert await bench.dead.list("acme") == []
    await until(bench.spools_empty)


async def test_a_frozen_redis_costs_time_and_nothing_else(
    own: tuple[Own, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingress, "CONFIRM_WITHIN_S", 0.4)
    server, bench = own
    counting = Counting()
    await bench.work(counting.plans())
    await offer(bench, 0)
    await until(bench.drained)
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(Unconfirmed):
        await bench.ingress.submit([message("a", {"n": 1})])
    server.process.send_signal(signal.SIGCONT)
    await offer(bench, 2)
    await until(bench.drained, 20)
    assert counting.first("a") in ([0, 1, 2], [0, 2])
    assert await count_of(bench, "a") == len(counting.first("a"))


async def test_a_full_redis_refuses_at_the_door_and_drains_behind_it(own: tuple[Own, Bench]) -> None:
    _, bench = own
    for n in range(40):
        await bench.ingress.submit([message(f"d{n % 4}", {"n": n}, metadata={"pad": "x" * 1000})])
    await bench.client.config_set("maxmemory", 1)
    with pytest.raises(Refused, match="storage refuses"):
        await bench.ingress.submit([message("d0", {"n": 40})])
    assert await bench.left() == 40
    await bench.client.config_set("maxmemory", 0)
    counting = Counting()
    worker = await bench.work(counting.plans())
    await until(bench.drained)
    await bench.client.config_set("maxmemory", 1)
    commits = len(worker._owned)
    assert commits == PARTITIONS
    await asyncio.sleep(2.5)
    assert len(worker._owned) == PARTITIONS, "leases are renewed at maxmemory too"
    await bench.client.config_set("maxmemory", 0)
    await bench.ingress.submit([message("d0", {"n": 40})])
    await until(bench.drained)
    assert Counter(n for seen in counting.order.values() for n in seen) == Counter(range(41))


async def test_a_commit_that_is_refused_for_memory_is_made_when_there_is_room(own: tuple[Own, Bench]) -> None:
    _, bench = own
    counting = Counting()
    gate = asyncio.Event()

    async def wait(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        await counting(i, m, out, ctx)
        await gate.wait()

    await bench.work(plan(("wait", Do(wait), {}), rounds=True))
    await bench.ingress.submit([message("a", {"n": n}) for n in range(5)])
    await until(lambda: counting.order)
    await bench.client.config_set("maxmemory", 1)
    gate.set()
    await asyncio.sleep(0.6)
    assert await count_of(bench, "a") == 0
    assert await bench.left() == 1
    await bench.client.config_set("maxmemory", 0)
    await until(bench.drained)
    assert await count_of(bench, "a") == 5
    assert counting.order["a"] == list(range(5))


async def test_a_timer_that_finds_no_room_fires_later(own: tuple[Own, Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import parked

    monkeypatch.setattr(parked, "HORIZON_MS", 600)
    _, bench = own
    await bench.work(plan(("delay", Delay(200), {"timer": ["save"]}), ("save", Save(), {})))
    await bench.ingress.submit([message("a", {"n": 1})])
    await until(bench.drained)
    await bench.client.config_set("maxmemory", 1)
    await asyncio.sleep(0.6)
    assert not await bench.stored("a")
    await bench.client.config_set("maxmemory", 0)
    await until(lambda: bench.stored("a"))


async def test_work_goes_on_after_everything_was_deleted(own: tuple[Own, Bench]) -> None:
    _, bench = own
    counting = Counting()
    await bench.work(counting.plans())
    await offer(bench, 0)
    await until(bench.drained)
    await bench.client.flushall()
    await offer(bench, 1)
    await until(lambda: all(seen[-1] == 1 for seen in counting.order.values()))
    await until(bench.drained)
    await until(bench.spools_empty)
    assert await count_of(bench, "a") == 1


async def test_a_redis_that_does_not_greet_leaves_no_connections_behind(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "CONNECT_TIMEOUT_S", 0.1)
    async with proxied(redis_url, tmp_path) as (proxy, url):
        proxy.hold()
        one = Wire(url, "test")
        for _ in range(5):
            with pytest.raises(wire.RedisConnectionError):
                await one.execute([("PING",)])
        await asyncio.sleep(0.1)
        proxy.release()
        await until(lambda: not proxy.connections)
        assert await one.execute([("PING",)]) == [b"PONG"]
        await one.close()
