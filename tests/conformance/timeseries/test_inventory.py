"""What a store has points of."""

from __future__ import annotations

import pytest

from engine.message import Point
from engine.stores.timeseries import Timeseries
from tests.conformance.timeseries.stores import Kind
from tests.conformance.timeseries.test_names import NAMES

pytestmark = pytest.mark.asyncio


async def test_tenants_and_their_devices(store: Timeseries) -> None:
    assert await store.tenants() == []
    await store.write([Point("of all", name, "k", 1, 1) for name in NAMES])
    await store.write([Point("a", "d2", "k", 1, 1), Point("a", "d1", "k", 1, 1), Point("a", "d1", "l", 2, "x")])
    await store.write([Point(name, "d", "k", 1, 1) for name in NAMES])
    assert await store.tenants() == sorted({"a", "of all", *NAMES})
    assert await store.devices("a") == sorted({"d", "d1", "d2"})
    assert await store.devices("of all") == NAMES
    for name in ("nobody", "", "\ud800"):
        assert await store.devices(name) == []


async def test_what_has_no_point_any_more_is_not_there(store: Timeseries, kind: Kind) -> None:
    if not kind.deletes:
        pytest.skip("this store does not delete")
    await store.write([Point("a", "d1", "k", 1, 1), Point("a", "d2", "k", 1, 1), Point("b", "d1", "k", 1, 1)])
    await store.delete("a", ["d1"], None, 0, 10)
    await store.delete_device("b", "d1")
    assert await store.tenants() == ["a"]
    assert await store.devices("a") == ["d2"]
