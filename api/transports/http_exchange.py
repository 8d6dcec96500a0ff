"""A request and its answer, as handlers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

from engine.errors import Refused, RulemillError

T = TypeVar("T")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
"""Name in lower case, and value."""

MAX_BODIES_BYTES: Final = 256 * 1024 * 1024
"""Bytes of request bodies that one process holds at a time; beyond them large bodies are refused."""


@dataclass(slots=True)
class Held:
    """What the requests of one front hold together."""

    trusted_proxies: frozenset[str] = frozenset()
    waiting: set[asyncio.Future[Any]] = field(default_factory=set)
    """Requests that wait for something to happen."""
    open: set[Callable[[], None]] = field(default_factory=set)
    """What ends the answers that go on."""
    body_bytes: int = 0
    """Bytes of bodies that came in more than one piece."""


class TooLarge(RulemillError):
    """The body is longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")
        self.limit = limit


class HttpError(RulemillError):
    """The request ends with this status; the surface gives it its shape."""

    def __init__(self, status: int, reason: str, headers: Sequence[Header] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


class Gone(RulemillError):
    """The client went away before it had its answer; nobody is there to tell."""


@dataclass(slots=True)
class Response:
    """A whole answer. The front adds Content-Length and what CORS wants."""

    status: int
    body: bytes = b""
    headers: Sequence[Header] = ()


@dataclass(slots=True)
class Stream:
    """An answer that goes on: each chunk is sent as it comes, and `chunks` is closed when the client goes away."""

    status: int
    headers: Sequence[Header]
    chunks: AsyncIterator[bytes]


def client_address(scope: Scope, trusted_proxies: frozenset[str]) -> str:
    """Address of the client: the peer's, or what a proxy that we trust tells of it.

    Of several that it tells, the last one that is no such proxy: those before it are the client's own words.
    """
    client = scope.get("client")
    address: str = client[0] if client else ""
    if address in trusted_proxies:
        told = next((value for name, value in scope["headers"] if name == b"x-forwarded-for"), b"")
        for each in reversed(told.decode("latin-1").split(",")):
            address = each.strip() or address
            if address not in trusted_proxies:
                break
    return address


class Request:
    """One request. `segments` are the parts of the path, percent-decoded, without a trailing slash (`G-27`)."""

    __slots__ = ("_bytes", "_held", "_query", "_receive", "method", "scope", "segments")

    def __init__(self, scope: Scope, receive: Receive, held: Held) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self._receive = receive
        self._held = held
        self._query: dict[str, str] | None = None
        self._bytes = 0
        path = scope["raw_path"].decode("latin-1")
        parts = path[1:].split("/")
        if parts[-1] == "":
            parts.pop()
        if "%" in path:
            parts = [unquote(part) for part in parts]
        self.segments: tuple[str, ...] = tuple(parts)

    @property
    def path(self) -> str:
        """The decoded path, as it was sent."""
        return str(self.scope["path"])

    @property
    def query(self) -> dict[str, str]:
        """Parameters by name, the first value of each."""
        if self._query is None:
            self._query = {}
            if raw := self.scope["query_string"]:
                for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
                    self._query.setdefault(name, value)
        return self._query

    def repeated(self, name: str) -> list[str]:
        """Every value of a parameter that may be there more than once."""
        if name not in self.query:
            return []
        pairs = parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        return [value for each, value in pairs if each == name]

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        wanted = name.lower().encode()
        for key, value in self.scope["headers"]:
            if key == wanted:
                return str(value.decode("latin-1"))
        return None

    @property
    def listener(self) -> str:
        """Key of the listener it came by, such as `http`."""
        return str(self.scope["state"]["listener"])

    @property
    def peer(self) -> str:
        """Address of the other end of the connection."""
        client = self.scope.get("client")
        return client[0] if client else ""

    @property
    def client(self) -> str:
        """Address of the client: the peer's, or what a proxy that we trust tells of it."""
        return client_address(self.scope, self._held.trusted_proxies)

    @property
    def tls(self) -> bool:
        """Whether it came over TLS, to us or to a proxy that we trust (`G-3`)."""
        if self.scope.get("scheme") == "https":
            return True
        return self.peer in self._held.trusted_proxies and self.header("x-forwarded-proto") == "https"

    async def body(self, limit: int) -> bytes:
        """All of the body. Raises TooLarge, Gone, and Refused when too many large bodies are being read. Call once."""
        declared = self.header("content-length")
        if declared and declared.isdigit() and int(declared) > limit:
            raise TooLarge(limit)
        whole = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if len(whole) + len(part) > limit:
                raise TooLarge(limit)
            if not more and not whole:
                return part
            whole += part
            self._hold(len(part))
            if not more:
                return bytes(whole)

    def _hold(self, count: int) -> None:
        self._bytes += count
        self._held.body_bytes += count
        if self._held.body_bytes > MAX_BODIES_BYTES:
            raise Refused("too many large bodies at once")

    def release(self) -> None:
        """The request is over: its body counts no more."""
        self._held.body_bytes -= self._bytes
        self._bytes = 0

    async def wait(self, future: asyncio.Future[T], timeout_s: float) -> T | None:
        """What the future brings, None when the time is over; the future is cancelled then.

        Raises Gone when the client goes away, and Refused when the server stops.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[T | None] = loop.create_future()
        timer = loop.call_later(timeout_s, _give, ended, None)
        watcher = loop.create_task(self._watch(ended))
        self._held.waiting.add(ended)

        def done(source: asyncio.Future[T]) -> None:
            if ended.done() or source.cancelled():
                return
            error = source.exception()
            if error is None:
                ended.set_result(source.result())
            else:
                ended.set_exception(error)

        future.add_done_callback(done)
        try:
            return await ended
        finally:
            future.cancel()
            timer.cancel()
            watcher.cancel()
            self._held.waiting.discard(ended)

    async def _watch(self, ended: asyncio.Future[Any]) -> None:
        await self.gone()
        if not ended.done():
            ended.set_exception(Gone())

    def keep(self, end: Callable[[], None]) -> Callable[[], None]:
        """Have `end` called when the server stops; returns what takes that back."""
        self._held.open.add(end)
        return partial(self._held.open.discard, end)

    async def gone(self) -> None:
        """Return when the client has gone away. What it still sends is dropped."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _give(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
