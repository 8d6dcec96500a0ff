"""CoAP for dialects: what a request is, what a handler gives back, and which handler a path has.

Knows no library: `api.transports.coap_server` puts this on a socket. Codes are CoAP's own numbers, class and detail in
one byte, so that 4.04 is `0x84`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

CREATED: Final = 0x41
VALID: Final = 0x43
CHANGED: Final = 0x44
CONTENT: Final = 0x45
BAD_REQUEST: Final = 0x80
UNAUTHORIZED: Final = 0x81
FORBIDDEN: Final = 0x83
NOT_FOUND: Final = 0x84
METHOD_NOT_ALLOWED: Final = 0x85
INCOMPLETE: Final = 0x88
TOO_LARGE: Final = 0x8D
TOO_MANY_REQUESTS: Final = 0x9D
INTERNAL: Final = 0xA0
UNAVAILABLE: Final = 0xA3
GATEWAY_TIMEOUT: Final = 0xA4

OCTETS: Final = 42
JSON: Final = 50
CBOR: Final = 60
"""Numbers of the Content-Format option."""


class CoapError(Exception):
    """An answer that is no success: its code, and the reason in plain words for the diagnostic payload."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Request(NamedTuple):
    """A request with its whole body. `format` is the number of its Content-Format, None without one."""

    method: str
    segments: tuple[str, ...]
    query: dict[str, str]
    format: int | None
    body: bytes
    unwatch: bool = False
    """It ends an observation (RFC 7641, 3.6); otherwise a plain request."""


class Response(NamedTuple):
    """An answer; `max_age_s` says how long it holds, or after how long to try again."""

    code: int
    body: bytes = b""
    format: int | None = None
    max_age_s: int | None = None

    @property
    def success(self) -> bool:
        """Whether the code is of class 2."""
        return self.code >> 5 == 2


class Observation(Protocol):
    """A device that watches a resource (RFC 7641)."""

    first: Response
    """The answer to the request itself; when it is no success nothing follows."""

    async def next(self) -> Response:
        """The next notification. Asked for only once the device has confirmed the one before; one that is no success
        is the last."""

    def close(self) -> None:
        """The device watches no more, or cannot be reached; what it has not confirmed it has not got."""


Handler = Callable[[Request, dict[str, str]], Awaitable[Response]]
Watch = Callable[[Request, dict[str, str]], Awaitable[Observation]]


class Route(NamedTuple):
    """What runs at a path like `/v1/{deviceId}/data`: a part in braces takes any one segment."""

    method: str
    pattern: str
    handler: Handler
    watch: Watch | None = None
    """For GET: what runs instead when the request asks to observe."""


class Surface(Protocol):
    """The CoAP side of a dialect. Handlers may raise CoapError, BadInput (4.00) and Refused (5.03)."""

    routes: Sequence[Route]
    max_body: int
    """Bytes."""

    async def admit(self, request: Request, names: dict[str, str]) -> None:
        """Raise unless the sender may send; asked with an empty body, before anything of a body in blocks is kept."""


def find(surfaces: Sequence[Surface], method: str, segments: tuple[str, ...]) -> tuple[Surface, Route, dict[str, str]]:
    """The route of a path, whose it is, and what its braces stand for; the first that fits.

    Raises CoapError 4.04, or 4.05 if only the method is wrong. An empty last segment (a slash at the end) does not
    matter (G-27).
    """
    if segments and not segments[-1]:
        segments = segments[:-1]
    error = CoapError(NOT_FOUND, "nothing is here")
    for surface in surfaces:
        for route in surface.routes:
            names = _match(route.pattern, segments)
            if names is not None:
                if route.method == method:
                    return surface, route, names
                error = CoapError(METHOD_NOT_ALLOWED, f"{method} is not for this path")
    raise error


def _match(pattern: str, segments: tuple[str, ...]) -> dict[str, str] | None:
    parts = pattern.strip("/").split("/")
    if len(parts) != len(segments):
        return None
    names = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            names[part[1:-1]] = segment
        elif part != segment:
            return None
    return names
