"""Devices that load a whole server, and the ledger: sent, acknowledged, processed, stored."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import httpx

from tests.faults.device import BASE_MS, Device
from tests.faults.server import TENANT, Server

DEVICES = 50
EVERY_S = 0.05


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
