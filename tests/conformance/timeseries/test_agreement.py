"""Whatever is written, deleted and read: every store answers as the one in memory, which is simple enough to be right.

Names, times and values are few, so that they meet.
"""

from __future__ import annotations

import asyncio
from itertools import chain, count
from math import isclose, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import BadInput, PointsRefused
from engine.message import Point
from engine.stores.memory import MemoryTimeseries
from engine.stores.timeseries import FUNCTIONS, Timeseries
from engine.stores.values import INT64_MAX, INT64_MIN, MAX_TS_MS
from engine.stores.windows import Window
from tests.conformance.timeseries.stores import STORES

HOUR_MS = 3_600_000
SUMMER_TIME_ENDS_MS = 1_792_890_000_000
"""2026-10-25 03:00 in Berlin, when the clock is set back to 02:00."""

devices = st.sampled_from(["d", "é", "d'"])
keys = st.sampled_from(["a", "ä", "c\n"])
near = st.integers(-3, 6)
around = st.integers(-30, 30).map(lambda i: SUMMER_TIME_ENDS_MS + i * HOUR_MS // 2)
ends = st.sampled_from([-MAX_TS_MS, MAX_TS_MS])
longs = st.integers(-3, 3) | st.sampled_from([INT64_MIN, INT64_MAX, INT64_MAX - 1, 2**53, 2**53 + 1])
doubles = st.integers(-6, 6).map(lambda i: i / 2) | st.sampled_from([-0.0, 2.0**53, 1e-300])
others = st.booleans() | st.sampled_from(["", "x", "1", "\n", {}, [1.0, None]])
geo = st.none() | st.sampled_from([0.0, -12.5, 90.0])
points = st.builds(
    Point, st.sampled_from(["t", "t", "u"]), devices, keys, near | near | around | around | ends,
    longs | doubles | others, geo, geo,
)  # fmt: skip
impossible = st.builds(
    Point, st.just("t"), devices, keys, near | st.just(MAX_TS_MS + 1), st.sampled_from([INT64_MAX + 1, nan, None, b"x"])
)
some_devices = st.lists(devices, min_size=1, max_size=4) | st.just(["d", "é", "d'", "nobody"])
some_keys = st.none() | st.lists(keys, max_size=4)
ever = st.just((INT64_MIN, INT64_MAX))
ranges = (
    ever | st.tuples(near, near) | st.tuples(around, around).map(sorted)
    | st.tuples(st.sampled_from([INT64_MIN, -MAX_TS_MS, 0, 10**30]), st.sampled_from([0, 3, MAX_TS_MS, 10**30]))
)  # fmt: skip
zones = st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"])
windows = (
    st.tuples(ranges, st.none())
    | st.tuples(st.tuples(near, near).map(sorted), st.builds(Window, st.sampled_from(["1s", "7s", "1m"]), zones))
    | st.tuples(
        st.tuples(around, around).map(sorted),
        st.builds(Window, st.sampled_from(["7s", "1m", "30m", "1h", "6h", "1d", "1w", "1mo"]), zones),
    )
    | st.tuples(ranges, st.builds(Window, st.sampled_from(["1h", "1mo", "600mo"]), zones))
)
functions = st.lists(st.sampled_from([*FUNCTIONS, "p0", "p50", "p99.9", "p100"]), min_size=1, max_size=6)
writes = st.tuples(st.just("write"), st.lists(points, min_size=8, max_size=25))
rarely = st.one_of(
    st.tuples(st.just("write"), st.lists(points | impossible, max_size=4)),
    st.tuples(st.just("delete"), some_devices, some_keys, ranges),
    st.tuples(st.just("delete_device"), devices),
)
reads = st.one_of(
    st.tuples(st.just("latest"), some_devices, some_keys, st.integers(1, 3), ranges),
    st.tuples(st.just("range"), some_devices, some_keys, ranges, st.integers(1, 5), st.booleans()),
    st.tuples(st.just("aggregate"), some_devices, some_keys, windows, functions),
    st.tuples(st.just("keys"), devices),
)
histories = st.builds(
    lambda first, steps: [first, *chain.from_iterable(steps)],
    writes,
    st.lists(st.tuples(rarely, reads, reads) | st.tuples(reads, reads, reads), min_size=1, max_size=5),
)


async def answer(store: Timeseries, tenants: dict[str, str], step: tuple[Any, ...]) -> Any:
    t = tenants["t"]
    match step:
        case ("write", batch):
            try:
                return await store.write([
                    Point(tenants[each.tenant], each.device, each.key, each.ts_ms, each.value, each.lat, each.lon)
                    for each in batch
                ])  # fmt: skip
            except PointsRefused as error:
                return error.refused
        case ("delete", some, wanted, (start, end)):
            return await store.delete(t, some, wanted, start, end)
        case ("delete_device", device):
            return await store.delete_device(t, device)
        case ("latest", some, wanted, number, (start, end)):
            return await store.latest(t, some, wanted, count=number, start_ms=start, end_ms=end)
        case ("range", some, wanted, (start, end), limit, newest_first):
            pages, cursor = [], ""
            while len(pages) < 100:
                page = await store.range(
                    t, some, wanted, start, end, limit=limit, newest_first=newest_first, cursor=cursor
                )
                pages.append(page.points)
                cursor = page.cursor
                if not cursor:
                    return pages
        case ("aggregate", some, wanted, ((start, end), window), asked):
            try:
                return await store.aggregate(t, some, wanted, start, end, asked, window)
            except BadInput as error:
                return error.reason
        case ("keys", device):
            return await store.keys(t, device)
    raise AssertionError(step)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types; doubles up to what the order of a sum may change."""
    if type(one) is not type(other):
        return False
    if type(one) is float:
        return isclose(one, other, rel_tol=1e-12, abs_tol=1e-12) or repr(one) == repr(other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if hasattr(one, "__struct_fields__"):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    return bool(one == other)


@pytest.mark.parametrize("name", sorted(set(STORES) - {"memory"}))
def test_every_history_reads_the_same(name: str, tmp_path: Path) -> None:
    kind = STORES[name]
    number = count()
    with asyncio.Runner() as runner:
        opening = kind.opened(tmp_path)
        store = runner.run(opening.__aenter__())
        model = MemoryTimeseries()
        runner.run(model.open())

        async def compare(history: list[tuple[Any, ...]]) -> None:
            # Every example is about tenants of its own: the store is opened once.
            n = next(number)
            tenants = {"t": f"t{n}", "u": f"u{n}"}
            for step in history:
                if step[0].startswith("delete") and not kind.deletes:
                    continue
                found, wanted = await answer(store, tenants, step), await answer(model, tenants, step)
                assert same(found, wanted), f"{step}\n{name}: {found}\nmemory: {wanted}"

        @settings(max_examples=kind.examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(histories)
        def agree(history: list[tuple[Any, ...]]) -> None:
            runner.run(compare(history))

        try:
            agree()
        finally:
            runner.run(opening.__aexit__(None, None, None))
