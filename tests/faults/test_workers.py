"""Worker processes that die and freeze in the middle of their work: nothing lost, nothing twice, order kept."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.leases import give_back
from engine.message import Message
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import message, until

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

DEVICES = 6
EACH = 80
BEGAN_MS = 1_700_000_000_000


class Farm:
    """Starts worker processes; as their parent would, gives the leases of a dead one back and starts another."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self.log = url, log
        self.deaths: list[int] = []
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self, name: str = "w0", *, lease_ms: int = 10_000, failpoints: tuple[str, ...] = ()) -> None:
        """Keep a worker running; the n-th process of it has the n-th failpoints, later ones none."""
        process = await self._spawn(name, lease_ms, failpoints[:1])
        self._watching.append(asyncio.create_task(self._watch(name, process, lease_ms, failpoints[1:])))

    async def _spawn(self, name: str, lease_ms: int, failpoints: tuple[str, ...]) -> asyncio.subprocess.Process:
        environment = {**os.environ, "RULEMILL_TEST_LEASE_MS": str(lease_ms), "PYTHONPATH": os.getcwd()}
        environment["RULEMILL_FAILPOINTS"] = ",".join(failpoints)
        self.processes[name] = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.worker_process", self.url, name, str(self.log), env=environment
        )
        return process

    async def _watch(
        self, name: str, process: asyncio.subprocess.Process, lease_ms: int, failpoints: tuple[str, ...]
    ) -> None:
        while True:
            code = await process.wait()
            if self._stopping:
                return
            self.deaths.append(code)
            await asyncio.to_thread(give_back, self.url, name, PARTITIONS)
            name = f"{name}+"
            process = await self._spawn(name, lease_ms, failpoints[:1])
            failpoints = failpoints[1:]

    async def stop(self) -> None:
        self._stopping = True
        for process in self.processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        await asyncio.gather(*[process.wait() for process in self.processes.values()])
        await asyncio.gather(*self._watching)

    def ran(self) -> list[tuple[str, int]]:
        """Every delivery that a node saw, in order."""
        if not self.log.exists():
            return []
        return [(device, int(n)) for device, n in (line.split() for line in self.log.read_text().splitlines())]

    def order_of(self, device: str) -> list[int]:
        """First deliveries: what a crash undid is delivered again."""
        return list(dict.fromkeys(n for name, n in self.ran() if name == device))

    def points(self) -> Counter[int]:
        """Stored points by device."""
        with sqlite3.connect(f"{self.log}.db") as database:
            rows = database.execute("SELECT device, count(*) FROM ts_kv GROUP BY device").fetchall()
        return Counter(dict(rows))


@pytest_asyncio.fixture
async def farm(redis_url: str, tmp_path: Path) -> AsyncIterator[Farm]:
    made = Farm(redis_url, tmp_path / "log")
    yield made
    await made.stop()


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
    ],
    ids=lambda found: " ".join(found),
)
async def test_death_at_a_failpoint_loses_and_doubles_nothing(
    bench: Bench, farm: Farm, failpoints: tuple[str, ...]
) -> None:
    await farm.start(failpoints=failpoints)
    await send(bench, 0.01)
    await until(lambda: len(farm.deaths) == len(failpoints), 30)
    await check(bench, farm)


async def test_a_frozen_worker_is_fenced(bench: Bench, farm: Farm) -> None:
    """It stands still before a commit for longer than its lease lives, and wakes when another has done the work."""
    await farm.start("frozen", lease_ms=1000, failpoints=("before-commit=pause:1",))
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
