"""New points for whoever watches: of watched tenants only, and never more at once than Redis lets a subscriber have."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import redis.asyncio as redis

from engine.message import Point
from engine.tail import AT_ONCE, MOST_BYTES, POINTS_CHANNEL, POINTS_WATCHED_KEY, NewPoints, Tail
from engine.wire import Subscriber, Wire
from tests.engine.toy import until


@pytest.mark.asyncio
async def test_points_of_watched_tenants(redis_url: str) -> None:
    told: list[NewPoints] = []
    decode = msgspec.msgpack.Decoder(NewPoints).decode
    subscriber = Subscriber(redis_url, "test", [POINTS_CHANNEL], lambda _, payload: told.append(decode(payload)))
    client, wire = redis.Redis.from_url(redis_url), Wire(redis_url, "test")
    tail = Tail(wire)
    await subscriber.start()
    points = [Point("a" if n % 2 else "b", "d", "k", n, n) for n in range(2 * AT_ONCE + 6)]
    tail.publish_points(points)  # nobody watches
    await client.hset(POINTS_WATCHED_KEY, "a", 1)
    watching = asyncio.create_task(tail.watch())
    await until(lambda: tail._points_watched == {"a"})
    tail.publish_points(points)
    tail.publish_points([Point("a", "d", "k", 1, "x" * MOST_BYTES), Point("a", "d", "k", 2, 2)])
    await until(lambda: len(told) == 2)
    assert (len(told[0].points), told[0].more) == (AT_ONCE, 3)
    assert {point.tenant for point in told[0].points} == {"a"}
    assert (told[1].points, told[1].more) == ([], 2)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await subscriber.stop()
    await wire.close()
    await client.aclose()
