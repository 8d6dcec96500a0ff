"""Answers that go on: every new value as a JSON text of its own, `{}` when there was none for a while (`TTI-S15`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from api.dialects.thethingsio.callers import Caller, Callers
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.reading import number
from api.dialects.thethingsio.subscriptions import Subscriptions
from api.dialects.thethingsio.watching import SessionEnd, ThingToken, Watch
from api.keepalives import KeepAlives
from api.live_values import Told
from api.transports.http import JSON, Feed, Request
from engine.stores.apps.objects import Place
from engine.stores.registry import Device

DEFAULT_MS, LEAST_MS, MOST_MS = 60_000, 1000, 3_600_000
_SUBSCRIBED: Final = b'{"status":"success","message":"subscribed"}'
_ALIVE: Final = b"{}"


def keep_alive_ms(request: Request) -> int:
    """After how long a silence `{}` is sent; BadInput for what is no number."""
    return min(max(number(request.query.get("keepAlive"), "keepAlive", DEFAULT_MS), LEAST_MS), MOST_MS)


class JsonStream:
    """An open answer. `begin` starts what speaks on it and gives what ends that."""

    def __init__(self, keepalives: KeepAlives, every_ms: int, stop: Callable[[], Awaitable[None]]) -> None:
        self.every_s, self.spoke_s = every_ms / 1000, 0.0
        self._keepalives, self._stop = keepalives, stop
        self._feed: Feed | None = None
        self._before: list[bytes] = []
        """What was said before the head was out."""
        self._over = False

    def answer(self) -> Feed:
        """The answer that this stream is."""
        return Feed(200, (JSON, (b"cache-control", b"no-cache")), self._opened)

    def _opened(self, feed: Feed) -> Callable[[], None]:
        self._feed = feed
        self.spoke_s = asyncio.get_running_loop().time()
        feed.push(_SUBSCRIBED)
        for text in self._before:
            feed.push(text)
        if self._over:
            feed.end()
        end = self._keepalives.add(self)

        def closed() -> None:
            self._feed = None
            end()
            _background(self._stop())

        return closed

    def say(self, value: Any) -> None:
        """Send a JSON text; a reader that is too slow is cut off."""
        if self._over:
            return
        text = msgspec.json.encode(value)
        if self._feed is None:
            if len(self._before) < 256:
                self._before.append(text)
            return
        self.spoke_s = asyncio.get_running_loop().time()
        self._feed.push(text)

    def finish(self, error: Any) -> None:
        """Send a last text, and end; nothing is said after it."""
        if self._over:
            return
        self.say(error)
        self._over = True
        if self._feed is not None:
            self._feed.end()

    def blank(self) -> None:
        """Say that there is nothing new, unless something waits to be sent."""
        self.spoke_s = asyncio.get_running_loop().time()
        if self._feed is not None and not self._feed.busy:
            self._feed.push(_ALIVE)


_tasks: Final[set[asyncio.Future[None]]] = set()


def _background(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class Streams:
    """Makes the streams of a process."""

    def __init__(self, parts: Parts, callers: Callers, subscriptions: Subscriptions) -> None:
        self._parts, self._callers, self._subscriptions = parts, callers, subscriptions
        self._keepalives = KeepAlives()

    def stop(self) -> None:
        """Send no more blanks; open streams are ended by the front."""
        self._keepalives.stop()

    async def of_resource(self, request: Request, caller: Caller, resource: str, thing: str | None) -> Feed:
        """New values of a resource, as `[{"value": 15, "id": thing}]` (`TTI-40`, `TTI-41`)."""
        every_ms = keep_alive_ms(request)

        def value(told: Told, value: Any) -> None:
            stream.say([{"value": value, "id": told.device}])

        def ended(error: dict[str, Any]) -> None:
            stream.finish(error)

        watch = Watch(self._parts, self._callers, caller, resource, thing, value, ended)
        stream = JsonStream(self._keepalives, every_ms, watch.end)
        await watch.begin(self._subscriptions)
        return stream.answer()

    async def of_thing(self, request: Request, device: Device, print_: str) -> Feed:
        """New values of a thing, as `[{"key": "b", "value": 1, "datetime": …}]` (`TTI-X5`), while its token holds."""
        every_ms = keep_alive_ms(request)

        def heard(told: Told) -> None:
            date = iso(told.ts_ms)
            stream.say([{"key": key, "value": value, "datetime": date} for key, value in told.values.items()])

        watch = ThingToken(self._parts, device, print_, heard, lambda error: stream.finish(error))
        stream = JsonStream(self._keepalives, every_ms, watch.end)
        await watch.begin(self._subscriptions)
        return stream.answer()

    async def of_collection(self, request: Request, caller: Caller, place: Place) -> Feed:
        """Objects of a collection as they are changed, each as `[object]` (`TTI-75`, `TTI-S22`)."""
        every_ms = keep_alive_ms(request)

        def heard(_: str, body: bytes) -> None:
            stream.say(msgspec.Raw(body))

        unlisten = self._parts.live.listen(place.topic, heard)
        ending = SessionEnd(self._parts, self._callers, caller, lambda error: stream.finish(error))

        async def stop() -> None:
            unlisten()
            ending.stop()

        stream = JsonStream(self._keepalives, every_ms, stop)
        ending.start()
        return stream.answer()
