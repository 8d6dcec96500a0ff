"""Who watches which tenants live: one subscription a process while somebody does, and a sign to the workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.message import now_ms
from engine.service import end
from engine.wire import Subscriber

log = logging.getLogger("rulemill.tailing")

RENEW_EVERY_S: Final = 2.0
FORGOTTEN_MS: Final = 10_000
"""Whoever does not renew for so long watches no more."""
BEAT_S: Final = 5.0
"""After so long without any other line, a sign of life."""
UNREAD_S: Final = 30.0
"""A viewer that nobody reads from for so long is cut: its reader is gone, or stands still."""


class Viewer(Protocol):
    """One reader."""

    tenant: str
    cut: str
    """Why nothing more comes; empty while it does."""
    read_s: float
    """When it was last read from, by the loop's clock."""

    def end(self, reason: str) -> None:
        """Nothing more comes; what is queued is dropped, so that the reader learns of it soon."""


V = TypeVar("V", bound=Viewer)


class Watchers(Generic[V]):
    """The viewers of one channel. Subscribes with the first and leaves with the last; `key` says which tenants.

    Workers notice a new one within half a second.
    """

    def __init__(
        self, url: str, redis: Redis, channel: str, key: str, handle: Callable[[bytes], None], lost: Callable[[], None]
    ) -> None:
        self.viewers: set[V] = set()
        self._url, self._redis, self._channel, self._key = url, redis, channel, key
        self._handle, self._lost = handle, lost
        self._subscriber: Subscriber | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    @property
    def subscribed(self) -> bool:
        """Whether this process listens."""
        return self._subscriber is not None

    async def enter(self, viewer: V) -> None:
        """Give the viewer what comes from now on."""
        async with self._changing:
            if self._subscriber is None:
                subscriber = Subscriber(
                    self._url, "tail", [self._channel], lambda _, payload: self._handle(payload), self._lost
                )
                await subscriber.start()
                self._subscriber = subscriber
                self._renewing = asyncio.create_task(self._renew_for_ever(), name="tail-renew")
            self.viewers.add(viewer)
        try:
            await self._renew()
        except BaseException:
            await self.leave(viewer)
            raise

    async def leave(self, viewer: V) -> None:
        """The viewer is gone."""
        async with self._changing:
            self.viewers.discard(viewer)
            if not self.viewers:
                await self._unsubscribe()

    async def stop(self) -> None:
        """Cut every viewer."""
        for viewer in list(self.viewers):
            viewer.end("the server stops")
        async with self._changing:
            self.viewers.clear()
            await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        if self._renewing is not None:
            await end(self._renewing)
            self._renewing = None
        if self._subscriber is not None:
            await self._subscriber.stop()
            self._subscriber = None

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await self._renew()
            except RedisError as error:
                log.warning("watching is not renewed: %s", error)
            async with self._changing:
                if not self.viewers:
                    self._renewing = None
                    await self._unsubscribe()
                    return

    async def _renew(self) -> None:
        """Say whom this process watches, and take away tenants that nobody has renewed."""
        unread_s = asyncio.get_running_loop().time() - UNREAD_S
        for viewer in self.viewers:
            if viewer.read_s < unread_s:
                viewer.end(f"nothing was read for {UNREAD_S:g} s")
        # One that nobody ever read from has no reader to leave.
        self.viewers = {viewer for viewer in self.viewers if not viewer.cut}
        now = now_ms()
        mine: dict[Any, Any] = {viewer.tenant: now for viewer in self.viewers}
        known = await self._redis.hgetall(self._key)
        gone = [name for name, at in known.items() if int(at) < now - FORGOTTEN_MS]
        async with self._redis.pipeline(transaction=True) as pipe:
            if gone:
                pipe.hdel(self._key, *gone)
            if mine:
                pipe.hset(self._key, mapping=mine)
                pipe.pexpire(self._key, FORGOTTEN_MS)
            await pipe.execute()
