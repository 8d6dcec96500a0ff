"""The newest points of many series in one call."""

from __future__ import annotations

import pytest

from engine.errors import BadInput
from engine.message import Point
from engine.stores.timeseries import Timeseries
from engine.stores.values import INT64_MAX, INT64_MIN
from tests.conformance.timeseries.stores import D, T, places, series

pytestmark = pytest.mark.asyncio


async def test_it_goes_by_time_not_by_arrival(store: Timeseries) -> None:
    await store.write(series("b", 30) + series("a", 10, 20))
    await store.write(series("b", 5) + series("a", 15))
    assert places(await store.latest(T, [D])) == [(20, D, "a"), (30, D, "b")]


async def test_devices_and_keys_in_order_each_once(store: Timeseries) -> None:
    await store.write([point for device in ("ä", "a", "b") for point in series("k", 1, 2, device=device)])
    await store.write(series("j", 3, device="a"))
    found = places(await store.latest(T, ["b", "ä", "a", "a", "nobody"], ["k", "j", "k", "missing"]))
    assert found == [(3, "a", "j"), (2, "a", "k"), (2, "b", "k"), (2, "ä", "k")]


async def test_nothing_asked_nothing_found(store: Timeseries) -> None:
    await store.write(series("k", 1))
    assert await store.latest(T, [D], []) == []
    assert await store.latest(T, []) == []
    assert await store.latest(T, ["nobody"]) == []
    assert await store.latest("no tenant", [D]) == []
    assert await store.latest(T, [D], ["K"]) == []


async def test_several_of_each_newest_first(store: Timeseries) -> None:
    await store.write(series("a", 1, 2, 3, 4) + series("b", 2) + series("a", 1, 9, device="e"))
    assert places(await store.latest(T, ["e", D], count=3)) == [
        (4, D, "a"), (3, D, "a"), (2, D, "a"), (2, D, "b"), (9, "e", "a"), (1, "e", "a")
    ]  # fmt: skip
    assert len(await store.latest(T, [D], count=10**9)) == 5


async def test_within_a_time(store: Timeseries) -> None:
    await store.write(series("a", -5, 0, 5, 10) + series("b", 20))
    assert places(await store.latest(T, [D], start_ms=0, end_ms=10)) == [(5, D, "a")]
    assert places(await store.latest(T, [D], count=2, end_ms=1)) == [(0, D, "a"), (-5, D, "a")]
    assert places(await store.latest(T, [D], start_ms=10)) == [(10, D, "a"), (20, D, "b")]
    assert await store.latest(T, [D], start_ms=5, end_ms=5) == []
    assert await store.latest(T, [D], start_ms=6, end_ms=5) == []
    assert places(await store.latest(T, [D], ["b"], start_ms=INT64_MIN, end_ms=INT64_MAX)) == [(20, D, "b")]
    assert places(await store.latest(T, [D], ["b"], start_ms=-(10**30), end_ms=10**30)) == [(20, D, "b")]


@pytest.mark.parametrize("count", [0, -1])
async def test_a_count_is_positive(store: Timeseries, count: int) -> None:
    with pytest.raises(BadInput, match="count"):
        await store.latest(T, [D], count=count)


async def test_the_newest_is_one_whatever_its_type(store: Timeseries) -> None:
    await store.write([Point(T, D, "k", ts_ms, value) for ts_ms, value in enumerate([1, 2.5, "x", True, [1]])])
    for newest, value in ((4, [1]), (3, True), (2, "x"), (1, 2.5), (0, 1)):
        [point] = await store.latest(T, [D], end_ms=newest + 1)
        assert (point.ts_ms, repr(point.value)) == (newest, repr(value))


async def test_lists_of_thousands(store: Timeseries) -> None:
    written = [Point(T, f"d{i:04}", f"k{i // 10 % 40}", 1, i) for i in range(0, 3000, 10)]
    await store.write(written)
    devices = [f"d{i:04}" for i in range(3000)] * 2
    keys = [f"k{i}" for i in range(2000)]
    assert await store.latest(T, devices) == written
    assert await store.latest(T, devices, keys) == written
    assert len(await store.latest(T, devices, ["k1"])) == 8
    await store.write(series("not asked for", 1, device="d0000"))
    assert await store.latest(T, devices, keys) == written
