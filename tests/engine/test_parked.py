"""Parked messages: of timer and answer exactly one brings them back, and none is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as redis

from engine import parked as module
from engine.entries import UnknownEntryError, decode_parked, encode, unpack_entry
from engine.message import Message
from engine.node import Resumed
from engine.outcomes import Outcomes
from engine.partitions import all_keys
from engine.redis_scripts import POSTPONE, TAKE
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import Ask, Delay, Do, Plans, Save, message, plan, until

pytestmark = pytest.mark.asyncio


async def test_of_many_takers_one_wins(redis_url: str) -> None:
    keys = all_keys(PARTITIONS)[0]
    async with redis.Redis.from_url(redis_url) as client:
        await client.hset(keys.parked, "m:1", b"parked")
        await client.zadd(keys.due, {"m:1": 5})
        events = [encode(Resumed("answer" if n % 2 else "timer", n)) for n in range(20)]
        takes = [client.eval(TAKE.text, 3, keys.inbox, keys.parked, keys.due, "m:1", event) for event in events]
        won = await asyncio.gather(*takes)
        assert sum(won) == 1
        [(_, fields)] = await client.xrange(keys.inbox)
        assert fields == {b"p": b"parked", b"r": events[won.index(1)]}
        assert not await client.exists(keys.parked, keys.due)


async def test_postponing_what_was_taken_brings_nothing_back(redis_url: str) -> None:
    keys = all_keys(PARTITIONS)[0]
    async with redis.Redis.from_url(redis_url) as client:
        assert await client.eval(POSTPONE.text, 2, keys.parked, keys.due, "m:1", b"x", 5) == 0
        assert not await client.exists(keys.parked, keys.due)
        await client.hset(keys.parked, "m:1", b"old")
        assert await client.eval(POSTPONE.text, 2, keys.parked, keys.due, "m:1", b"new", 5) == 1
        assert await client.hget(keys.parked, "m:1") == b"new"
        assert await client.zscore(keys.due, "m:1") == 5


async def test_an_answer_and_its_timer_at_the_same_moment_make_one_event(bench: Bench) -> None:
    came: list[tuple[int, str]] = []

    def note(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        came.append((m.data["n"], m.type))
        out.discard(i)

    made = plan(("ask", Ask(150), {"answer": ["note"], "timer": ["note"]}), ("note", Do(note), {}))
    await bench.work(made)
    await bench.ingress.submit([message(f"d{n}", {"n": n}) for n in range(40)])
    await until(bench.drained)
    await asyncio.sleep(0.1)
    answers = 0
    for n in range(40):
        for pending in await bench.commands.undelivered("acme", f"d{n}"):
            answers += await bench.commands.answer("acme", f"d{n}", pending.id, {"ok": True})
    await until(lambda: len(came) >= 40)
    await asyncio.sleep(0.3)
    await until(bench.drained)
    assert sorted(n for n, _ in came) == list(range(40))


async def test_timers_fire_after_a_crash_once_and_in_time(bench: Bench) -> None:
    fired: list[int] = []

    def note(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        fired.append(m.data["n"])
        out.discard(i)

    plans = Plans(plan(("wait", Delay(600), {"timer": ["note"]}), ("note", Do(note), {})))
    first = await bench.work(plans)
    await bench.ingress.submit([message(f"d{n}", {"n": n}) for n in range(1500)])
    await until(bench.drained)
    await bench.crash(first)
    assert fired == []
    await bench.work(plans, name="w2")
    await until(lambda: len(fired) == 1500)
    await until(bench.drained)
    assert sorted(fired) == list(range(1500))


async def test_a_timer_beyond_the_horizon_is_found_when_it_comes_near(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HORIZON_MS", 200)
    plans = Plans(plan(("wait", Delay(700), {"timer": ["save"]}), ("save", Save(), {})))
    worker = await bench.work(plans)
    await bench.ingress.submit([message("d", {"t": 1})])
    await until(bench.drained)
    assert worker._timers._near == []
    await until(lambda: bench.stored("d"))


async def test_what_comes_back_says_why(redis_url: str) -> None:
    keys = all_keys(PARTITIONS)[0]
    async with Bench(redis_url) as bench:
        worker = await bench.work(plan(("ask", Ask(30_000), {})))
        await bench.ingress.submit([message("d", {"t": 1})])
        [pending] = await until(lambda: bench.commands.undelivered("acme", "d"))
        bench.workers.remove(worker)
        await worker.stop()
        await bench.commands.answer("acme", "d", pending.id, {"ok": 1})
        keys = bench.keys("d")
        [(_, fields)] = await bench.client.xrange(keys.inbox)
        [item] = unpack_entry([part for pair in fields.items() for part in pair])
        assert item.resumed == Resumed("answer", {"ok": 1})
        assert (item.message.node, item.message.hops) == ("ask", 1)


async def test_an_error_that_nobody_foresaw_does_not_end_the_timers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HORIZON_MS", 300)
    worker = await bench.work(plan(("wait", Delay(1000), {"timer": ["save"]}), ("save", Save(), {})))
    timers, failed = worker._timers, set()
    await until(lambda: len(timers._owned) == PARTITIONS)

    def unwilling(what: str) -> None:
        whole = getattr(timers, what)

        async def step(*args: Any, **options: Any) -> None:
            if what not in failed:
                failed.add(what)
                raise ValueError(what)
            await whole(*args, **options)

        monkeypatch.setattr(timers, what, step)

    unwilling("_read")
    unwilling("_fire")
    await bench.ingress.submit([message("d", {"n": 1})])
    await until(lambda: bench.stored("d"))
    assert failed == {"_read", "_fire"}


async def test_a_parked_message_of_a_newer_release_is_left_to_it() -> None:
    with pytest.raises(UnknownEntryError):
        decode_parked(encode({"unheard": "of"}))
