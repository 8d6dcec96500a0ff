"""Ranges of time, page by page."""

from __future__ import annotations

import pytest

from engine.errors import BadInput
from engine.message import Point
from engine.stores import cursor as cursors
from engine.stores.timeseries import Timeseries
from engine.stores.values import INT64_MAX, INT64_MIN
from tests.conformance.timeseries.stores import D, T, places, series

pytestmark = pytest.mark.asyncio


async def pages(store: Timeseries, devices: list[str], limit: int, newest_first: bool = False) -> list[Point]:
    seen: list[Point] = []
    cursor = ""
    for _ in range(100):
        page = await store.range(T, devices, None, 0, 10**9, limit=limit, newest_first=newest_first, cursor=cursor)
        assert len(page.points) == limit or (not page.cursor and len(page.points) <= limit)
        seen += page.points
        cursor = page.cursor
        if not cursor:
            return seen
    raise AssertionError("the range has no end")


async def test_bounds(store: Timeseries) -> None:
    await store.write(series("k", -5, 0, 10, 20, 30))
    page = await store.range(T, [D], None, 0, 30)
    assert [point.ts_ms for point in page.points] == [0, 10, 20]
    assert page.cursor == ""
    for start, end in ((30, 30), (31, 30), (INT64_MAX, INT64_MIN)):
        assert (await store.range(T, [D], None, start, end)).points == []
    assert [p.ts_ms for p in (await store.range(T, [D], ["k"], -10, 1)).points] == [-5, 0]
    for start, end in ((INT64_MIN, INT64_MAX), (-(10**30), 10**30)):
        assert len((await store.range(T, [D], None, start, end)).points) == 5


async def test_by_time_then_device_then_key(store: Timeseries) -> None:
    await store.write(series("b", 1, 2, 3) + series("a", 2, 3) + series("c", 2))
    await store.write(series("b", 2, device="a") + series("a", 2, 4, device="z"))
    forward = [
        (1, D, "b"), (2, "a", "b"), (2, D, "a"), (2, D, "b"), (2, D, "c"), (2, "z", "a"), (3, D, "a"), (3, D, "b"),
        (4, "z", "a"),
    ]  # fmt: skip
    backward = sorted(forward, key=lambda place: (-place[0], place[1:]))
    for limit in (1, 2, 3, 5, 8, 9, 10):
        assert places(await pages(store, ["z", D, "a", "nobody"], limit)) == forward
        assert places(await pages(store, ["z", D, "a", "nobody"], limit, newest_first=True)) == backward


async def test_only_what_was_asked_each_once(store: Timeseries) -> None:
    await store.write(series("b", 1, 2) + series("a", 2) + series("c", 2) + series("a", 2, device="e"))
    page = await store.range(T, [D, D], ["c", "a", "a", "nothing"], 0, 10)
    assert places(page.points) == [(2, D, "a"), (2, D, "c")]
    for devices, keys in (([D], []), ([], None), ([], ["a"])):
        page = await store.range(T, devices, keys, 0, 10)
        assert (page.points, page.cursor) == ([], "")


async def test_a_cursor_goes_on_behind_its_last_point(store: Timeseries) -> None:
    await store.write(series("k", 1, 2, 3, 4))
    first = await store.range(T, [D, "e"], None, 0, 10, limit=2)
    await store.write(series("k", 0) + series("j", 2) + series("l", 2) + series("a", 1, 2, device="e"))
    await store.write(series("k", 2) + series("k", 2, device="a"))
    rest = await store.range(T, [D, "e"], None, 0, 10, cursor=first.cursor)
    assert places(rest.points) == [(2, D, "l"), (2, "e", "a"), (3, D, "k"), (4, D, "k")]
    assert rest.cursor == ""


async def test_a_cursor_at_the_ends_of_time(store: Timeseries) -> None:
    await store.write(series("k", 1, 2))
    for newest_first, rest in ((False, [2]), (True, [1])):
        page = await store.range(T, [D], None, INT64_MIN, INT64_MAX, limit=1, newest_first=newest_first)
        page = await store.range(
            T, [D], None, INT64_MIN, INT64_MAX, limit=1, newest_first=newest_first, cursor=page.cursor
        )
        assert ([point.ts_ms for point in page.points], page.cursor) == (rest, "")


