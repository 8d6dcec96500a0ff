"""Telemetry in InfluxDB: 1.6 and later, 2.x, and 3 Core."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from engine.errors import PointsRefused, StoreUnavailable, Unfit, Unsupported
from engine.message import Point
from engine.stores import influx_reads as reads
from engine.stores.influx_access import access
from engine.stores.influx_aggregates import aggregate
from engine.stores.influx_http import DELETE_S, Closed, Http, Missing
from engine.stores.influx_scopes import scopes_of
from engine.stores.influx_server import Server, find
from engine.stores.influx_writes import Limits, Send, V2Writes, send_points
from engine.stores.influxql import deletion
from engine.stores.line_protocol import Encoder, Lines, last_only
from engine.stores.timeseries import Bucket, Page
from engine.stores.values import INT64_MAX, INT64_MIN
from engine.stores.windows import Window

log = logging.getLogger("rulemill.influxdb")

Made = TypeVar("Made")

TRY_AGAIN_S: Final = 1.0
"""How often a server that is away is looked for at most."""
CLOSED_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Before a deletion is tried again that met the end of a database. On 1.8 and 2.7 that took 0.01 to 0.45 s, in which
every deletion failed and no read did.
"""


class _Link(NamedTuple):
    """A server that was found ready."""

    http: Http
    server: Server
    send: Send


