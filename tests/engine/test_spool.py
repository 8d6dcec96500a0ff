"""Reading spools back: everything once, in order, bounded in points and bytes, and who waits is told in time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import entries, spool
from engine.commit import Awaiting
from engine.entries import MAX_POINTS, MAX_POINTS_BYTES, UnknownEntryError, id_order, pack_points, unpack_points
from engine.leases import Owned
from engine.message import Point
from engine.partitions import all_keys
from engine.spool import Piece, Spool, SpoolReader
from tests.engine.bench import PARTITIONS, Bench

values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.lists(st.integers(0, 9), max_size=5),
)


def point(n: int, value: Any = None, device: str = "d") -> Point:
    return Point("acme", device, "n", n, n if value is None else value)


@given(st.lists(values, max_size=60), st.booleans())
def test_points_come_back_as_they_were(given: list[Any], zipped: bool) -> None:
    points = [point(n, value) for n, value in enumerate(given)]
    unpacked = [unpack_points(blob) for blob in pack_points(points, zipped=zipped)]
    assert [one for found, _ in unpacked for one in found] == points
    assert sum(size for _, size in unpacked) >= sum(map(len, pack_points(points))) or not zipped


def test_entries_are_bounded_in_points_and_bytes() -> None:
    assert [len(unpack_points(blob)[0]) for blob in pack_points([point(n) for n in range(2 * MAX_POINTS + 1)])] == [
        MAX_POINTS, MAX_POINTS, 1,
    ]  # fmt: skip
    large = [point(n, "x" * 100_000) for n in range(9)]
    blobs = pack_points(large)
    assert max(map(len, blobs)) <= MAX_POINTS_BYTES
    assert [one for blob in blobs for one in unpack_points(blob)[0]] == large
    [alone] = pack_points([point(1, "x" * 2 * MAX_POINTS_BYTES)])
    assert len(alone) > MAX_POINTS_BYTES


def test_zipped_points_take_a_fifth() -> None:
    points = [
        Point("acme", f"0190a3f0-7c2b-7000-8000-{n % 50:012x}", key, 1_763_600_000_000 + n, n * 0.37)
        for n in range(100)
        for key in ("temperature", "humidity", "pressure", "battery")
    ]
    assert sum(map(len, pack_points(points, zipped=True))) < sum(map(len, pack_points(points))) / 5


@pytest.mark.parametrize("blob", [b"", b"\xc1", b"x", b"\x78\x01nonsense", b"\x91\x91\x01"])
def test_what_cannot_be_read_is_said_to_be_so(blob: bytes) -> None:
    with pytest.raises(UnknownEntryError, match="points cannot be read"):
        unpack_points(blob)


class Spools:
    """Spools with what tests put into them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.all = [Spool(Owned(keys, "w:1", True, 0)) for keys in all_keys(PARTITIONS)]
        self.reader = SpoolReader(bench.wire)

    async def put(self, number: int, points: list[Point], *, zipped: bool = False) -> list[bytes]:
        key = self.all[number].owned.keys.points
        return [await self.bench.client.xadd(key, {"b": blob}) for blob in pack_points(points, zipped=zipped)]

    async def read_all(self, most: int = 200) -> list[list[Piece]]:
        reads: list[list[Piece]] = []
        while any(one.behind and not one.stuck for one in self.all):
            reads.append(await self.reader.read(self.all))
            assert len(reads) < most
        return reads


def points_of(reads: list[list[Piece]], number: int | None = None) -> list[Point]:
    return [
        one
        for pieces in reads
        for piece in pieces
        if number is None or piece.spool.owned.keys.number == number
        for one in piece.points
    ]


