from __future__ import annotations

import itertools
from typing import Any

import pytest

from api.dialects.thethingsio.dates import ms_of
from engine.message import Point
from tests.api.dialects.thethingsio.world import World, world
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio

CREATED = {"status": "Success", "message": "Created"}
PAGES = [
    # first three of each page, and its last
    [("2017-01-16T10:25:10.644Z", 24.311), ("2017-01-16T10:24:10.641Z", 47.953), ("2017-01-16T10:23:10.677Z", 29.241)],
    [("2017-01-15T17:45:06.929Z", 53.708), ("2017-01-15T17:44:06.966Z", 41.794), ("2017-01-15T17:43:06.920Z", 47.891)],
    [("2017-01-15T01:05:03.137Z", 48.681), ("2017-01-15T01:04:03.132Z", 14.525), ("2017-01-15T01:03:03.129Z", 25.47)],
]
LASTS = [
    ("2017-01-15T17:46:06.932Z", 22.958),
    ("2017-01-15T01:06:03.212Z", 24.805999999999997),
    ("2017-01-14T08:25:59.695Z", 31.622),
]
SIZES = [1000, 1000, 300]


def series(thing: str) -> list[Point]:
    """2,300 values, about a minute apart, with those of the documentation at their places."""
    made = []
    for firsts, last, size in zip(PAGES, LASTS, SIZES, strict=True):
        start, end = ms_of(firsts[2][0], ""), ms_of(last[0], "")
        between = [start + (end - start) * i // (size - 3) for i in range(1, size - 3)]
        shown = [*[(ms_of(date, ""), value) for date, value in firsts], *[(ts, 1.5) for ts in between]]
        made += [*shown, (end, last[1])]
    return [Point(TENANT, thing, "temperature", ts, value) for ts, value in made]


async def owner(w: World) -> tuple[str, Any, str]:
    """A user's session, and a thing of theirs with its token."""
    ann = await w.register("ann@x.org")
    device, token = await w.thing("t1")
    await w.link(ann, device)
    return ann, device, token


@pytest.mark.spec("TTI-31", "TTI-32", "TTI-33", "TTI-S10")
async def test_2300_values_come_in_three_pages(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, device, _ = await owner(w)
        await w.stack.store.write(series(device.id))
        path, ends = f"/v2/me/resources/temperature/{device.id}", {}
        for firsts, last, size in zip(PAGES, LASTS, SIZES, strict=True):
            for limit in ("1000", "5000"):
                page = (await w.call("GET", path, ann, limit=limit, **ends)).json()
                assert len(page) == size
                told = [(each["datetime"], each["value"]) for each in page]
                assert told[:3] == firsts
                assert told[-1] == last
                assert {each["key"] for each in page} == {"temperature"}
                assert all(a["datetime"] > b["datetime"] for a, b in itertools.pairwise(page))
            ends = {"endDate": page[-1]["datetime"]}
        assert (await w.call("GET", path, ann, limit="1000", **ends)).json() == []
        assert len((await w.call("GET", path, ann)).json()) == 1


@pytest.mark.spec("TTI-30", "TTI-32", "TTI-S9", "TTI-S11", "TTI-S12")
async def test_all_things_of_a_resource(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, one, _ = await owner(w)
        path = "/v2/me/resources/temperature"
        assert (await w.call("GET", path, ann)).json() == {}
        (two, _), (silent, _) = await w.thing("t2"), await w.thing("t3")
        for device in (two, silent):
            await w.link(ann, device)
        times = [ms_of("20150202T220035", ""), ms_of("20150202T210035", "")]
        await w.stack.store.write(
            [Point(TENANT, one.id, "temperature", ts, value) for ts, value in zip(times, (15, 17), strict=True)]
            + [Point(TENANT, two.id, "temperature", times[0] + 345, "hot"), Point(TENANT, two.id, "humidity", 1, 1)]
        )
        assert (await w.call("GET", path, ann, limit="2")).json() == {
            one.id: [
                {"value": 15, "datetime": "20150202T220035.00Z"},
                {"value": 17, "datetime": "20150202T210035.00Z"},
            ],
            two.id: [{"value": "hot", "datetime": "20150202T220035.34Z"}],
        }
        for start, end, found in (
            ("20150202210035", "20150202220035", 17),
            ("2015-02-02T22:00:35+01:00", "2015-02-02T21:00:35.001Z", 17),
            ("20150202T210035", "2015-02-02T22:00:35.000Z", 17),
        ):
            told = (await w.call("GET", path, ann, limit="9", startDate=start, endDate=end)).json()
            assert [each["value"] for each in told[one.id]] == [found]
        assert (await w.call("GET", path, ann, startDate="20200101000000", endDate="20100101000000")).json() == {}
        for query in (
            {"limit": "0"}, {"limit": "-1"}, {"limit": "many"}, {"limit": "1.5"}, {"startDate": "yesterday"},
            {"endDate": "2015"}, {"startDate": "20151302210035"}, {"endDate": "2015-02-30T00:00:00Z"},
        ):  # fmt: skip
            assert (await w.call("GET", path, ann, **query)).status_code == 400
        assert (await w.call("GET", "/v2/me/resources/secret", ann)).status_code == 404
        assert (await w.call("GET", "/v2/me/resources/nothing", ann)).status_code == 404
        bob = await w.register("bob@x.org")
        assert (await w.call("GET", path, bob)).json() == {}
        assert (await w.call("GET", f"{path}/{one.id}", bob)).status_code == 403
        assert (await w.call("GET", f"{path}/nobody", bob)).status_code == 404


@pytest.mark.spec("TTI-5", "TTI-35", "TTI-36", "TTI-37", "TTI-85", "TTI-S13", "TTI-S14")
async def test_writing_values(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, device, _ = await owner(w)
        path = f"/v2/me/resources/temperature/{device.id}"
        values = [1, 2.5, "x", True, [1, {"a": None}], {"type": "x"}, "data:image/png;base64,AAAA"]
        for value in values:
            told = await w.call("POST", path, ann, {"values": [{"value": value}]}, sync="true")
            assert (told.status_code, told.json()) == (201, CREATED)
            [read] = (await w.call("GET", path, ann)).json()
            assert read["value"] == value
            assert type(read["value"]) is type(value)
        body = {"values": [{"value": 7, "datetime": "20140101000000", "geo": {"lat": 41.4, "long": 2.1}}]}
        await w.call("POST", path, ann, body, sync="true")
        [old] = (await w.call("GET", path, ann, endDate="20150101000000")).json()
        assert old == {"key": "temperature", "value": 7, "datetime": "2014-01-01T00:00:00.000Z"}
        await w.call("POST", path, ann, {"values": [{"value": "fleeting"}]}, store="false", sync="true")
        assert [each["value"] for each in (await w.call("GET", path, ann)).json()] == [values[-1]]
        told = await w.call("POST", path, ann, {"values": [{"value": 1}]}, store="0", broadcast="false")
        assert told.status_code == 201
        for bad in (
            [], {}, {"values": []}, {"values": 5}, {"values": [5]}, {"values": [{}]}, {"values": [{"value": None}]},
            {"values": [{"value": 1}] * 1001}, {"values": [{"value": 1, "key": "humidity"}]},
            {"values": [{"value": 1, "datetime": "soon"}]}, {"values": [{"value": 1, "datetime": 5}]},
            {"values": [{"value": 1, "geo": [200, 1]}]}, {"values": [{"value": 1, "geo": "here"}]},
            {"values": [{"value": 2**70}]},
        ):  # fmt: skip
            told = await w.call("POST", path, ann, bad)
            assert (told.status_code, told.json()["status"]) == (400, "error"), bad
        assert (await w.call("POST", path, ann, {"values": [{"value": 1}]}, store="perhaps")).status_code == 400
        bob = await w.register("bob@x.org")
        assert (await w.call("POST", path, bob, {"values": [{"value": 1}]})).status_code == 403
        await w.grant(ann, "bob@x.org", device.id, "temperature", get=True)
        assert (await w.call("POST", path, bob, {"values": [{"value": 1}]})).status_code == 403
        await w.grant(ann, "bob@x.org", device.id, "temperature", post=True)
        assert (await w.call("POST", path, bob, {"values": [{"value": 1}]})).status_code == 201


@pytest.mark.spec("TTI-45", "TTI-46", "TTI-47", "TTI-48", "TTI-49", "TTI-50", "TTI-86", "TTI-S16")
async def test_magic_resources(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, device, _ = await owner(w)

        async def write(name: str, *values: Any, token: str = ann) -> int:
            body = {"values": [{"value": value} for value in values]}
            told = await w.call("POST", f"/v2/me/resources/{name}/{device.id}", token, body)
            assert told.status_code != 201 or told.json() == {"status": "created"}
            return told.status_code

        async def read(name: str, token: str = ann) -> Any:
            return (await w.call("GET", f"/v2/me/resources/{name}/{device.id}", token)).json()

        for name in ("$geo", "$settings", "$settings.name"):
            assert await read(name) == []
        place = {"type": "Point", "coordinates": [2.154007, 41.390205]}
        assert await write("$geo", place) == 201
        assert await read("$geo") == [{"key": "$geo", "value": place}]
        assert await write("%24geo", [1, 2]) == 201
        assert await read("%24geo") == [{"key": "$geo", "value": {"type": "Point", "coordinates": [1, 2]}}]
        assert await write("$settings", {"name": "My Thing", "foo": "bar"}) == 201
        assert await read("$settings") == [{"key": "$settings", "value": {"name": "My Thing", "foo": "bar"}}]
        assert await write("$settings.name", "Yours") == 201
        assert await read("$settings.name") == [{"key": "$settings.name", "value": "Yours"}]
        assert await write("$settings.deep.down", 1, 2) == 201
        assert await write("$settings", {"deep": {"x": 3}, "foo": 4}) == 201
        assert await write("$settings.deep.y", 5) == 201
        expected = {"name": "Yours", "foo": 4, "deep": {"x": 3, "y": 5}}
        assert await read("$settings") == [{"key": "$settings", "value": expected}]
        assert await read("$settings.no.such") == []
        for name, value in (
            ("$geo", {"type": "Line", "coordinates": [1, 2]}), ("$geo", [1]), ("$geo", ["a", "b"]), ("$geo", [181, 0]),
            ("$geo", [0, 91]), ("$geo", [True, 1]), ("$settings", "x"), ("$settings", {"": 1}), ("$settings..a", 1),
            ("$settings", {str(i): i for i in range(201)}),
        ):  # fmt: skip
            assert await write(name, value) == 400, (name, value)
        assert await write("$unknown", 1) == 404
        bob = await w.register("bob@x.org")
        assert await write("$geo", place, token=bob) == 403
        await w.grant(ann, "bob@x.org", device.id, "humidity", get=True)
        assert await read("$settings.foo", token=bob) == [{"key": "$settings.foo", "value": 4}]
        assert await write("$geo", place, token=bob) == 403


@pytest.mark.spec("TTI-47", "TTI-S16")
async def test_a_thing_with_settings_alone_is_nowhere(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, device, _ = await owner(w)
        path = f"/v2/me/resources/$settings/{device.id}"
        assert (await w.call("POST", path, ann, {"values": [{"value": {"a": 1}}]})).status_code == 201
        assert (await w.call("GET", path, ann)).json() == [{"key": "$settings", "value": {"a": 1}}]
        assert (await w.call("GET", f"/v2/me/resources/$geo/{device.id}", ann)).json() == []


@pytest.mark.spec("TTI-S23")
async def test_conditions_are_never_answered_with_304(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, device, thing_token = await owner(w)
        assert (await w.call("POST", "/v2/classes/me/Lists/1", ann, {"n": 1})).status_code == 201
        headers = {"authorization": ann, "if-none-match": "*", "if-modified-since": "Fri, 01 Jan 2100 00:00:00 GMT"}
        for path in (
            "/v2/me/resources", "/v2/me/resources/temperature", f"/v2/me/resources/temperature/{device.id}",
            "/v2/me/settings", "/v2/classes/me/Lists", "/v2/classes/me/Lists/1", "/v2/utils/date",
            f"/v2/things/{thing_token}/resources", f"/v2/things/{thing_token}/firmwares/latest",
        ):  # fmt: skip
            answer = await w.client.get(path, headers=headers)
            assert (answer.status_code, bool(answer.content)) == (200, True)
            assert not {"etag", "last-modified"} & set(answer.headers)
