"""Outward calls: made once while all is well, in order, and never for ever, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError

from engine import outward, parked
from engine.errors import NotFound
from engine.message import Message
from engine.outcomes import FAILURE, Retry
from engine.partitions import all_keys
from engine.plan import Plan
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import Call, Do, Plans, Save, message, plan, until

pytestmark = pytest.mark.asyncio


def post_then_save(function: Any, **settings: Any) -> Plan:
    return plan(("post", Call(function, **settings), {"Success": ["save"]}), ("save", Save(), {}))


async def test_a_slow_call_is_made_once_however_often_timers_are_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "HORIZON_MS", 200)
    calls: list[Any] = []
    gate = asyncio.Event()

    async def post(m: Message, ctx: Any) -> list[Any]:
        calls.append(m.data["n"])
        await gate.wait()
        return [("Success", m)]

    await bench.work(post_then_save(post))
    await bench.ingress.submit([message("d", {"n": n}) for n in range(3)])
    await until(lambda: calls)
    await asyncio.sleep(0.5)  # several rounds of reading what is due
    gate.set()
    await until(lambda: _all_ended(bench))
    assert calls == [0, 1, 2]


def _in_an_outward_call() -> bool:
    task = asyncio.current_task()
    return task is not None and task.get_name().startswith("outward")


async def _all_ended(bench: Bench) -> bool:
    """Nothing in the streams and nothing parked, at one instant: between two looks a message may go back and forth."""
    look = (
        "local n = 0 for _, k in ipairs(KEYS) do"
        " n = n + redis.call(k:sub(-3) == ':in' and 'XLEN' or 'HLEN', k) end return n"
    )
    keys = [name for keys in all_keys(PARTITIONS) for name in (keys.inbox, keys.parked)]
    return not await bench.client.eval(look, len(keys), *keys)


async def test_a_call_that_waits_for_its_next_attempt_is_not_made_early(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "HORIZON_MS", 200)
    tries = 0

    def post(m: Message, ctx: Any) -> list[Any]:
        nonlocal tries
        tries += 1
        raise Retry("busy", after_s=30)

    await bench.work(post_then_save(post))
    await bench.ingress.submit([message("d", {"n": 1})])
    await until(lambda: tries)
    await asyncio.sleep(0.5)
    assert tries == 1


async def test_a_call_that_kills_its_worker_ends_as_a_failure(bench: Bench) -> None:
    """Each crash counts an attempt, and the count outlives the process."""
    calls: list[str] = []
    forever = asyncio.Event()

    async def post(m: Message, ctx: Any) -> list[Any]:
        calls.append(m.originator)
        await forever.wait()
        return []

    plans = Plans(plan(("post", Call(post), {FAILURE: ["note"]}), ("note", Do(lambda i, m, o, c: o.fail(i, "x")), {})))
    bench_worker = await bench.work(plans, name="w0")
    await bench.ingress.submit([message("d", {"n": 1})])
    for crash in range(1, 6):
        await until(lambda crash=crash: len(calls) == crash)
        await bench.crash(bench_worker)
        bench_worker = await bench.work(plans, name=f"w{crash}")
    [letter] = await until(lambda: bench.letters(1))
    assert "gave up after 5 attempts" in letter.message.metadata["error"]
    assert len(calls) == 5


async def test_calls_go_on_after_a_crash_in_the_order_they_were_parked(bench: Bench) -> None:
    made: list[int] = []
    gate = asyncio.Event()

    async def post(m: Message, ctx: Any) -> list[Any]:
        await gate.wait()
        made.append(m.data["n"])
        return [("Success", m)]

    plans = Plans(post_then_save(post))
    first = await bench.work(plans)
    for n in range(30):
        await bench.ingress.submit([message("d", {"n": n})])
    await until(bench.drained)
    await bench.crash(first)
    gate.set()
    await bench.work(plans, name="w2")
    await until(lambda: len(made) == 30)
    assert made == list(range(30))


async def test_what_a_recovery_parks_is_called_once(bench: Bench) -> None:
    calls: list[int] = []

    async def post(m: Message, ctx: Any) -> list[Any]:
        calls.append(m.data["n"])
        await asyncio.sleep(0.05)
        return [("Success", m)]

    plans = Plans(post_then_save(post))
    first = await bench.work(plans)
    await until(lambda: len(first._owned) == PARTITIONS)
    await bench.crash(first)
    await bench.ingress.submit([message("d", {"n": n}) for n in range(4)])
    await bench.work(plans, name="w2")
    await until(lambda: bench.stored("d"))
    await until(lambda: _all_ended(bench))
    assert calls == [0, 1, 2, 3]


@pytest.mark.parametrize("trouble", ["redis", "gone"])
async def test_a_plan_that_cannot_be_had_blocks_nothing_for_ever(bench: Bench, trouble: str) -> None:
    """The plan of a call is read again when Redis is back; when it is gone for good, the call fails."""

    class Troubled(Plans):
        armed = False

        async def plan_for(self, tenant: str, deployment: int) -> Plan:
            if self.armed and _in_an_outward_call():
                # The batch that brings the first answer back asks for the plan too, sooner or later.
                self.armed = False
                raise RedisConnectionError("gone") if trouble == "redis" else NotFound("deployment", str(deployment))
            return await super().plan_for(tenant, deployment)

    calls: list[int] = []

    def post(m: Message, ctx: Any) -> list[Any]:
        calls.append(m.data["n"])
        plans.armed = m.data["n"] == 0
        return [("Success", m)]

    plans = Troubled(plan(("post", Call(post), {})))
    await bench.work(plans)
    await bench.ingress.submit([message("d", {"n": n}) for n in range(4)])
    await until(lambda: _all_ended(bench))
    assert calls == ([0, 1, 2, 3] if trouble == "redis" else [0, 2, 3])
    letters = await bench.dead.list("acme")
    assert len(letters) == (0 if trouble == "redis" else 1)


async def test_waiting_calls_are_bounded_and_the_rest_takes_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outward, "MAX_WAITING", 5)
    forever = asyncio.Event()

    async def post(m: Message, ctx: Any) -> list[Any]:
        await forever.wait()
        return []

    await bench.work(post_then_save(post))
    await bench.ingress.submit([message("d", {"n": n}) for n in range(8)])
    letters = await until(lambda: bench.letters(3))
    assert {letter.reason for letter in letters} == {"outbox full"}
    assert sorted(letter.message.data["n"] for letter in letters) == [5, 6, 7]


async def test_a_result_that_cannot_be_carried_fails_its_message_and_holds_nobody_up(bench: Bench) -> None:
    async def post(m: Message, ctx: Any) -> list[Any]:
        return [("Success", replace(m, data={"n": 2**70 if m.data["n"] == 0 else m.data["n"]}))]

    await bench.work(post_then_save(post))
    await bench.ingress.submit([message("d", {"n": n}) for n in range(3)])
    await until(lambda: _all_ended(bench))
    [letter] = await until(lambda: bench.letters(1))
    assert "cannot be carried" in letter.reason
    await until(bench.spools_empty)
    assert [point.value for point in await bench.store.latest("acme", ["d"])] == [2]


async def test_timers_that_are_being_read_make_no_call_for_a_partition_that_is_lost_meanwhile(bench: Bench) -> None:
    calls: list[Any] = []

    async def post(m: Message, ctx: Any) -> list[Any]:
        calls.append(m.data)
        await asyncio.sleep(60)
        return []

    worker = await bench.work(post_then_save(post))
    await bench.ingress.submit([message("d", {"n": 1})])
    await until(lambda: calls)
    number = bench.keys("d").number
    owned = worker._owned[number]
    worker._outward.disown(number)
    reading = asyncio.create_task(worker._timers._read(owned, crashed=False))
    await asyncio.sleep(0)
    worker._timers.disown(number)
    await reading
    assert not worker._outward._tasks
