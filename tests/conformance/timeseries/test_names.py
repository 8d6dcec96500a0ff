"""Names are free text: whatever a tenant, a device or a key is called, it reaches what is its own and nothing else."""

from __future__ import annotations

import pytest

from engine.message import Point
from engine.stores.timeseries import Timeseries
from engine.stores.values import MAX_NAME_BYTES
from engine.stores.windows import window
from tests.conformance.timeseries.stores import D, T, series

pytestmark = pytest.mark.asyncio

NAMES = sorted({
    "a", "A", "b", " a", "a ", "a b", " ", "a,b", "a=b", "a, b=c d", 'läng, ="x"', "温度", "\u200b", "e\u0301", "é",
    "a\\", "\\", "\\\\", "a\\,b", "a\\ ", "\\n", "\\'", '\\"', "a\nb", "\n", "a\r\nb", "\r", "\t", "\0", "a\0b", "\x7f",
    "\u0085", "\u2028", "\ufeff", "\ufffd", "\U0010ffff", "'", "''", '"', '""', "`", "'; DROP TABLE ts_kv --",
    "' OR '1'='1", '" OR "1"="1', "a' OR time > 0 --", "a; DROP MEASUREMENT ts_kv", "/* a */", "--", "#", "# a", "$1",
    "${x}", "$$", ":a", "?", "?1", "@a", "%", "_", "a%", "%s", "%20", "%2C", "%0A", "%5C", "*", ".*", "a|b", "^a$",
    "[a-z]+", "(a)", "/a/", "/.*/", "a/b", "../a", "(?i)a", ".", "null", "NULL", "None", "NaN", "true", "time",
    "device", "key", "tenant", "_field", "_measurement", "0", "-1", "1e3", "1i", "x" * 255, "é" * (MAX_NAME_BYTES // 2),
})  # fmt: skip


async def test_devices_and_keys(store: Timeseries) -> None:
    points = [Point(T, name, key, 1, f"{name}/{key}") for name in NAMES for key in (name, "k")]
    await store.write(points)
    wanted = sorted(points, key=lambda point: (point.device, point.key))
    assert await store.latest(T, NAMES) == wanted
    assert (await store.range(T, NAMES, None, 0, 10)).points == wanted
    assert await store.latest(T, NAMES, ["k"]) == [point for point in wanted if point.key == "k"]
    found = await store.aggregate(T, NAMES, None, 0, 10, ["last"], window("1h"))
    assert [(bucket.device, bucket.key, bucket.values["last"]) for bucket in found] == [
        (point.device, point.key, point.value) for point in wanted
    ]


async def test_one_name_is_that_name_only(store: Timeseries) -> None:
    others = {name: [f"{name}x", f"x{name}", name * 2] if len(name) < 100 else ["y"] for name in NAMES}
    points = [Point(name, name, name, 1, name) for name in NAMES]
    for name in NAMES:
        for other in others[name]:
            points += [Point(name, other, name, 1, 0), Point(name, name, other, 1, 0), Point(other, name, name, 1, 0)]
    await store.write(points)
    for name in NAMES:
        mine = Point(name, name, name, 1, name)
        assert await store.latest(name, [name], [name]) == [mine]
        assert (await store.range(name, [name], [name], 0, 10)).points == [mine]
        [bucket] = await store.aggregate(name, [name], [name], 0, 10, ["count", "last"])
        assert bucket.values == {"count": 1, "last": name}
        assert await store.keys(name, name) == sorted([name, *others[name]])


async def test_names_that_nobody_can_have_find_nothing(store: Timeseries) -> None:
    await store.write(series("k", 1))
    for name in ("", "\ud800", "x" * (MAX_NAME_BYTES + 1)):
        assert await store.latest(T, [D, name], ["k", name]) == series("k", 1)
        assert await store.latest(name, [name]) == []
        assert (await store.range(T, [D, name], [name, "k"], 0, 10)).points == series("k", 1)
        assert len(await store.aggregate(T, [name, D], [name, "k"], 0, 10, ["count"])) == 1
        assert await store.keys(T, name) == []
        assert await store.keys(name, D) == []


async def test_tenants_do_not_see_each_other(store: Timeseries) -> None:
    await store.write([Point("one", D, "k", 1, "mine"), Point("two", D, "k", 1, "yours")])
    assert await store.latest("one", [D]) == [Point("one", D, "k", 1, "mine")]
    assert await store.latest("two", [D]) == [Point("two", D, "k", 1, "yours")]
    assert await store.latest("three", [D]) == []
    assert (await store.range("three", [D], None, 0, 10)).points == []
    assert await store.keys("three", D) == []
    [bucket] = await store.aggregate("one", [D], None, 0, 10, ["count", "last"])
    assert bucket.values == {"count": 1, "last": "mine"}


async def test_the_keys_of_a_device(store: Timeseries) -> None:
    await store.write(
        series("b", 1, 2) + series("ä", 1) + series("a", 1) + series("B", -1) + series("x", 1, device="e")
    )
    await store.write([Point(T, D, "text", 1, "x"), Point(T, D, "json", 1, {})])
    assert await store.keys(T, D) == ["B", "a", "b", "json", "text", "ä"]
    assert await store.keys(T, "nobody") == []
    assert await store.keys("nobody", D) == []
