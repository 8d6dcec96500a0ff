"""Live looks: what nodes do, and the points that come of it, for whoever watches; no cost while nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.effects import Step
from engine.entries import encode
from engine.message import Point
from engine.wire import Argument, Wire

log = logging.getLogger("rulemill.tail")

WATCHED_KEY = "rm:{reg}:tail"
"""Hash of watched tenants; whoever watches renews its field, and the key expires without it."""
CHANNEL = "rm:tail"
POINTS_WATCHED_KEY = "rm:{reg}:tail-points"
POINTS_CHANNEL = "rm:tail-points"
"""The same for new points."""
AT_ONCE = 500
"""Steps, or points, published of one commit; the rest is not told: a tail is a look, not a record."""

MOST_BYTES = 1 << 20
"""Points of a commit that take more are only counted: Redis cuts subscribers that it has too much for."""


class NewPoints(msgspec.Struct, frozen=True, array_like=True):
    """Points of one tenant that a commit has made durable, and how many more there were."""

    tenant: str
    points: list[Point]
    more: int


class Tail:
    """Publishes steps and points of tenants that somebody watches."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._watched: frozenset[str] = frozenset()
        self._points_watched: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()

    def wants(self, tenant: str) -> bool:
        """Whether somebody watches what the tenant's nodes do."""
        return tenant in self._watched

    async def watch(self) -> None:
        """Look every half second who watches."""
        while True:
            try:
                replies = await self._wire.execute([("HKEYS", WATCHED_KEY), ("HKEYS", POINTS_WATCHED_KEY)])
                self._watched, self._points_watched = (
                    frozenset(name.decode() for name in names) if isinstance(names, list) else frozenset()
                    for names in replies
                )
            except RedisConnectionError:
                self._watched = self._points_watched = frozenset()
            await asyncio.sleep(0.5)

    def publish(self, steps: Sequence[Step]) -> None:
        """Tell what nodes did, after the commit; lost if nobody listens."""
        if steps:
            self._send([("PUBLISH", CHANNEL, encode(step)) for step in steps[:AT_ONCE]])

    def publish_points(self, points: Sequence[Point]) -> None:
        """Tell of points that a commit has made durable; lost if nobody listens."""
        for tenant in self._points_watched:
            found = [point for point in points if point.tenant == tenant]
            if found:
                told = encode(NewPoints(tenant, found[:AT_ONCE], max(0, len(found) - AT_ONCE)))
                if len(told) > MOST_BYTES:
                    told = encode(NewPoints(tenant, [], len(found)))
                self._send([("PUBLISH", POINTS_CHANNEL, told)])

    def _send(self, commands: list[tuple[Argument, ...]]) -> None:
        task = asyncio.create_task(self._publish(commands), name="tail")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, commands: list[tuple[Argument, ...]]) -> None:
        try:
            await self._wire.execute(commands)
        except RedisConnectionError as error:
            log.info("tail is not told: %s", error)
