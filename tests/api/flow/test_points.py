"""Reading and forgetting points: several devices and keys at once, in three forms, by windows, and live."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.flow import point_streams, watching
from api.flow.point_tailing import QUEUED_MOST
from engine.config import Tls
from engine.entries import encode
from engine.errors import StoreUnavailable, Unsupported
from engine.message import Point
from engine.stores.memory import MemoryTimeseries
from engine.stores.registry import Device, Tenant
from engine.stores.timeseries import Page
from engine.tail import POINTS_CHANNEL, POINTS_WATCHED_KEY, NewPoints
from tests.api.flow.serving import FlowStack, T
from tests.api.stack import TENANT
from tests.certificates import certificate
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

P = f"{T}/points"
HOUR = 3_600_000


class Breaking(MemoryTimeseries):
    """Gives so many pages of a range, then is away."""

    def __init__(self, pages: int) -> None:
        super().__init__()
        self._left = pages

    async def range(self, *arguments: Any, **options: Any) -> Page:
        if not self._left:
            raise StoreUnavailable("the store is away", 7)
        self._left -= 1
        return await super().range(*arguments, **options)


class Keeping(MemoryTimeseries):
    """Cannot delete."""

    async def delete(self, *arguments: Any) -> None:
        raise Unsupported("this store keeps everything")


async def devices(stack: FlowStack, *names: str) -> list[Device]:
    return [await stack.device(name) for name in names]


def shown(answer: Any) -> list[tuple[str, str, int, Any]]:
    """Points with the names of their devices."""
    return [
        (answer["devices"][one["device"]], one["key"], one["ts_ms"], one["value"]) for one in answer["points"]
    ]  # fmt: skip


def findings(problem: Any) -> list[tuple[str, str]]:
    return [(one["pointer"], one["message"]) for one in problem["errors"]]


class TestLatest:
    async def test_of_several_devices_and_keys(self, stack: FlowStack) -> None:
        a, b, c = await devices(stack, "a", "b", "c")
        await stack.store.write(
            [Point(TENANT, one.id, key, ts, ts) for one in (a, b, c) for key in ("t", "u", "v") for ts in (1, 2, 3)]
        )
        found = await stack.get(f"{P}/latest?device=a&device={b.id}&key=t&key=u")
        assert sorted(shown(found)) == [(name, key, 3, 3) for name in "ab" for key in "tu"]
        assert found["devices"] == {a.id: "a", b.id: "b"}
        found = await stack.get(f"{P}/latest?device=c&key=v&count=2")
        assert shown(found) == [("c", "v", 3, 3), ("c", "v", 2, 2)]
        # The same device twice is one device.
        assert len((await stack.get(f"{P}/latest?device=c&device={c.id}&key=v"))["points"]) == 1

    async def test_every_device_that_does_not_exist_is_told(self, stack: FlowStack) -> None:
        await devices(stack, "a")
        await stack.registry.put_tenant(Tenant(name="other"))
        await stack.registry.put_device(Device(id="of-other", tenant="other", name="b"))
        problem = await stack.get(f"{P}/latest?device=nobody&device=a&device=of-other", 404)
        assert findings(problem) == [("?device", "no device 'nobody'"), ("?device", "no device 'of-other'")]
        # A name may be another tenant's id.
        mine = await stack.device("of-other")
        found = await stack.get(f"{P}/latest?device=of-other")
        assert found["devices"] == {mine.id: "of-other"}

    async def test_which_must_be_said_and_how_many_there_may_be(self, stack: FlowStack) -> None:
        assert findings(await stack.get(f"{P}/latest", 400)) == [("?device", "query parameter device is missing")]
        many = "&".join(f"device=d{n}" for n in range(101))
        assert findings(await stack.get(f"{P}/latest?{many}", 400))[0][0] == "?device"
        [a] = await devices(stack, "a")
        await stack.store.write([Point(TENANT, a.id, f"k{n}", 1, 1) for n in range(11)])
        for query in ("key=a&key=b&count=6000", "count=1000"):
            assert "10000 points at most" in (await stack.get(f"{P}/latest?device=a&{query}", 400))["detail"]

    async def test_numbers_of_any_length_inside_json(self, stack: FlowStack) -> None:
        [a] = await devices(stack, "a")
        await stack.store.write([Point(TENANT, a.id, "j", 1, {"n": 2**70, "f": 1.0})])
        answer = await stack.flow.get(f"{T}/devices/a/points/latest")
        assert json.loads(answer.content)["points"][0]["value"] == {"n": 2**70, "f": 1.0}


class TestRange:
    async def test_pages_of_several_devices(self, stack: FlowStack) -> None:
        a, b = await devices(stack, "a", "b")
        await stack.store.write([Point(TENANT, one.id, "t", ts, ts) for one in (a, b) for ts in range(5)])
        for order, expected in (("asc", [0, 0, 1, 1, 2, 2, 3, 3]), ("desc", [3, 3, 2, 2, 1, 1, 0, 0])):
            seen, cursor = [], ""
            while True:
                where = f"{P}?device=a&device=b&start_ms=0&end_ms=4&limit=3&order={order}&cursor={cursor}"
                page = await stack.get(where)
                seen += [one["ts_ms"] for one in page["points"]]
                cursor = page["cursor"]
                if not cursor:
                    break
            assert seen == expected
        assert findings(await stack.get(f"{P}?device=a&cursor=nonsense", 400))[0][0] == "?cursor"

    @pytest.mark.parametrize("given", ["1769860800000", "2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00",
                                       "2026-01-31T13:00:00%2B01:00", "2026-01-31T12:00"])  # fmt: skip
    async def test_times(self, stack: FlowStack, given: str) -> None:
        [a] = await devices(stack, "a")
        await stack.store.write([Point(TENANT, a.id, "t", 1769860800000 + ms, ms) for ms in (-1, 0, 1)])
        assert [one["value"] for one in (await stack.get(f"{P}?device=a&start_ms={given}"))["points"]] == [0, 1]
        assert [one["value"] for one in (await stack.get(f"{P}?device=a&end_ms={given}"))["points"]] == [-1]

    async def test_what_was_before_1970_is_part_of_all(self, stack: FlowStack) -> None:
        [a] = await devices(stack, "a")
        await stack.store.write([Point(TENANT, a.id, "k", ts_ms, ts_ms) for ts_ms in (-(9 * 10**12), -1, 0)])
        found = await stack.get(f"{P}?device=a")
        assert [point["ts_ms"] for point in found["points"]] == [-(9 * 10**12), -1, 0]
        answer = await stack.flow.get(P, params={"device": "a", "format": "csv"})
        assert len(answer.text.splitlines()) == 4

    async def test_times_that_are_none(self, stack: FlowStack) -> None:
        await stack.device("a")
        for given in ("soon", "2026-13-01", "9999999999999999999", "", "1e3", "2026-01-31T12:00:00 01:00:00:00"):
            [(pointer, message)] = findings(await stack.get(f"{P}?device=a&start_ms={given}", 400))
            assert (pointer, message.startswith("query parameter start_ms: ")) == ("?start_ms", True)
        assert findings(await stack.get(f"{P}?device=a&start_ms=2&end_ms=1", 400))[0][0] == "?end_ms"


class TestStreams:
    VALUES = (42.0, 73, True, "open", {"a": [1]}, "=1+1", "'quoted'", "line\r\nbreak", -0.0, "", 2**63 - 1)

    async def fill(self, stack: FlowStack) -> Device:
        [a] = await devices(stack, "=a")
        await stack.store.write(
            [Point(TENANT, a.id, "@k", ts, value, 48.1, -11.5) for ts, value in enumerate(self.VALUES)]
        )
        await stack.store.write([Point(TENANT, a.id, "plain", 10**12, 1)])
        return a

    async def test_csv(self, stack: FlowStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(point_streams, "PAGE", 3)
        a = await self.fill(stack)
        answer = await stack.flow.get(P, params={"device": "=a", "format": "csv"})
        assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
        assert "points.csv" in answer.headers["content-disposition"]
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert len(rows) == len(self.VALUES) + 1
        assert rows[0] == {
            "device": a.id, "name": "'=a", "key": "'@k", "ts_ms": "0", "time": "1970-01-01T00:00:00.000Z",
            "type": "double", "value": "42.0", "lat": "48.1", "lon": "-11.5",
        }  # fmt: skip
        assert [(row["type"], row["value"]) for row in rows[1:]] == [
            ("long", "73"), ("boolean", "true"), ("string", "open"), ("json", '{"a":[1]}'), ("string", "'=1+1"),
            ("string", "''quoted'"), ("string", "line\r\nbreak"), ("double", "-0.0"), ("string", ""),
            ("long", "9223372036854775807"), ("long", "1"),
        ]  # fmt: skip
        assert (rows[-1]["lat"], rows[-1]["time"]) == ("", "2001-09-09T01:46:40.000Z")

    async def test_ndjson(self, stack: FlowStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(point_streams, "PAGE", 3)
        a = await self.fill(stack)
        answer = await stack.flow.get(f"{T}/devices/{a.id}/points", headers={"Accept": "application/x-ndjson"})
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        values = [line["value"] for line in lines]
        assert values == [*self.VALUES, 1]
        assert [type(value) for value in values] == [type(value) for value in (*self.VALUES, 1)]
        assert lines[0] == {
            "device": a.id, "name": "=a", "key": "@k", "ts_ms": 0, "value": 42.0, "lat": 48.1, "lon": -11.5
        }  # fmt: skip
        assert "lat" not in lines[-1]

    async def test_which_form(self, stack: FlowStack) -> None:
        await stack.device("a")
        json_, csv_, ndjson = "application/json", "text/csv; charset=utf-8; header=present", "application/x-ndjson"
        for accept, format, media in (
            ("*/*", "", json_), ("text/html", "", json_), ("text/csv", "", csv_), ("text/*", "", csv_),
            ("application/json;q=0.5, text/csv", "", csv_), ("text/csv", "ndjson", ndjson), ("", "csv", csv_),
        ):  # fmt: skip
            answer = await stack.flow.get(
                f"{P}?device=a&format={format}".removesuffix("&format="), headers={"Accept": accept}
            )
            assert answer.headers["content-type"] == media, (accept, format)
        assert findings(await stack.get(f"{P}?device=a&format=xml", 400))[0][0] == "?format"

    async def test_some_of_a_range(self, stack: FlowStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(point_streams, "PAGE", 3)
        [a] = await devices(stack, "a")
        await stack.store.write([Point(TENANT, a.id, "t", ts, ts) for ts in range(10)])
        for limit in (2, 3, 7, 50):
            answer = await stack.flow.get(f"{P}?device=a&format=ndjson&order=desc&limit={limit}")
            seen = [json.loads(line)["ts_ms"] for line in answer.text.splitlines()]
            assert seen == list(range(9, max(-1, 9 - limit), -1))

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_a_stream_has_the_order_of_the_pages(
        self, stack: FlowStack, monkeypatch: pytest.MonkeyPatch, order: str
    ) -> None:
        monkeypatch.setattr(point_streams, "PAGE", 7)
        monkeypatch.setattr(point_streams, "SOME", 5)
        names = [f"d{n}" for n in range(12)]
        for n, device in enumerate(await devices(stack, *names)):
            await stack.store.write(
                [Point(TENANT, device.id, key, ts, n) for key in "ab" for ts in range(n, 40, n % 4 + 1)]
            )
        query = "&".join(f"device={name}" for name in names) + f"&order={order}&start_ms=3&end_ms=37"
        pages = (await stack.get(f"{P}?{query}&limit=10000"))["points"]
        answer = await stack.flow.get(f"{P}?{query}&format=ndjson")
        lines = [json.loads(line) for line in answer.text.splitlines()]
        wanted = [(one["ts_ms"], one["device"], one["key"]) for one in pages]
        assert [(one["ts_ms"], one["device"], one["key"]) for one in lines] == wanted
        some = await stack.get(f"{P}?{query}&limit=100")
        answer = await stack.flow.get(f"{P}?{query}&format=ndjson&limit=20&cursor={some['cursor']}")
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert [(one["ts_ms"], one["device"], one["key"]) for one in lines] == wanted[100:120]
        assert findings(await stack.get(f"{P}?{query}&format=csv&cursor=x", 400))[0][0] == "?cursor"

    async def test_what_is_wrong_at_once_has_a_status(self, stack: FlowStack) -> None:
        await stack.device("a")
        stack.parts.store = Breaking(0)
        await stack.parts.store.open()
        answer = await stack.flow.get(f"{P}?device=a&format=csv")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
        assert answer.json()["detail"] == "the store is away"

    @pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "http2"])
    async def test_a_stream_that_breaks_is_cut(
        self, stack: FlowStack, monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(point_streams, "PAGE", 3)
        stack.parts.store = Breaking(2)
        await stack.parts.store.open()
        [a] = await devices(stack, "a")
        await stack.parts.store.write([Point(TENANT, a.id, "t", ts, ts) for ts in range(10)])
        if server == "http2":
            base = await stack.listen("https", server="hypercorn", tls=Tls(*certificate(tmp_path)))
            client = await stack.client(base, headers=dict(stack.flow.headers), http2=True, verify=False)
        else:
            base = await stack.listen("http", server="uvicorn" if server == "uvicorn" else "hypercorn")
            client = await stack.client(base, headers=dict(stack.flow.headers))
        seen: list[int] = []

        async def read() -> None:
            async with client.stream("GET", f"{P}?device=a&format=ndjson") as answer:
                async for line in answer.aiter_lines():
                    seen.append(json.loads(line)["ts_ms"])  # noqa: PERF401 (what came before the end counts)

        with pytest.raises(httpx.RemoteProtocolError):
            await read()
        # A reset of HTTP/2 may overtake what was on its way.
        assert seen == list(range(6 if server != "http2" else len(seen)))
        assert "the answer was cut: StoreUnavailable: the store is away" in caplog.text
        assert not any(record.exc_info for record in caplog.records)
        # The server goes on.
        assert (await client.get(f"{P}/latest?device=a")).status_code == 200

    async def test_a_reader_that_stands_still_stops_nobody(self, stack: FlowStack) -> None:
        [a] = await devices(stack, "a")
        await stack.store.write([Point(TENANT, a.id, "t", ts, "x" * 1000) for ts in range(20_000)])
        async with stack.flow.stream("GET", f"{P}?device=a&format=ndjson") as answer:
            await anext(answer.aiter_raw())
            for n in range(3):
                await stack.post(f"{T}/messages?sync=true", {"device": "a", "data": {"n": n}})
            await stack.idle()
            assert (await stack.get(f"{P}/latest?device=a&key=n"))["points"][0]["value"] == 2


class TestAggregates:
    A = f"{P}/aggregates"

    async def fill(self, stack: FlowStack) -> None:
        a, b = await devices(stack, "a", "b")
        await stack.store.write(
            [Point(TENANT, one.id, "t", hour * HOUR + minute * 60_000, hour + minute / 60)
             for one in (a, b) for hour in (0, 1, 3) for minute in (0, 30)]
        )  # fmt: skip

    async def test_windows_of_several_devices(self, stack: FlowStack) -> None:
        await self.fill(stack)
        where = f"{self.A}?device=a&device=b&key=t&start_ms=0&end_ms={4 * HOUR}&window=1h"
        found = await stack.get(f"{where}&function=mean&function=count&function=p95")
        assert sorted(found["devices"].values()) == ["a", "b"]
        assert {found["devices"][one["device"]] for one in found["series"]} == {"a", "b"}
        for one in found["series"]:
            assert one["key"] == "t"
            assert one["windows"] == [
                {
                    "start_ms": h * HOUR,
                    "end_ms": (h + 1) * HOUR,
                    "values": {"mean": h + 0.25, "count": 2, "p95": h + 0.5},
                }
                for h in (0, 1, 3)
            ]
        filled = await stack.get(f"{where}&function=mean&fill=linear")
        assert [one["values"]["mean"] for one in filled["series"][0]["windows"]] == [0.25, 1.25, 2.25, 3.25]
        null = await stack.get(f"{where}&function=mean&fill=null")
        assert [one["values"]["mean"] for one in null["series"][0]["windows"]] == [0.25, 1.25, None, 3.25]

    async def test_days_of_a_zone_and_times_on_its_clock(self, stack: FlowStack) -> None:
        [a] = await devices(stack, "a")
        await stack.store.write([Point(TENANT, a.id, "t", 1774738800000 + h * HOUR, 1) for h in range(48)])
        query = "key=t&function=sum&window=1d&zone=Europe/Berlin&start_ms=2026-03-29&end_ms=2026-03-31"
        found = await stack.get(f"{T}/devices/a/points/aggregates?{query}")
        # Summer time begins: the first day has 23 hours.
        assert [one["values"]["sum"] for one in found["series"][0]["windows"]] == [23, 24]
        answer = await stack.flow.get(f"{T}/devices/a/points/aggregates?{query}&format=csv")
        assert answer.text.splitlines()[1] == f"{a.id},a,t,1774738800000,1774821600000,2026-03-29T00:00:00.000+01:00,23"
        answer = await stack.flow.get(f"{T}/devices/a/points/aggregates?{query}&format=ndjson")
        assert json.loads(answer.text.splitlines()[1]) == {
            "device": a.id, "name": "a", "key": "t", "start_ms": 1774821600000, "end_ms": 1774908000000,
            "values": {"sum": 24},
        }  # fmt: skip

    async def test_the_whole_range_at_once(self, stack: FlowStack) -> None:
        await self.fill(stack)
        found = await stack.get(f"{self.A}?device=a&function=count&function=last")
        assert [one["values"] for one in found["series"][0]["windows"]] == [{"count": 6, "last": 3.5}]

    async def test_an_answer_in_many_pieces_is_one_document(self, stack: FlowStack) -> None:
        a, b = await devices(stack, "a", "b")
        await stack.store.write([Point(TENANT, one.id, "t", s * 1000, s) for one in (a, b) for s in range(1200)])
        found = await stack.get(f"{self.A}?device=a&device=b&function=first&window=1s&end_ms=1200000")
        assert [[one["values"]["first"] for one in series["windows"]] for series in found["series"]] == [
            list(range(1200))
        ] * 2

    @pytest.mark.parametrize(
        ("query", "place"),
        [
            ("function=median", "?function"), ("", "?function"), ("function=p101", "?function"),
            ("function=mean&window=1x", "?window"), ("function=mean&window=1s", "?window"),
            ("function=mean&window=1h&zone=Europe/Atlantis", "?zone"), ("function=mean&fill=zero", "?fill"),
            ("function=mean&device=nobody", "?device"), ("function=mean&start_ms=x", "?start_ms"),
            ("function=mean&window=1h&start_ms=-9000000000000000", "?window"),
        ],
    )  # fmt: skip
    async def test_what_does_not_hold_is_named(self, stack: FlowStack, query: str, place: str) -> None:
        await stack.device("a")
        status = 404 if "nobody" in query else 400
        assert findings(await stack.get(f"{self.A}?device=a&{query}", status))[0][0] == place

    async def test_how_much_there_may_be(self, stack: FlowStack) -> None:
        names = [f"d{n}" for n in range(10)]
        await devices(stack, *names)
        query = "&".join(f"device={name}" for name in names) + "&key=a&key=b&function=mean"
        problem = await stack.get(f"{self.A}?{query}&window=1s&end_ms=6000000", 400)
        assert "100000 windows at most" in problem["detail"]


class TestDelete:
    async def test_devices_keys_and_a_range(self, stack: FlowStack) -> None:
        a, b, c = await devices(stack, "a", "b", "c")
        await stack.store.write(
            [Point(TENANT, one.id, key, ts, ts) for one in (a, b, c) for key in ("t", "u") for ts in (1, 2, 3)]
        )
        await stack.delete(f"{P}?device=a&device=b&key=t&start_ms=2&end_ms=3")
        left = await stack.get(f"{P}?device=a&device=b&device=c&key=t")
        assert sorted(shown(left)) == sorted(
            [("a", "t", 1, 1), ("a", "t", 3, 3), ("b", "t", 1, 1), ("b", "t", 3, 3)]
            + [("c", "t", ts, ts) for ts in (1, 2, 3)]
        )
        await stack.delete(f"{T}/devices/a/points?start_ms=1970-01-01&end_ms=1971-01-01")
        assert {name for name, *_ in shown(await stack.get(f"{P}?device=a&device=b"))} == {"b"}

    async def test_nothing_goes_that_was_not_named(self, stack: FlowStack) -> None:
        [a] = await devices(stack, "a")
        await stack.store.write([Point(TENANT, a.id, "t", 1, 1)])
        for query in ("device=a", "device=a&start_ms=0", "device=a&end_ms=9", "start_ms=0&end_ms=9"):
            assert "is missing" in (await stack.delete(f"{P}?{query}", 400))["detail"]
        await stack.delete(f"{P}?device=a&device=b&start_ms=0&end_ms=9", 404)
        assert len((await stack.get(f"{P}?device=a"))["points"]) == 1

    async def test_a_store_that_cannot(self, stack: FlowStack) -> None:
        await stack.device("a")
        stack.parts.store = Keeping()
        await stack.parts.store.open()
        problem = await stack.delete(f"{P}?device=a&start_ms=0&end_ms=9", 501)
        assert problem["detail"] == "this store keeps everything"


class TestTail:
    async def send(self, stack: FlowStack, *names: str) -> asyncio.Task[None]:
        """Messages of these devices again and again: workers notice a new reader late."""

        async def feed() -> None:
            n = 0
            while True:
                n += 1
                for name in names:
                    await stack.post(f"{T}/messages", {"device": name, "data": {"t": n, "u": 1.5}}, 202)
                await asyncio.sleep(0.05)

        return asyncio.create_task(feed())

    @pytest.mark.parametrize(
        ("query", "expected"),
        [("device=boiler-*", {("boiler-1", "t"), ("boiler-1", "u"), ("boiler-2", "t"), ("boiler-2", "u")}),
         ("device=pump&key=t", {("pump", "t")}),
         ("key=u", {("boiler-1", "u"), ("boiler-2", "u"), ("pump", "u")})],
    )  # fmt: skip
    async def test_points_of_some_devices(self, stack: FlowStack, query: str, expected: set[tuple[str, str]]) -> None:
        names = ("boiler-1", "pump", "boiler-2")
        ids = {device.id for device in await devices(stack, *names)}
        async with stack.flow.stream("GET", f"{P}/tail?{query}") as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            lines = answer.aiter_lines()
            assert json.loads(await anext(lines)) == {"watching": TENANT}
            feeding = await self.send(stack, *names)
            seen = set()
            for _ in range(3 * len(expected)):
                point = json.loads(await anext(lines))
                assert point["device"] in ids
                assert type(point["value"]) is (int if point["key"] == "t" else float)
                seen.add((point["name"], point["key"]))
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        assert seen == expected
        await until(lambda: not stack.parts.point_tail.watchers.viewers)
        assert not stack.parts.point_tail.watchers.subscribed

    async def test_what_came_too_fast_is_counted(self, stack: FlowStack) -> None:
        hub = stack.parts.point_tail
        lines = await hub.watch(TENANT)
        assert await stack.redis.hkeys(POINTS_WATCHED_KEY) == [TENANT.encode()]
        points = [Point(TENANT, "d", "k", ts, ts) for ts in range(500)]
        for _ in range(QUEUED_MOST // 500 + 2):
            await stack.redis.publish(POINTS_CHANNEL, encode(NewPoints(TENANT, points, 1)))
        await stack.redis.publish(POINTS_CHANNEL, encode(NewPoints("other", points, 5)))
        viewer = next(iter(hub.watchers.viewers))
        await until(lambda: viewer._missed == 1000 + QUEUED_MOST // 500 + 2)
        assert json.loads(await anext(lines)) == {"watching": TENANT}
        *shown, gap = (await anext(lines)).splitlines()
        assert len(shown) == QUEUED_MOST
        assert json.loads(gap) == {"gap": "1022 points came too fast to be shown"}
        await hub.stop()
        assert json.loads(await anext(lines)) == {"cut": "the server stops"}
        await lines.aclose()

    async def test_a_reader_that_never_came_is_forgotten(
        self, stack: FlowStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "UNREAD_S", 0.1)
        monkeypatch.setattr(watching, "RENEW_EVERY_S", 0.05)
        for hub in (stack.parts.point_tail, stack.parts.tail):
            lines = await hub.watch(TENANT)
            await until(lambda hub=hub: not hub.watchers.subscribed)
            assert [json.loads(line) async for line in lines][-1] == {"cut": "nothing was read for 0.1 s"}
            await (await hub.watch(TENANT)).aclose()
            assert hub.watchers.subscribed

    async def test_a_device_that_there_is_not(self, stack: FlowStack) -> None:
        problem = await stack.get(f"{P}/tail?device=nobody&device=any*", 404)
        assert findings(problem) == [("?device", "no device 'nobody'")]
