"""What happens to devices, told at once: one subscription of the bus for a process, fanned out to who listens here.

Only a hint (`lost` says when some may be missing): what must arrive stands in Redis too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api.listeners import Listeners
from engine.bus import BUS
from engine.errors import Refused
from engine.service import end
from engine.wire import Subscriber

log = logging.getLogger("rulemill.live")

Heard = Callable[[str, Any], None]
"""Called with kind and body: "command" and the command's number, "attributes" and the new values of shared attributes,
"attributes_deleted" and their keys."""

_decode: Final = msgspec.msgpack.Decoder(tuple[str, str, str, Any]).decode


class Live:
    """Tells listeners what the bus says of their device. Callbacks run in the event loop and must not wait."""

    def __init__(self, redis_url: str) -> None:
        self._listeners: Listeners[[str, Any]] = Listeners("a device")
        self._lost: Listeners[[]] = Listeners("breaks")
        self._subscriber = Subscriber(redis_url, "live", [BUS], self._handle, self._tell_lost)

    async def start(self) -> None:
        """Listen; raises redis ConnectionError when Redis is away."""
        await self._subscriber.start()

    async def stop(self) -> None:
        """Listen no more."""
        await self._subscriber.stop()

    def listen(self, device_id: str, callback: Heard) -> Callable[[], None]:
        """Call back for everything about a device; gives what ends that (may be called twice)."""
        return self._listeners.add(callback, device_id)

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when something may have been missed: look for yourself. Gives what ends that."""
        return self._lost.add(callback)

    def _handle(self, _: str, payload: bytes) -> None:
        try:
            kind, _tenant, device, body = _decode(payload)
        except msgspec.MsgspecError as error:
            log.error("what the bus says cannot be read: %s", error)
            return
        self._listeners.tell(device, kind, body)

    def _tell_lost(self) -> None:
        self._lost.tell("")


class Recheck:
    """Runs `look` when asked: once for any number of asks, again when asked meanwhile, until it succeeds."""

    def __init__(self, name: str, look: Callable[[], Awaitable[None]], every_s: float = 0.5) -> None:
        self._name, self._look, self._every_s = name, look, every_s
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Look soon."""
        self._asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=self._name)

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            try:
                await self._look()
            except (RedisConnectionError, RedisTimeoutError, Refused) as error:
                log.warning("%s: %s (tried again in %g s)", self._name, error, self._every_s)
                self._asked = True
                await asyncio.sleep(self._every_s)

    def cancel(self) -> None:
        """Look no more, without waiting for a look under way to end."""
        self._asked = False
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Look no more."""
        self.cancel()
        if self._task is not None:
            await end(self._task)
            self._task = None
