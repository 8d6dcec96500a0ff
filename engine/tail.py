"""Live looks into running chains: what nodes do, for whoever watches, and no cost while nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.effects import Step
from engine.entries import encode
from engine.wire import Wire

log = logging.getLogger("rulemill.tail")

WATCHED_KEY = "rm:{reg}:tail"
"""Hash of watched tenants; whoever watches renews its field, and the key expires without it."""
CHANNEL = "rm:tail"
AT_ONCE = 500
"""Steps published of one commit; the rest is not told: a tail is a look, not a record."""


class Tail:
    """Publishes steps of tenants that somebody watches."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._watched: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()

    def wants(self, tenant: str) -> bool:
        """Whether somebody watches the tenant."""
        return tenant in self._watched

    async def watch(self) -> None:
        """Look every half second who watches."""
        while True:
            try:
                names = (await self._wire.execute([("HKEYS", WATCHED_KEY)]))[0]
                self._watched = frozenset(name.decode() for name in names) if isinstance(names, list) else frozenset()
            except RedisConnectionError:
                self._watched = frozenset()
            await asyncio.sleep(0.5)

    def publish(self, steps: Sequence[Step]) -> None:
        """Tell what nodes did, after the commit; lost if nobody listens."""
        if steps:
            task = asyncio.create_task(self._publish(list(steps)), name="tail")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _publish(self, steps: list[Step]) -> None:
        try:
            await self._wire.execute([("PUBLISH", CHANNEL, encode(step)) for step in steps[:AT_ONCE]])
        except RedisConnectionError as error:
            log.info("tail is not told: %s", error)
