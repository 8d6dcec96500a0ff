"""Answers that go on: every new value as a JSON text of its own, `{}` when there was none for a while (`TTI-S15`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from api.background import Background
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

log = logging.getLogger("rulemill.thethingsio")

DEFAULT_MS, LEAST_MS, MOST_MS = 60_000, 1000, 3_600_000
MOST_BEFORE: Final = 250
"""Texts that may wait until the head is out; with one more the stream is cut off. A feed takes hardly more at once."""
_SUBSCRIBED: Final = b'{"status":"success","message":"subscribed"}'
_ALIVE: Final = b"{}"


def keep_alive_ms(request: Request) -> int:
    """After how long a silence `{}` is sent; BadInput for what is no number."""
    return min(max(number(request.query.get("keepAlive"), "keepAlive", DEFAULT_MS), LEAST_MS), MOST_MS)


class JsonStream:
    """An open answer. `closed` is called once it has ended, whichever side ended it."""

    def __init__(self, keepalives: KeepAlives, every_ms: int, closed: Callable[[], None]) -> None:
        self.every_s, self.spoke_s = every_ms / 1000, 0.0
        self._keepalives, self._closed = keepalives, closed
        self._feed: Feed | None = None
        self._before: list[bytes] = []
        """What was said before the head was out."""
        self._over = self._missed = False

    def answer(self) -> Feed:
        """The answer that this stream is."""
        return Feed(200, (JSON, (b"cache-control", b"no-cache")), self._opened)

    def _opened(self, feed: Feed) -> Callable[[], None]:
        self._feed = feed
        self.spoke_s = asyncio.get_running_loop().time()
        feed.push(_SUBSCRIBED)
        for text in self._before:
            feed.push(text)
        if self._missed:
            feed.cut()
        elif self._over:
            feed.end()
        end = self._keepalives.add(self)

        def closed() -> None:
            self._feed = None
            end()
            self._closed()

        return closed

    def say(self, value: Any) -> None:
        """Send a JSON text; a reader that is too slow is cut off."""
        if self._over:
            return
        text = msgspec.json.encode(value)
        if self._feed is None:
            self._wait(text)
            return
        self.spoke_s = asyncio.get_running_loop().time()
        self._feed.push(text)

    def _wait(self, text: bytes) -> None:
        if len(self._before) < MOST_BEFORE:
            self._before.append(text)
        elif not self._missed:
            self._missed = True
            log.warning("a stream is cut off as it opens: more than %d texts came before", MOST_BEFORE)

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


class Streams:
    """Makes the streams of a process."""

    def __init__(self, parts: Parts, callers: Callers, subscriptions: Subscriptions) -> None:
        self._parts, self._callers, self._subscriptions = parts, callers, subscriptions
        self._keepalives, self._background = KeepAlives(), Background("streams")

    async def stop(self) -> None:
        """Send no more blanks, and wait for what streams that have ended let go; open ones are ended by the front."""
        self._keepalives.stop()
        await self._background.stop()

    def _stream(self, every_ms: int, end: Callable[[], Coroutine[Any, Any, None]]) -> JsonStream:
        return JsonStream(self._keepalives, every_ms, lambda: self._background.run(end()))

    async def of_resource(self, request: Request, caller: Caller, resource: str, thing: str | None) -> Feed:
        """New values of a resource, as `[{"value": 15, "id": thing}]` (`TTI-40`, `TTI-41`)."""
        every_ms = keep_alive_ms(request)

        def value(told: Told, value: Any) -> None:
            stream.say([{"value": value, "id": told.device}])

        def ended(error: dict[str, Any]) -> None:
            stream.finish(error)

        watch = Watch(self._parts, self._callers, caller, resource, thing, value, ended)
        stream = self._stream(every_ms, watch.end)
        await watch.begin(self._subscriptions)
        return stream.answer()

    async def of_thing(self, request: Request, device: Device, print_: str) -> Feed:
        """New values of a thing, as `[{"key": "b", "value": 1, "datetime": …}]` (`TTI-X5`), while its token holds."""
        every_ms = keep_alive_ms(request)

        def heard(told: Told) -> None:
            date = iso(told.ts_ms)
            stream.say([{"key": key, "value": value, "datetime": date} for key, value in told.values.items()])

        watch = ThingToken(self._parts, device, print_, heard, lambda error: stream.finish(error))
        stream = self._stream(every_ms, watch.end)
        await watch.begin(self._subscriptions)
        return stream.answer()

    async def of_collection(self, request: Request, caller: Caller, place: Place) -> Feed:
        """Objects of a collection as they are changed, each as `[object]` (`TTI-75`, `TTI-S22`)."""
        every_ms = keep_alive_ms(request)

        def heard(_: str, body: bytes) -> None:
            stream.say(msgspec.Raw(body))

        unlisten = self._parts.live.listen(place.topic, heard)
        ending = SessionEnd(self._parts, self._callers, caller, lambda error: stream.finish(error))

        def closed() -> None:
            unlisten()
            ending.stop()

        stream = JsonStream(self._keepalives, every_ms, closed)
        ending.start()
        return stream.answer()
