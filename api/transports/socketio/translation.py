"""Serves clients of Engine.IO revision 3 from a server of revision 4, by translating what passes between them.

What differs is in `revision3`, and one thing besides: in revision 3 the client sends the pings. The server's own are
answered here, for as long as the client sends its.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

from api.transports.http_exchange import Asgi, Gone, Receive, Scope, Send, TooLarge
from api.transports.socketio import revision3
from api.transports.socketio.exchange import (
    BAD_REQUEST,
    UNKNOWN_SESSION,
    Headers,
    answer,
    body_of,
    call,
    cors,
    gone,
    refuse,
)
from api.transports.socketio.sessions import Sessions

OLD, NEW = "3", "4"


class Translation:
    """An ASGI application before the server's, whose sessions are `sessions`."""

    def __init__(self, server: Asgi, sessions: Sessions, ping_interval_s: float, ping_timeout_s: float) -> None:
        self._server, self._sessions = server, sessions
        self._silence_s = ping_interval_s + ping_timeout_s
        self._timeout_ms = int(ping_timeout_s * 1000)
        self._pollers: dict[str, _Poller] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        if problem := self._problem(scope, query):
            await refuse(scope, receive, send, problem)
        elif query.get("EIO") != OLD:
            await self._server(scope, receive, send)
        else:
            asked = {**scope, "query_string": urlencode({**query, "EIO": NEW}).encode()}
            if scope["type"] == "websocket":
                await _Socket(receive, send, self._silence_s, self._timeout_ms).run(self._server, asked)
            elif scope["method"] == "GET":
                await self._get(asked, query.get("sid", ""), receive, send)
            elif scope["method"] == "POST":
                await self._post(asked, query.get("sid", ""), receive, send)
            else:
                await self._server(asked, receive, send)

    def _problem(self, scope: Scope, query: dict[str, str]) -> str:
        transport = query.get("transport", "polling")
        if transport not in ("polling", "websocket"):
            return '{"code":0,"message":"Transport unknown"}'
        if "sid" in query and not self._sessions.alive(query["sid"]):
            return UNKNOWN_SESSION
        if query.get("EIO") not in (OLD, NEW):
            return '{"code":5,"message":"Unsupported protocol version"}'
        if (transport == "websocket") != (scope["type"] == "websocket"):
            return BAD_REQUEST
        return ""

    # Polling

    async def _get(self, scope: Scope, sid: str, receive: Receive, send: Send) -> None:
        if not sid:
            await self._handshake(scope, send)
            return
        poller = self._pollers.get(sid)
        if poller is None:
            await self._server(scope, receive, send)
            return
        status, headers, packets = await poller.next(scope, receive)
        if not self._sessions.alive(sid):
            self._pollers.pop(sid, None)
        await _answer(send, status, headers, packets)

    async def _handshake(self, scope: Scope, send: Send) -> None:
        for sid in [sid for sid in self._pollers if not self._sessions.alive(sid)]:
            del self._pollers[sid]
        status, headers, body = await call(self._server, scope)
        packets = body.split(revision3.SEPARATOR)
        if status == 200 and packets[0].startswith("0"):
            sid = json.loads(packets[0][1:])["sid"]
            packets[0] = revision3.opened(packets[0], self._timeout_ms)
            with_sid = {**scope, "query_string": scope["query_string"] + b"&" + urlencode({"sid": sid}).encode()}
            self._pollers[sid] = poller = _Poller(self._server, with_sid, self._silence_s)
            # A client of revision 3 is connected to the first namespace without asking.
            await poller.say([revision3.CONNECT])
            await _answer(send, status, headers, packets)
        else:
            await answer(send, status, headers, body)

    async def _post(self, scope: Scope, sid: str, receive: Receive, send: Send) -> None:
        try:
            packets = revision3.packets((await body_of(scope, receive)).decode())
        except Gone:
            return
        except TooLarge as error:
            await answer(send, 413, cors(scope), str(error))
            return
        except (revision3.BadPayload, UnicodeDecodeError) as error:
            await self._sessions.refuse(scope, sid, str(error))
            await answer(send, 400, cors(scope), BAD_REQUEST)
            return
        poller = self._pollers.get(sid)
        if poller is None:
            await answer(send, 400, cors(scope), UNKNOWN_SESSION)
            return
        status, headers, told = await poller.said(packets)
        await answer(send, status, headers, told)


