"""Bodies that the application has not read when it has answered, on Hypercorn's connections.

Hypercorn hands what comes to the application by a short queue, and waits where that is full: for ever, when nobody
takes anything from it any more. The connection would neither end nor go on, also after its client has left. Over HTTP/2
it fails, with all that is on the connection, at what comes for a request that it has forgotten.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from hypercorn.protocol.events import Event
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream


def leave_unread(receive: Any, send: Any) -> None:
    """Throw away what has come and will come of a request, by the ASGI `receive` and `send` of Hypercorn for it.

    The application hears of the client's going all the same.
    """
    stream, queue = getattr(send, "__self__", None), getattr(receive, "__self__", None)
    if not isinstance(stream, HTTPStream) or not isinstance(queue, asyncio.Queue):
        return

    async def put(event: Any) -> None:
        if event["type"] == "http.disconnect":
            with suppress(asyncio.QueueFull):
                queue.put_nowait(event)

    stream.app_put = put
    protocol = getattr(stream.send, "__self__", None)
    if isinstance(protocol, H2Protocol) and not isinstance(protocol.streams, _Streams):
        protocol.streams = _Streams(protocol.streams)
    while not queue.empty():
        queue.get_nowait()


class _Streams(dict[int, Any]):
    """The requests of a connection by their number; one that is forgotten takes what comes, and drops it."""

    def __missing__(self, number: int) -> _Forgotten:
        return _FORGOTTEN


class _Forgotten:
    async def handle(self, event: Event) -> None:
        """Drop it."""


_FORGOTTEN: Final = _Forgotten()
