"""What falls due without anybody asking: one process of all looks every second, and does it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError

from api.alone import Alone
from engine.stores.kept_calls import KeptCalls

log = logging.getLogger("rulemill.due")

EVERY_S: Final = 1.0

Look = Callable[[], Awaitable[bool]]
"""Does some of what is due; whether there may be more of it."""


class Due:
    """Calls each of `looks` in turn, for as long as this process holds the lease."""

    def __init__(self, client: redis.Redis, looks: Sequence[Look]) -> None:
        self._looks = looks
        self._alone = Alone(client, "due", self._work)

    async def start(self) -> None:
        """Begin to ask for the lease."""
        await self._alone.start()

    async def stop(self) -> None:
        """End, and give the lease back."""
        await self._alone.stop()

    async def _work(self) -> None:
        while True:
            more = False
            for look in self._looks:
                try:
                    more |= await look()
                except RedisConnectionError as error:
                    log.warning("what is due waits for Redis: %s", error)
            await asyncio.sleep(0 if more else EVERY_S)


async def look_at_calls(kept: KeptCalls) -> bool:
    """Do what is due with kept calls."""
    due = await kept.due()
    for id in due:
        await kept.look(id)
    return bool(due)