class _Poller:
    """A session of revision 3 that polls: the server's one open poll goes on while the client's come and go."""

    def __init__(self, server: Asgi, scope: Scope, silence_s: float) -> None:
        self._server, self._scope, self._silence_s = server, scope, silence_s
        self._pending: asyncio.Task[tuple[int, Headers, str]] | None = None
        self._local: list[str] = []
        self._wake = asyncio.Event()
        self._heard_at = time.monotonic()

    async def next(self, scope: Scope, receive: Receive) -> tuple[int, Headers, list[str] | str]:
        """What the client's poll is answered."""
        left = asyncio.create_task(gone(receive))
        try:
            while True:
                if self._local:
                    local, self._local = self._local, []
                    return 200, cors(self._scope), local
                self._wake.clear()
                if self._pending is None:
                    self._pending = asyncio.create_task(call(self._server, self._scope))
                woken = asyncio.create_task(self._wake.wait())
                try:
                    await asyncio.wait({self._pending, woken, left}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
                if self._pending.done():
                    (status, headers, body), self._pending = self._pending.result(), None
                    if status != 200:
                        return status, headers, body
                    packets = await self._translated(filter(None, body.split(revision3.SEPARATOR)))
                    if packets:
                        return 200, headers, packets
                elif left.done():
                    return 200, [], []
        finally:
            left.cancel()

    async def _translated(self, packets: Iterable[str]) -> list[str]:
        found = []
        for packet in packets:
            if packet != revision3.PING:
                found.append(revision3.down(packet))
            elif time.monotonic() - self._heard_at < self._silence_s:
                await self.say([revision3.PONG])
        return found

    async def said(self, packets: Sequence[str]) -> tuple[int, Headers, str]:
        """What the client has posted, passed on."""
        self._heard_at = time.monotonic()
        onwards = []
        for packet in packets:
            if packet == revision3.PING:
                self._local.append(revision3.PONG)
                self._wake.set()
            else:
                onwards.append(revision3.up(packet))
        return await self.say(onwards) if onwards else (200, cors(self._scope), "ok")

    async def say(self, packets: Sequence[str]) -> tuple[int, Headers, str]:
        """Post packets to the server."""
        return await call(self._server, {**self._scope, "method": "POST"}, revision3.SEPARATOR.join(packets).encode())


class _Socket:
    """One websocket of revision 3."""

    def __init__(self, receive: Receive, send: Send, silence_s: float, timeout_ms: int) -> None:
        self._receive, self._send = receive, send
        self._silence_s, self._timeout_ms = silence_s, timeout_ms
        self._up: asyncio.Queue[Any] = asyncio.Queue(64)
        self._sending = asyncio.Lock()
        self._heard_at = time.monotonic()

    async def run(self, server: Asgi, scope: Scope) -> None:
        """Serve it until either side ends it."""
        pump = asyncio.create_task(self._pump())
        try:
            await server(scope, self._up.get, self._down)
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self) -> None:
        while True:
            message = await self._receive()
            text = message.get("text")
            if message["type"] == "websocket.receive":
                self._heard_at = time.monotonic()
                if text == revision3.PING:
                    await self._say(revision3.PONG)
                    continue
                if text is not None:
                    message = {**message, "text": revision3.up(text)}
            await self._up.put(message)
            if message["type"] == "websocket.disconnect":
                return

    async def _down(self, message: Any) -> None:
        text = message.get("text")
        if message["type"] != "websocket.send":
            async with self._sending:
                await self._send(message)
        elif text is None:
            async with self._sending:
                await self._send({**message, "bytes": b"\x04" + message["bytes"]})
        elif text == revision3.PING:
            if time.monotonic() - self._heard_at < self._silence_s:
                await self._up.put({"type": "websocket.receive", "text": revision3.PONG})
        elif text.startswith("0"):
            await self._say(revision3.opened(text, self._timeout_ms))
            await self._up.put({"type": "websocket.receive", "text": revision3.CONNECT})
        else:
            await self._say(revision3.down(text))

    async def _say(self, text: str) -> None:
        async with self._sending:
            await self._send({"type": "websocket.send", "text": text})


async def _answer(send: Send, status: int, headers: Headers, told: Sequence[str] | str) -> None:
    await answer(send, status, headers, told if isinstance(told, str) else revision3.payload(told))
