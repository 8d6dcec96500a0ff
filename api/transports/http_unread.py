"""Bodies that the application has not read when it has answered, on Hypercorn's connections.

Hypercorn hands what comes to the application by a short queue, and waits where that is full: for ever, when nobody
takes anything from it any more. The connection would neither end nor go on, also after its client has left. Over HTTP/2
it fails, with all that is on the connection, at what comes for a request that it has forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

from hypercorn.protocol.events import Event
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream

from api.transports.http_exchange import Receive, Send


class Unread:
    """What comes of a request, by the ASGI `receive` and `send` of Hypercorn for it; `receive` takes from it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        stream, queue = getattr(send, "__self__", None), getattr(receive, "__self__", None)
        if not isinstance(stream, HTTPStream) or not isinstance(queue, asyncio.Queue):
            raise RuntimeError("Hypercorn's queue for the application is not where it was")
        self._queue: asyncio.Queue[Any] = queue
        self._gone = self._left = False
        stream.app_put = self._put
        protocol = getattr(stream.send, "__self__", None)
        if isinstance(protocol, H2Protocol) and not isinstance(protocol.streams, _Streams):
            protocol.streams = _Streams(protocol.streams)

    async def receive(self) -> MutableMapping[str, Any]:
        """The next event: all that came whole, before that the client has gone."""
        if self._gone and self._queue.empty():
            return {"type": "http.disconnect"}
        event: MutableMapping[str, Any] = await self._queue.get()
        return event

    def leave(self) -> None:
        """Throw away what has come and will come, but for the client's going."""
        self._left = True
        while not self._queue.empty():
            self._queue.get_nowait()

    async def _put(self, event: Any) -> None:
        if event["type"] != "http.disconnect":
            if not self._left:
                await self._queue.put(event)
        elif self._queue.full():
            # Whoever tells of it must not wait for a reader: it may be the one who is to read.
            self._gone = True
        else:
            self._queue.put_nowait(event)


class _Streams(dict[int, Any]):
    """The requests of a connection by their number; one that is forgotten takes what comes, and drops it."""

    def __missing__(self, number: int) -> _Forgotten:
        return _FORGOTTEN


class _Forgotten:
    async def handle(self, event: Event) -> None:
        """Drop it."""


_FORGOTTEN: Final = _Forgotten()
