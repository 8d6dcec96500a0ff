"""What devices measure, told to apps as it happens: one subscription for each tenant that somebody listens to.

Only what was told since: who comes later, or was away (`lost` says so), reads the telemetry store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from api.listeners import Listeners
from engine.commit import values_channel
from engine.wire import Subscriber

log = logging.getLogger("rulemill.live")

PREFIX: Final = values_channel("")


class Told(NamedTuple):
    """Values that one message told of a device."""

    device: str
    ts_ms: int
    values: Mapping[str, Any]


Heard = Callable[[Sequence[Told]], None]
"""Called with what a batch told of a tenant's devices, in order. Must not wait."""

_decode: Final = msgspec.msgpack.Decoder(list[Told]).decode


class LiveValues:
    """Tells listeners the values of their tenant's devices."""

    def __init__(self, redis_url: str) -> None:
        self._listeners: Listeners[[Sequence[Told]]] = Listeners("values")
        self._lost: Listeners[[]] = Listeners("breaks")
        # A channel that nobody speaks on: a subscription needs one to begin with.
        self._subscriber = Subscriber(redis_url, "live-values", [PREFIX], self._handle, self._tell_lost)
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Connect; raises redis ConnectionError when Redis is away."""
        await self._subscriber.start()

    async def stop(self) -> None:
        """Listen no more."""
        await self._subscriber.stop()

    async def listen(self, tenant: str, callback: Heard) -> Callable[[], Awaitable[None]]:
        """Call back for everything told of a tenant from when this returns; gives what ends that.

        Raises redis ConnectionError when Redis is away.
        """
        async with self._changing:
            if tenant not in self._listeners:
                await self._subscriber.add(values_channel(tenant))
            unlisten = self._listeners.add(callback, tenant)

        async def remove() -> None:
            async with self._changing:
                if tenant not in self._listeners:
                    return
                unlisten()
                if tenant not in self._listeners:
                    # A lost connection ends the subscription too, and it is not made anew.
                    with suppress(RedisConnectionError):
                        await self._subscriber.remove(values_channel(tenant))

        return remove

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when something may have been missed. Gives what ends that."""
        return self._lost.add(callback)

    def _handle(self, channel: str, payload: bytes) -> None:
        try:
            told = _decode(payload)
        except msgspec.MsgspecError as error:
            log.error("what is told of values cannot be read: %s", error)
            return
        self._listeners.tell(channel.removeprefix(PREFIX), told)

    def _tell_lost(self) -> None:
        self._lost.tell("")
