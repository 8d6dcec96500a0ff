"""Worker processes that tests kill and freeze, and a parent for them."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections import Counter
from pathlib import Path

from engine.leases import give_back
from tests.engine.bench import PARTITIONS


class Farm:
    """Starts worker processes, with SQLite or the InfluxDB at a URL.

    As their parent would, it gives the leases of a dead one back and starts another.
    """

    def __init__(self, url: str, log: Path, influx: str = "") -> None:
        self.url, self.log, self.influx = url, log, influx
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
        environment["RULEMILL_TEST_STORE"] = self.influx
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
