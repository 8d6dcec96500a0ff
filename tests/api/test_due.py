"""What falls due is done by one process, and goes on after an error."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError

from api import due
from api.due import Due
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


async def test_one_of_two_looks_and_an_error_of_one_look_stops_no_other(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(due, "EVERY_S", 0.01)
    client = redis.Redis.from_url(redis_url)
    looked: list[int] = []

    async def away() -> bool:
        raise RedisConnectionError("away")

    def look(number: int) -> due.Look:
        async def seen() -> bool:
            looked.append(number)
            return len(looked) < 3

        return seen

    both = [Due(client, [away, look(number)]) for number in (1, 2)]
    for each in both:
        await each.start()

    async def some() -> bool:
        return len(looked) > 5

    await until(some)
    assert len(set(looked)) == 1
    assert "waits for Redis: away" in caplog.text
    for each in both:
        await each.stop()
    seen = len(looked)
    await asyncio.sleep(0.05)
    assert len(looked) == seen
    await client.aclose()
