"""Requests that a client sends before it has the answers to those ahead (RFC 9112, 9.3.2), on uvicorn's connections.

uvicorn reads on while requests wait for their turn, as many as come, and holds each by some kilobytes; tells only the
newest of them when the client goes; and answers what it cannot read at once, in the place of the one whose turn it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

SLICE_BYTES: Final = 4096
"""What is parsed at a time: no more requests than are in it wait for their turn."""


class PipelinedProtocol(HttpToolsProtocol):
    """uvicorn's connection with bounds on what waits. Bytes behind a request that waits for its turn wait unparsed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client connected."""
        # By cast: uvloop's transports are no subclass of asyncio.Transport.
        super().connection_made(cast(asyncio.Transport, transport))
        self.flow: _Flow = _Flow(self.transport)
        self._unparsed = b""
        self._unanswered: deque[RequestResponseCycle] = deque()
        """Requests whose heads were read, the one that is being served first."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for answers any more."""
        super().connection_lost(exc)
        self._unparsed = b""
        for cycle in self._unanswered:
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Bytes came; those behind a request that waits for its turn are kept, and no more are read."""
        if self._unparsed:
            self._unparsed += data
        elif self.pipeline or len(data) > SLICE_BYTES:
            self._parse_all(data)
        else:
            self.parse(data)

    def parse(self, data: bytes | memoryview) -> None:
        """Deal with a slice of what came."""
        super().data_received(cast(bytes, data))

    def on_headers_complete(self) -> None:
        """A request begins, or waits for its turn."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self._unanswered.append(self.cycle)
            # uvicorn stops reading where one waits for its turn, and then the client's going is not noticed.
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """The next one's turn."""
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        super().on_response_complete()
        if self._unparsed:
            self.loop.call_soon(self._go_on)

    def handle_websocket_upgrade(self) -> None:
        """A websocket takes the connection, unless others wait for their answers on it."""
        if self._unanswered:
            self.transport.close()
        else:
            super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Close for what cannot be read, saying so where it is its turn."""
        if self.in_turn:
            super().send_400_response(msg)
        else:
            self.transport.close()

    @property
    def in_turn(self) -> bool:
        """Whether an answer to what is being read would be taken for no other's."""
        return all(cycle.more_body and not cycle.response_started for cycle in self._unanswered)

    def _parse_all(self, data: bytes) -> None:
        view = memoryview(data)
        for at in range(0, len(view), SLICE_BYTES):
            if self.pipeline:
                self._unparsed = bytes(view[at:])
                self.flow.hold()
                return
            self.parse(view[at : at + SLICE_BYTES])
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
        self.flow.release()

    def _go_on(self) -> None:
        if not self.pipeline and not self.transport.is_closing():
            data, self._unparsed = self._unparsed, b""
            self._parse_all(data)


class _Flow(FlowControl):
    """Flow control in which nothing is read, whoever wants it, from `hold` to `release`."""

    held = False

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def release(self) -> None:
        if self.held:
            self.held = False
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()
