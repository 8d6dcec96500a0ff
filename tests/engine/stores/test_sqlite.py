from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import engine.stores.sqlite_writer as sqlite_writer
from engine.errors import StoreUnavailable
from engine.message import Point
from engine.stores.sqlite import SqliteTimeseries
from engine.stores.sqlite_schema import Fresh, Names

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


async def opened(path: Path) -> SqliteTimeseries:
    store = SqliteTimeseries(path)
    await store.open()
    return store


async def test_points_stay_when_the_file_is_opened_again(tmp_path: Path) -> None:
    store = await opened(tmp_path / "new" / "points.db")
    await store.write([Point("t", "d", "k", 1, 42.0)])
    await store.close()
    again = await opened(tmp_path / "new" / "points.db")
    assert await again.latest("t", ["d"]) == [Point("t", "d", "k", 1, 42.0)]
    await again.close()


async def test_durability_settings_hold(tmp_path: Path) -> None:
    store = await opened(tmp_path / "points.db")
    db = store._writer._db
    assert db is not None
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    await store.close()


async def test_several_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "points.db"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(me)]) for me in range(3)]
    codes = [await asyncio.to_thread(writer.wait) for writer in writers]
    assert codes == [0, 0, 0]
    store = await opened(path)
    for device in range(5):
        page = await store.range("t", [f"d{device}"], None, 0, 10**6, limit=10_000)
        assert len(page.points) == 3 * 10 * 40
    await store.close()


async def test_another_process_that_deletes_does_not_orphan_our_ids(tmp_path: Path) -> None:
    ours, theirs = await opened(tmp_path / "points.db"), await opened(tmp_path / "points.db")
    await ours.write([Point("t", "d", "k", 1, 1)])
    await theirs.delete_device("t", "d")
    await ours.write([Point("t", "d", "k", 2, 2)])
    assert await theirs.latest("t", ["d"]) == [Point("t", "d", "k", 2, 2)]
    await ours.close()
    await theirs.close()


async def test_a_held_lock_is_unavailable_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "BUSY_TIMEOUT_S", 0.05)
    store = await opened(tmp_path / "points.db")
    other = sqlite3.connect(tmp_path / "points.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.write([Point("t", "new", "k", 1, 1)])
    other.execute("ROLLBACK")
    other.close()
    assert await store.latest("t", ["new"]) == []
    await store.write([Point("t", "new", "k", 1, 1)])
    assert len(await store.latest("t", ["new"])) == 1
    await store.close()


async def test_a_full_disk_is_unavailable_and_ids_of_the_fallen_transaction_are_forgotten(tmp_path: Path) -> None:
    store = await opened(tmp_path / "points.db")
    db = store._writer._db
    assert db is not None
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.write([Point("t", f"d{i}", "k", i, "x" * 200) for i in range(500)])
    db.execute("PRAGMA max_page_count = 1000000")
    assert await store.latest("t", ["d1"]) == []
    await store.write([Point("t", "another", "k", 1, 1)])  # takes the row id that d0 had in vain
    await store.write([Point("t", "d0", "k", 1, 2)])
    assert await store.latest("t", ["another"]) == [Point("t", "another", "k", 1, 1)]
    assert await store.latest("t", ["d0"]) == [Point("t", "d0", "k", 1, 2)]
    await store.close()


async def test_no_database_and_no_directory(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and long enough to be read as one" * 40)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SqliteTimeseries(tmp_path / "text").open()
    with pytest.raises(StoreUnavailable):
        await SqliteTimeseries(tmp_path / "text" / "points.db").open()


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "points.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreUnavailable, match="newer version"):
        await SqliteTimeseries(tmp_path / "points.db").open()


async def test_delete_goes_by_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "DELETE_SLICE", 7)
    store = await opened(tmp_path / "points.db")
    await store.write([Point("t", device, key, i, i) for device in "de" for key in "ab" for i in range(20)])
    await store.delete_device("t", "d")
    assert await store.latest("t", ["d"]) == []
    assert len((await store.range("t", ["e"], None, 0, 100)).points) == 40
    await store.close()


async def test_names_are_bounded() -> None:
    names = Names(limit=10)
    names.learn(Fresh({("t", f"d{i}"): i + 1 for i in range(25)}, {f"k{i}": i + 1 for i in range(25)}))
    assert len(names._devices) == 10
    assert list(names._keys) == [f"k{i}" for i in range(15, 25)]
