"""What windows of time give."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.errors import BadInput
from engine.message import Point
from engine.stores.timeseries import FUNCTIONS, Timeseries
from engine.stores.values import INT64_MAX, INT64_MIN, MAX_TS_MS
from engine.stores.windows import MOST, Window, edges, window
from tests.conformance.timeseries.stores import D, T, series

pytestmark = pytest.mark.asyncio

HOUR_MS = 3_600_000
ALL = [*FUNCTIONS, "p0", "p50", "p95", "p100"]


async def whole(store: Timeseries, values: list[Any], functions: list[str] | None = None) -> dict[str, str]:
    """What values at 0, 1, 2 … ms give in one window, as their reprs."""
    await store.write([Point(T, D, "k", ts_ms, value) for ts_ms, value in enumerate(values)])
    [bucket] = await store.aggregate(T, [D], ["k"], 0, len(values), functions or ALL)
    assert (bucket.device, bucket.key, bucket.start_ms, bucket.end_ms) == (D, "k", 0, len(values))
    assert list(bucket.values) == (functions or ALL)
    return {function: repr(value) for function, value in bucket.values.items()}


async def test_longs(store: Timeseries) -> None:
    assert await whole(store, [5, 1, 4, 1, 9]) == {
        "count": "5", "min": "1", "max": "9", "sum": "20", "mean": "4.0", "first": "5", "last": "9",
        "p0": "1", "p50": "4", "p95": "9", "p100": "9",
    }  # fmt: skip


async def test_doubles(store: Timeseries) -> None:
    assert await whole(store, [0.5, -1.5, 8.0]) == {
        "count": "3", "min": "-1.5", "max": "8.0", "sum": "7.0", "mean": repr(7 / 3), "first": "0.5", "last": "8.0",
        "p0": "-1.5", "p50": "0.5", "p95": "8.0", "p100": "8.0",
    }  # fmt: skip


async def test_what_is_no_number_has_a_count_a_first_and_a_last(store: Timeseries) -> None:
    nothing = dict.fromkeys(ALL, "None")
    for values in (["b", "a"], [True, False], [{"a": 1.0}, [2]]):
        assert await whole(store, values) == nothing | {
            "count": "2", "first": repr(values[0]), "last": repr(values[1])
        }  # fmt: skip


async def test_a_series_whose_type_changes_is_aggregated_over_its_numbers(store: Timeseries) -> None:
    assert await whole(store, ["x", 2, True, 3.5, [1], 1]) == {
        "count": "6", "min": "1", "max": "3.5", "sum": "6.5", "mean": repr(6.5 / 3), "first": "'x'", "last": "1",
        "p0": "1", "p50": "2", "p95": "3.5", "p100": "3.5",
    }  # fmt: skip


async def test_of_the_same_value_the_long_is_smaller(store: Timeseries) -> None:
    found = await whole(store, [2.0, 1.0, 1, 2], ["min", "p25", "p50", "p75", "max"])
    assert found == {"min": "1", "p25": "1", "p50": "1.0", "p75": "2", "max": "2.0"}


async def test_longs_are_not_rounded(store: Timeseries) -> None:
    big = 2**53
    found = await whole(store, [big + 1, float(big), big + 3], ["min", "max", "p50", "sum"])
    assert found == {
        "min": repr(float(big)),
        "max": repr(big + 3),
        "p50": repr(big + 1),
        "sum": repr(float(3 * big + 4)),
    }


async def test_the_extremes_of_longs(store: Timeseries) -> None:
    found = await whole(store, [INT64_MAX, INT64_MIN, INT64_MAX], ["min", "max", "sum", "mean", "first", "p50"])
    assert found == {
        "min": repr(INT64_MIN), "max": repr(INT64_MAX), "sum": repr(INT64_MAX - 1), "mean": repr((INT64_MAX - 1) / 3),
        "first": repr(INT64_MAX), "p50": repr(INT64_MAX),
    }  # fmt: skip


async def test_a_sum_of_longs_that_does_not_fit_is_a_double(store: Timeseries) -> None:
    found = await whole(store, [INT64_MAX, INT64_MAX, 2], ["sum", "mean"])
    assert found == {"sum": repr(float(2**64)), "mean": repr(2**64 / 3)}


async def test_a_sum_beyond_every_double_is_nothing(store: Timeseries) -> None:
    found = await whole(store, [1.7e308, 1.7e308], ["sum", "mean", "max", "count"])
    assert found == {"sum": "None", "mean": "None", "max": "1.7e+308", "count": "2"}


async def test_extreme_doubles(store: Timeseries) -> None:
    found = await whole(store, [5e-324, -0.0, 1.7976931348623157e308], ["min", "max", "p50", "last"])
    assert found == {"min": "0.0", "max": "1.7976931348623157e+308", "p50": "5e-324", "last": "1.7976931348623157e+308"}


async def test_percentiles_by_nearest_rank(store: Timeseries) -> None:
    functions = ["p0.1", "p1", "p10", "p33.333", "p99", "p99.9", "p99.999"]
    found = await whole(store, list(range(1000, 0, -1)), functions)
    assert list(found.values()) == ["1", "10", "100", "334", "990", "999", "1000"]


async def test_what_was_sent_again_counts_as_it_was_sent_last(store: Timeseries) -> None:
    await store.write([Point(T, D, "k", 0, 100.0), Point(T, D, "k", 1, 50), Point(T, D, "k", 2, 7)])
    found = await whole(store, [1, 2.5, "x"])
    assert found == {
        "count": "3", "min": "1", "max": "2.5", "sum": "3.5", "mean": "1.75", "first": "1", "last": "'x'",
        "p0": "1", "p50": "1", "p95": "2.5", "p100": "2.5",
    }  # fmt: skip


async def test_series_by_series_window_by_window(store: Timeseries) -> None:
    await store.write([point for device in ("e", "ä", "d") for point in series("b", 0, 999, 1000, 5000, device=device)])
    await store.write(series("a", 1500, device="e") + series("b", 500, device="e", tenant="other"))
    found = await store.aggregate(
        T, ["e", "ä", "d", "d", "nobody"], ["b", "a", "b", "no key"], 0, 10_000, ["count", "last"], window("1s")
    )
    assert [(bucket.device, bucket.key, bucket.start_ms, bucket.values["count"]) for bucket in found] == [
        ("d", "b", 0, 2), ("d", "b", 1000, 1), ("d", "b", 5000, 1), ("e", "a", 1000, 1), ("e", "b", 0, 2),
        ("e", "b", 1000, 1), ("e", "b", 5000, 1), ("ä", "b", 0, 2), ("ä", "b", 1000, 1), ("ä", "b", 5000, 1),
    ]  # fmt: skip
    assert all(bucket.end_ms - bucket.start_ms == 1000 for bucket in found)
    assert await store.aggregate(T, ["d"], [], 0, 10_000, ["count"], window("1s")) == []
    assert await store.aggregate(T, [], None, 0, 10_000, ["count"]) == []
    assert await store.aggregate("nobody", ["d"], None, 0, 10_000, ["count"]) == []


async def test_points_outside_the_range_count_nowhere(store: Timeseries) -> None:
    await store.write(series("k", 900, 1100, 1900, 2100, 2500))
    found = await store.aggregate(T, [D], None, 1000, 2200, ["sum", "p100"], window("2s"))
    assert [(bucket.start_ms, bucket.end_ms, bucket.values) for bucket in found] == [
        (0, 2000, {"sum": 3000.0, "p100": 1900.0}), (2000, 4000, {"sum": 2100.0, "p100": 2100.0})
    ]  # fmt: skip
    assert await store.aggregate(T, [D], None, 1000, 1000, ["sum"], window("2s")) == []
    assert await store.aggregate(T, [D], None, 2000, 1000, ["sum"]) == []


async def test_without_a_window_the_range_is_one(store: Timeseries) -> None:
    await store.write(series("k", -MAX_TS_MS, 0, MAX_TS_MS))
    for start, end in ((INT64_MIN, INT64_MAX), (-(10**30), 10**30), (-MAX_TS_MS, MAX_TS_MS + 1)):
        [bucket] = await store.aggregate(T, [D], None, start, end, ["count", "first"])
        assert (bucket.start_ms, bucket.end_ms) == (start, end)
        assert bucket.values == {"count": 3, "first": float(-MAX_TS_MS)}


async def test_times_before_1970(store: Timeseries) -> None:
    await store.write(series("k", -HOUR_MS - 1, -HOUR_MS, -1, 0))
    found = await store.aggregate(T, [D], None, -(10**8), 10**8, ["count"], window("1h"))
    assert [(bucket.start_ms, bucket.values["count"]) for bucket in found] == [
        (-2 * HOUR_MS, 1), (-HOUR_MS, 2), (0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "every", "days", "wanted"),
    [
        ("Europe/Berlin", "1d", ((2026, 3, 28), (2026, 3, 31)), [24, 23, 24]),
        ("Europe/Berlin", "1d", ((2026, 10, 24), (2026, 10, 27)), [24, 25, 24]),
        ("Europe/Berlin", "6h", ((2026, 10, 25), (2026, 10, 26)), [7, 6, 6, 6]),
        ("Europe/Berlin", "1h", ((2026, 10, 25), (2026, 10, 26)), [1] * 25),
        ("Asia/Kolkata", "1d", ((2026, 1, 1), (2026, 1, 3)), [24, 24]),
        ("Asia/Kathmandu", "1w", ((2026, 1, 5), (2026, 1, 19)), [168, 168]),
        ("Australia/Lord_Howe", "1d", ((2026, 4, 5), (2026, 4, 6)), [24.5]),
        ("America/New_York", "1mo", ((2026, 2, 1), (2026, 5, 1)), [672, 743, 720]),
        ("Pacific/Apia", "1d", ((2011, 12, 29), (2012, 1, 1)), [24, 24]),
    ],
)
async def test_windows_on_the_clock_of_a_zone(
    store: Timeseries, zone: str, every: str, days: tuple[tuple[int, int, int], ...], wanted: list[float]
) -> None:
    start, end = (round(datetime(*day, tzinfo=ZoneInfo(zone)).timestamp() * 1000) for day in days)
    half = HOUR_MS // 2
    await store.write([Point(T, D, "k", ts_ms, ts_ms) for ts_ms in range(start, end, half)])
    found = await store.aggregate(T, [D], None, start, end, ["count", "p0", "max"], window(every, zone))
    assert [bucket.values["count"] for bucket in found] == [hours * 2 for hours in wanted]
    assert [bucket.end_ms - bucket.start_ms for bucket in found] == [hours * HOUR_MS for hours in wanted]
    assert [bucket.values["p0"] for bucket in found] == [bucket.start_ms for bucket in found]
    assert [bucket.values["max"] for bucket in found] == [bucket.end_ms - half for bucket in found]


@pytest.mark.parametrize("every", ["6h", "1d", "1mo"])
async def test_a_window_begins_with_its_first_moment(store: Timeseries, every: str) -> None:
    zone = "Europe/Berlin"
    start, end = (round(datetime(2026, *day, tzinfo=ZoneInfo(zone)).timestamp() * 1000) for day in ((2, 1), (5, 1)))
    bounds = edges(window(every, zone), start, end)
    for last in (bounds[-2], bounds[1], bounds[0]):
        met = [edge for edge in bounds if edge <= last]
        await store.write([Point(T, str(last), "k", edge + i, i) for edge in met for i in (-1, 0)])
        found = await store.aggregate(T, [str(last)], None, start, end, ["count", "first"], window(every, zone))
        assert [bucket.start_ms for bucket in found] == met
        assert [bucket.values["count"] for bucket in found] == [2] * (len(found) - 1) + [1]
        assert {bucket.values["first"] for bucket in found} == {0}


async def test_many_windows_of_different_length(store: Timeseries) -> None:
    start = round(datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")).timestamp() * 1000)
    await store.write([Point(T, D, "k", start + i * 24 * HOUR_MS, i) for i in range(0, 45_000, 1000)])
    found = await store.aggregate(T, [D], None, start, start + 10**13, ["sum"], window("1mo", "Europe/Berlin"))
    assert sum(bucket.values["sum"] for bucket in found) == sum(range(0, 45_000, 1000))
    assert len(found) == 45


async def test_how_many_windows(store: Timeseries) -> None:
    await store.write(series("k", 0, (MOST - 1) * 1000))
    assert len(await store.aggregate(T, [D], None, 0, MOST * 1000, ["count"], window("1s"))) == 2
    for start, end in ((0, MOST * 1000 + 1), (INT64_MIN, INT64_MAX)):
        with pytest.raises(BadInput, match="more than 20000 windows"):
            await store.aggregate(T, [D], None, start, end, ["count"], window("1s"))


@pytest.mark.parametrize("functions", [[], ["avg"], ["min", "p101"], ["count", "*"], ['min") FROM x --']])
async def test_functions_that_are_none(store: Timeseries, functions: list[str]) -> None:
    with pytest.raises(BadInput, match="function"):
        await store.aggregate(T, [D], None, 0, 10, functions)


async def test_a_window_that_nobody_checked(store: Timeseries) -> None:
    await store.write(series("k", 0))
    for made in (Window("1h; DROP", "UTC"), Window("", "UTC"), Window("1h", "'; DROP"), Window("1h", "../x")):
        with pytest.raises(BadInput):
            await store.aggregate(T, [D], None, 0, 10, ["count"], made)


async def test_each_function_alone(store: Timeseries) -> None:
    await store.write([Point(T, D, "k", ts_ms, value) for ts_ms, value in ((1, 1), (2, 2), (3, 3), (2000, 11))])
    for function, wanted in (
        ("count", [3, 1]), ("min", [1, 11]), ("max", [3, 11]), ("sum", [6, 11]), ("mean", [2.0, 11.0]),
        ("first", [1, 11]), ("last", [3, 11]), ("p50", [2, 11]),
    ):  # fmt: skip
        found = await store.aggregate(T, [D], None, 1, 3001, [function, function], window("1s"))
        assert [bucket.values for bucket in found] == [{function: value} for value in wanted]


async def test_lists_of_thousands(store: Timeseries) -> None:
    await store.write([Point(T, f"d{i:04}", f"k{i % 3}", ts_ms, i) for i in range(0, 3000, 10) for ts_ms in (1, 1001)])
    devices = [f"d{i:04}" for i in range(3000)] * 2
    for keys in (None, [f"k{i}" for i in range(2000)]):
        found = await store.aggregate(T, devices, keys, 0, 2000, ["sum", "last", "p50"], window("1s"))
        assert len(found) == 600
        assert [bucket.values["sum"] for bucket in found[::2]] == list(range(0, 3000, 10))
