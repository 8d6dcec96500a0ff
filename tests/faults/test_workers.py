"""Worker processes that die and freeze in the middle of their work: nothing lost, nothing twice, order kept."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.message import Message
from engine.partitions import all_keys
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import message, until
from tests.faults.farm import Farm

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

DEVICES = 6
EACH = 80
BEGAN_MS = 1_700_000_000_000


@pytest_asyncio.fixture
async def farm(redis_url: str, tmp_path: Path) -> AsyncIterator[Farm]:
    made = Farm(redis_url, tmp_path / "log")
    yield made
    await made.stop()


async def owned(bench: Bench) -> bool:
    """Whether every partition has its worker."""
    leases = [keys.lease for keys in all_keys(PARTITIONS)]
    return bool(await bench.client.exists(*leases) == len(leases))


def numbered(device: str, n: int, **data: object) -> Message:
    return message(device, {"n": n, **data}, ts_ms=BEGAN_MS + n)


async def send(bench: Bench, pause_s: float = 0.0, **poison: str) -> None:
    """80 messages of each of 6 devices, in entries of many; `poison` names the deadly ones, as d0_7="abort"."""
    for n in range(EACH):
        batch = []
        for d in range(DEVICES):
            deadly = {"poison": poison[f"d{d}_{n}"]} if f"d{d}_{n}" in poison else {}
            batch.append(numbered(f"d{d}", n, **deadly))
        await bench.ingress.submit(batch)
        await asyncio.sleep(pause_s)


async def check(bench: Bench, farm: Farm, dead: frozenset[tuple[str, int]] = frozenset()) -> None:
    """Every message ran, each device's in order, every effect happened once, and the dead are the given ones."""
    await until(bench.drained, 30)
    await until(bench.spools_empty, 30)
    letters = await bench.dead.list("acme", limit=1000)
    assert {(letter.message.originator, letter.message.data["n"]) for letter in letters} == dead
    for d in range(DEVICES):
        device = f"d{d}"
        good = [n for n in range(EACH) if (device, n) not in dead]
        assert [n for n in farm.order_of(device) if n in set(good)] == good
        assert await bench.client.hget(bench.keys(device).state("attr", device), "n") == b"%d" % len(good)
        commands = await bench.commands.undelivered("acme", device)
        assert [entry.command.payload for entry in commands] == good
    assert sum(farm.points().values()) == DEVICES * EACH - len(dead)


@pytest.mark.parametrize("how", ["abort", "kill", "exit"])
async def test_poison_is_dead_lettered_after_three_deliveries_and_harms_nobody(
    bench: Bench, farm: Farm, how: str
) -> None:
    await send(bench, d2_40=how)
    await farm.start()
    await until(lambda: bench.letters(1), 30)
    await check(bench, farm, frozenset({("d2", 40)}))
    assert Counter(farm.ran())["d2", 40] <= 3
    assert len(farm.deaths) <= 3


async def test_several_poisons_in_several_partitions(bench: Bench, farm: Farm) -> None:
    await send(bench, d0_3="kill", d1_30="abort", d5_79="exit")
    await farm.start()
    await until(lambda: bench.letters(3), 60)
    dead = frozenset({("d0", 3), ("d1", 30), ("d5", 79)})
    await check(bench, farm, dead)
    deliveries = Counter(farm.ran())
    assert all(deliveries[poison] <= 3 for poison in dead)


@pytest.mark.parametrize(
    "failpoints",
    [
        ("mid-batch=kill@1",),
        ("mid-batch=kill@40",),
        ("before-commit=kill@1",),
        ("before-commit=kill@9",),
        ("after-commit=kill@1",),
        ("after-commit=kill@9",),
        ("before-commit=kill@7", "mid-batch=kill@30"),
        ("after-commit=kill@7", "mid-batch=kill@5"),
        ("before-trim=kill@1",),
        ("before-trim=kill@1", "before-trim=kill@1"),
    ],
    ids=lambda found: " ".join(found),
)
async def test_death_at_a_failpoint_loses_and_doubles_nothing(
    bench: Bench, farm: Farm, failpoints: tuple[str, ...]
) -> None:
    await farm.start(failpoints=failpoints)
    # A worker that starts slowly would find everything at once, and be done in fewer commits than a failpoint counts.
    await until(lambda: owned(bench), 30)
    await send(bench, 0.01)
    await until(lambda: len(farm.deaths) == len(failpoints), 30)
    await check(bench, farm)


@pytest.mark.parametrize("where", ["before-commit", "before-trim"])
async def test_a_frozen_worker_is_fenced(bench: Bench, farm: Farm, where: str) -> None:
    """It stands still for longer than its lease lives, and wakes when another has done the work."""
    await farm.start("frozen", lease_ms=1000, failpoints=(f"{where}=pause:1",))
    process = farm.processes["frozen"]
    await send(bench)
    await until(farm.ran)
    process.send_signal(signal.SIGSTOP)
    await farm.start("other", lease_ms=1000)
    await until(bench.drained, 30)
    before = await bench.client.hget(bench.keys("d0").state("attr", "d0"), "n")
    process.send_signal(signal.SIGCONT)
    await asyncio.sleep(2)
    assert await bench.client.hget(bench.keys("d0").state("attr", "d0"), "n") == before
    await check(bench, farm)
    assert farm.deaths == []


async def test_workers_killed_one_after_the_other_under_load(bench: Bench, farm: Farm) -> None:
    for n in range(3):
        await farm.start(f"w{n}")
    sending = asyncio.create_task(send(bench, 0.08))
    for _ in range(4):
        await asyncio.sleep(1.5)
        victim = next(process for process in farm.processes.values() if process.returncode is None)
        victim.kill()
        await victim.wait()
    await sending
    await check(bench, farm)
    assert len(farm.deaths) == 4
