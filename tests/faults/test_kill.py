"""The whole server under load while parts of it die. The ledger: sent, acknowledged, processed, stored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.device import BASE_MS, Device
from tests.faults.server import TENANT, Server

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

DEVICES = 50
EVERY_S = 0.05


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(**settings: str) -> Server:
        made.append(Server(tmp_path, DEVICES, **settings))
        made[0].start()
        return made[0]

    yield make
    for server in made:
        server.stop()


class Load:
    """1,000 messages a second over 50 devices, for so many seconds and until all are acknowledged."""

    def __init__(self, server: Server, seconds: float) -> None:
        count = int(seconds / EVERY_S)
        self.server = server
        self.devices = [Device(name, lambda: server.mqtt, count, EVERY_S) for name in server.devices]
        self._running = [
            asyncio.create_task(self._after(n * EVERY_S / DEVICES, device)) for n, device in enumerate(self.devices)
        ]

    async def _after(self, wait_s: float, device: Device) -> None:
        """Devices do not speak all at once."""
        await asyncio.sleep(wait_s)
        await device.run()

    async def finish(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self._running), 60)

    async def judge(self, dead: int = 0) -> None:
        """Wait until the server has nothing left to do, then compare the ledger's columns; so many may be dead."""
        deadline = time.monotonic() + 30
        expected = {(device.name, seq) for device in self.devices for seq in device.sent}
        while True:
            stored = await asyncio.to_thread(self.server.stored)
            found = {(name, ts - BASE_MS) for name, ts in stored}
            if found >= expected or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        letters = await self.dead_letters()
        assert len(letters) == dead, f"messages became dead letters: {letters[:3]}"
        acked = {(device.name, seq) for device in self.devices for seq in device.acked}
        first: dict[str, list[int]] = {}
        for name, seq in dict.fromkeys((name, seq) for name, seq, _ in self.server.seen() if seq >= 0):
            first.setdefault(name, []).append(seq)
        processed = {(name, seq) for name, seqs in first.items() for seq in seqs}
        assert len(acked) > 0
        assert acked - processed == set(), "acknowledged and never processed"
        assert acked - found == set(), "acknowledged and not stored"
        assert processed - expected == set(), "never sent"
        assert found == processed, "stored is not what was processed"
        assert set(stored.values()) == {2}, "each message has its two points, no more"
        back = [(name, a, b) for name, seqs in first.items() for a, b in pairwise(seqs) if b < a]
        assert back == [], "a device's messages went back in order"

    async def dead_letters(self) -> list[dict[str, Any]]:
        facts = self.server.facts
        async with httpx.AsyncClient() as client:
            reply = await client.get(
                f"{facts['http']}/flow/v1/tenants/{TENANT}/dead-letters",
                headers={"Authorization": f"Bearer {facts['operator_token']}"},
            )
        assert reply.status_code == 200, reply.text
        return list(reply.json()["dead_letters"])


async def test_a_worker_killed_every_second(servers: Callable[..., Server]) -> None:
    server = servers()
    load = Load(server, 20)
    killed = 0
    for turn in range(20):
        await asyncio.sleep(1)
        killed += server.kill("worker", turn)
    await load.finish()
    await load.judge()
    assert killed >= 15


async def test_redis_killed_again_and_again(servers: Callable[..., Server]) -> None:
    server = servers()
    load = Load(server, 10)
    for _ in range(3):
        await asyncio.sleep(2.5)
        assert server.kill("redis") or server.kill("valkey")
    await load.finish()
    await load.judge()


async def test_everything_stopped_and_started_again_under_load(servers: Callable[..., Server]) -> None:
    server = servers()
    load = Load(server, 10)
    for _ in range(2):
        await asyncio.sleep(2.5)
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)
    await load.finish()
    await load.judge()
    assert all(device.connects >= 2 for device in load.devices)


@pytest.mark.parametrize("failpoint", ["before-submit=kill@300", "after-submit=kill@300", "before-ack=kill@600"])
async def test_an_api_process_that_dies_at_a_failpoint(servers: Callable[..., Server], failpoint: str) -> None:
    server = servers(RULEMILL_FAILPOINTS=failpoint)
    load = Load(server, 3)
    await load.finish()
    await load.judge()
    assert sum(device.connects for device in load.devices) > DEVICES, "nothing died"


async def test_a_killed_workers_partitions_go_on_within_three_seconds(servers: Callable[..., Server]) -> None:
    server = servers()
    load = Load(server, 9)
    await asyncio.sleep(3)
    began = time.monotonic()
    server.kill("worker")
    await load.finish()
    await load.judge()
    last = dict.fromkeys(server.devices, began)
    gaps = dict.fromkeys(server.devices, 0.0)
    for name, _, at in server.seen():
        if at > began:
            gaps[name] = max(gaps[name], at - last[name])
            last[name] = at
    assert max(gaps.values()) <= 3.0


@pytest.mark.parametrize("poison", ["abort", "hang"])
async def test_a_payload_that_kills_or_stops_the_worker(servers: Callable[..., Server], poison: str) -> None:
    """It is delivered three times at most; a worker that stands still is killed by its parent."""
    server = servers()
    load = Load(server, 2)
    await asyncio.sleep(0.5)
    url = f"{server.facts['http']}/api/v1/token-device-7/telemetry"
    async with httpx.AsyncClient() as client:
        reply = await client.post(url, content=json.dumps({"seq": -1, "poison": poison}))
    assert reply.status_code == 200
    await load.finish()
    deadline = time.monotonic() + 40
    while not (letters := await load.dead_letters()) and time.monotonic() < deadline:
        await asyncio.sleep(0.3)
    assert [letter["data"]["seq"] for letter in letters] == [-1]
    deliveries = [seq for _, seq, _ in server.seen() if seq == -1]
    assert 1 <= len(deliveries) <= 3
    await load.judge(dead=1)
