"""HTTP calls of nodes: to checked addresses only, no redirects, no proxy from the environment, bounded answers."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpcore
import httpx

from nodes import BadInput, Retry
from nodes.outward.addresses import Guard

RETRIED_STATUSES = frozenset({408, 425, 429})
"""Answers that ask for another try; so does every 5xx."""

MAX_RETRY_AFTER_S = 3600.0


class Answer(NamedTuple):
    """What the server said: status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Connections of one node, kept open between calls."""

    def __init__(self, guard: Guard, *, connections: int) -> None:
        self._guard = guard
        self._connections = connections
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        *,
        timeout_s: float,
        max_bytes: int,
    ) -> Answer:
        """One call. Raises Retry for what may pass, BadInput for what will not."""
        target = _target(url)
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=_tls(),
                max_connections=self._connections,
                max_keepalive_connections=self._connections,
                keepalive_expiry=30.0,
                network_backend=_GuardedBackend(self._guard),
            )
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        try:
            async with self._pool.stream(
                method,
                target,
                headers=[(name.encode("ascii"), _header(name, text)) for name, text in headers.items()],
                content=body,
                extensions={"timeout": timeout},
            ) as response:
                answer = bytearray()
                async for part in response.aiter_stream():
                    answer += part
                    if len(answer) > max_bytes:
                        raise BadInput(f"the answer is longer than {max_bytes} bytes")
                found = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in response.headers}
                return Answer(response.status, found, bytes(answer))
        except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError) as error:
            raise BadInput(f"the call cannot be made: {error}") from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.RemoteProtocolError) as error:
            raise Retry(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    async def close(self) -> None:
        """Give the connections back."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.aclose()


def retry_after_s(headers: dict[str, str]) -> float | None:
    """Seconds that the server asks to wait (`Retry-After`, RFC 9110 10.2.3), an hour at most; None if it does not."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdecimal():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max((when - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses. The pool goes on knowing the host by its name, for Host, SNI and certificate."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve once, check, and try the addresses that passed."""
        try:
            addresses = await self._guard.addresses(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host}: {error.strerror or error}") from error
        failed: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        assert failed is not None
        raise failed

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never: nodes call hosts."""
        raise httpcore.UnsupportedProtocol("nodes do not connect to sockets of this machine")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)


@functools.lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _target(url: str) -> httpcore.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadInput(f"not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadInput(f"not a URL of http or https with a host: {url[:80]!r}")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise BadInput(f"no port {parsed.port}: {url[:80]!r}")
    if parsed.userinfo:
        raise BadInput("credentials do not belong into a URL: use an Authorization header with a secret")
    return httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path or b"/"
    )


def _header(name: str, text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise BadInput(f"header {name}: {text[:40]!r} has characters that a header cannot hold") from error
