"""Responses that the application leaves incomplete, over Hypercorn's HTTP/2: the client is told by RST_STREAM.

Over HTTP/1.1 the connection's end tells it. Over HTTP/2 the connection goes on, and Hypercorn says nothing at all: the
client would wait for the rest for ever (RFC 9113, 5.4.2 has the reset for it).
"""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream


async def reset_incomplete(send: Any) -> None:
    """Reset the stream that an ASGI `send` of Hypercorn belongs to, if a response was begun on it and has no end."""
    stream = getattr(send, "__self__", None)
    if not isinstance(stream, HTTPStream) or stream.closed or stream.state is not ASGIHTTPState.RESPONSE:
        return
    protocol = getattr(stream.send, "__self__", None)
    if not isinstance(protocol, H2Protocol):
        return
    try:
        protocol.connection.reset_stream(stream.stream_id, ErrorCodes.INTERNAL_ERROR)
    except ProtocolError:
        return  # it has ended meanwhile
    await protocol._flush()
    if stream.stream_id in protocol.stream_buffers:
        # What waits in the buffer is dropped by the task that would have sent it.
        protocol.priority.unblock(stream.stream_id)
        await protocol.has_data.set()
