"""The whole server under load while parts of it die. The ledger: sent, acknowledged, processed, stored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import httpx
import pytest

from tests.faults.load import DEVICES, Load
from tests.faults.server import Server

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]


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


@pytest.mark.parametrize("failpoint", ["before-submit=kill@100", "after-submit=kill@100", "before-ack=kill@600"])
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
