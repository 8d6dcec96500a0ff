"""Forgetting points: those that were named, and no others."""

from __future__ import annotations

from collections.abc import Awaitable
from itertools import product

import pytest
import pytest_asyncio

from engine.errors import StoreUnavailable, Unsupported
from engine.message import Point
from engine.stores.timeseries import Timeseries
from engine.stores.values import INT64_MAX, INT64_MIN
from engine.stores.windows import window
from tests.conformance.timeseries.stores import D, Kind, T, places, series

pytestmark = pytest.mark.asyncio


async def unsupported(call: Awaitable[None]) -> None:
    with pytest.raises(Unsupported) as caught:
        await call
    assert caught.value.reason


@pytest_asyncio.fixture
async def store(store: Timeseries, kind: Kind) -> Timeseries:
    """A store that deletes; one that cannot has to say so, and that is all that is asked of it here."""
    if not kind.deletes:
        await store.write(series("k", 1))
        await unsupported(store.delete(T, [D], None, 0, 10))
        await unsupported(store.delete_device(T, D))
        assert await store.latest(T, [D]) == series("k", 1)
        pytest.skip("the store cannot delete, and says so")
    return store


async def left(store: Timeseries, *devices: str, tenant: str = T) -> list[tuple[int, str, str]]:
    return places((await store.range(tenant, devices or [D], None, INT64_MIN, INT64_MAX)).points)


async def test_a_device_and_it_may_come_back(store: Timeseries) -> None:
    await store.write(series("a", 1, 2, 3) + series("b", 1) + series("a", 1, device="other"))
    await store.delete_device(T, D)
    assert await left(store) == []
    assert await store.keys(T, D) == []
    assert await store.latest(T, [D, "other"]) == series("a", 1, device="other")
    assert await store.aggregate(T, [D], None, 0, 10, ["count"], window("1h")) == []
    await store.write(series("a", 9))
    assert await store.latest(T, [D]) == series("a", 9)
    await store.delete_device(T, "never seen")


async def test_by_key_and_time(store: Timeseries) -> None:
    await store.write(series("a", 1, 2, 3, 4) + series("b", 1, 2, 3, 4) + series("c", 2))
    await store.delete(T, [D], ["a", "c", "a", "no key"], 2, 4)
    assert await left(store) == [(1, D, "a"), (1, D, "b"), (2, D, "b"), (3, D, "b"), (4, D, "a"), (4, D, "b")]
    assert await store.keys(T, D) == ["a", "b"]
    await store.delete(T, [D], None, INT64_MIN, 4)
    assert await left(store) == [(4, D, "a"), (4, D, "b")]
    await store.delete(T, [D], None, INT64_MIN, INT64_MAX)
    assert await left(store) == []


async def test_of_several_devices(store: Timeseries) -> None:
    await store.write([point for device in "abc" for point in series("k", 1, 2, device=device)])
    await store.delete(T, ["c", "a", "a", "nobody"], ["k"], 0, 2)
    assert await left(store, "a", "b", "c") == [(1, "b", "k"), (2, "a", "k"), (2, "b", "k"), (2, "c", "k")]


async def test_nothing_named_nothing_forgotten(store: Timeseries) -> None:
    await store.write(series("k", 1, 2, 3))
    for devices, keys, start, end in (
        ([], None, 0, 10), ([D], [], 0, 10), ([D], None, 2, 2), ([D], None, 3, 2), (["x"], None, 0, 10),
        ([D], ["K"], 0, 10), ([D], None, 4, 10**30),
    ):  # fmt: skip
        await store.delete(T, devices, keys, start, end)
    await store.delete("another", [D], None, INT64_MIN, INT64_MAX)
    await store.delete_device("another", D)
    assert len(await left(store)) == 3


async def test_tenants_forget_apart(store: Timeseries) -> None:
    await store.write(series("k", 1, tenant="one") + series("k", 1, tenant="two"))
    await store.delete("one", [D], None, 0, 10)
    assert await left(store, tenant="one") == []
    assert await left(store, tenant="two") == [(1, D, "k")]


async def test_names_that_look_like_queries(store: Timeseries) -> None:
    names = ["a", "'; DROP TABLE ts_kv --", ".*", "a|b", '" OR "1"="1', "%", "a\\", "a\nb", "/a/", "a' OR time > 0 --"]
    await store.write([Point(T, device, key, 1, 1) for device, key in product(names, names)])
    rest = len(names) ** 2
    for name in names[1:]:
        await store.delete(T, [name], [name], 0, 10)
        rest -= 1
        assert len(await store.latest(T, names)) == rest
    for name in names[1:]:
        await store.delete_device(T, name)
    assert places(await store.latest(T, names)) == [(1, "a", key) for key in sorted(names)]


async def test_every_type(store: Timeseries) -> None:
    await store.write([Point(T, D, "k", ts_ms, value) for ts_ms, value in enumerate([1, 1.5, "x", True, [1], 2, 2.5])])
    await store.delete(T, [D], ["k"], 0, 5)
    assert await left(store) == [(5, D, "k"), (6, D, "k")]
    assert [point.value for point in await store.latest(T, [D])] == [2.5]


async def test_lists_of_thousands(store: Timeseries) -> None:
    await store.write([Point(T, f"d{i:04}", f"k{i % 3}", 1, i) for i in range(0, 3000, 10)])
    devices = [f"d{i:04}" for i in range(2990)] * 2
    await store.delete(T, devices, [f"k{i}" for i in range(2000)], 0, 10)
    assert places(await store.latest(T, [*devices, "d2990"])) == [(1, "d2990", "k2")]


async def test_a_closed_store_deletes_nothing(store: Timeseries) -> None:
    await store.close()
    for call in (store.delete(T, [D], None, 0, 1), store.delete_device(T, D)):
        with pytest.raises(StoreUnavailable):
            await call
