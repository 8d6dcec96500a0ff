"""The front of all HTTP: who owns a path, what runs there, and in whose shape an error is told.

Device paths are plain calls without a framework, since one costs more than all the rest of a request. Everything of the
management API goes to the ASGI application behind (`fallback`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api.transports.http_exchange import (
    Asgi,
    Gone,
    Header,
    Held,
    HttpError,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    Stream,
    TooLarge,
    client_address,
)
from api.transports.http_feed import Feed
from api.transports.http_routes import Handler, Place, Route, tree_of
from engine.errors import BadInput, Refused

log = logging.getLogger("rulemill.http")

FALLBACK_ROOTS: Final = frozenset({"flow", "livez", "readyz", "healthz", "metrics"})
"""First path segments of what is not a device's."""

JSON: Final[Header] = (b"content-type", b"application/json")
_STORAGE_AWAY: Final = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)


class Surface(Protocol):
    """The HTTP side of a dialect."""

    name: str
    cors: bool
    """Whether its answers are for web pages of other origins too (`G-28`)."""
    routes: Sequence[Route]

    def owns(self, request: Request) -> bool:
        """Whether the path is this dialect's, also where nothing runs (`G-4`)."""

    def error(self, request: Request, status: int, reason: str, headers: Sequence[Header] = ()) -> Response:
        """An error in the dialect's shape; with `headers` in it."""


class Front:
    """The ASGI application. `cors_origins` empty lets pages of any origin call device paths."""

    def __init__(
        self,
        surfaces: Sequence[Surface],
        fallback: Asgi | None = None,
        *,
        cors_origins: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        mounts: Mapping[str, Asgi] = MappingProxyType({}),
    ) -> None:
        self._surfaces = [(surface, tree_of(surface.routes)) for surface in surfaces]
        self._fallback = fallback
        self._origins = frozenset(cors_origins)
        self._held = Held(frozenset(trusted_proxies))
        self._mounts = mounts
        """Applications that have all of their first path segment, websockets too."""

    def drain(self) -> None:
        """Let requests that wait end with 503, so that their clients ask another process, and end all feeds."""
        for end in list(self._held.open):
            end()
        for future in list(self._held.waiting):
            if not future.done():
                future.set_exception(Refused("the server stops"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._mounts and scope["type"] != "lifespan":
            root = scope["path"].split("/", 2)[1:2]
            mounted = self._mounts.get(root[0]) if root else None
            if mounted is not None:
                await mounted(self._seen(scope), receive, send)
                return
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        request = Request(scope, receive, self._held)
        if self._fallback is not None and request.segments[:1] and request.segments[0] in FALLBACK_ROOTS:
            await self._fallback(scope, receive, send)
            return
        owner = next((each for each in self._surfaces if each[0].owns(request)), None)
        if owner is None:
            await _answer(Response(404, b'{"message":"Not Found"}', (JSON,)), (), send)
            return
        surface, tree = owner
        try:
            place = tree.find(request.segments)
            cors = self._cors(request) if surface.cors else ()
            if surface.cors and request.method == "OPTIONS" and place is not None and _is_preflight(request):
                await _answer(Response(204, b"", _preflight(request, place)), cors, send)
                return
            answer = await _run(surface, place, request)
            if isinstance(answer, Response):
                await _answer(answer, cors, send)
            elif isinstance(answer, Feed):
                await answer.serve(cors, request, send)
            else:
                await _stream(answer, cors, request, send)
        except Gone:
            pass
        finally:
            request.release()

    def _seen(self, scope: Scope) -> Scope:
        """The scope for an application that does not know our proxies: with what they tell of address and TLS."""
        client = scope.get("client")
        if not client or client[0] not in self._held.trusted_proxies:
            return scope
        scope = {**scope, "client": (client_address(scope, self._held.trusted_proxies), 0)}
        told = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        if told[:1] != [b"https"]:
            return scope
        return {**scope, "scheme": "wss" if scope["type"] == "websocket" else "https"}

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and stop are not the application's (a no-op); WebSockets are the fallback's."""
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        elif self._fallback is not None and scope["path"].split("/")[1:2] == ["flow"]:
            await self._fallback(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    def _cors(self, request: Request) -> tuple[Header, ...]:
        if not self._origins:
            return _ANY_ORIGIN
        origin = request.header("origin")
        if origin not in self._origins:
            return ((b"vary", b"Origin"),)
        return ((b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin"), _EXPOSED)


_EXPOSED: Final[Header] = (b"access-control-expose-headers", b"Location, Retry-After")
_ANY_ORIGIN: Final[tuple[Header, ...]] = ((b"access-control-allow-origin", b"*"), _EXPOSED)


async def _run(surface: Surface, place: Place | None, request: Request) -> Response | Stream | Feed:
    """The handler's answer, or the error it raised in the surface's shape."""
    if place is None:
        return surface.error(request, 404, "Not Found")
    found = place.routes.get(request.method)
    if found is None:
        allow = ", ".join(sorted(place.routes)).encode()
        return surface.error(request, 405, "Method Not Allowed", ((b"allow", allow),))
    route, names = found
    try:
        return await route.handler(request, {name: request.segments[i] for i, name in names})
    except BadInput as error:
        return surface.error(request, 400, str(error))
    except Refused as error:
        return surface.error(request, 503, error.reason, ((b"retry-after", b"%d" % error.retry_after_s),))
    except TooLarge as error:
        return surface.error(request, 413, f"Payload size exceeds the limit of {error.limit} bytes")
    except HttpError as error:
        return surface.error(request, error.status, error.reason, error.headers)
    except _STORAGE_AWAY as error:
        log.warning("%s %s: %s", request.method, route.pattern, error)
        return surface.error(request, 503, "storage does not answer", ((b"retry-after", b"1"),))
    except Gone:
        raise
    except Exception:
        # The pattern, not the path: paths hold secrets.
        log.exception("%s %s failed", request.method, route.pattern)
        return surface.error(request, 500, "Internal Server Error")


async def _answer(response: Response, cors: Sequence[Header], send: Send) -> None:
    headers: list[Header] = [*response.headers, *cors]
    if response.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _stream(stream: Stream, cors: Sequence[Header], request: Request, send: Send) -> None:
    await send({"type": "http.response.start", "status": stream.status, "headers": [*stream.headers, *cors]})
    sending = asyncio.create_task(_chunks(stream.chunks, send))
    watching = asyncio.create_task(request.gone())
    try:
        await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, watching):
            task.cancel()
        results = await asyncio.gather(sending, watching, return_exceptions=True)
    if isinstance(results[0], Exception):
        # The head is out: the connection's end is all that can be told.
        raise results[0]


async def _chunks(chunks: AsyncIterator[bytes], send: Send) -> None:
    try:
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
    await send({"type": "http.response.body", "body": b""})


def _is_preflight(request: Request) -> bool:
    return request.header("access-control-request-method") is not None


def _preflight(request: Request, place: Place) -> list[Header]:
    headers: list[Header] = [
        (b"access-control-allow-methods", ", ".join(sorted(place.routes)).encode()),
        (b"access-control-max-age", b"600"),
    ]
    asked = request.header("access-control-request-headers")
    if asked:
        headers.append((b"access-control-allow-headers", asked.encode("latin-1")))
    return headers


__all__ = [
    "FALLBACK_ROOTS",
    "JSON",
    "Asgi",
    "Feed",
    "Front",
    "Gone",
    "Handler",
    "Header",
    "HttpError",
    "Receive",
    "Request",
    "Response",
    "Route",
    "Scope",
    "Send",
    "Stream",
    "Surface",
    "TooLarge",
]
