"""Taking over from the dead: the guilty message ends as a dead letter, its neighbours lose nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.message import Message
from engine.outcomes import Outcomes, Write
from engine.recovery import Trial, parse_trial
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import Do, Plans, message, plan, until


@given(st.from_regex(rb"\d{1,15}-\d{1,5}", fullmatch=True), st.integers(-1, 5000), st.booleans())
def test_a_trial_is_read_as_it_was_written(entry: bytes, index: int, running: bool) -> None:
    assert parse_trial(Trial(entry, index, running).text()) == Trial(entry, index, running)


@pytest.mark.parametrize("blob", [None, b"", b"lane device-1"])
def test_what_is_no_trial_of_an_entry_suspects_none(blob: bytes | None) -> None:
    assert parse_trial(blob) is None


class Deadly:
    """A node that counts in the device's state what it ran, and dies of poison (until the test crashes its worker)."""

    def __init__(self, *poison: int) -> None:
        self.poison = set(poison)
        self.ran: Counter[int] = Counter()
        self.order: list[tuple[str, int]] = []
        self.died = asyncio.Event()

    async def __call__(self, i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        n = m.data["n"]
        self.ran[n] += 1
        if n in self.poison:
            self.died.set()
            await asyncio.Event().wait()
        self.order.append((m.originator, n))
        await ctx.load([(m.originator, "attr", "n")])
        seen = int(ctx.get(m.originator, "attr", "n") or 0)
        out.effect(i, Write("attr", "n", b"%d" % (seen + 1)))
        out.emit(i, "Success", m)

    def plans(self) -> Plans:
        return Plans(plan(("deadly", Do(self), {}), rounds=True))


async def live_through(bench: Bench, deadly: Deadly, letters: int) -> int:
    """Run workers, each after the death of the one before, until there are so many dead letters; deaths."""
    plans = deadly.plans()
    worker = await bench.work(plans, name="w0")
    deaths = 0
    while not (await bench.letters(letters) and await bench.drained()):
        if deadly.died.is_set():
            deadly.died.clear()
            deaths += 1
            assert deaths <= 3 * letters
            await bench.crash(worker)
            worker = await bench.work(plans, name=f"w{deaths}")
        await asyncio.sleep(0.01)
    return deaths


@pytest.mark.asyncio
@pytest.mark.parametrize("position", [0, 5, 19])
async def test_poison_is_delivered_three_times_at_most_and_harms_no_neighbour(bench: Bench, position: int) -> None:
    deadly = Deadly(position)
    await bench.ingress.submit([message("d", {"n": n}) for n in range(20)])
    for n in range(20, 40):
        await bench.ingress.submit([message("d", {"n": n})])
    assert await live_through(bench, deadly, 1) <= 3
    assert deadly.ran[position] <= 3
    [letter] = await bench.dead.list("acme")
    assert letter.message.data["n"] == position
    assert "ended the worker process" in letter.reason
    first_times = list(dict.fromkeys(n for _, n in deadly.order))
    assert first_times == [n for n in range(40) if n != position]
    assert await bench.client.hget(bench.keys("d").state("attr", "d"), "n") == b"39"
    assert not await bench.client.exists(bench.keys("d").trial)


@pytest.mark.asyncio
async def test_two_poisons_in_one_entry_both_end(bench: Bench) -> None:
    deadly = Deadly(3, 4)
    await bench.ingress.submit([message("d", {"n": n}) for n in range(8)])
    await live_through(bench, deadly, 2)
    assert max(deadly.ran[3], deadly.ran[4]) <= 3
    assert await bench.client.hget(bench.keys("d").state("attr", "d"), "n") == b"6"


@pytest.mark.asyncio
async def test_poisons_in_two_partitions_blame_nobody_else(bench: Bench) -> None:
    deadly = Deadly(1, 2)
    other = next(f"e{n}" for n in range(100) if bench.keys(f"e{n}").number != bench.keys("d").number)
    await bench.ingress.submit([message("d", {"n": n}) for n in (0, 1, 10)] + [message(other, {"n": 2})])
    await bench.ingress.submit([message(other, {"n": n}) for n in (11, 12)])
    await live_through(bench, deadly, 2)
    assert sorted(letter.message.data["n"] for letter in await bench.dead.list("acme")) == [1, 2]
    assert max(deadly.ran[1], deadly.ran[2]) <= 3
    assert sorted(set(deadly.order)) == sorted([("d", 0), ("d", 10), (other, 11), (other, 12)])


@pytest.mark.asyncio
async def test_a_worker_that_ends_amid_a_recovery_does_not_call_it_done(bench: Bench) -> None:
    """Half of an entry is committed; whoever comes next must go on in its middle, not begin it again."""
    deadly = Deadly(5)
    await bench.ingress.submit([message("d", {"n": n}) for n in range(8)])
    plans = deadly.plans()
    worker = await bench.work(plans, name="w0")
    for death in (1, 2):
        await until(deadly.died.is_set)
        deadly.died.clear()
        await bench.crash(worker)
        worker = await bench.work(plans, name=f"w{death}")
    await until(deadly.died.is_set)  # the third time, message by message: five of them are committed
    deadly.died.clear()
    worker._tasks[-1].cancel()
    bench.workers.remove(worker)
    await worker.stop()
    await bench.client.delete(bench.keys("d").lease)
    await bench.work(plans, name="w3")
    await until(lambda: bench.letters(1))
    await until(bench.drained)
    assert await bench.client.hget(bench.keys("d").state("attr", "d"), "n") == b"7"


@pytest.mark.asyncio
async def test_who_is_fenced_amid_a_recovery_lets_go(bench: Bench) -> None:
    deadly = Deadly()
    gate = asyncio.Event()
    plain = Deadly.__call__

    async def wait(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        await gate.wait()
        await plain(deadly, i, m, out, ctx)

    plans = Plans(plan(("wait", Do(wait), {}), rounds=True))
    first = await bench.work(plans, name="w0")
    await until(lambda: len(first._owned) == PARTITIONS)
    await bench.crash(first)
    for n in range(5):
        await bench.ingress.submit([message("d", {"n": n})])
    keys = bench.keys("d")
    await bench.work(plans, name="w1")
    await until(lambda: bench.client.exists(keys.trial))
    await bench.client.set(keys.lease, "w2:99", px=700)
    gate.set()
    await until(bench.drained)
    assert list(dict.fromkeys(n for _, n in deadly.order)) == list(range(5))
    assert await bench.client.hget(keys.state("attr", "d"), "n") == b"5"
    assert await bench.dead.list("acme") == []


@pytest.mark.asyncio
async def test_an_entry_of_a_later_release_is_left_to_it(bench: Bench) -> None:
    ran = Deadly()
    await bench.work(ran.plans())
    other = next(f"e{n}" for n in range(100) if bench.keys(f"e{n}").number != bench.keys("d").number)
    unknown = await bench.client.xadd(bench.keys("d").inbox, {"z": b"?"})
    await bench.ingress.submit([message("d", {"n": 1})])
    await bench.ingress.submit([message(other, {"n": 2})])
    await until(lambda: (other, 2) in ran.order)
    await asyncio.sleep(0.3)
    kept = [id for id, _ in await bench.client.xrange(bench.keys("d").inbox)]
    assert kept[0] == unknown
    assert len(kept) == 2
    assert ("d", 1) not in ran.order
