"""Telemetry in one SQLite file: the embedded default. Several processes may write to the same file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from engine.errors import BadInput, PointsRefused, StoreUnavailable
from engine.message import Point
from engine.stores import cursor as cursors
from engine.stores.aggregates import check_functions
from engine.stores.sqlite_aggregates import aggregate
from engine.stores.sqlite_readers import Readers, Reading
from engine.stores.sqlite_reads import Pages, newest
from engine.stores.sqlite_schema import Names, snapshot
from engine.stores.sqlite_series import DEVICES, TENANTS, find_series
from engine.stores.sqlite_writer import Writer, connect
from engine.stores.timeseries import Bucket, Page
from engine.stores.values import INT64_MAX, INT64_MIN, held_range, is_name
from engine.stores.windows import Run, Window, edges, runs


class SqliteTimeseries:
    """A `Timeseries` in the file `path`. `synchronous` FULL: a returned write survives a power cut; NORMAL: a crash."""

    name = "sqlite"

    def __init__(self, path: str | Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self._path = Path(path)
        self._synchronous = synchronous
        self._names = Names()
        self._parts: tuple[Writer, Readers] | None = None

    async def open(self) -> None:
        """Open the file, and make it and its tables if they are missing; raises StoreUnavailable."""
        if self._parts is not None:
            return
        writer, readers = Writer(self._path, self._synchronous, self._names), Readers(self._connect)
        self._parts = writer, readers
        try:
            with self._telling():
                await writer.open()
                await readers.run(lambda read: read.db.execute("SELECT 1 FROM ts_kv LIMIT 1").fetchone())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what is being written, end what is being read, and close the file."""
        if self._parts is None:
            return
        writer, readers = self._parts
        self._parts = None
        with self._telling():
            await readers.close()
            await writer.close()

    async def write(self, points: Sequence[Point]) -> None:
        """Return when all points are durable; raises StoreUnavailable (none written) or PointsRefused (others are)."""
        with self._telling():
            refused = await self._writer.put(points)
        if refused:
            raise PointsRefused(refused)

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
        if count < 1:
            raise BadInput("count must be at least 1")
        start_ms, end_ms = held_range(start_ms, end_ms)
        count = min(count, INT64_MAX)

        def work(read: Reading) -> list[Point]:
            with snapshot(read.db):
                series = find_series(read, self._names, tenant, devices, keys)
                return newest(read, tenant, series, count, start_ms, end_ms)

        with self._telling():
            return await self._readers.run(work)

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
        if limit < 1:
            raise BadInput("limit must be at least 1")
        mark = cursors.mark(tenant, devices, keys, newest_first)
        behind = cursors.decode(mark, cursor) if cursor else None
        start_ms, end_ms = held_range(start_ms, end_ms)

        def work(read: Reading) -> tuple[list[Point], bool]:
            with snapshot(read.db):
                series = find_series(read, self._names, tenant, devices, keys)
                pages = Pages(read, tenant, series, start_ms, end_ms, newest_first=newest_first, behind=behind)
                return pages.page(limit)

        with self._telling():
            points, more = await self._readers.run(work)
        if not more:
            return Page(points)
        last = points[-1]
        return Page(points, cursors.encode(mark, cursors.Position(last.ts_ms, last.device, last.key)))

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
        asked = check_functions(functions)
        first_ms, behind_ms = held_range(start_ms, end_ms)
        readers = self._readers
        if first_ms == behind_ms:
            return []
        windows = runs(edges(window, first_ms, behind_ms)) if window else [Run(first_ms, behind_ms - first_ms, 1)]

        def work(read: Reading) -> list[Bucket]:
            # No snapshot over all series: as long as one is held, the write-ahead log can only grow.
            series = find_series(read, self._names, tenant, devices, keys)
            return aggregate(read, series, first_ms, behind_ms, asked, windows)

        with self._telling():
            found = await readers.run_heavy(work)
        if window is None:
            return [Bucket(each.device, each.key, start_ms, end_ms, each.values) for each in found]
        return found

    async def keys(self, tenant: str, device: str) -> list[str]:
        """The keys a device has points of, sorted."""
        with self._telling():
            series = await self._readers.run(lambda read: find_series(read, self._names, tenant, [device], None))
        return [each.key for each in series]

    async def tenants(self) -> list[str]:
        """The tenants that have points, sorted."""
        with self._telling():
            return await self._readers.run(lambda read: [row[0] for row in read.db.execute(TENANTS)])

    async def devices(self, tenant: str) -> list[str]:
        """The devices of a tenant that have points, sorted."""
        if not is_name(tenant):
            return []
        with self._telling():
            return await self._readers.run(lambda read: [row[0] for row in read.db.execute(DEVICES, (tenant,))])

    async def delete(
        self, tenant: str, devices: Sequence[str], keys: Sequence[str] | None, start_ms: int, end_ms: int
    ) -> None:
        """Forget the points of a range, in slices that let writers in between; what was cut short can be done again."""
        start_ms, end_ms = held_range(start_ms, end_ms)
        with self._telling():
            series = await self._readers.run(lambda read: find_series(read, self._names, tenant, devices, keys))
            await self._writer.delete(series, start_ms, end_ms)

    async def delete_device(self, tenant: str, device: str) -> None:
        """Forget every point of a device."""
        await self.delete(tenant, [device], None, INT64_MIN, INT64_MAX)

    def told(self) -> list[str]:
        """Nothing: the file's only limit is the disk."""
        return []

    @property
    def _writer(self) -> Writer:
        return self._opened()[0]

    @property
    def _readers(self) -> Readers:
        return self._opened()[1]

    def _opened(self) -> tuple[Writer, Readers]:
        if self._parts is None:
            raise StoreUnavailable("the SQLite store is not open")
        return self._parts

    def _connect(self) -> sqlite3.Connection:
        db = connect(self._path, cache_kib=16_384)
        db.execute("PRAGMA query_only = 1")
        return db

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Failures of SQLite and of the disk as StoreUnavailable, with the file they are about."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error.strerror or error}") from error
