"""What is SQLite's own about the embedded store: its file, its failures. What every store does: tests/conformance."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import engine.stores.sqlite_writer as sqlite_writer
from engine.errors import StoreUnavailable
from engine.message import Point
from engine.stores import sqlite_aggregates, sqlite_reads, sqlite_series
from engine.stores.sqlite import SqliteTimeseries
from engine.stores.sqlite_schema import MAKE, Fresh, Names
from engine.stores.sqlite_series import table
from engine.stores.windows import window

pytestmark = pytest.mark.asyncio


async def opened(path: Path) -> SqliteTimeseries:
    store = SqliteTimeseries(path)
    await store.open()
    return store


def writing(store: SqliteTimeseries) -> sqlite3.Connection:
    db = store._writer._db
    assert db is not None
    return db


async def test_points_stay_when_the_file_is_opened_again(tmp_path: Path) -> None:
    store = await opened(tmp_path / "new" / "points.db")
    await store.write([Point("t", "d", "k", 1, 42.0)])
    await store.close()
    again = await opened(tmp_path / "new" / "points.db")
    assert await again.latest("t", ["d"]) == [Point("t", "d", "k", 1, 42.0)]
    await again.close()


async def test_durability_settings_hold(tmp_path: Path) -> None:
    store = await opened(tmp_path / "points.db")
    assert writing(store).execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writing(store).execute("PRAGMA synchronous").fetchone() == (2,)
    await store.close()


async def test_a_held_lock_is_unavailable_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "BUSY_TIMEOUT_S", 0.05)
    store = await opened(tmp_path / "points.db")
    other = sqlite3.connect(tmp_path / "points.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"points\.db.*locked"):
        await store.write([Point("t", "new", "k", 1, 1)])
    with pytest.raises(StoreUnavailable, match="locked"):
        await SqliteTimeseries(tmp_path / "points.db").open()
    other.execute("ROLLBACK")
    other.close()
    assert await store.latest("t", ["new"]) == []
    await store.write([Point("t", "new", "k", 1, 1)])
    assert len(await store.latest("t", ["new"])) == 1
    await store.close()


async def test_a_full_disk_is_unavailable_and_ids_of_the_fallen_transaction_are_forgotten(tmp_path: Path) -> None:
    store = await opened(tmp_path / "points.db")
    await store.write([Point("t", "before", "k", 1, 1)])
    pages = writing(store).execute("PRAGMA page_count").fetchone()[0]
    writing(store).execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.write([Point("t", f"d{i}", "k", i, "x" * 200) for i in range(500)])
    assert await store.latest("t", ["before", "d1"]) == [Point("t", "before", "k", 1, 1)]
    writing(store).execute("PRAGMA max_page_count = 1000000")
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
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await SqliteTimeseries(tmp_path).open()


async def test_a_damaged_file_says_so_and_stays_usable_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "points.db"
    store = await opened(path)
    points = [Point("t", f"d{i}", "k", ts_ms, "x" * 100) for i in range(20) for ts_ms in range(100)]
    await store.write(points)
    await store.close()
    store = await opened(path)
    with path.open("r+b") as file:
        for page in range(path.stat().st_size // 4096 // 2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 100)
    everything = [f"d{i}" for i in range(20)]
    for call in (
        store.latest("t", everything),
        store.range("t", everything, None, 0, 1000, limit=5000),
        store.aggregate("t", everything, None, 0, 1000, ["count"], window("1s")),
        store.delete("t", everything, None, 0, 1000),
        store.write(points),
    ):
        with pytest.raises(StoreUnavailable, match=r"points\.db: database disk image is malformed"):
            await call
    assert await store.latest("t", ["nobody"]) == []
    await store.close()


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "points.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreUnavailable, match="newer version"):
        await SqliteTimeseries(tmp_path / "points.db").open()


async def test_names_are_bounded() -> None:
    names = Names(limit=10)
    names.learn(Fresh({("t", f"d{i}"): i + 1 for i in range(25)}, {f"k{i}": i + 1 for i in range(25)}))
    assert len(names._devices) == 10
    assert list(names._keys) == [f"k{i}" for i in range(15, 25)]


async def test_the_room_of_forgotten_points_is_used_again(tmp_path: Path) -> None:
    store = await opened(tmp_path / "points.db")

    async def pages_after(day: int) -> int:
        await store.write([Point("t", f"d{i % 10}", "k", day * 10_000 + i, "x" * 50) for i in range(5000)])
        return int(writing(store).execute("PRAGMA page_count").fetchone()[0])

    first = await pages_after(0)
    for day in range(1, 5):
        await store.delete("t", [f"d{i}" for i in range(10)], None, 0, day * 10_000)
        last = await pages_after(day)
    assert last <= first + 2
    await store.close()


async def test_no_statement_reads_more_of_the_points_than_it_has_to() -> None:
    db = sqlite3.connect(":memory:")
    for statement in MAKE:
        db.execute(statement)
    columns = "".join(f", {each} AS c{i}" for i, each in enumerate(sqlite_aggregates._SUMS))
    for sql in (
        sqlite_series._WALK,
        sqlite_reads._NEWEST.format(table=table(2, 3)),
        sqlite_reads._HEADS.format(table=table(2, 5), order="ASC"),
        sqlite_reads._HEADS.format(table=table(2, 5), order="DESC"),
        sqlite_reads._BLOCK.format(order="DESC"),
        sqlite_aggregates._EXTENT.format(table=table(2, 3)),
        sqlite_aggregates._BUCKETS.format(table=table(2, 3), columns=columns, shown="", joined=""),
        sqlite_aggregates._RANKED.format(table=table(2, 3), places="1"),
        sqlite_writer._SLICE,
        sqlite_writer._DELETE,
    ):
        marks = 1 if "?1" in sql else sql.count("?")
        plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + sql, [None] * marks)]
        assert any("USING PRIMARY KEY (device=?" in line for line in plan), plan
        assert not any("SCAN ts_kv" in line or "SCAN t" in line for line in plan), plan
    db.close()