class InfluxTimeseries:
    """A `Timeseries` in the database or bucket `bucket` of the server at `url`, which may hold `user:password@`.

    A server that is away is looked for again by every call, so a store that could not be opened serves as soon as it
    can. `ca` is a PEM file of the authority that signed the server's certificate.
    """

    name = "influxdb"

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        org: str = "",
        bucket: str = "rulemill",
        username: str = "",
        password: str = "",
        ca: str = "",
    ) -> None:
        self._access = access(
            url, token=token, org=org, bucket=bucket, username=username, password=password, ca=ca
        )  # fmt: skip
        self._wanted = False
        self._http: Http | None = None
        self._writes: V2Writes | None = None
        self._link: _Link | None = None
        self._finding = asyncio.Lock()
        self._look_from = 0.0
        self._reason = ""
        self._told: list[str] = []
        self._encoder, self._limits = Encoder(), Limits()

    async def open(self) -> None:
        """Find the server and make what is missing in it; raises StoreUnavailable, or Unfit with what would mend it.

        After StoreUnavailable the calls look for it, until `close`.
        """
        self._wanted = True
        self._look_from = 0.0
        try:
            await self._ready()
        except Unfit:
            self._wanted = False
            raise

    async def close(self) -> None:
        """Let the connections go."""
        self._wanted = False
        http, self._http, writes, self._writes, self._link = self._http, None, self._writes, None, None
        if writes is not None:
            await writes.close()
        if http is not None:
            await http.close()

    async def write(self, points: Sequence[Point]) -> None:
        """Return when all points are durable; raises StoreUnavailable (none counted as written) or PointsRefused."""
        lines = self._encoder.encode(points)
        refused = await self._asked(lambda link: self._write(link, points, lines))
        if refused or lines.refused:
            raise PointsRefused(sorted([*refused, *lines.refused]))

    async def latest(
        self,
        tenant: str,
        devices: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        count: int = 1,
        start_ms: int = INT64_MIN,
        end_ms: int = INT64_MAX,
    ) -> list[Point]:
        """The newest `count` points of each series within the range, by device, then key, then the newest first."""
        return await self._asked(
            lambda link: reads.latest(link.http, tenant, devices, keys, count=count, start_ms=start_ms, end_ms=end_ms)
        )

    async def range(
        self,
        tenant: str,
        devices: Sequence[str],
        keys: Sequence[str] | None,
        start_ms: int,
        end_ms: int,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        cursor: str = "",
    ) -> Page:
        """At most `limit` points by time, then by device and key ascending in either direction."""
        return await self._asked(
            lambda link: reads.page(
                link.http, tenant, devices, keys, start_ms, end_ms,
                limit=limit, newest_first=newest_first, cursor=cursor,
            )
        )  # fmt: skip

    async def aggregate(
        self,
        tenant: str,
        devices: Sequence[str],
        keys: Sequence[str] | None,
        start_ms: int,
        end_ms: int,
        functions: Sequence[str],
        window: Window | None = None,
    ) -> list[Bucket]:
        """What each series gives in each window that has a point in the range, by device, key and time."""
        return await self._asked(
            lambda link: aggregate(link.http, tenant, devices, keys, start_ms, end_ms, functions, window)
        )

    async def keys(self, tenant: str, device: str) -> list[str]:
        """The keys a device has points of, sorted."""
        return await self._asked(lambda link: reads.keys(link.http, tenant, device))

    async def tenants(self) -> list[str]:
        """The tenants that have points, sorted."""
        return await self._asked(lambda link: reads.tenants(link.http, link.server.major))

    async def devices(self, tenant: str) -> list[str]:
        """The devices of a tenant that have points, sorted."""
        return await self._asked(lambda link: reads.devices(link.http, link.server.major, tenant))

    async def delete(
        self, tenant: str, devices: Sequence[str], keys: Sequence[str] | None, start_ms: int, end_ms: int
    ) -> None:
        """Forget the points of a range; raises Unsupported where the server cannot."""

        async def work(link: _Link) -> None:
            if link.server.major == 3:
                raise Unsupported("InfluxDB 3 deletes no points; they go when the database's retention ends")
            if start_ms < end_ms:
                for scope in await scopes_of(link.http, tenant, devices, keys):
                    await _delete(link.http, deletion(scope, start_ms, end_ms))

        await self._asked(work)

    async def delete_device(self, tenant: str, device: str) -> None:
        """Forget every point of a device; raises Unsupported where the server cannot."""
        await self.delete(tenant, [device], None, INT64_MIN, INT64_MAX)

    def told(self) -> list[str]:
        """Limits of the server and rights that we lack; empty until it was found."""
        return list(self._told)

    async def _write(self, link: _Link, points: Sequence[Point], lines: Lines) -> list[tuple[int, str]]:
        if link.server.major == 3:
            lines = last_only(points, lines)
        return await send_points(points, lines, link.send, self._limits)

    async def _asked(self, work: Callable[[_Link], Awaitable[Made]]) -> Made:
        """Ask the server; if our database is gone, make it again once."""
        link = await self._opened()
        try:
            return await work(link)
        except Missing as error:
            log.warning("%s; it is made again", error.reason)
            if self._link is link:
                self._link = None
            return await work(await self._opened())

    async def _opened(self) -> _Link:
        """The server, looked for if need be; whoever asks later than `open` is not told what would stop a start."""
        try:
            return await self._ready()
        except Unfit as error:
            raise StoreUnavailable(error.reason) from error

    async def _ready(self) -> _Link:
        async with self._finding:
            if self._link is None:
                self._link = await self._look()
                if not self._wanted:  # closed meanwhile
                    await self.close()
                    raise StoreUnavailable("the InfluxDB store is not open")
            return self._link

    async def _look(self) -> _Link:
        if not self._wanted:
            raise StoreUnavailable("the InfluxDB store is not open")
        if (wait_s := self._look_from - time.monotonic()) > 0:
            raise StoreUnavailable(self._reason, wait_s)
        if self._http is not None:  # others may be using it
            return await self._find(self._http)
        http = Http(self._access)
        try:
            link = await self._find(http)
        except BaseException:
            await http.close()
            raise
        self._http = http
        return link

    async def _find(self, http: Http) -> _Link:
        try:
            server = await find(http)
        except (StoreUnavailable, Unfit) as error:
            self._reason, self._look_from = error.reason, time.monotonic() + TRY_AGAIN_S
            raise
        self._told = server.told
        log.info("InfluxDB %s at %s, %s", server.version, self._access.base, self._access.bucket)
        if not server.v2_write:
            return _Link(http, server, http.write)
        if self._writes is None:
            self._writes = V2Writes(http, server)
        return _Link(http, server, self._writes.send)


async def _delete(http: Http, statement: str) -> None:
    """Run a deletion, which may be run twice; raises StoreUnavailable."""
    for pause_s in CLOSED_PAUSES_S:
        try:
            await http.query(statement, _nothing, silence_s=DELETE_S)
            return
        except Closed:
            await asyncio.sleep(pause_s)
    await http.query(statement, _nothing, silence_s=DELETE_S)


def _nothing(_: int, __: object) -> None:
    """For statements that give no rows."""
