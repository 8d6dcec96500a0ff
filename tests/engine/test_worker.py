"""A worker against a real Redis: what is submitted is run once, in order, and everything it does becomes visible."""

from __future__ import annotations

import asyncio

import pytest

from engine.outcomes import Retry
from engine.partitions import all_keys, partition_of
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import PATIENT, Ask, Call, Delay, Do, Plans, Save, message, plan, until

pytestmark = pytest.mark.asyncio


async def test_points_reach_the_store_and_leave_no_trace_in_redis(bench: Bench) -> None:
    await bench.work(plan(("save", Save(), {})))
    await bench.ingress.submit([message(f"d{i}", {"t": i}) for i in range(100)])
    await until(bench.drained)
    await until(bench.spools_empty)
    latest = await bench.store.latest("acme", ["d7"])
    assert [(point.key, point.value) for point in latest] == [("t", 7)]


async def test_a_device_is_seen_in_order_over_many_flushes(bench: Bench) -> None:
    seen: dict[str, list[int]] = {}

    def note(i: int, m: object, out: object, ctx: object) -> None:
        seen.setdefault(m.originator, []).append(m.data["n"])
        out.discard(i)

    await bench.work(plan(("note", Do(note), {})))
    futures = [bench.ingress.submit([message(f"d{n % 7}", {"n": n})]) for n in range(2000)]
    await asyncio.gather(*set(futures))
    await until(bench.drained)
    assert sum(map(len, seen.values())) == 2000
    assert all(numbers == sorted(numbers) for numbers in seen.values())


async def test_an_unwired_failure_is_a_dead_letter_and_redriving_runs_it_again(bench: Bench) -> None:
    broken = True

    def fail(i: int, m: object, out: object, ctx: object) -> None:
        if broken:
            out.fail(i, "too hot")
        else:
            out.emit(i, "Success", m)

    await bench.work(plan(("check", Do(fail), {"Success": ["save"]}), ("save", Save(), {})))
    await bench.ingress.submit([message("d1", {"t": 1}), message("d1", {"t": 2})])
    letters = await until(lambda: bench.letters(2))
    assert {(letter.node, letter.reason) for letter in letters} == {("check", "too hot")}
    assert (letters[0].chain, letters[0].chain_version) == ("test", 1)
    broken = False
    for letter in letters:
        await bench.dead.redrive("acme", letter.id)
    await until(lambda: bench.stored("d1"))
    assert await bench.dead.list("acme") == []


async def test_a_crashing_node_fails_its_own_message_only(bench: Bench) -> None:
    def burst(i: int, m: object, out: object, ctx: object) -> None:
        if m.data["n"] == 3:
            raise ZeroDivisionError("by zero")
        out.emit(i, "Success", m)

    await bench.work(plan(("burst", Do(burst), {"Success": ["save"]}), ("save", Save(), {})))
    await bench.ingress.submit([message(f"d{n}", {"n": n}) for n in range(6)])
    letters = await until(lambda: bench.letters(1))
    assert letters[0].reason == "ZeroDivisionError: by zero"
    for n in (0, 1, 2, 4, 5):
        await until(lambda n=n: bench.stored(f"d{n}"))
    assert not await bench.stored("d3")


async def test_a_retry_holds_its_own_device_in_order_and_no_other(bench: Bench) -> None:
    seen: list[tuple[str, int]] = []
    closed = {"a"}

    def gate(i: int, m: object, out: object, ctx: object) -> None:
        if m.originator in closed:
            out.retry(i, "closed", 0.05)
            return
        seen.append((m.originator, m.data["n"]))
        out.discard(i)

    await bench.work(plan(("gate", Do(gate), {}), retry=PATIENT))
    for n in range(5):
        await bench.ingress.submit([message("a", {"n": n}), message("b", {"n": n})])
    await until(lambda: len([1 for device, _ in seen if device == "b"]) == 5)
    assert [1 for device, _ in seen if device == "a"] == []
    await until(bench.drained)
    closed.clear()
    await bench.ingress.submit([message("a", {"n": 5})])
    await until(lambda: len([1 for device, _ in seen if device == "a"]) == 6)
    assert [n for device, n in seen if device == "a"] == [0, 1, 2, 3, 4, 5]
    await until(bench.no_lanes)


async def test_a_retry_that_never_passes_ends_as_a_dead_letter(bench: Bench) -> None:
    def never(i: int, m: object, out: object, ctx: object) -> None:
        out.retry(i, "closed", 0.01)

    await bench.work(plan(("never", Do(never), {})))
    await bench.ingress.submit([message("a", {"n": 1})])
    letters = await until(lambda: bench.letters(1))
    assert letters[0].reason == "gave up after 5 attempts: closed"


async def test_a_timer_brings_the_message_back(bench: Bench) -> None:
    await bench.work(plan(("wait", Delay(50), {"timer": ["save"]}), ("save", Save(), {})))
    await bench.ingress.submit([message("d1", {"t": 1})])
    await until(lambda: bench.stored("d1"))


async def test_a_timer_survives_its_worker(bench: Bench) -> None:
    plans = Plans(plan(("wait", Delay(700), {"timer": ["save"]}), ("save", Save(), {})))
    first = await bench.work(plans)
    await bench.ingress.submit([message("d1", {"t": 1})])
    await until(bench.drained)
    await first.stop()
    await bench.work(plans, name="w2")
    await until(lambda: bench.stored("d1"))


