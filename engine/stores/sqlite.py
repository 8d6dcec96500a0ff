"""Telemetry in one SQLite file: the embedded default. Several processes may write to the same file."""

from __future__ import annotations

import asyncio
import heapq
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from engine.errors import BadInput, PointsRefused, StoreUnavailable, Unsupported
from engine.message import Point
from engine.stores import cursor as cursors
from engine.stores.sqlite_rows import Row, point_of, row_of
from engine.stores.sqlite_schema import MAKE, VERSION, Names, snapshot, transaction
from engine.stores.timeseries import Bucket, Page
from engine.stores.values import INT64_MAX, INT64_MIN, point_problem
from engine.stores.windows import Window

Made = TypeVar("Made")

BUSY_TIMEOUT_S: Final = 10.0
"""How long a write waits for another process's transaction before the store counts as unavailable."""

DELETE_SLICE: Final = 20_000
"""Points deleted in one transaction, so that writers get in between."""

ROWS_A_STATEMENT: Final = 100
"""A statement of many rows lets go of the interpreter once, not once a row: a third of the time, and no convoy of
threads that wait for each other."""

_UPSERT = "INSERT OR REPLACE INTO ts_kv(device, key, ts, kind, value, lat, lon) VALUES "
_NOWHERE = (None, None)
_PLAIN, _PLACED = "(?,?,?,?,?,NULL,NULL)", "(?,?,?,?,?,?,?)"
_KEYS = """
WITH RECURSIVE walk(key) AS (
  SELECT min(key) FROM ts_kv WHERE device = ?1
  UNION ALL
  SELECT (SELECT min(key) FROM ts_kv WHERE device = ?1 AND key > walk.key) FROM walk WHERE walk.key IS NOT NULL)
SELECT names.id, names.name FROM walk JOIN key_name AS names ON names.id = walk.key"""
_NEWEST = (
    "SELECT ts, kind, value, lat, lon FROM ts_kv "
    "WHERE device = ? AND key = ? AND ts >= ? AND ts < ? ORDER BY ts DESC LIMIT ?"
)
_RANGE = "SELECT ts, kind, value, lat, lon FROM ts_kv WHERE device = ? AND key = ? AND ts >= ? AND ts < ? ORDER BY ts "
_SLICE = "SELECT ts FROM ts_kv WHERE device = ? AND key = ? AND ts >= ? AND ts < ? ORDER BY ts LIMIT 1 OFFSET ?"