async def test_a_cursor_may_go_on_in_another_time(store: Timeseries) -> None:
    await store.write(series("k", 1, 2, 3, 4, 5))
    cursor = (await store.range(T, [D], None, 0, 10, limit=2)).cursor
    page = await store.range(T, [D], None, 0, 4, limit=10, cursor=cursor)
    assert [point.ts_ms for point in page.points] == [3]


@pytest.mark.parametrize("cursor", ["x", "!!!!", "AAAA", "k6R0ZXN0", "é", "a" * 400, "\0", "lAAAAAA", "=" * 8])
async def test_foreign_text_is_no_cursor(store: Timeseries, cursor: str) -> None:
    with pytest.raises(BadInput, match="cursor"):
        await store.range(T, [D], None, 0, 10, cursor=cursor)


async def test_a_cursor_is_for_its_query(store: Timeseries) -> None:
    await store.write([*series("k", 1, 2, 3), *series("k", 1, 2, device="e"), *series("k", 1, 2, tenant="t2")])
    cursor = (await store.range(T, [D], ["k", "j"], 0, 10, limit=1)).cursor
    assert cursor
    for tenant, devices, keys, newest_first in (
        (T, ["e"], ["k", "j"], False),
        (T, [D, "e"], ["k", "j"], False),
        ("t2", [D], ["k", "j"], False),
        (T, [D], ["k"], False),
        (T, [D], None, False),
        (T, [D], ["k", "j"], True),
    ):
        with pytest.raises(BadInput, match="belongs to another"):
            await store.range(tenant, devices, keys, 0, 10, newest_first=newest_first, cursor=cursor)
    # The same names in another order, and one twice, are the same query.
    page = await store.range(T, [D, D], ["j", "k", "k"], 0, 10, cursor=cursor)
    assert [point.ts_ms for point in page.points] == [2, 3]


async def test_a_forged_cursor_shows_nothing_else(store: Timeseries) -> None:
    await store.write(series("k", 1, 2, 3) + series("k", 1, 2, 3, device="e") + series("k", 1, 2, 3, tenant="t2"))
    mark = cursors.mark(T, [D], ["k"], False)
    for position, wanted in (
        (cursors.Position(2, "e", "k"), [3]),
        (cursors.Position(2, "", ""), [2, 3]),
        (cursors.Position(2, "'; DROP TABLE ts_kv --", '"'), [2, 3]),
        (cursors.Position(INT64_MIN, D, "k"), [1, 2, 3]),
        (cursors.Position(INT64_MAX - 1, D, "k"), []),
    ):
        page = await store.range(T, [D], ["k"], 0, 10, cursor=cursors.encode(mark, position))
        assert places(page.points) == [(ts_ms, D, "k") for ts_ms in wanted]


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_is_positive(store: Timeseries, limit: int) -> None:
    with pytest.raises(BadInput, match="limit"):
        await store.range(T, [D], None, 0, 10, limit=limit)


async def test_lists_of_thousands(store: Timeseries) -> None:
    await store.write([Point(T, f"d{i:04}", f"k{i % 40}", i % 50, i) for i in range(0, 3000, 3)])
    devices = [f"d{i:04}" for i in range(3000)]
    keys = [f"k{i}" for i in range(2000)]
    wanted = sorted((i % 50, f"d{i:04}", f"k{i % 40}") for i in range(0, 3000, 3))
    assert places((await store.range(T, devices, keys, 0, 100, limit=2000)).points) == wanted
    seen, cursor = [], ""
    for _ in range(4):
        page = await store.range(T, [*devices, *devices], None, 0, 100, limit=300, cursor=cursor)
        seen += places(page.points)
        cursor = page.cursor
    assert (seen, cursor) == (wanted, "")


async def test_pages_larger_than_what_is_read_at_once(store: Timeseries) -> None:
    points = [Point(T, D, f"k{i % 2}", i, i) for i in range(25_000)]
    for i in range(0, len(points), 5000):
        await store.write(points[i : i + 5000])
    page = await store.range(T, [D], None, 0, 10**6, limit=24_000)
    assert [point.value for point in page.points] == list(range(24_000))
    rest = await store.range(T, [D], None, 0, 10**6, limit=24_000, cursor=page.cursor)
    assert [point.value for point in rest.points] == list(range(24_000, 25_000))
    newest = await store.range(T, [D], ["k1"], 0, 10**6, limit=12_000, newest_first=True)
    assert [point.value for point in newest.points] == list(range(24_999, 1_000, -2))
