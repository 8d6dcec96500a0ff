"""Live values from a device's message to a listener, through a real chain and Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.live_values import LiveValues, Told
from tests.api.stack import TENANT, Stack
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


async def post(stack: Stack, device: Any, data: Any, **metadata: str) -> None:
    ts_ms = stack.intake.stamp(device.id)
    message = stack.intake.message(
        device, "POST_TELEMETRY_REQUEST", data, dialect="tti", transport="http", ts_ms=ts_ms, metadata=metadata
    )
    await stack.intake.submit([message])


@pytest.mark.spec("G-24", "TTI-36", "TTI-37")
async def test_values_are_told_in_order_as_their_metadata_says(redis_url: str) -> None:
    async with Stack(redis_url) as stack:
        device = await stack.device("d1")
        live = LiveValues(redis_url)
        await live.start()
        heard: list[Told] = []
        others: list[Told] = []
        remove = await live.listen(TENANT, heard.extend)
        await live.listen("somebody-else", others.extend)
        for n in range(5):
            await post(stack, device, {"n": n, "gone": None}, ts=str(1000 + n))
        await post(stack, device, {"n": "silent"}, broadcast="false")
        await post(stack, device, {"n": "fleeting"}, store="false", ts="2000")
        await until(lambda: len(heard) >= 6)
        assert heard == [Told(device.id, 1000 + n, {"n": n}) for n in range(5)] + [
            Told(device.id, 2000, {"n": "fleeting"})
        ]
        assert await stack.latest(device) == {"n": "silent"}
        await remove()
        await post(stack, device, {"n": "unheard"})
        await stack.idle()
        await asyncio.sleep(0.05)
        assert len(heard) == 6
        assert others == []
        await live.stop()


async def test_a_break_is_told_and_healed(redis_url: str) -> None:
    async with Stack(redis_url) as stack:
        device = await stack.device("d1")
        live = LiveValues(redis_url)
        await live.start()
        heard: list[Told] = []
        breaks: list[int] = []
        live.on_lost(lambda: breaks.append(1))
        await live.listen(TENANT, heard.extend)
        for client in await stack.redis.client_list():
            if client["name"] == "live-values":
                await stack.redis.execute_command("CLIENT", "KILL", "ID", client["id"])
        await until(lambda: len(breaks) >= 2)
        await post(stack, device, {"n": 1})
        await until(lambda: heard)
        await live.stop()
