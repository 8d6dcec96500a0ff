"""Live messages and what nodes did with them, for whoever watches: one subscription a process, a bounded queue each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.effects import Step
from engine.message import now_ms
from engine.tail import CHANNEL, WATCHED_KEY
from engine.wire import Subscriber

log = logging.getLogger("rulemill.tailing")

QUEUED_MOST: Final = 1000
"""Lines that wait for a slow reader; one more and it is cut."""
RENEW_EVERY_S: Final = 2.0
FORGOTTEN_MS: Final = 10_000
"""Whoever does not renew for so long watches no more."""
BEAT_S: Final = 5.0

_decode = msgspec.msgpack.Decoder(Step).decode


def shown_data(data: Any) -> Any:
    """Data as JSON shows it: bytes as `{"raw_b64": …}`."""
    return {"raw_b64": data} if isinstance(data, bytes) else data


def step_line(step: Step) -> dict[str, Any]:
    """A step as the API shows it."""
    message = step.message
    return {
        "node": step.node,
        "kind": step.kind,
        "relation": step.relation,
        "error": step.error,
        "message": {
            "id": message.id,
            "copy": message.copy,
            "ts_ms": message.ts_ms,
            "type": message.type,
            "originator": message.originator,
            "data": shown_data(message.data),
            "metadata": message.metadata,
        },
    }


class _Viewer:
    """One reader's lines, until it is cut."""

    def __init__(self, tenant: str, device: str) -> None:
        self.tenant, self.device = tenant, device
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.cut = ""

    def give(self, line: dict[str, Any]) -> None:
        if self.cut:
            return
        if self.lines.qsize() >= QUEUED_MOST:
            self.end(f"too slow: {QUEUED_MOST} lines were waiting")
        else:
            self.lines.put_nowait(_line(line))

    def end(self, reason: str) -> None:
        """Nothing more comes; what is queued is dropped, so that the reader learns of it soon."""
        if not self.cut:
            self.cut = reason
            while not self.lines.empty():
                self.lines.get_nowait()
            self.lines.put_nowait(None)


class TailHub:
    """Lets readers watch tenants. Subscribes with the first reader and leaves with the last."""

    def __init__(self, url: str, redis: Redis) -> None:
        self._url, self._redis = url, redis
        self._viewers: set[_Viewer] = set()
        self._subscriber: Subscriber | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def watch(self, tenant: str, device: str = "") -> AsyncIterator[bytes]:
        """Lines of JSON about the tenant (and one device of it), from now until the reader goes or is cut.

        `{"watching": …}` comes first, `{"beat": ms}` after 5 s without any other, `{"gap": reason}` when something
        may have been missed, `{"cut": reason}` last when the server ends it. Workers notice a new reader within half
        a second.
        """
        viewer = _Viewer(tenant, device)
        await self._enter(viewer)
        return self._lines(viewer)

    async def _lines(self, viewer: _Viewer) -> AsyncIterator[bytes]:
        try:
            yield _line({"watching": viewer.tenant, "device": viewer.device})
            while True:
                try:
                    async with asyncio.timeout(BEAT_S):
                        line = await viewer.lines.get()
                except TimeoutError:
                    line = _line({"beat": now_ms()})
                if line is None:
                    yield _line({"cut": viewer.cut})
                    return
                yield line
        finally:
            await self._leave(viewer)

    async def stop(self) -> None:
        """Cut every reader."""
        for viewer in list(self._viewers):
            viewer.end("the server stops")
        async with self._changing:
            self._viewers.clear()
            await self._unsubscribe()

    async def _enter(self, viewer: _Viewer) -> None:
        async with self._changing:
            if self._subscriber is None:
                subscriber = Subscriber(self._url, "tail", [CHANNEL], self._handle, self._lost)
                await subscriber.start()
                self._subscriber = subscriber
                self._renewing = asyncio.create_task(self._renew_for_ever(), name="tail-renew")
            self._viewers.add(viewer)
        try:
            await self._renew()
        except BaseException:
            await self._leave(viewer)
            raise

    async def _leave(self, viewer: _Viewer) -> None:
        async with self._changing:
            self._viewers.discard(viewer)
            if not self._viewers:
                await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
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

    async def _renew(self) -> None:
        """Say whom this process watches, and take away tenants that nobody has renewed."""
        # One that was cut because nobody ever read from it has no reader to leave.
        self._viewers = {viewer for viewer in self._viewers if not viewer.cut}
        now = now_ms()
        mine: dict[Any, Any] = {viewer.tenant: now for viewer in self._viewers}
        known = await self._redis.hgetall(WATCHED_KEY)
        gone = [name for name, at in known.items() if int(at) < now - FORGOTTEN_MS]
        async with self._redis.pipeline(transaction=True) as pipe:
            if gone:
                pipe.hdel(WATCHED_KEY, *gone)
            if mine:
                pipe.hset(WATCHED_KEY, mapping=mine)
                pipe.pexpire(WATCHED_KEY, FORGOTTEN_MS)
            await pipe.execute()

    def _handle(self, _: str, payload: bytes) -> None:
        step = _decode(payload)
        message = step.message
        line: dict[str, Any] | None = None
        for viewer in self._viewers:
            if viewer.tenant == message.tenant and viewer.device in ("", message.originator):
                line = line or step_line(step)
                viewer.give(line)

    def _lost(self) -> None:
        for viewer in self._viewers:
            viewer.give({"gap": "the connection to Redis was lost for a moment"})


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
