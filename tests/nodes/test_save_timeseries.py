from __future__ import annotations

import re
from typing import Any

import pytest

from nodes import Point
from nodes.save_timeseries import SaveTimeseries
from tests.nodes.context import NOW_MS, build, emitted, message, run

pytestmark = pytest.mark.asyncio


@pytest.mark.spec("TB-4", "TB-13", "TB-35")
async def test_every_key_is_a_point_of_its_type() -> None:
    data = {"s": "value1", "b": True, "d": 42.0, "l": 73, "j": {"x": [1, 2]}, "null": None}
    out = await run(build(SaveTimeseries), message(data, metadata={"ts": "1451649600512"}))
    assert [(i, point.key, point.value, type(point.value)) for i, point in out.points] == [
        (0, key, value, type(value)) for key, value in data.items() if value is not None
    ]
    assert {(p.tenant, p.device, p.ts_ms, p.lat, p.lon) for _, p in out.points} == {
        ("acme", "dev1", 1451649600512, None, None)
    }
    assert list(emitted(out)) == ["Success"]


async def test_the_time_is_the_messages_own_without_ts() -> None:
    out = await run(build(SaveTimeseries), message({"k": 1}))
    assert out.points[0][1].ts_ms == NOW_MS - 1000


async def test_server_time_on_wish() -> None:
    out = await run(build(SaveTimeseries, use_server_ts=True), message({"k": 1}, metadata={"ts": "junk"}))
    assert out.points == [(0, Point("acme", "dev1", "k", NOW_MS - 1000, 1))]


@pytest.mark.spec("CT-11", "CT-70")
async def test_positions_by_key() -> None:
    geo = '{"temp": {"lat": 52.24325, "lon": -26}}'
    out = await run(build(SaveTimeseries), message({"temp": 36.6, "bat": 3.5}, metadata={"geo": geo}))
    assert [(p.key, p.lat, p.lon) for _, p in out.points] == [("temp", 52.24325, -26.0), ("bat", None, None)]


@pytest.mark.spec("TTI-36")
async def test_store_false_passes_without_points() -> None:
    out = await run(build(SaveTimeseries), message({"k": 1}, metadata={"store": "false"}), message({"k": 2}))
    assert [i for i, _ in out.points] == [1]
    assert len(emitted(out)["Success"]) == 2


@pytest.mark.parametrize(
    ("data", "metadata", "reason"),
    [
        ([1], {}, "object"),
        (None, {}, "null"),
        (b"x", {}, "bytes"),
        ({"k": float("nan")}, {}, "'k'.*finite"),
        ({"k": float("inf")}, {}, "'k'.*finite"),
        ({"k": 2**63}, {}, "'k'.*64 bits"),
        ({"k": {"x": float("nan")}}, {}, "'k'.*JSON"),
        ({"k": b"x"}, {}, "'k'.*bytes"),
        ({"": 1}, {}, "characters"),
        ({"k" * 256: 1}, {}, "255"),
        ({7: 1}, {}, "characters"),
        ({"k": 1}, {"ts": "soon"}, "ts"),
        ({"k": 1}, {"ts": "99999999999999999"}, "range"),
        ({"k": 1}, {"geo": "{"}, "geo"),
        ({"k": 1}, {"geo": "[]"}, "geo"),
        ({"k": 1}, {"geo": '{"k": {"lat": 91, "lon": 0}}'}, "lat"),
        ({"k": 1}, {"geo": '{"k": {"lat": 1}}'}, "lon"),
        ({"k": 1}, {"geo": '{"k": {"lat": NaN, "lon": 0}}'}, "lat"),
    ],
)
@pytest.mark.spec("TB-S10")
async def test_a_bad_message_fails_alone_and_whole(data: Any, metadata: dict[str, str], reason: str) -> None:
    bad = message({"first": 1, **data} if isinstance(data, dict) else data, metadata=metadata)
    out = await run(build(SaveTimeseries), message({"a": 1}), bad, message({"b": 2}))
    assert list(out.failed) == [1]
    assert re.search(reason, out.failed[1])
    assert [(i, point.key) for i, point in out.points] == [(0, "a"), (2, "b")]


async def test_only_telemetry() -> None:
    out = await run(build(SaveTimeseries), message({"a": 1}, type="POST_ATTRIBUTES_REQUEST"))
    assert "POST_ATTRIBUTES_REQUEST" in out.failed[0]


async def test_an_empty_object_is_no_failure() -> None:
    out = await run(build(SaveTimeseries), message({}))
    assert (out.points, list(emitted(out))) == ([], ["Success"])
