"""Live messages and what nodes did with them, for whoever watches: one subscription a process, a bounded queue each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from api.flow.watching import BEAT_S, Watchers
from engine.effects import Step
from engine.message import now_ms
from engine.tail import CHANNEL, WATCHED_KEY

QUEUED_MOST: Final = 1000
"""Lines that wait for a slow reader; one more and it is cut."""

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
        self.read_s = asyncio.get_running_loop().time()

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
    """Lets readers watch what nodes of a tenant's chains do."""

    def __init__(self, url: str, redis: Redis) -> None:
        self.watchers: Watchers[_Viewer] = Watchers(url, redis, CHANNEL, WATCHED_KEY, self._handle, self._lost)

    async def watch(self, tenant: str, device: str = "") -> AsyncGenerator[bytes, None]:
        """Lines of JSON about the tenant (and one device of it), from now until the reader goes or is cut.

        `{"watching": …}` comes first, `{"beat": ms}` after 5 s without any other, `{"gap": reason}` when something
        may have been missed, `{"cut": reason}` last when the server ends it. Workers notice a new reader within half
        a second.
        """
        viewer = _Viewer(tenant, device)
        await self.watchers.enter(viewer)
        return self._lines(viewer)

    async def _lines(self, viewer: _Viewer) -> AsyncGenerator[bytes, None]:
        try:
            yield _line({"watching": viewer.tenant, "device": viewer.device})
            while True:
                viewer.read_s = asyncio.get_running_loop().time()
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
            await self.watchers.leave(viewer)

    async def stop(self) -> None:
        """Cut every reader."""
        await self.watchers.stop()

    def _handle(self, payload: bytes) -> None:
        step = _decode(payload)
        message = step.message
        line: dict[str, Any] | None = None
        for viewer in self.watchers.viewers:
            if viewer.tenant == message.tenant and viewer.device in ("", message.originator):
                line = line or step_line(step)
                viewer.give(line)

    def _lost(self) -> None:
        for viewer in self.watchers.viewers:
            viewer.give({"gap": "the connection to Redis was lost for a moment"})


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
