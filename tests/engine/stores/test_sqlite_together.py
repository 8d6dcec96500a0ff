"""Many at one SQLite file: readers, writers, deletions, processes, and callers that give up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from engine.errors import StoreUnavailable
from engine.message import Point
from engine.stores import sqlite_readers, sqlite_writer
from engine.stores.sqlite import SqliteTimeseries
from engine.stores.sqlite_readers import THREADS, Reading
from engine.stores.sqlite_schema import snapshot

pytestmark = pytest.mark.asyncio

WRITER = """
import asyncio, sys
from engine.message import Point
from engine.stores.sqlite import SqliteTimeseries
async def main(path, me):
    store = SqliteTimeseries(path)
    await store.open()
    for batch in range(10):
        await store.write([Point("t", f"d{i % 5}", f"k{batch}", me * 1000 + i, me) for i in range(200)])
    await store.close()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteTimeseries]:
    made = SqliteTimeseries(tmp_path / "points.db")
    await made.open()
    yield made
    await made.close()


def start_writer(path: Path, me: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(me)])


async def ended(writers: list[subprocess.Popen[bytes]]) -> None:
    assert [await asyncio.to_thread(writer.wait, 60) for writer in writers] == [0] * len(writers)


async def count(store: SqliteTimeseries, *devices: str) -> int:
    found = await store.aggregate("t", devices, None, 0, 10**9, ["count"])
    return sum(bucket.values["count"] for bucket in found)


async def test_processes_write_while_one_deletes_and_one_reads(store: SqliteTimeseries, tmp_path: Path) -> None:
    await store.write([Point("t", "gone", f"k{i % 3}", i, i) for i in range(5000)])
    await store.write([Point("t", "stays", "k", i, i) for i in range(10)])
    held, go = threading.Event(), threading.Event()

    def hold(read: Reading) -> list[int]:
        with snapshot(read.db):
            before = read.db.execute("SELECT count(*) FROM ts_kv").fetchone()[0]
            held.set()
            assert go.wait(60)
            return [before, read.db.execute("SELECT count(*) FROM ts_kv").fetchone()[0]]

    reading = asyncio.create_task(store._readers.run(hold))
    await asyncio.to_thread(held.wait, 60)
    writers = [start_writer(tmp_path / "points.db", me) for me in range(2)]
    await store.delete_device("t", "gone")
    await ended(writers)  # all of it while somebody reads
    go.set()
    assert await reading == [5010, 5010]
    assert await count(store, "gone") == 0
    assert await count(store, *(f"d{i}" for i in range(5))) == 2 * 10 * 200
    assert await count(store, "stays") == 10


async def test_another_store_that_deletes_does_not_orphan_our_ids(store: SqliteTimeseries, tmp_path: Path) -> None:
    theirs = SqliteTimeseries(tmp_path / "points.db")
    await theirs.open()
    await store.write([Point("t", "d", "k", 1, 1)])
    await theirs.delete_device("t", "d")
    await store.write([Point("t", "d", "k", 2, 2)])
    assert await theirs.latest("t", ["d"]) == [Point("t", "d", "k", 2, 2)]
    await theirs.close()


async def test_writes_get_in_between_the_slices_of_a_deletion(
    store: SqliteTimeseries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "DELETE_SLICE", 7)
    monkeypatch.setattr(sqlite_writer, "SLICE_S", 0.0)
    monkeypatch.setattr(sqlite_writer, "PAUSE_S", 0.0)
    await store.write([Point("t", device, key, i, i) for device in "de" for key in "ab" for i in range(70)])
    deleting = asyncio.create_task(store.delete("t", ["d", "f"], None, 0, 1000))
    for i in range(5):
        await store.write([Point("t", "f", "k", i, i)])
        assert not deleting.done()
    await deleting
    assert await count(store, "d") == 0
    assert await count(store, "e") == 140


async def test_a_deletion_cut_short_harms_nothing(store: SqliteTimeseries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "DELETE_SLICE", 7)
    monkeypatch.setattr(sqlite_writer, "SLICE_S", 0.0)
    await store.write([Point("t", "d", "k", i, i) for i in range(70)])
    deleting = asyncio.create_task(store.delete_device("t", "d"))
    while await count(store, "d") == 70:
        await asyncio.sleep(0)
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    assert 0 < await count(store, "d") < 70
    await store.delete_device("t", "d")
    assert await count(store, "d") == 0


async def test_long_reads_hold_up_no_short_one(store: SqliteTimeseries) -> None:
    await store.write([Point("t", "d", "k", 1, 1)])
    go = threading.Event()
    long = [asyncio.create_task(store._readers.run_heavy(lambda read: go.wait(60))) for _ in range(THREADS * 3)]
    await asyncio.sleep(0)
    for _ in range(10):
        assert len(await store.latest("t", ["d"])) == 1
        assert len((await store.range("t", ["d"], None, 0, 10)).points) == 1
    go.set()
    assert all(await asyncio.gather(*long))


async def test_a_reader_that_gives_up_leaves_its_thread_to_the_next(store: SqliteTimeseries) -> None:
    await store.write([Point("t", "d", "k", 1, 1)])
    for _ in range(2):
        begun = [threading.Event() for _ in range(THREADS)]

        def endless(read: Reading, begun: threading.Event) -> None:
            with snapshot(read.db):
                begun.set()
                read.db.execute(ENDLESS).fetchone()

        under_way = [asyncio.create_task(store._readers.run(partial(endless, begun=each))) for each in begun]
        waiting = asyncio.create_task(store.latest("t", ["d"]))
        for each in begun:
            assert await asyncio.to_thread(each.wait, 60)
        for task in [*under_way[1:], waiting]:
            task.cancel()
        found = await asyncio.gather(*under_way[1:], waiting, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in found)
        assert len(await store.latest("t", ["d"])) == 1
        under_way[0].cancel()


async def test_a_read_ends_in_time(store: SqliteTimeseries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_readers, "READ_S", 0.05)
    with pytest.raises(StoreUnavailable, match="took more than"):
        await store._readers.run(lambda read: read.db.execute(ENDLESS).fetchone())

    def many_short(read: Reading) -> None:
        while True:
            read.check()

    with pytest.raises(StoreUnavailable, match="took more than"):
        await store._readers.run(many_short)
    assert await store.latest("t", ["d"]) == []


async def test_closing_ends_what_is_read_and_finishes_what_is_written(store: SqliteTimeseries, tmp_path: Path) -> None:
    begun = threading.Event()

    def endless(read: Reading) -> None:
        begun.set()
        read.db.execute(ENDLESS).fetchone()

    reading = asyncio.create_task(store._readers.run(endless))
    assert await asyncio.to_thread(begun.wait, 60)
    writing = asyncio.create_task(store.write([Point("t", "d", "k", i, i) for i in range(5000)]))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await reading
    await writing
    await store.open()
    assert await count(store, "d") == 5000


async def test_a_writer_that_gives_up_has_written_all_or_nothing(store: SqliteTimeseries) -> None:
    for i in range(5):
        writing = asyncio.create_task(store.write([Point("t", f"d{i}", "k", n, n) for n in range(3000)]))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await store.write([Point("t", "next", "k", i, i)])
        assert await count(store, f"d{i}") in (0, 3000)
    assert await count(store, "next") == 5
