"""Lines on their way into InfluxDB: bodies of a size that it takes, and the one bad line among thousands."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from io import BytesIO
from typing import Any, Final

import aiohttp

from engine.message import Point
from engine.stores.influx_http import CONNECT_S, Http, NotTaken, TooLarge, write_failure
from engine.stores.influx_server import Server
from engine.stores.line_protocol import Lines

log = logging.getLogger("rulemill.influxdb")

MAX_BODY_BYTES: Final = 8_000_000
"""InfluxDB 1 takes 25 MB and InfluxDB 3 takes 10 MB if nobody sets another limit."""

WRITE_S: Final = 30.0
"""How long the server may think about a write."""

LIMITS: Final = {
    "max-values-per-tag": "this server takes no more devices, keys or tenants",
    "max-series-per-database": "this server takes no more series",
}
"""Limits of InfluxDB 1 that lose points of new devices, and what to say about it."""

OVER_S: Final = 60.0
_OVER_KEPT: Final = 100_000

Send = Callable[[bytes], Awaitable[None]]
Series = tuple[str, str, str]
"""Tenant, device and key."""


class V2Writes:
    """`/api/v2/write` through influxdb-client."""

    def __init__(self, http: Http, server: Server) -> None:
        # Imported here: 1.6 and 1.7 never need it.
        from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
        from influxdb_client.service.write_service import WriteService

        access = http.access
        self._http, self._org = http, server.org
        self._client = InfluxDBClientAsync(
            access.base,
            token=access.token or (f"{access.username}:{access.password}" if access.username else ""),
            org=server.org,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=WRITE_S),
            ssl_context=http.ssl,
            allow_redirects=False,
            client_session_type=_Session,
        )
        self._service = WriteService(self._client.api_client)

    async def send(self, body: bytes) -> None:
        """Write lines; raises StoreUnavailable and its kinds, NotTaken, TooLarge."""
        from influxdb_client.rest import ApiException

        body, packed = await self._http.pack(body)
        options: dict[str, Any] = {"content_encoding": "gzip"} if packed else {}
        try:
            _, status, headers = await self._service.post_write_async(
                self._org, self._http.access.bucket, body, precision="ms", _return_http_data_only=False, **options
            )
        except ApiException as error:
            said = error.body or b""
            raise write_failure(
                error.status, error.headers or {}, said.encode() if isinstance(said, str) else said
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._http.away(error) from error
        if status != 204:
            raise write_failure(status, headers, b"")

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.close()


class _Session:
    """The session of influxdb-client, which knows bodies as bytes only: one of megabytes would hold up the loop."""

    def __init__(self, **options: Any) -> None:
        self._session = aiohttp.ClientSession(**options, cookie_jar=aiohttp.DummyCookieJar())

    def request(self, *, data: bytes = b"", **options: Any) -> Any:
        """As `aiohttp.ClientSession.request`."""
        return self._session.request(data=BytesIO(data), **options)

    async def close(self) -> None:
        """As `aiohttp.ClientSession.close`."""
        await self._session.close()


class Limits:
    """Series that the server took none of for a limit of its own: not asked about again for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._over: dict[Series, tuple[float, str]] = {}
        self._due = 0.0

    def known(self, series: Series) -> str | None:
        """Why the series is over a limit; None when nothing is known."""
        if not self._over or (found := self._over.get(series)) is None:
            return None
        until, reason = found
        if self._clock() < until:
            return reason
        del self._over[series]
        return None

    def learn(self, reason: str, series: Sequence[Series]) -> None:
        """Look whether a reason names a limit, and say so at once and aloud, but not for every point."""
        limit = next((name for name in LIMITS if name in reason), None)
        if limit is None:
            return
        now = self._clock()
        if len(self._over) > _OVER_KEPT:
            self._over.clear()
        self._over.update(dict.fromkeys(series, (now + OVER_S, reason)))
        if now >= self._due:
            self._due = now + OVER_S
            log.error(
                'points refused: %s. Set %s = 0 in [data] of its influxdb.conf, or index-version = "tsi1", and start '
                "it again; until then these points are dead letters (%s)", LIMITS[limit], limit, reason,
            )  # fmt: skip


async def send_points(
    points: Sequence[Point], lines: Lines, send: Send, limits: Limits
) -> list[tuple[int, str]]:  # fmt: skip
    """Write all lines but those that the server refuses for ever: the indices of their points, with its reason.

    Raises StoreUnavailable when it is not known whether all are written. A part of the lines that is refused is halved
    until the bad line stands alone, or until the server says that it drops the whole part. Halves are sent in order:
    of two lines for the same point the last one stands.
    """
    refused: list[tuple[int, str]] = []
    left: list[tuple[int, str]] = []
    for i, line in zip(lines.of, lines.lines, strict=True):
        if (reason := limits.known(_series(points[i]))) is None:
            left.append((i, line))
        else:
            refused.append((i, reason))
    parts = deque(_bodies(left))
    while parts:
        part = parts.popleft()
        try:
            await send("\n".join([line for _, line in part]).encode())
            continue
        except NotTaken as error:
            reason, hopeless = error.reason, error.dropped == len(part)
            if hopeless or len(part) == 1:
                limits.learn(reason, [_series(points[i]) for i, _ in part])
        except TooLarge:
            reason, hopeless = f"InfluxDB takes no line of {len(part[0][1])} characters", False
        if hopeless or len(part) == 1:
            refused += [(i, reason) for i, _ in part]
        else:
            middle = len(part) // 2
            parts.extendleft((part[middle:], part[:middle]))
    return refused


def _series(point: Point) -> Series:
    return point.tenant, point.device, point.key


def _bodies(lines: Sequence[tuple[int, str]]) -> Iterator[Sequence[tuple[int, str]]]:
    """Consecutive lines that are not too much for one body; a longer one is alone."""
    start = size = 0
    for end, (_, line) in enumerate(lines):
        length = len(line) + 1 if line.isascii() else len(line.encode()) + 1
        if size + length > MAX_BODY_BYTES and end > start:
            yield lines[start:end]
            start, size = end, 0
        size += length
    if start < len(lines):
        yield lines[start:]
