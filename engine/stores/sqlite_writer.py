"""The thread that writes a SQLite file: points in one transaction a call, deletions in slices between them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

from engine.errors import StoreUnavailable
from engine.message import Point
from engine.stores.sqlite_rows import Row, row_of
from engine.stores.sqlite_schema import MAKE, VERSION, Names, transaction
from engine.stores.sqlite_series import Series
from engine.stores.values import point_problem

Made = TypeVar("Made")

BUSY_TIMEOUT_S: Final = 10.0
"""How long a write waits for another process's transaction before the store counts as unavailable."""

CACHE_KIB: Final = 65_536
CHECKPOINT_PAGES: Final = 16_000
"""Every series has one page that grows, so one point of each of 10,000 devices changes 40 MB. These pages are kept in
memory, and go from the write-ahead log into the file once for several points: a fifth faster than with 4,000 pages
and half the memory, and a quarter less is written."""

DELETE_SLICE: Final = 5000
"""Points deleted by one statement."""
SLICE_S, PAUSE_S = 0.05, 0.03
"""How long a transaction that deletes goes on, and how long the file is left to others then. A process that waits for
the file looks every 25 ms in the first 130 ms, so it cannot miss two pauses."""

ROWS_A_STATEMENT: Final = 100
"""A statement of many rows lets go of the interpreter once, not once a row: a third of the time, and no convoy of
threads that wait for each other."""

_UPSERT = "INSERT OR REPLACE INTO ts_kv(device, key, ts, kind, value, lat, lon) VALUES "
_NOWHERE = (None, None)
_PLAIN, _PLACED = "(?,?,?,?,?,NULL,NULL)", "(?,?,?,?,?,?,?)"
_SLICE = "SELECT ts FROM ts_kv WHERE device = ? AND key = ? AND ts >= ? AND ts < ? ORDER BY ts LIMIT 1 OFFSET ?"
_DELETE = "DELETE FROM ts_kv WHERE device = ? AND key = ? AND ts >= ? AND ts < ?"


class Writer:
    """One thread with the connection that changes the file."""

    def __init__(self, path: Path, synchronous: str, names: Names) -> None:
        self._path, self._synchronous, self._names = path, synchronous, names
        self._thread = ThreadPoolExecutor(1, "sqlite-write")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, and make it and its tables if they are missing."""
        await self._run(self._open)

    async def close(self) -> None:
        """Finish what is under way and close the file."""
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def put(self, points: Sequence[Point]) -> list[tuple[int, str]]:
        """Write points; the indexes of those that cannot be held, with the reason, when the others are durable."""
        return await self._run(lambda: self._put(points))

    async def delete(self, series: Sequence[Series], start_ms: int, end_ms: int) -> None:
        """Forget the points of start <= ts < end of each series; writes get in between."""
        at = 0
        while at < len(series):
            at = await self._run(partial(self._delete, series, at, start_ms, end_ms))
            if at < len(series):
                await asyncio.sleep(PAUSE_S)

    async def _run(self, work: Callable[[], Made]) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # What follows runs in the thread.

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._db = db = connect(self._path, cache_kib=CACHE_KIB)
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
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")
        with transaction(db):
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StoreUnavailable(f"{self._path}: made by a newer version ({version}, this is {VERSION})")
            for statement in MAKE:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreUnavailable("the SQLite store is not open")
        return self._db

    def _put(self, points: Sequence[Point]) -> list[tuple[int, str]]:
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
        with transaction(self._opened()) as db:
            device_id, key_id, fresh = self._names.resolver(db)
            # Keyed first: of points for the same place the last stands, and the sort never compares values.
            rows = {(device_id(point.tenant, point.device), key_id(point.key), point.ts_ms): row for point, row in kept}
            places = sorted(rows)
            _insert(db, _PLAIN, [place + rows[place][:2] for place in places if rows[place][2:] == _NOWHERE])
            _insert(db, _PLACED, [place + rows[place] for place in places if rows[place][2:] != _NOWHERE])
        self._names.learn(fresh)  # only now: the ids of a transaction that fell are nobody's
        return refused

    def _delete(self, series: Sequence[Series], at: int, start_ms: int, end_ms: int) -> int:
        """Delete from the series at `at` on, as long as a slice may last; where to go on."""
        # Names stay: another process may hold the id, and its next points must be found under it.
        deadline = time.monotonic() + SLICE_S
        with transaction(self._opened()) as db:
            while at < len(series):
                place = series[at].device_id, series[at].key_id
                found = db.execute(_SLICE, (*place, start_ms, end_ms, DELETE_SLICE)).fetchone()
                db.execute(_DELETE, (*place, start_ms, end_ms if found is None else found[0]))
                at += found is None
                if time.monotonic() >= deadline:
                    break
        return at


def connect(path: Path, *, cache_kib: int) -> sqlite3.Connection:
    """A connection that may be used by any thread, one at a time."""
    db = sqlite3.connect(
        path, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False, cached_statements=256
    )
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    return db


def _insert(db: sqlite3.Connection, values: str, rows: Sequence[tuple[Any, ...]]) -> None:
    whole = len(rows) - len(rows) % ROWS_A_STATEMENT
    if whole:
        many = _UPSERT + ",".join([values] * ROWS_A_STATEMENT)
        for i in range(0, whole, ROWS_A_STATEMENT):
            db.execute(many, list(chain.from_iterable(rows[i : i + ROWS_A_STATEMENT])))
    if whole < len(rows):
        db.executemany(_UPSERT + values, rows[whole:])
