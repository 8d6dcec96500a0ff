"""New points for whoever watches: one subscription a process, a bounded queue each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from api.flow.watching import BEAT_S, Watchers
from api.points.ndjson_form import tenant_lines
from engine.message import Point, now_ms
from engine.stores.registry_store import Registry
from engine.tail import POINTS_CHANNEL, POINTS_WATCHED_KEY, NewPoints

QUEUED_MOST: Final = 10_000
"""Points that wait for a slow reader; the ones that come then are only counted."""
NAMES_MOST: Final = 10_000

_decode = msgspec.msgpack.Decoder(NewPoints).decode


class _Viewer:
    """One reader's points, until it is cut."""

    def __init__(self, tenant: str, ids: frozenset[str], patterns: Sequence[str], keys: frozenset[str]) -> None:
        self.tenant, self.keys = tenant, keys
        self.ids, self.patterns = ids, patterns
        """Both empty: all devices."""
        self.names: dict[str, str | None] = {}
        """Name of each device seen; None for one that is not wanted."""
        self.cut = ""
        self.read_s = asyncio.get_running_loop().time()
        self._waiting: deque[list[Point]] = deque()
        self._held = self._missed = 0
        self._lost = False
        self._wake = asyncio.Event()

    def give(self, told: NewPoints) -> None:
        points = told.points
        if self.keys:
            points = [point for point in points if point.key in self.keys]
        if self.ids and not self.patterns:
            points = [point for point in points if point.device in self.ids]
        self._missed += told.more
        if self.cut or self._held + len(points) > QUEUED_MOST:
            self._missed += len(points)
        elif points:
            self._waiting.append(points)
            self._held += len(points)
        self._wake.set()

    def lose(self) -> None:
        self._lost = True
        self._wake.set()

    def end(self, reason: str) -> None:
        self.cut = self.cut or reason
        self._waiting.clear()
        self._wake.set()

    async def wait(self, for_s: float) -> bool:
        """Whether something has come within that time."""
        try:
            async with asyncio.timeout(for_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> tuple[list[Point], list[dict[str, Any]]]:
        """The points that have come, and what is to be said of others."""
        self._wake.clear()
        points = [point for part in self._waiting for point in part]
        self._waiting.clear()
        self._held, missed, self._missed = 0, self._missed, 0
        lost, self._lost = self._lost, False
        said = [{"gap": f"{missed} points came too fast to be shown"}] if missed else []
        if lost:
            said.append({"gap": "the connection to Redis was lost for a moment"})
        return points, said

    def wants(self, id: str, name: str, external_id: str) -> bool:
        if not self.ids and not self.patterns:
            return True
        return id in self.ids or any(fnmatchcase(text, each) for each in self.patterns for text in (name, external_id))


class PointTail:
    """Lets readers watch a tenant's new points."""

    def __init__(self, url: str, redis: Redis, registry: Registry) -> None:
        self._registry = registry
        self.watchers: Watchers[_Viewer] = Watchers(
            url, redis, POINTS_CHANNEL, POINTS_WATCHED_KEY, self._handle, self._lost
        )

    async def watch(
        self, tenant: str, ids: Sequence[str] = (), patterns: Sequence[str] = (), keys: Sequence[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        """A line of JSON for each new point, from now until the reader goes or is cut.

        `{"watching": tenant}` comes first, `{"beat": ms}` after 5 s without any other, `{"gap": reason}` when some
        are missing, `{"cut": reason}` last when the server ends it.
        """
        viewer = _Viewer(tenant, frozenset(ids), tuple(patterns), frozenset(keys))
        await self.watchers.enter(viewer)
        return self._lines(viewer)

    async def _lines(self, viewer: _Viewer) -> AsyncGenerator[bytes, None]:
        try:
            yield _line({"watching": viewer.tenant})
            loop = asyncio.get_running_loop()
            silent_from = loop.time()
            while True:
                viewer.read_s = loop.time()
                if not await viewer.wait(silent_from + BEAT_S - loop.time()):
                    text = _line({"beat": now_ms()})
                elif viewer.cut:
                    yield _line({"cut": viewer.cut})
                    return
                else:
                    points, said = viewer.take()
                    text = await self._named(viewer, points) + b"".join(_line(each) for each in said)
                if text:
                    yield text
                    silent_from = loop.time()
        finally:
            await self.watchers.leave(viewer)

    async def _named(self, viewer: _Viewer, points: list[Point]) -> bytes:
        """Lines of the points that the viewer wants, with the names of their devices."""
        names = viewer.names
        if len(names) > NAMES_MOST:
            names.clear()
        new = {point.device for point in points} - names.keys()
        if new:
            known = await self._registry.find_devices(viewer.tenant, sorted(new))
            for id in new:
                name, external = (known[id].name, known[id].external_id) if id in known else ("", "")
                names[id] = name if viewer.wants(id, name, external) else None
        wanted = [point for point in points if names[point.device] is not None]
        return tenant_lines(wanted, {id: name for id, name in names.items() if name}) if wanted else b""

    async def stop(self) -> None:
        """Cut every reader."""
        await self.watchers.stop()

    def _handle(self, payload: bytes) -> None:
        told = _decode(payload)
        for viewer in self.watchers.viewers:
            if viewer.tenant == told.tenant:
                viewer.give(told)

    def _lost(self) -> None:
        for viewer in self.watchers.viewers:
            viewer.lose()


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
