"""A whole server on a real InfluxDB that goes away under load and comes back: points in are points out."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.cli.serving import rulemill
from tests.faults.load import Load
from tests.faults.server import Server
from tests.services import start_influx

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]


class Influx:
    """An InfluxDB that may be killed and started again where it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._process: subprocess.Popen[bytes]
        self._process, self.url = start_influx(folder)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        self._process, _ = start_influx(self._folder, port=urlsplit(self.url).port or 0)

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def influx(tmp_path: Path) -> Iterator[Influx]:
    made = Influx(tmp_path / "influx")
    yield made
    made.kill()


async def status(server: Server) -> dict[str, Any]:
    facts = server.facts
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {facts['operator_token']}"}) as client:
        reply = await client.get(f"{facts['http']}/flow/v1/status")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def until(server: Server, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while not condition(found := await status(server)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)
    return found


async def test_killed_and_frozen_under_load(influx: Influx, servers: Callable[..., Server]) -> None:
    """And a worker dies while it is away."""
    server = servers(RULEMILL_INFLUX_URL=influx.url)
    load = Load(server, 8)
    await asyncio.sleep(1)
    influx.freeze()
    await asyncio.sleep(1)
    influx.thaw()
    await asyncio.sleep(1)
    await asyncio.to_thread(influx.kill)
    away = await until(server, lambda found: any(one["circuit"] == "open" for one in found["stores"]))
    assert all(one["reason"] for one in away["stores"] if one["circuit"] == "open")
    shown = await asyncio.to_thread(rulemill, server.data, "status")
    assert "store         influxdb: has taken no points for" in shown.out
    assert server.kill("worker")
    await asyncio.sleep(1)
    waiting = await status(server)
    assert waiting["spool_bytes"] > 0
    await asyncio.to_thread(influx.start)
    await load.finish()
    await load.judge()
    await until(
        server, lambda found: not found["spool_bytes"] and {one["circuit"] for one in found["stores"]} == {"closed"}
    )


async def test_a_server_that_starts_before_its_store(influx: Influx, servers: Callable[..., Server]) -> None:
    """Whether the store says nothing or is not there."""
    influx.freeze()
    server = servers(RULEMILL_INFLUX_URL=influx.url)
    load = Load(server, 1)
    await load.finish()
    await until(server, lambda found: found["spool_bytes"] and not found["entries"])
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(influx.kill)
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(influx.start)
    await load.judge()


async def test_a_full_spool_closes_the_door_and_a_drained_one_opens_it(
    influx: Influx, servers: Callable[..., Server]
) -> None:
    server = servers(RULEMILL_INFLUX_URL=influx.url, RULEMILL_SPOOL_BYTES="60000")
    await asyncio.to_thread(influx.kill)
    load = Load(server, 2)
    refused = None
    async with httpx.AsyncClient() as client:
        deadline = time.monotonic() + 20
        while refused is None or refused.status_code != 503:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
            attributes = f"{server.facts['http']}/api/v1/token-device-7/attributes"
            refused = await client.post(attributes, content='{"probe": 1}')
        assert int(refused.headers["Retry-After"]) >= 1
        assert "telemetry store behind" in refused.text
        ready = await client.get(f"{server.facts['http']}/readyz")
        assert (ready.status_code, ready.json()["failing"]) == (503, {"door": "telemetry store behind"})
    await asyncio.to_thread(influx.start)
    await load.finish()
    await load.judge()
