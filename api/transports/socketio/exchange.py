"""Requests to an ASGI application that come from here, and whole answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from api.transports.http_exchange import Asgi, Held, Receive, Request, Scope, Send

MAX_BODY_BYTES: Final = 64 * 1024
PLAIN: Final = [(b"content-type", b"text/plain; charset=UTF-8")]
BAD_REQUEST: Final = '{"code":3,"message":"Bad request"}'
UNKNOWN_SESSION: Final = '{"code":1,"message":"Session ID unknown"}'

Headers = list[tuple[bytes, bytes]]


async def call(server: Asgi, scope: Scope, body: bytes = b"") -> tuple[int, Headers, str]:
    """Status, headers and body of a request to the server that comes from here."""
    asked = {**scope, "headers": [*_without_length(scope["headers"]), (b"content-length", b"%d" % len(body))]}
    given = False
    forever = asyncio.Event()
    status, headers, told = 500, PLAIN, bytearray()

    async def receive() -> dict[str, Any]:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body}
        await forever.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message["headers"])
        else:
            told.extend(message.get("body", b""))

    await server(asked, receive, send)
    return status, headers, told.decode()


def _without_length(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    return [(name, value) for name, value in headers if name not in (b"content-length", b"transfer-encoding")]


def cors(scope: Scope) -> Headers:
    """Headers of a text for a page of whatever origin."""
    origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
    if origin is None:
        return list(PLAIN)
    return [*PLAIN, (b"access-control-allow-origin", origin), (b"access-control-allow-credentials", b"true")]


async def body_of(scope: Scope, receive: Receive) -> bytes:
    """The whole body of a request; TooLarge, Gone."""
    return await Request(scope, receive, Held()).body(MAX_BODY_BYTES)


async def gone(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(send: Send, status: int, headers: Headers, text: str) -> None:
    """Send a whole answer."""
    body = text.encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*_without_length(headers), length]})
    await send({"type": "http.response.body", "body": body})


async def refuse(scope: Scope, receive: Receive, send: Send, text: str) -> None:
    """Answer 400 to a request, or to what would be a websocket."""
    body = text.encode()
    headers = [*cors(scope)[1:], (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    prefix = "http"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        prefix = "websocket.http"
    await send({"type": f"{prefix}.response.start", "status": 400, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": body})
