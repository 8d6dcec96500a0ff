"""Lanes: a device's order holds behind a retry, bounded, whatever dies meanwhile; other devices go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from engine import lanework
from engine.commit import Commit
from engine.lanes import backoff_s
from engine.message import Message
from engine.outcomes import Outcomes
from tests.engine.bench import Bench
from tests.engine.toy import PATIENT, Do, Plans, message, plan, until


class Gate:
    """A node that retries while it is closed, and dies of poison: it stands still until the test crashes its worker."""

    def __init__(self) -> None:
        self.closed = True
        self.seen: list[tuple[str, int]] = []
        self.ran: Counter[int] = Counter()
        self.died = asyncio.Event()
        self.poison: int | None = None

    async def __call__(self, i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        n = m.data["n"]
        if self.closed and m.originator == "a" and n != self.poison:
            out.retry(i, "closed", 0.05)
            return
        self.ran[n] += 1
        if n == self.poison:
            self.died.set()
            await asyncio.Event().wait()
        self.seen.append((m.originator, n))
        out.discard(i)

    def of(self, device: str) -> list[int]:
        """Numbers seen, in the order of their first time: what a crash undid is run again."""
        return list(dict.fromkeys(n for name, n in self.seen if name == device))


@pytest.mark.asyncio
async def test_a_lane_survives_a_crash_in_order(bench: Bench) -> None:
    gate = Gate()
    plans = Plans(plan(("gate", Do(gate), {}), retry=PATIENT))
    worker = await bench.work(plans)
    for n in range(300):
        await bench.ingress.submit([message("a", {"n": n})])
    await until(bench.drained)
    await bench.crash(worker)
    gate.closed = False
    await bench.work(plans, name="w2")
    await bench.ingress.submit([message("a", {"n": 300})])
    await until(lambda: len(gate.of("a")) == 301, 30)
    assert gate.of("a") == list(range(301))
    await until(bench.no_lanes)


@pytest.mark.asyncio
@pytest.mark.parametrize("position", [0, 1, 7])
async def test_poison_in_a_lane_is_delivered_three_times_at_most(bench: Bench, position: int) -> None:
    """Wherever in the lane it stands; its neighbours lose nothing and keep their order."""
    gate = Gate()
    plans = Plans(plan(("gate", Do(gate), {}), retry=PATIENT))
    worker = await bench.work(plans, name="w0")
    for n in range(12):
        await bench.ingress.submit([message("a", {"n": n})])
    await until(bench.drained)
    gate.closed, gate.poison = False, position
    crashes = 0
    while not await bench.letters(1):
        if gate.died.is_set():
            gate.died.clear()
            crashes += 1
            assert crashes <= 3, "delivered more than three times"
            await bench.crash(worker)
            worker = await bench.work(plans, name=f"w{crashes}")
        await asyncio.sleep(0.01)
    await until(lambda: len(gate.of("a")) == 11)
    assert gate.ran[position] == crashes
    assert gate.of("a") == [n for n in range(12) if n != position]
    [letter] = await bench.dead.list("acme")
    assert letter.message.data["n"] == position
    await until(bench.no_lanes)


@pytest.mark.asyncio
async def test_at_most_so_many_wait_behind_a_head(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the oldest fail, in order, until no more wait than may."""
    monkeypatch.setattr(lanework, "MAX_WAITING", 50)
    gate = Gate()
    await bench.work(plan(("gate", Do(gate), {}), retry=PATIENT))

    await asyncio.gather(*{bench.ingress.submit([message("a", {"n": n}), message("b", {"n": n})]) for n in range(3000)})
    await until(bench.drained)
    key = bench.keys("a").lane("a")
    await until(lambda: _at_most(bench, key, 51))
    letters = await bench.dead.list("acme", limit=10_000)
    failed = sorted(letter.message.data["n"] for letter in letters)
    assert failed == list(range(len(failed)))
    assert {letter.reason for letter in letters} == {"too many wait behind it: closed"}
    assert len(failed) >= 2949
    assert gate.of("b") == list(range(3000))
    gate.closed = False
    await until(bench.no_lanes)
    assert gate.of("a") == list(range(len(await bench.dead.list("acme", limit=10_000)), 3000))


async def _at_most(bench: Bench, key: str, count: int) -> bool:
    return await bench.client.llen(key) <= count


@pytest.mark.asyncio
async def test_a_lane_of_messages_of_two_deployments_keeps_its_order(bench: Bench) -> None:
    gate = Gate()
    plans = Plans(*(plan(("gate", Do(gate), {}), deployment=n, retry=PATIENT) for n in (1, 2)))
    await bench.work(plans)
    await bench.ingress.submit([message("a", {"n": 0})])
    await until(bench.drained)
    for n in range(1, 20):
        await bench.ingress.submit([message("a", {"n": n}, deployment=1 + n % 2)])
    await until(bench.drained)
    gate.closed = False
    await until(lambda: len(gate.of("a")) == 20)
    assert gate.of("a") == list(range(20))


def test_backing_off_doubles_with_jitter_to_its_limit() -> None:
    for attempts, base in ((1, 0.5), (2, 1), (4, 4), (7, 30), (60, 30)):
        assert 0.75 * base <= backoff_s(attempts) <= 1.25 * base
    assert backoff_s(3, 0.2) == 0.2
    assert backoff_s(3, -1) == 0


@pytest.mark.asyncio
async def test_a_lane_is_cut_to_its_length_before_more_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanework, "MAX_WAITING", 50)
    monkeypatch.setattr(lanework, "RUN_AT_ONCE", 10)

    def wait(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        out.retry(i, "later", 60.0)

    worker = await bench.work(plan(("wait", Do(wait), {})))
    lengths: list[int] = []
    read = worker._commit_and_read

    async def watched(commits: dict[int, Commit]) -> Any:
        lengths.extend(lane.length for owned in worker._owned.values() for lane in owned.lanes.values())
        return await read(commits)

    monkeypatch.setattr(worker, "_commit_and_read", watched)
    for _ in range(3):
        await bench.ingress.submit([message("d", n) for n in range(200)])
    await until(lambda: bench.letters(550))
    await until(lambda: lengths and lengths[-1] == 50)
    assert max(lengths) <= 50
