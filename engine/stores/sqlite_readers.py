"""The threads that read a SQLite file: a few, each with a connection of its own, so that a long read holds up none."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from engine.errors import StoreUnavailable

Made = TypeVar("Made")

THREADS: Final = 4
"""Reads at the same time; one thread is kept for what takes milliseconds."""

READ_S: Final = 30.0
"""The longest read; it costs memory and lets the write-ahead log grow."""

_LOOK_EVERY: Final = 20_000
"""Steps of SQLite's machine between two looks whether anybody still waits: some tenths of a millisecond."""


class Reading:
    """One read under way: its connection, and whether to go on."""

    def __init__(self, db: sqlite3.Connection, stop: _Stop) -> None:
        self.db = db
        self._stop = stop

    def check(self) -> None:
        """Raises StoreUnavailable when the read has taken too long or nobody waits for it any more.

        SQLite looks by itself within a statement; call this between statements.
        """
        self._stop.check()


class Readers:
    """Runs reads in at most `THREADS` threads. `connect` opens a connection that only reads."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._threads = ThreadPoolExecutor(THREADS, "sqlite-read")
        self._heavy = asyncio.Semaphore(THREADS - 1)
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._under_way: set[_Stop] = set()

    async def run(self, work: Callable[[Reading], Made]) -> Made:
        """What `work` gives; a caller that is cancelled ends it."""
        stop = _Stop(time.monotonic() + READ_S)
        self._under_way.add(stop)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, work, stop)
        except asyncio.CancelledError:
            stop.reason = "nobody waits for the read any more"
            raise
        finally:
            self._under_way.discard(stop)

    async def run_heavy(self, work: Callable[[Reading], Made]) -> Made:
        """The same for work that may take seconds: it never takes the last thread."""
        async with self._heavy:
            return await self.run(work)

    async def close(self) -> None:
        """End what is under way and close the connections."""
        for stop in self._under_way:
            stop.reason = "the SQLite store was closed"
        await asyncio.to_thread(self._threads.shutdown)
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _read(self, work: Callable[[Reading], Made], stop: _Stop) -> Made:
        stop.check()
        try:
            db = self._idle.get_nowait()
        except queue.Empty:
            db = self._connect()
        try:
            db.set_progress_handler(stop.look, _LOOK_EVERY)
            try:
                made = work(Reading(db, stop))
            except sqlite3.OperationalError:
                stop.check()  # SQLite calls it interrupted
                raise
            db.set_progress_handler(None, 0)
        except sqlite3.Error:
            db.close()  # whatever it has, the next read begins anew
            raise
        except BaseException:
            self._idle.put(db)
            raise
        self._idle.put(db)
        return made


class _Stop:
    """Tells a thread when to stop, and why."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self.reason = ""

    def look(self) -> bool:
        return bool(self.reason) or time.monotonic() > self._deadline_s

    def check(self) -> None:
        if self.reason:
            raise StoreUnavailable(self.reason)
        if time.monotonic() > self._deadline_s:
            raise StoreUnavailable(f"the read took more than {READ_S:g} s; ask for less at once", READ_S)
