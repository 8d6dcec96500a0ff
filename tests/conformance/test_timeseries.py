"""What every telemetry store must do. A store takes part by an entry in STORES."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from engine.errors import BadInput, PointsRefused, StoreUnavailable
from engine.message import Point
from engine.stores.memory import MemoryTimeseries
from engine.stores.sqlite import SqliteTimeseries
from engine.stores.timeseries import Timeseries
from engine.stores.values import MAX_TS_MS

STORES: dict[str, Callable[[Path], Timeseries]] = {
    "sqlite": lambda directory: SqliteTimeseries(directory / "points.db"),
    "memory": lambda directory: MemoryTimeseries(),
}
"""Name to a function that makes an unopened, empty store; it calls pytest.skip with the reason when it cannot."""

pytestmark = pytest.mark.asyncio

T, D = "acme", "dev 1"
NOW = 1451649600512
FIXTURE = {
    "stringKey": "value1",
    "booleanKey": True,
    "doubleKey": 42.0,
    "longKey": 73,
    "jsonKey": {"someNumber": 42, "someArray": [1, 2, 3], "someNestedObject": {"key": "value"}},
}


@pytest_asyncio.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Timeseries]:
    made = STORES[request.param](tmp_path)
    await made.open()
    yield made
    await made.close()


def series(key: str, *ts_ms: int, device: str = D, tenant: str = T) -> list[Point]:
    return [Point(tenant, device, key, ts, float(ts)) for ts in ts_ms]


async def pages(store: Timeseries, limit: int, newest_first: bool = False) -> list[tuple[int, str]]:
    seen: list[tuple[int, str]] = []
    cursor = ""
    for _ in range(100):
        page = await store.range(T, [D], None, 0, 10**9, limit=limit, newest_first=newest_first, cursor=cursor)
        assert len(page.points) <= limit
        seen += [(point.ts_ms, point.key) for point in page.points]
        cursor = page.cursor
        if not cursor:
            return seen
    raise AssertionError("the range has no end")


@pytest.mark.spec("G-16", "TB-4", "TB-35")
async def test_types_survive(store: Timeseries) -> None:
    await store.write([Point(T, D, key, NOW, value) for key, value in FIXTURE.items()])
    found = {point.key: point.value for point in await store.latest(T, [D])}
    assert found == FIXTURE
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in FIXTURE.items()}


@pytest.mark.spec("G-16")
async def test_a_key_may_change_its_type(store: Timeseries) -> None:
    values = [1, 1.5, "x", True, [1.0, {"a": None}], -(2**63), 2**63 - 1, "", 5e-324]
    await store.write([Point(T, D, "k", 1000 + i, value) for i, value in enumerate(values)])
    page = await store.range(T, [D], ["k"], 0, 10**6)
    assert [point.value for point in page.points] == values
    assert [type(point.value) for point in page.points] == [type(value) for value in values]
    assert (await store.latest(T, [D], ["k"]))[0].ts_ms == 1000 + len(values) - 1


async def test_same_place_same_point(store: Timeseries) -> None:
    await store.write([Point(T, D, "k", 5, 1), Point(T, D, "k", 5, "later")])
    await store.write([Point(T, D, "a", 5, 1)])
    await store.write([Point(T, D, "a", 5, 2.0)])
    page = await store.range(T, [D], None, 0, 10)
    assert page.points == [Point(T, D, "a", 5, 2.0), Point(T, D, "k", 5, "later")]


@pytest.mark.spec("CT-11")
async def test_position_is_kept(store: Timeseries) -> None:
    point = Point(T, D, "temp", NOW, 36.6, 52.24325, 26.32256)
    await store.write([point, Point(T, D, "bat", NOW, 3.5)])
    assert await store.latest(T, [D]) == [Point(T, D, "bat", NOW, 3.5), point]


async def test_names_of_any_script_and_sign(store: Timeseries) -> None:
    names = ['läng, ="x"', "温度", "a b\\", "'; DROP TABLE ts_kv --", "🌡", "x" * 255]
    await store.write([Point(name, name, name, 1, name) for name in names])
    for name in names:
        assert await store.latest(name, [name]) == [Point(name, name, name, 1, name)]


async def test_latest_is_by_time_not_by_arrival(store: Timeseries) -> None:
    await store.write(series("b", 30) + series("a", 10, 20))
    await store.write(series("b", 5) + series("a", 15))
    assert [(p.key, p.ts_ms) for p in await store.latest(T, [D])] == [("a", 20), ("b", 30)]
    assert [(p.key, p.ts_ms) for p in await store.latest(T, [D], ["b", "missing"])] == [("b", 30)]
    assert await store.latest(T, [D], []) == []
    assert await store.latest(T, ["nobody"]) == []


async def test_range_bounds(store: Timeseries) -> None:
    await store.write(series("k", -5, 0, 10, 20, 30))
    page = await store.range(T, [D], None, 0, 30)
    assert [point.ts_ms for point in page.points] == [0, 10, 20]
    assert page.cursor == ""
    assert (await store.range(T, [D], None, 30, 30)).points == []
    assert [p.ts_ms for p in (await store.range(T, [D], ["k"], -10, 1)).points] == [-5, 0]


async def test_range_is_by_time_then_key(store: Timeseries) -> None:
    await store.write(series("b", 1, 2, 3) + series("a", 2, 3) + series("c", 2))
    forward = [(1, "b"), (2, "a"), (2, "b"), (2, "c"), (3, "a"), (3, "b")]
    backward = [(3, "a"), (3, "b"), (2, "a"), (2, "b"), (2, "c"), (1, "b")]
    for limit in (1, 2, 3, 5, 6, 7):
        assert await pages(store, limit) == forward
        assert await pages(store, limit, newest_first=True) == backward
    some = await store.range(T, [D], ["c", "a", "a", "nothing"], 0, 10)
    assert [(point.ts_ms, point.key) for point in some.points] == [(2, "a"), (2, "c"), (3, "a")]


async def test_paging_goes_on_behind_its_last_point(store: Timeseries) -> None:
    await store.write(series("k", 1, 2, 3))
    first = await store.range(T, [D], None, 0, 10, limit=2)
    await store.write(series("k", 0) + series("j", 2) + series("l", 2))
    rest = await store.range(T, [D], None, 0, 10, cursor=first.cursor)
    assert [(point.ts_ms, point.key) for point in rest.points] == [(2, "l"), (3, "k")]


@pytest.mark.parametrize("cursor", ["x", "!!!!", "AAAA", "k6R0ZXN0", "é", "a" * 400])
async def test_foreign_text_is_no_cursor(store: Timeseries, cursor: str) -> None:
    with pytest.raises(BadInput, match="cursor"):
        await store.range(T, [D], None, 0, 10, cursor=cursor)


async def test_a_cursor_is_for_its_device_and_direction(store: Timeseries) -> None:
    await store.write(series("k", 1, 2) + series("k", 1, 2, device="other") + series("k", 1, 2, tenant="t2"))
    cursor = (await store.range(T, [D], None, 0, 10, limit=1)).cursor
    assert cursor
    for tenant, device, newest_first in ((T, "other", False), ("t2", D, False), (T, D, True)):
        with pytest.raises(BadInput, match="belongs to another"):
            await store.range(tenant, [device], None, 0, 10, newest_first=newest_first, cursor=cursor)


async def test_limit_must_be_positive(store: Timeseries) -> None:
    with pytest.raises(BadInput, match="limit"):
        await store.range(T, [D], None, 0, 10, limit=0)


async def test_tenants_do_not_see_each_other(store: Timeseries) -> None:
    await store.write([Point("one", D, "k", 1, "mine"), Point("two", D, "k", 1, "yours")])
    assert await store.latest("one", [D]) == [Point("one", D, "k", 1, "mine")]
    assert await store.latest("three", [D]) == []
    assert (await store.range("three", [D], None, 0, 10)).points == []
    await store.delete_device("three", D)
    await store.delete_device("one", D)
    assert await store.latest("one", [D]) == []
    assert await store.latest("two", [D]) == [Point("two", D, "k", 1, "yours")]


async def test_delete_forgets_one_device_and_lets_it_come_back(store: Timeseries) -> None:
    await store.write(series("a", 1, 2, 3) + series("b", 1) + series("a", 1, device="other"))
    await store.delete_device(T, D)
    assert (await store.range(T, [D], None, 0, 10)).points == []
    assert len(await store.latest(T, ["other"])) == 1
    await store.write(series("a", 9))
    assert await store.latest(T, [D]) == series("a", 9)


async def test_what_cannot_be_held_is_named_and_the_rest_written(store: Timeseries) -> None:
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
        Point(T, D, "where", 1, 1, float("nan"), 1.0),
        Point(T, D, "", 1, 1),
        Point(T, D, "also good", 1, 2.0),
    ]
    with pytest.raises(PointsRefused) as caught:
        await store.write(points)
    assert [index for index, _ in caught.value.refused] == list(range(1, 12))
    assert all(reason for _, reason in caught.value.refused)
    assert [point.key for point in await store.latest(T, [D])] == ["also good", "good"]


async def test_nothing_to_write(store: Timeseries) -> None:
    await store.write([])
    assert await store.latest(T, [D]) == []


async def test_many_at_once(store: Timeseries) -> None:
    batches = [[Point(T, f"d{i % 7}", f"k{i % 3}", b * 1000 + i, i) for i in range(500)] for b in range(6)]
    await asyncio.gather(*(store.write(batch) for batch in batches))
    total = 0
    for device in range(7):
        total += len((await store.range(T, [f"d{device}"], None, 0, 10**6, limit=5000)).points)
    assert total == 3000


async def test_a_closed_store_says_so(store: Timeseries) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.write(series("k", 1))
    with pytest.raises(StoreUnavailable):
        await store.latest(T, [D])
    with pytest.raises(StoreUnavailable):
        await store.range(T, [D], None, 0, 1)
    with pytest.raises(StoreUnavailable):
        await store.delete_device(T, D)