class SqliteTimeseries:
    """A `Timeseries` in the file `path`. `synchronous` FULL: a returned write survives a power cut; NORMAL: a crash."""

    name = "sqlite"

    def __init__(self, path: str | Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self._path = Path(path)
        self._synchronous = synchronous
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writes: ThreadPoolExecutor | None = None
        self._reads: ThreadPoolExecutor | None = None
        self._names = Names()

    async def open(self) -> None:
        """Open the file, and make it and its tables if they are missing; raises StoreUnavailable."""
        if self._writes is not None:
            return
        self._writes = ThreadPoolExecutor(1, "sqlite-write")
        self._reads = ThreadPoolExecutor(1, "sqlite-read")
        try:
            await self._run(self._writes, self._open_writer)
            await self._run(self._reads, self._open_reader)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what is under way and close the file."""
        writes, reads = self._writes, self._reads
        self._writes = self._reads = None
        loop = asyncio.get_running_loop()
        if reads is not None:
            await loop.run_in_executor(reads, self._close_reader)
            reads.shutdown(wait=False)
        if writes is not None:
            await loop.run_in_executor(writes, self._close_writer)
            writes.shutdown(wait=False)

    async def write(self, points: Sequence[Point]) -> None:
        """Return when all points are durable; raises StoreUnavailable (none written) or PointsRefused (others are)."""
        refused = await self._run(self._writes, lambda: self._write(points))
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
        start_ms, end_ms = max(start_ms, INT64_MIN), min(end_ms, INT64_MAX)
        return await self._run(self._reads, lambda: self._latest(tenant, devices, keys, count, start_ms, end_ms))

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
        start_ms, end_ms = max(start_ms, INT64_MIN), min(end_ms, INT64_MAX)
        points, more = await self._run(
            self._reads, lambda: self._range(tenant, devices, keys, start_ms, end_ms, limit, newest_first, behind)
        )
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
        raise Unsupported("no aggregates yet")

    async def keys(self, tenant: str, device: str) -> list[str]:
        """The keys a device has points of, sorted."""
        return await self._run(self._reads, lambda: self._keys_of(tenant, device))

    async def delete(
        self, tenant: str, devices: Sequence[str], keys: Sequence[str] | None, start_ms: int, end_ms: int
    ) -> None:
        """Forget the points of a range, a slice at a time."""
        start_ms, end_ms = max(start_ms, INT64_MIN), min(end_ms, INT64_MAX)
        for device in sorted(set(devices)):
            for series in await self._run(self._writes, partial(self._series, tenant, device, keys)):
                while await self._run(self._writes, partial(self._delete_slice, series, start_ms, end_ms)):
                    pass

    async def delete_device(self, tenant: str, device: str) -> None:
        """Forget every point of a device, a slice at a time."""
        await self.delete(tenant, [device], None, INT64_MIN, INT64_MAX)

    def told(self) -> list[str]:
        """Nothing: the file's only limit is the disk."""
        return []

    async def _run(self, executor: ThreadPoolExecutor | None, work: Callable[[], Made]) -> Made:
        if executor is None:
            raise StoreUnavailable("the SQLite store is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error.strerror or error}") from error

    # What follows runs in the executors' threads.

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False, cached_statements=256
        )
        connection.execute("PRAGMA cache_size = -32768")
        return connection

    def _open_writer(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = db = self._connect()
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:  # the busy timeout does not cover the change to WAL, in which several first openers may meet
            try:
                db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA journal_size_limit = 67108864")
        with transaction(db):
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StoreUnavailable(f"{self._path}: made by a newer version ({version}, this is {VERSION})")
            for statement in MAKE:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")

    def _open_reader(self) -> None:
        self._reader = self._connect()
        self._reader.execute("PRAGMA query_only = 1")

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _write(self, points: Sequence[Point]) -> list[tuple[int, str]]:
        refused: list[tuple[int, str]] = []
        kept: list[tuple[Point, Row]] = []
        for i, point in enumerate(points):
            row = row_of(point)
            if row is None:
                refused.append((i, point_problem(point) or "cannot be held"))
            else:
                kept.append((point, row))
        if not kept:
            return refused
        with transaction(_opened(self._writer)) as db:
            device_id, key_id, fresh = self._names.resolver(db)
            # Keyed first: of points for the same place the last stands, and the sort never compares values.
            rows = {(device_id(point.tenant, point.device), key_id(point.key), point.ts_ms): row for point, row in kept}
            places = sorted(rows)
            _insert(db, _PLAIN, [place + rows[place][:2] for place in places if rows[place][2:] == _NOWHERE])
            _insert(db, _PLACED, [place + rows[place] for place in places if rows[place][2:] != _NOWHERE])
        self._names.learn(fresh)  # only now: the ids of a transaction that fell are nobody's
        return refused

    def _series(self, tenant: str, device: str, keys: Sequence[str] | None) -> list[tuple[int, int]]:
        with snapshot(_opened(self._writer)) as db:
            found = self._names.find_device(db, tenant, device)
            return [] if found is None else [(found, key_id) for key_id, _ in self._keys(db, found, keys)]

    def _delete_slice(self, series: tuple[int, int], start_ms: int, end_ms: int) -> bool:
        # Names stay: another process may hold the id, and its next points must be found under it.
        with transaction(_opened(self._writer)) as db:
            end = db.execute(_SLICE, (*series, start_ms, end_ms, DELETE_SLICE)).fetchone()
            db.execute(
                "DELETE FROM ts_kv WHERE device = ? AND key = ? AND ts >= ? AND ts < ?",
                (*series, start_ms, end_ms if end is None else end[0]),
            )
            return end is not None

    def _keys_of(self, tenant: str, device: str) -> list[str]:
        with snapshot(_opened(self._reader)) as db:
            found = self._names.find_device(db, tenant, device)
            return [] if found is None else [key for _, key in self._keys(db, found, None)]

    def _latest(
        self,
        tenant: str,
        devices: Sequence[str],
        keys: Sequence[str] | None,
        count: int,
        start_ms: int,
        end_ms: int,
    ) -> list[Point]:
        with snapshot(_opened(self._reader)) as db:
            points = []
            for device in sorted(set(devices)):
                found = self._names.find_device(db, tenant, device)
                if found is None:
                    continue
                for key_id, key in self._keys(db, found, keys):
                    rows = db.execute(_NEWEST, (found, key_id, start_ms, end_ms, count))
                    points += [point_of(tenant, device, key, row) for row in rows]
            return points

    def _range(
        self,
        tenant: str,
        devices: Sequence[str],
        keys: Sequence[str] | None,
        start_ms: int,
        end_ms: int,
        limit: int,
        newest_first: bool,
        behind: cursors.Position | None,
    ) -> tuple[list[Point], bool]:
        """One page, and whether there is more."""
        sign = -1 if newest_first else 1
        sql = _RANGE + ("DESC" if newest_first else "ASC")
        with snapshot(_opened(self._reader)) as db:

            def rows(place: tuple[int, int], names: tuple[str, str]) -> Generator[tuple[Any, ...], None, None]:
                start, end = _rest(start_ms, end_ms, names, newest_first, behind)
                for row in db.execute(sql, (*place, start, end)):
                    yield sign * row[0], *names, row

            series = []
            for device in sorted(set(devices)):
                found = self._names.find_device(db, tenant, device)
                if found is not None:
                    series += [rows((found, key_id), (device, key)) for key_id, key in self._keys(db, found, keys)]
            # Each series' rows come in order and lazily: the merge reads one page and one row of each series more.
            page = list(islice(heapq.merge(*series, key=lambda row: row[:3]), limit + 1))
            for rest in series:
                rest.close()
        return [point_of(tenant, device, key, row) for _, device, key, row in page[:limit]], len(page) > limit

    def _keys(self, db: sqlite3.Connection, device: int, keys: Sequence[str] | None) -> list[tuple[int, str]]:
        if keys is None:
            found = db.execute(_KEYS, (device,)).fetchall()
        else:
            ids = ((self._names.find_key(db, key), key) for key in set(keys))
            found = [(key_id, key) for key_id, key in ids if key_id is not None]
        return sorted(found, key=lambda pair: pair[1])


def _opened(connection: sqlite3.Connection | None) -> sqlite3.Connection:
    if connection is None:
        raise StoreUnavailable("the SQLite store is not open")
    return connection


def _rest(
    start_ms: int, end_ms: int, names: tuple[str, str], newest_first: bool, behind: cursors.Position | None
) -> tuple[int, int]:
    """What is left of start <= ts < end for one series behind a position: one after the last still has that time."""
    if behind is None:
        return start_ms, end_ms
    at_it_too = names > (behind.device, behind.key)
    if newest_first:
        return start_ms, min(end_ms, behind.ts_ms + 1 if at_it_too else behind.ts_ms)
    return max(start_ms, behind.ts_ms if at_it_too else behind.ts_ms + 1), end_ms


def _insert(db: sqlite3.Connection, values: str, rows: Sequence[tuple[Any, ...]]) -> None:
    whole = len(rows) - len(rows) % ROWS_A_STATEMENT
    if whole:
        many = _UPSERT + ",".join([values] * ROWS_A_STATEMENT)
        for i in range(0, whole, ROWS_A_STATEMENT):
            db.execute(many, list(chain.from_iterable(rows[i : i + ROWS_A_STATEMENT])))
    if whole < len(rows):
        db.executemany(_UPSERT + values, rows[whole:])
