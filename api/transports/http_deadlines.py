"""Deadlines of HTTP connections: whoever sends a request, or reads its answer, too slowly is cut off.

Neither server has them all: uvicorn leaves a silent connection or half a request head open for ever, Hypercorn a body
that comes byte by byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from enum import Enum
from typing import Any, Final

import msgspec
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from api.transports.http_exchange import Receive
from api.transports.http_pipelining import PipelinedProtocol


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """How long a client may take."""

    handshake_s: float = 5.0
    """For the TLS handshake."""
    head_s: float = 5.0
    """From its first byte, or from connecting, to the end of the request's head."""
    body_s: float = 5.0
    """For the body, and a second more for each `body_rate` bytes that came."""
    body_rate: int = 1024
    """Bytes a second."""
    write_stall_s: float = 30.0
    """How long it may not read its answer."""


class _Phase(Enum):
    IDLE = "between two requests, or being served"
    HEAD = "a head is on its way"
    BODY = "a body is on its way"


MAX_HEAD_BYTES: Final = 65_536
_TOO_LONG: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TIMED_OUT: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class PacedProtocol(PipelinedProtocol):
    """uvicorn's connection with deadlines. One timer for each connection, looked at when it fires: none is set anew
    for each request."""

    deadlines = Deadlines()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client connected: its first head is due."""
        self._phase = _Phase.HEAD
        self._since = self.loop.time()
        self._received = 0
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._arm(self.deadlines.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._disarm()
        super().connection_lost(exc)

    def parse(self, data: bytes | memoryview) -> None:
        """Any byte begins a head, even a line end that the parser skips."""
        if self._phase is _Phase.IDLE:
            self._phase = _Phase.HEAD
            self._since = self.loop.time()
            self._head_bytes = 0
            if self._timer is None:
                self._arm(self.deadlines.head_s)
        super().parse(data)
        if self._phase is _Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                if self.in_turn:
                    self.transport.write(_TOO_LONG)
                self.transport.close()

    def on_message_begin(self) -> None:
        """A further head in the same bytes."""
        if self._phase is _Phase.IDLE:
            self._phase = _Phase.HEAD
            self._since = self.loop.time()
            self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The body is due from now on."""
        self._phase = _Phase.BODY
        self._since = self.loop.time()
        self._received = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """What comes moves the deadline."""
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is all there."""
        self._phase = _Phase.IDLE
        self._head_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is somebody else's."""
        self._disarm()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(self.deadlines.write_stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _arm(self, after_s: float) -> None:
        self._timer = self.loop.call_later(after_s, self._look)

    def _disarm(self) -> None:
        self._phase = _Phase.IDLE
        for timer in (self._timer, self._stall):
            if timer is not None:
                timer.cancel()
        self._timer = self._stall = None

    def _look(self) -> None:
        """The timer fired: cut the client if it is late, else come back when it would be."""
        self._timer = None
        if self._phase is _Phase.IDLE or self.transport.is_closing():
            return
        if self.flow.read_paused:
            # It is us who do not read.
            self._since = self.loop.time()
        limits = self.deadlines
        allowed_s = limits.head_s if self._phase is _Phase.HEAD else limits.body_s + self._received / limits.body_rate
        left_s = self._since + allowed_s - self.loop.time()
        if left_s > 0:
            self._arm(left_s)
            return
        cycle = self.cycle
        if self.in_turn:
            self.transport.write(_TIMED_OUT)
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()


def paced_protocol(deadlines: Deadlines) -> type[PacedProtocol]:
    """The protocol class with these deadlines."""
    return type("PacedProtocol", (PacedProtocol,), {"deadlines": deadlines})


class PacedWebsocket(WSProtocol):
    """uvicorn's websocket with a deadline: who reads nothing for long is cut, and whoever writes to them hears of it.

    Without one, what writes waits for ever, and with it everything that ends after it.
    """

    deadlines = Deadlines()
    _stall: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(self.deadlines.write_stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody reads any more; what waits to write is to learn that."""
        self._disarm()
        super().connection_lost(exc)
        self.writable.set()

    def _disarm(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


def paced_websocket(deadlines: Deadlines) -> type[PacedWebsocket]:
    """The protocol class with these deadlines."""
    return type("PacedWebsocket", (PacedWebsocket,), {"deadlines": deadlines})


class PacedReceive:
    """An ASGI `receive` that ends, as if the client had gone, when the body comes too slowly."""

    def __init__(self, receive: Receive, deadlines: Deadlines) -> None:
        self._receive, self._limits = receive, deadlines
        self._since = asyncio.get_running_loop().time()
        self._received = 0
        self._complete = False

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next event."""
        if self._complete:
            return await self._receive()
        due = self._since + self._limits.body_s + self._received / self._limits.body_rate
        try:
            async with asyncio.timeout_at(due):
                message = await self._receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        self._received += len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message
