"""What the bus says reaches who listens here, and nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.live import Recheck
from engine.errors import Refused
from tests.api.stack import TENANT, Stack
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


async def test_listeners_hear_of_their_device_only(redis_url: str) -> None:
    async with Stack(redis_url, work=False) as stack:
        heard: list[Any] = []
        again: list[Any] = []
        remove = stack.live.listen("d1", lambda kind, body: heard.append((kind, body)))
        stack.live.listen("d1", lambda kind, body: 1 / 0)
        stack.live.listen("d1", lambda kind, body: again.append((kind, body)))
        await stack.attributes.write(TENANT, "d2", "SHARED", {"a": 1})
        await stack.attributes.write(TENANT, "d1", "SHARED", {"b": 2})
        await until(lambda: again)
        assert heard == again == [("attributes", {"b": 2})]
        remove()
        remove()
        await stack.redis.publish("rm:bus", b"\xc1 not msgpack")
        await stack.attributes.delete(TENANT, "d1", "SHARED", ["b", "x"])
        await until(lambda: len(again) == 2)
        assert again[1] == ("attributes_deleted", ["b", "x"])
        assert len(heard) == 1


async def test_a_break_is_told(redis_url: str) -> None:
    async with Stack(redis_url, work=False) as stack:
        lost = asyncio.Event()
        heard: list[Any] = []
        stack.live.on_lost(lambda: 1 / 0)
        remove = stack.live.on_lost(lost.set)
        stack.live.listen("d1", lambda kind, body: heard.append(body))
        for client in await stack.redis.client_list():
            if client["name"] == "live":
                await stack.redis.client_kill_filter(_id=client["id"])
        await asyncio.wait_for(lost.wait(), 3)
        remove()

        async def spoken() -> bool:
            await stack.attributes.write(TENANT, "d1", "SHARED", {"b": 2})
            await asyncio.sleep(0.02)
            return bool(heard)

        await until(spoken)


async def test_looking_again_coalesces_repeats_and_insists() -> None:
    looked = 0
    gate = asyncio.Event()

    async def look() -> None:
        nonlocal looked
        looked += 1
        if looked == 2:
            raise Refused("not now")
        await gate.wait()

    recheck = Recheck("test", look, every_s=0.01)
    for _ in range(5):
        recheck.ask()
    await asyncio.sleep(0.02)
    assert looked == 1
    recheck.ask()
    recheck.ask()
    gate.set()
    await until(lambda: looked == 3)
    await asyncio.sleep(0.05)
    assert looked == 3
    recheck.ask()
    await until(lambda: looked == 4)
    await recheck.stop()
    await recheck.stop()
