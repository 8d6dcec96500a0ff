"""Lets a client come to any process of a server: its requests are passed on to the one that has its session.

A session lives in one process, which it names in its id. Requests and websockets that reach another are served by the
first all the same: what its application is to receive and what it sends go over Redis, each event a message.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from api.transports.http_exchange import Asgi, Receive, Scope, Send
from engine.service import end, end_all
from engine.wire import Subscriber, Wire

log = logging.getLogger("rulemill.socketio")

MOST_WAITING: Final = 256
"""Events of a connection that the other side has not taken: then it is broken off."""
NAME_LENGTH: Final = 8
"""Of six random bytes."""
_PASSED: Final = (
    "type", "http_version", "method", "path", "raw_path", "query_string", "root_path", "scheme", "headers", "client",
    "server", "subprotocols",
)  # fmt: skip
Event = dict[str, Any]

_GONE: Final[dict[str, Event]] = {
    "http": {"type": "http.disconnect"},
    "websocket": {"type": "websocket.disconnect", "code": 1006},
}
_REASON: Final = b'{"code":3,"message":"The process that has the session does not answer"}'

_Queue = asyncio.Queue[Event | None]
"""None: there will be no more."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str, str, int, Any]).decode
"""What (`open`, `in`, `out`, `end`), from which process, which of the connections of the client's process."""


def channel(process: str) -> str:
    """Where a process hears what is passed on to it."""
    return f"rm:socketio:{process}"


class Neighbours:
    """An ASGI application before that of this process.

    `silence_s`: a neighbour that says nothing for so long is taken for dead; heartbeats go more often.
    """

    def __init__(self, application: Asgi, redis_url: str, silence_s: float) -> None:
        self.name: Final = secrets.token_urlsafe(6)
        self._application, self._silence_s = application, silence_s
        self._wire = Wire(redis_url, "socketio-say")
        self._subscriber = Subscriber(redis_url, "socketio", [channel(self.name)], self._heard, self._lost)
        self._numbers = count(1)
        self._clients: dict[int, _Queue] = {}
        """Of clients here whose sessions are elsewhere: what is to be sent to them."""
        self._sessions: dict[tuple[str, int], _Queue] = {}
        """Of sessions here whose clients are elsewhere: what is to be received from them."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; raises redis ConnectionError when Redis is away."""
        await self._subscriber.start()

    async def stop(self) -> None:
        """Break off what is passed on."""
        self._lost()
        await end_all(self._tasks)
        await self._subscriber.stop()
        await self._wire.close()

    def own(self, session: str) -> str:
        """The id of a session of this process."""
        return f"{self.name}.{session}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        home = _home(scope)
        if home in ("", self.name) or not await self._pass_on(home, scope, receive, send):
            await self._application(scope, receive, send)

    # Of clients here

    async def _pass_on(self, home: str, scope: Scope, receive: Receive, send: Send) -> bool:
        """Have a neighbour serve it; whether there is such a neighbour."""
        number = next(self._numbers)
        events: _Queue = asyncio.Queue(MOST_WAITING)
        self._clients[number] = events
        client = _Client(scope["type"], send)
        try:
            if not await self._tell(home, "open", number, _plain(scope)):
                return False
            pump = asyncio.create_task(self._pump(home, number, receive, client), name="socketio-pump")
            try:
                while True:
                    async with asyncio.timeout(self._silence_s):
                        event = await events.get()
                    if event is None:
                        break
                    await client.send(event)
            finally:
                await end(pump)
                if client.open:
                    await self._tell(home, "in", number, _GONE[scope["type"]])
        except (TimeoutError, RedisConnectionError) as error:
            log.warning("the process %s, which has a session, does not answer: %s", home, str(error) or "silence")
        finally:
            del self._clients[number]
        if client.open:
            await client.close()
        return True

    async def _pump(self, home: str, number: int, receive: Receive, client: _Client) -> None:
        try:
            while await self._tell(home, "in", number, event := await receive()):
                if event["type"].endswith(".disconnect"):
                    client.open = False
                    return
        except RedisConnectionError:
            pass  # broken off below, as if the neighbour were gone
        _put(self._clients.get(number), None)

    # Of sessions here

    async def _serve(self, process: str, number: int, scope: Scope, events: _Queue) -> None:
        gone = _GONE[scope["type"]]

        async def receive() -> Event:
            return await events.get() or gone

        async def send(event: Any) -> None:
            if not await self._tell(process, "out", number, event):
                _put(events, gone)

        try:
            try:
                await self._application(scope, receive, send)
            except RedisConnectionError:
                raise
            except Exception:
                log.exception("a request that was passed on failed")
            await self._tell(process, "end", number, None)
        except RedisConnectionError as error:
            log.warning("the process %s, which has a client, cannot be told: %s", process, error)
        finally:
            self._sessions.pop((process, number), None)

    # Between

    async def _tell(self, process: str, what: str, number: int, body: Any) -> bool:
        """Whether the process is there to hear it; raises redis ConnectionError."""
        said = _encode((what, self.name, number, body))
        (heard,) = await self._wire.execute([("PUBLISH", channel(process), said)])
        return bool(heard)

    def _heard(self, _: str, payload: bytes) -> None:
        try:
            what, process, number, body = _decode(payload)
        except ValueError as error:
            log.error("what a neighbour says cannot be read: %s", error)
            return
        if what == "open":
            events: _Queue = asyncio.Queue(MOST_WAITING)
            self._sessions[process, number] = events
            scope = {**body, "asgi": {"version": "3.0"}, "headers": [(name, value) for name, value in body["headers"]]}
            task = asyncio.create_task(self._serve(process, number, scope, events), name="socketio-neighbour")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif what == "in":
            _put(self._sessions.get((process, number)), body)
        elif what in ("out", "end"):
            _put(self._clients.get(number), body)

    def _lost(self) -> None:
        """Whatever was said meanwhile is missing."""
        for events in (*self._clients.values(), *self._sessions.values()):
            _cut(events)


class _Client:
    """Who waits for what a neighbour sends."""

    def __init__(self, protocol: str, send: Send) -> None:
        self._protocol, self._send = protocol, send
        self.open, self._answered = True, False

    async def send(self, event: Event) -> None:
        """Pass it on."""
        self._answered = True
        if event["type"] == "websocket.close" or (
            event["type"].endswith("response.body") and not event.get("more_body")
        ):
            self.open = False
        await self._send(event)

    async def close(self) -> None:
        """End what the neighbour has not ended."""
        if self._protocol == "websocket":
            await self._send({"type": "websocket.close", "code": 1013})
        elif not self._answered:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_REASON))]
            await self._send({"type": "http.response.start", "status": 503, "headers": headers})
            await self._send({"type": "http.response.body", "body": _REASON})


def _put(events: _Queue | None, event: Event | None) -> None:
    if events is not None:
        try:
            events.put_nowait(event)
        except asyncio.QueueFull:
            _cut(events)


def _cut(events: _Queue) -> None:
    while not events.empty():
        events.get_nowait()
    events.put_nowait(None)


def _home(scope: Scope) -> str:
    """The process that the session of a request names, if it does."""
    named = parse_qs(scope["query_string"].decode("latin-1")).get("sid", [""])[0].partition(".")
    return named[0] if named[1] and len(named[0]) == NAME_LENGTH else ""


def _plain(scope: Scope) -> Event:
    """What can be said of a request."""
    extensions: dict[str, Event] = {
        name: {} for name in scope.get("extensions", {}) if name == "websocket.http.response"
    }
    return {**{name: scope[name] for name in _PASSED if name in scope}, "extensions": extensions}
