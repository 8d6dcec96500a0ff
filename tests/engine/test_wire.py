"""The connection to Redis: knows its scripts whatever Redis forgets, and notices when nobody speaks any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio as redis

from engine import wire as module
from engine.partitions import all_keys
from engine.redis_scripts import TRIM
from engine.wire import Subscriber, Wire, call, failed
from tests.engine.toy import until
from tests.faults.proxy import proxied

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def wire(redis_url: str) -> AsyncIterator[Wire]:
    made = Wire(redis_url, "test")
    yield made
    await made.close()


async def test_scripts_that_redis_forgets_are_told_again_and_the_connection_stays(wire: Wire, redis_url: str) -> None:
    keys = all_keys(4)[0]
    command = call(TRIM, (keys.points, keys.spooled), "1-0", "1-1")
    [id] = await wire.execute([("CLIENT", "ID")])
    async with redis.Redis.from_url(redis_url) as client:
        await client.script_flush()
    assert failed((await wire.execute([command]))[0])
    assert await wire.execute([command, ("CLIENT", "ID")]) == [0, id]


async def test_no_commands_are_no_replies(wire: Wire) -> None:
    assert await wire.execute([]) == []
    assert await wire.execute([("PING",)]) == [b"PONG"]


async def test_a_subscription_that_fell_silent_is_made_again(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PING_EVERY_S", 0.2)
    heard: list[bytes] = []
    lost: list[bool] = []
    async with proxied(redis_url, tmp_path) as (proxy, url), redis.Redis.from_url(redis_url) as client:
        subscriber = Subscriber(url, "test", ["c"], lambda _, payload: heard.append(payload), lambda: lost.append(True))
        await subscriber.start()
        proxy.hold()
        await until(lambda: lost)
        proxy.release()

        async def told() -> bool:
            await client.publish("c", "again")
            await asyncio.sleep(0.05)
            return bool(heard)

        await until(told)
        await subscriber.stop()