@pytest.mark.asyncio
async def test_everything_is_read_once_and_in_order(bench: Bench) -> None:
    spools = Spools(bench)
    for n in range(300):
        await spools.put(n % PARTITIONS, [point(n)] * (n % 7 + 1), zipped=n % 2 == 0)
    reads = await spools.read_all()
    for number in range(PARTITIONS):
        expected = [n for n in range(300) if n % PARTITIONS == number for _ in range(n % 7 + 1)]
        assert [one.value for one in points_of(reads, number)] == expected
    assert {piece.spool.owned.keys.number for piece in reads[0]} == set(range(PARTITIONS)), "each from its head"
    assert not any(one.owned.store_behind for one in spools.all)


@pytest.mark.asyncio
async def test_a_read_is_bounded_whatever_lies_in_the_spool(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "READ_POINTS", 400)
    monkeypatch.setattr(spool, "READ_BYTES", 400_000)
    spools = Spools(bench)
    for n in range(100):  # many small ones teach the reader to ask for many entries
        await spools.put(0, [point(n)])
    for n in range(40):  # large as they are; and those that are small only as long as they are zipped
        await spools.put(0, [point(1000 + n, "x" * 50_000)], zipped=n >= 20)
    for n in range(10):
        await spools.put(0, [point(2000 + n)] * 200, zipped=True)
    reads = await spools.read_all()
    for pieces in reads:
        assert sum(len(piece.points) for piece in pieces) <= 400 + 200
        assert sum(piece.size for piece in pieces) <= 400_000 + 50_100
    found = [one.value if isinstance(one.value, int) else one.ts_ms for one in points_of(reads)]
    assert list(dict.fromkeys(found)) == [*range(100), *range(1000, 1040), *range(2000, 2010)]


@pytest.mark.asyncio
async def test_an_entry_of_another_release_stops_its_spool_and_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    spools = Spools(bench)
    await spools.put(0, [point(1)])
    await bench.client.xadd(spools.all[0].owned.keys.points, {"b": b"\xc1"})
    await spools.put(0, [point(2)])
    await spools.put(1, [point(3)])
    reads = await spools.read_all()
    assert [one.value for one in points_of(reads)] == [1, 3]
    assert spools.all[0].stuck
    assert spools.all[0].behind
    assert len(caplog.records) == 1
    assert "the spool stops at entry" in caplog.text
    assert await spools.reader.read(spools.all) == []


@pytest.mark.asyncio
async def test_who_waits_for_missed_points_is_told_behind_them(bench: Bench) -> None:
    spools = Spools(bench)
    one = spools.all[0]
    one.caught_up()
    early, late, unknown = (Awaiting(f"p/{n}", "acme", "d") for n in range(3))
    [first] = await spools.put(0, [point(1)])
    one.fall_behind(first, [early])
    one.fall_behind(b"", [unknown])
    assert one.owned.store_behind
    [second] = await spools.put(0, [point(2)])
    one.fall_behind(second, [late])
    pieces = await spools.reader.read(spools.all)
    mine = [piece for piece in pieces if piece.spool is one]
    assert [len(piece.points) for piece in mine] == [1, 1, 0]
    assert mine[-1].after == [early, unknown, late]
    assert (one.behind, one.owned.store_behind) == (False, False)


@pytest.mark.asyncio
async def test_a_commit_that_comes_while_its_spool_is_read_keeps_it_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spools = Spools(bench)
    one = spools.all[0]
    execute = bench.wire.execute

    async def meanwhile(commands: Any, timeout_s: float = 10.0) -> Any:
        replies = await execute(commands, timeout_s)
        [id] = await spools.put(0, [point(7)])
        one.fall_behind(id, [Awaiting("p/1", "acme", "d")])
        return replies

    monkeypatch.setattr(bench.wire, "execute", meanwhile)
    assert points_of([await spools.reader.read(spools.all)]) == []
    assert one.behind
    monkeypatch.setattr(bench.wire, "execute", execute)
    pieces = await spools.reader.read(spools.all)
    assert [one.value for one in points_of([pieces])] == [7]
    assert pieces[-1].after
    assert not one.behind


def test_ids_sort_by_number() -> None:
    assert id_order(b"9-10") > id_order(b"9-9") > id_order(b"8-99")
    assert entries.following(b"5-7") == b"5-8"