async def test_an_answer_beats_the_timer_once(bench: Bench) -> None:
    await bench.work(plan(("ask", Ask(30_000), {"answer": ["save"]}), ("save", Save(), {})))
    with bench.replies.wait() as waiting:
        await bench.ingress.submit([message("d1", {"t": 1}, reply_to=waiting.to)])
        [pending] = await until(lambda: bench.commands.undelivered("acme", "d1"))
        assert pending.id == 1
        assert await bench.commands.answer("acme", "d1", 1, {"ok": True})
        assert not await bench.commands.answer("acme", "d1", 1, {"ok": False})
        answer = await waiting.next(5)
    assert answer is not None
    assert (answer.kind, answer.data) == ("reply", {"ok": True})


async def test_an_unanswered_command_times_out(bench: Bench) -> None:
    await bench.work(plan(("ask", Ask(60), {"timer": ["save"]}), ("save", Save(), {})))
    with bench.replies.wait() as waiting:
        await bench.ingress.submit([message("d1", {"t": 1}, reply_to=waiting.to)])
        answer = await waiting.next(5)
    assert answer is not None
    assert answer.error == "timeout"
    await until(lambda: bench.stored("d1"))


async def test_calls_of_a_device_keep_their_order_and_a_dead_endpoint_holds_no_neighbour(bench: Bench) -> None:
    made: list[tuple[str, int]] = []
    keys: set[str] = set()

    async def post(m: object, ctx: object) -> list:
        if m.originator == "dead":
            await asyncio.sleep(60)
        await asyncio.sleep(0.002 * (5 - m.data["n"]))
        made.append((m.originator, m.data["n"]))
        keys.add(ctx.idempotency_key)
        return [("Success", m)]

    await bench.work(plan(("post", Call(post), {"Success": ["save"]}), ("save", Save(), {})))
    await bench.ingress.submit([message(device, {"n": n}) for n in range(5) for device in ("dead", "d1", "d2")])
    await until(lambda: len(made) == 10)
    assert [n for device, n in made if device == "d1"] == [0, 1, 2, 3, 4]
    assert len(keys) == 10
    await until(lambda: bench.stored("d1"))


async def test_a_call_that_may_pass_is_made_again(bench: Bench) -> None:
    tries = 0

    def post(m: object, ctx: object) -> list:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Retry("busy", after_s=0.01)
        return [("Success", m)]

    await bench.work(plan(("post", Call(post), {"Success": ["save"]}), ("save", Save(), {})))
    await bench.ingress.submit([message("d1", {"t": 1})])
    await until(lambda: bench.stored("d1"))
    assert tries == 3


async def test_a_caller_learns_the_end_when_points_are_stored(bench: Bench) -> None:
    await bench.work(plan(("save", Save(), {})))
    with bench.replies.wait() as waiting:
        await bench.ingress.submit([message("d1", {"t": 1}, reply_to=waiting.to, awaited=True)])
        answer = await waiting.next(5)
    assert answer == ("end", None, "")
    assert await bench.stored("d1")


async def test_a_caller_learns_of_a_failure(bench: Bench) -> None:
    await bench.work(plan(("fail", Do(lambda i, m, out, ctx: out.fail(i, "no")), {})))
    with bench.replies.wait() as waiting:
        await bench.ingress.submit([message("d1", {"t": 1}, reply_to=waiting.to, awaited=True)])
        answer = await waiting.next(5)
    assert answer == ("end", None, "fail: no")


async def test_a_second_worker_takes_its_share_and_a_released_partition_needs_no_recovery(bench: Bench) -> None:
    plans = Plans(plan(("save", Save(), {})))
    first = await bench.work(plans)
    await until(lambda: len(first._owned) == PARTITIONS)
    second = await bench.work(plans, name="w2")
    await until(lambda: len(second._owned) == PARTITIONS // 2)
    assert all(owned.clean for owned in second._owned.values())
    await bench.ingress.submit([message(f"d{n}", {"n": n}) for n in range(50)])
    await until(bench.drained)
    for n in range(50):
        await until(lambda n=n: bench.stored(f"d{n}"))


async def test_a_stale_owner_is_fenced(bench: Bench) -> None:
    plans = Plans(plan(("save", Save(), {})))
    first = await bench.work(plans)
    await until(lambda: len(first._owned) == PARTITIONS)
    number = partition_of("acme", "d1", PARTITIONS)
    keys = all_keys(PARTITIONS)[number]
    await bench.wire.execute([("SET", keys.lease, "somebody:99", "PX", 300)])
    await bench.ingress.submit([message("d1", {"t": 1})])
    await until(lambda: bench.stored("d1"))
    assert await bench.left() == 0


async def test_messages_end_on_the_deployment_they_began_with(bench: Bench) -> None:
    def stamp(version: int) -> Do:
        def add(i: int, m: object, out: object, ctx: object) -> None:
            out.emit(i, "Success", message(m.originator, {"version": version}, ts_ms=m.ts_ms))

        return Do(add)

    plans = Plans(
        *(
            plan(
                ("wait", Delay(150), {"timer": ["stamp"]}), ("stamp", stamp(n), {"Success": ["save"]}),
                ("save", Save(), {}), deployment=n,
            )
            for n in (1, 2)
        )
    )  # fmt: skip
    await bench.work(plans)
    await bench.ingress.submit([message("old", {})])
    await until(bench.drained)
    plans.current = 2
    await asyncio.sleep(1.05)
    await bench.ingress.submit([message("new", {})])
    for device, version in (("old", 1), ("new", 2)):
        await until(lambda device=device: bench.stored(device))
        assert (await bench.store.latest("acme", [device]))[0].value == version
