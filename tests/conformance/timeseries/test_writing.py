"""What is written is there, as it was written."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from engine.errors import PointsRefused, StoreUnavailable
from engine.message import Point
from engine.stores.timeseries import Timeseries
from engine.stores.values import MAX_NAME_BYTES, MAX_TS_MS
from tests.conformance.timeseries.stores import NOW, D, T, series

pytestmark = pytest.mark.asyncio

FIXTURE = {
    "stringKey": "value1",
    "booleanKey": True,
    "doubleKey": 42.0,
    "longKey": 73,
    "jsonKey": {"someNumber": 42, "someArray": [1, 2, 3], "someNestedObject": {"key": "value"}},
}
VALUES = [
    0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 0.0, 42.0, 0.1 + 0.2, 5e-324, -5e-324, 1.7976931348623157e308,
    2.0**63, 1e22, True, False, "", " ", "73", "42.0", "true", "null", 'a "quoted" one', "back\\slash\\", "\\", '\\"',
    "two\nlines\r\n", "\0", "\t", "温度 🌡", "e\u0301", "é", "\ufffe\U0010ffff", "x" * 70_000, {}, [], [None, [1.0, 1]],
    {"": {"a\"b\\c\n": [True, "x", 1e300]}}, ["\u2028"],
]  # fmt: skip


@pytest.mark.spec("G-16", "TB-4", "TB-35")
async def test_types_survive(store: Timeseries) -> None:
    await store.write([Point(T, D, key, NOW, value) for key, value in FIXTURE.items()])
    found = {point.key: point.value for point in await store.latest(T, [D])}
    assert found == FIXTURE
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in FIXTURE.items()}


@pytest.mark.spec("G-16")
async def test_values_of_all_kinds_in_one_series(store: Timeseries) -> None:
    await store.write([Point(T, D, "k", 1000 + i, value) for i, value in enumerate(VALUES)])
    page = await store.range(T, [D], ["k"], 0, 10**6)
    # By repr: it tells 1 from 1.0 and from True.
    assert [repr(point.value) for point in page.points] == [repr(value) for value in VALUES]
    [newest] = await store.latest(T, [D], ["k"])
    assert (newest.ts_ms, newest.value) == (1000 + len(VALUES) - 1, VALUES[-1])


@pytest.mark.spec("G-16")
async def test_the_last_one_for_a_place_stands(store: Timeseries) -> None:
    values = [1, "x", 2.5, True, {"a": 1}, 7, "", False, [1], 0.0, 3]
    for before, after in pairwise(values):
        await store.write([Point(T, D, "k", 5, before), Point(T, D, "one write", 5, before)])
        await store.write([Point(T, D, "k", 5, after)])
        await store.write([Point(T, D, "one write", 5, before), Point(T, D, "one write", 5, after)])
        page = await store.range(T, [D], None, 0, 10)
        assert [repr(point.value) for point in page.points] == [repr(after)] * 2
        assert [repr(point.value) for point in await store.latest(T, [D])] == [repr(after)] * 2


@pytest.mark.spec("CT-11")
async def test_a_position_is_kept_and_goes_when_it_is_not_sent_again(store: Timeseries) -> None:
    placed = Point(T, D, "temp", NOW, 36.6, 52.24325, 26.32256)
    await store.write([placed, Point(T, D, "bat", NOW, 3.5), Point(T, D, "zero", NOW, 1, 0.0, -0.5)])
    assert await store.latest(T, [D]) == [
        Point(T, D, "bat", NOW, 3.5), placed, Point(T, D, "zero", NOW, 1, 0.0, -0.5)
    ]  # fmt: skip
    await store.write([Point(T, D, "temp", NOW, 36.7), Point(T, D, "bat", NOW, 3, 1.0, 2.0)])
    wanted = [Point(T, D, "bat", NOW, 3, 1.0, 2.0), Point(T, D, "temp", NOW, 36.7)]
    assert await store.latest(T, [D], ["temp", "bat"]) == wanted
    assert (await store.range(T, [D], ["temp", "bat"], 0, NOW + 1)).points == wanted


async def test_times_of_any_sign_as_far_as_all_stores_go(store: Timeseries) -> None:
    times = [-MAX_TS_MS, -62_135_596_800_000 // 10, -1_000_000_000_000, -1, 0, 1, NOW, MAX_TS_MS]
    await store.write(series("k", *times))
    page = await store.range(T, [D], None, -MAX_TS_MS, MAX_TS_MS + 1)
    assert [point.ts_ms for point in page.points] == times
    assert [point.value for point in page.points] == [float(ts_ms) for ts_ms in times]
    assert [point.ts_ms for point in await store.latest(T, [D])] == [MAX_TS_MS]
    assert [point.ts_ms for point in await store.latest(T, [D], end_ms=0)] == [-1]


async def test_what_cannot_be_held_is_named_and_the_rest_written(store: Timeseries) -> None:
    long = "é" * (MAX_NAME_BYTES // 2) + "x"
    points = [
        Point(T, D, "good", 1, 1),
        Point(T, D, "big", 1, 2**63),
        Point(T, D, "small", 1, -(2**63) - 1),
        Point(T, D, "nan", 1, float("nan")),
        Point(T, D, "inf", 1, float("-inf")),
        Point(T, D, "inside", 1, {"x": [float("nan")]}),
        Point(T, D, "null", 1, None),
        Point(T, D, "bytes", 1, b"x"),
        Point(T, D, "half", 1, "\ud800"),
        Point(T, D, "when", MAX_TS_MS + 1, 1),
        Point(T, D, "when", -MAX_TS_MS - 1, 1),
        Point(T, D, "when", 1.0, 1),  # type: ignore[arg-type]
        Point(T, D, "where", 1, 1, float("nan"), 1.0),
        Point(T, D, "", 1, 1),
        Point(T, "", "k", 1, 1),
        Point("", D, "k", 1, 1),
        Point(T, D, long, 1, 1),
        Point(T, long, "k", 1, 1),
        Point(T, D, "\udfff", 1, 1),
        Point(T, D, "also good", 1, 2.0),
    ]
    with pytest.raises(PointsRefused) as caught:
        await store.write(points)
    assert [index for index, _ in caught.value.refused] == list(range(1, len(points) - 1))
    assert all(reason for _, reason in caught.value.refused)
    assert [point.key for point in await store.latest(T, [D])] == ["also good", "good"]


async def test_ten_megabytes_are_kept_or_refused_and_harm_no_neighbour(store: Timeseries) -> None:
    text = "x" * 10_000_000
    try:
        await store.write([Point(T, D, "a", 1, 1), Point(T, D, "long", 1, text), Point(T, D, "z", 1, 1)])
        refused = []
    except PointsRefused as error:
        refused = [index for index, _ in error.refused]
    found = {point.key: point.value for point in await store.latest(T, [D])}
    assert refused in ([], [1])
    assert found == {"a": 1, "z": 1} | ({} if refused else {"long": text})


async def test_nothing_to_write(store: Timeseries) -> None:
    await store.write([])
    assert await store.latest(T, [D]) == []


async def test_many_at_once(store: Timeseries) -> None:
    batches = [[Point(T, f"d{i % 7}", f"k{i % 3}", b * 1000 + i, i) for i in range(500)] for b in range(6)]
    await asyncio.gather(*(store.write(batch) for batch in batches))
    page = await store.range(T, [f"d{i}" for i in range(7)], None, 0, 10**6, limit=5000)
    assert len(page.points) == 3000


async def test_the_same_points_again_are_the_same_points(store: Timeseries) -> None:
    points = series("a", 1, 2, 3) + series("b", 1)
    for _ in range(3):
        await store.write(points)
    assert len((await store.range(T, [D], None, 0, 10)).points) == 4


async def test_it_says_what_it_is(store: Timeseries) -> None:
    assert store.name.isidentifier()
    assert all(isinstance(line, str) and line for line in store.told())


async def test_a_closed_store_says_so(store: Timeseries) -> None:
    await store.close()
    await store.close()
    for call in (
        store.write(series("k", 1)),
        store.latest(T, [D]),
        store.range(T, [D], None, 0, 1),
        store.aggregate(T, [D], None, 0, 1, ["count"]),
        store.keys(T, D),
    ):
        with pytest.raises(StoreUnavailable):
            await call
