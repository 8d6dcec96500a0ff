"""What operators read and set of devices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from api.dialects.thingsboard import series
from api.dialects.thingsboard.operator_telemetry import OperatorTelemetry
from api.server_messages import ServerMessages
from api.transports.http import Route
from engine.errors import StoreUnavailable
from engine.message import Point, now_ms
from engine.stores.registry import Device
from tests.api.dialects.thingsboard.operator_site import OTHER, OperatorSite
from tests.api.dialects.thingsboard.test_http_polls import polling
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio


class TelemetrySite(OperatorSite):
    """With what operators read and set."""

    def routes(self) -> list[Route]:
        messages = ServerMessages(self.ingress, self.intake.stamp, "tb")
        return [*OperatorTelemetry(self.access, messages, self.attributes, self.store).routes]

    @property
    def base(self) -> str:
        return f"/api/plugins/telemetry/DEVICE/{self.d1.id}"

    async def read(self, path: str, status: int = 200) -> Any:
        answer = await self.admin.get(f"{self.base}/{path}")
        assert answer.status_code == status, answer.text
        return answer.json()

    async def write(self, *points: tuple[str, int, Any]) -> None:
        await self.store.write([Point(TENANT, self.d1.id, *point) for point in points])


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[TelemetrySite]:
    async with TelemetrySite(redis_url) as made:
        yield made


@pytest.mark.spec("TB-X5", "TB-4")
async def test_the_latest_values_are_texts_unless_types_are_asked_for(site: TelemetrySite) -> None:
    values = {"text": "a", "flag": True, "double": 42.0, "long": 73, "json": {"a": [1, 2.0]}}
    await site.post("telemetry", json.dumps({"ts": 1000, "values": values}))
    await site.idle()
    assert await site.read("values/timeseries") == {
        "text": [{"ts": 1000, "value": "a"}], "flag": [{"ts": 1000, "value": "true"}],
        "double": [{"ts": 1000, "value": "42.0"}], "long": [{"ts": 1000, "value": "73"}],
        "json": [{"ts": 1000, "value": '{"a":[1,2.0]}'}],
    }  # fmt: skip
    typed = await site.read("values/timeseries?useStrictDataTypes=true")
    assert {key: points[0]["value"] for key, points in typed.items()} == values
    assert sorted(await site.read("keys/timeseries")) == sorted(values)


@pytest.mark.spec("TB-X5")
async def test_keys_that_have_no_value_are_told_as_nothing(site: TelemetrySite) -> None:
    await site.write(("a", 5, 1))
    shown = await site.read("values/timeseries?keys=a,b")
    assert shown["a"] == [{"ts": 5, "value": "1"}]
    [nothing] = shown["b"]
    assert nothing["value"] is None
    assert abs(nothing["ts"] - now_ms()) < 60_000
    assert await site.read("values/timeseries?keys=") == {"a": [{"ts": 5, "value": "1"}]}


@pytest.mark.spec("TB-X5")
async def test_a_range_has_a_limit_for_each_key_and_the_newest_first(site: TelemetrySite) -> None:
    await site.write(*[(key, ts, ts) for key in ("a", "b") for ts in range(10)])

    async def values(query: str) -> dict[str, list[int]]:
        shown = await site.read(f"values/timeseries?useStrictDataTypes=true&{query}")
        return {key: [point["value"] for point in points] for key, points in shown.items()}

    whole = "startTs=2&endTs=8"
    assert await values(f"keys=a,b&{whole}&limit=2") == {"a": [7, 6], "b": [7, 6]}
    assert await values(f"keys=a,a&{whole}&limit=3&orderBy=ASC") == {"a": [2, 3, 4]}
    assert await values(f"keys=a,c&{whole}&agg=NONE&interval=2") == {"a": [7, 6, 5, 4, 3, 2]}
    assert await values("keys=a&startTs=5&endTs=5") == {}
    history = await site.read(f"values/timeseries/history?keys=a&{whole}&limit=1")
    assert history == {"a": [{"ts": 7, "value": "7"}]}
    for query in (whole, "keys=a", "keys=a&startTs=1", "keys=a&startTs=9&endTs=2"):
        await site.read(f"values/timeseries/history?{query}", 400)


@pytest.mark.spec("TB-X5")
async def test_keys_may_be_named_one_at_a_time_and_then_have_commas(site: TelemetrySite) -> None:
    await site.write(("a,b", 5, 1), ("a", 5, 2), ("c", 5, 3))
    shown = await site.read("values/timeseries?key=a%2Cb&keys=a&key=&useStrictDataTypes=true")
    assert {key: points[0]["value"] for key, points in shown.items()} == {"a": 2, "a,b": 1}
    await site.admin.post(f"{site.base}/SERVER_SCOPE", json={"x,y": 1, "x": 2, "z": 3})
    assert [each["key"] for each in await site.read("values/attributes/SERVER_SCOPE?key=x,y")] == ["x,y"]
    assert (await site.admin.delete(f"{site.base}/SERVER_SCOPE?key=x,y&key=z")).status_code == 200
    assert await site.read("keys/attributes/SERVER_SCOPE") == ["x"]


async def test_a_range_may_be_longer_than_a_page(site: TelemetrySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "A_PAGE", 3)
    await site.write(*[("a", ts, ts) for ts in range(10)])
    shown = await site.read("values/timeseries?keys=a&startTs=0&endTs=100&limit=8&orderBy=ASC")
    assert [point["ts"] for point in shown["a"]] == list(range(8))


@pytest.mark.spec("TB-X5")
@pytest.mark.parametrize(
    ("function", "values"),
    [
        ("COUNT", [(1050, 3), (1150, 2), (1325, 1)]), ("MIN", [(1050, 1), (1150, 4.5), (1325, 9)]),
        ("MAX", [(1050, 3), (1150, 4.5), (1325, 9)]), ("SUM", [(1050, 6), (1150, 4.5), (1325, 9)]),
        ("AVG", [(1050, 2.0), (1150, 4.5), (1325, 9.0)]),
    ],
)  # fmt: skip
async def test_intervals_are_counted_from_the_start_and_told_by_their_middle(
    site: TelemetrySite, function: str, values: list[tuple[int, Any]]
) -> None:
    await site.write(
        ("a", 999, 100), ("a", 1000, 1), ("a", 1050, 3), ("a", 1099, 2), ("a", 1100, 4.5), ("a", 1150, "text"),
        ("a", 1300, 9), ("a", 1350, 100),
    )  # fmt: skip
    query = f"keys=a&startTs=1000&endTs=1350&interval=100&agg={function}&useStrictDataTypes=true"
    shown = await site.read(f"values/timeseries?{query}")
    assert [(point["ts"], point["value"]) for point in shown["a"]] == values


@pytest.mark.spec("TB-X5")
@pytest.mark.parametrize(
    "query",
    [
        "startTs=x&endTs=5", "startTs=0&endTs=", "startTs=5&endTs=0", "startTs=0&endTs=5&limit=0",
        "startTs=0&endTs=5&limit=x", "startTs=0&endTs=5&limit=100001", "startTs=0&endTs=5&orderBy=UP",
        "startTs=0&endTs=5&agg=MEDIAN", "startTs=0&endTs=5&interval=-1", "startTs=0&endTs=5&interval=1.5",
        "startTs=0&endTs=99999&interval=1&agg=MIN", "startTs=0&endTs=5&intervalType=WEEK",
        f"startTs=0&endTs={'9' * 30}",
    ],
)  # fmt: skip
async def test_a_question_that_cannot_be_read_is_400(site: TelemetrySite, query: str) -> None:
    assert (await site.read(f"values/timeseries?keys=a&{query}", 400))["errorCode"] == 31


async def test_limits_of_what_is_read_at_once(site: TelemetrySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MOST_AGGREGATED", 3)
    monkeypatch.setattr(series, "MANY", 1)
    await site.write(*[("a", ts, ts) for ts in range(4)])
    asked = "values/timeseries?keys=a&startTs=0&interval=10&agg=SUM&endTs="
    assert (await site.read(asked + "3"))["a"] == [{"ts": 1, "value": "3"}]
    assert "more than 3 points" in (await site.read(asked + "4", 400))["message"]
    many = ",".join(f"k{n}" for n in range(501))
    assert "more than 500 keys" in (await site.read(f"values/timeseries?keys={many}", 400))["message"]


async def test_a_store_that_is_away_is_503(site: TelemetrySite, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> Any:
        raise StoreUnavailable("the store is away", 5)

    monkeypatch.setattr(site.store, "latest", away)
    answer = await site.admin.get(f"{site.base}/values/timeseries")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


@pytest.mark.spec("TB-X5", "TB-30", "TB-34")
@pytest.mark.parametrize(
    "path", ["DEVICE/{id}/SHARED_SCOPE", "DEVICE/{id}/attributes/SHARED_SCOPE", "{id}/SHARED_SCOPE"]
)
async def test_shared_attributes_wake_the_device(site: TelemetrySite, path: str) -> None:
    [poll] = await polling(site, "attributes/updates?timeout=8000")
    where = "/api/plugins/telemetry/" + path.replace("{id}", site.d1.id)
    saved = await site.admin.post(where, json={"target": 21.0, "on": True, "gone": None})
    assert (saved.status_code, saved.content) == (200, b"")
    assert (await poll).json() == {"target": 21.0, "on": True}


@pytest.mark.spec("TB-X5", "TB-S12")
async def test_attributes_are_read_by_scope_and_key(site: TelemetrySite) -> None:
    await site.admin.post(f"{site.base}/SERVER_SCOPE", json={"limit": 5, "both": 1})
    await site.admin.post(f"{site.base}/SHARED_SCOPE", json={"target": [1], "both": 2})
    await site.post("attributes", '{"own": "x"}')
    await site.idle()

    async def read(path: str) -> list[tuple[str, Any]]:
        return sorted((each["key"], each["value"]) for each in await site.read(path))

    assert await read("values/attributes") == [("both", 1), ("both", 2), ("limit", 5), ("own", "x"), ("target", [1])]
    assert await read("values/attributes/SERVER_SCOPE") == [("both", 1), ("limit", 5)]
    assert await read("values/attributes?keys=both,own") == [("both", 1), ("both", 2), ("own", "x")]
    assert await read("values/attributes/CLIENT_SCOPE?keys=none") == []
    [limit] = await site.read("values/attributes/SERVER_SCOPE?keys=limit")
    assert abs(limit["lastUpdateTs"] - now_ms()) < 60_000
    assert await site.read("keys/attributes") == ["both", "limit", "own", "target"]
    assert await site.read("keys/attributes/CLIENT_SCOPE") == ["own"]
    # What is the server's own is not the device's to see.
    assert (await site.get("attributes")).json() == {"client": {"own": "x"}, "shared": {"target": [1], "both": 2}}


@pytest.mark.spec("TB-X5", "TB-34")
async def test_attributes_are_deleted_and_the_device_is_told(site: TelemetrySite) -> None:
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"a": 1, "b": 2})
    await site.attributes.write(TENANT, site.d1.id, "CLIENT", {"own": 1})
    [poll] = await polling(site, "attributes/updates?timeout=8000")
    assert (await site.admin.delete(f"{site.base}/SHARED_SCOPE?keys=a")).status_code == 200
    assert (await poll).json() == {"deleted": ["a"]}
    for path in (f"{site.base}/CLIENT_SCOPE", f"/api/plugins/telemetry/{site.d1.id}/SHARED_SCOPE"):
        assert (await site.admin.delete(f"{path}?keys=own,b")).status_code == 200
    assert await site.read("values/attributes") == []
    assert (await site.admin.delete(f"{site.base}/SHARED_SCOPE")).status_code == 400


@pytest.mark.spec("TB-X5", "TB-S5", "TB-S10")
@pytest.mark.parametrize(
    ("scope", "body"),
    [
        ("CLIENT_SCOPE", {"a": 1}), ("OTHER_SCOPE", {"a": 1}), ("SHARED", {"a": 1}), ("SHARED_SCOPE", []),
        ("SHARED_SCOPE", {}), ("SHARED_SCOPE", {"a": None}), ("SHARED_SCOPE", {"": 1}), ("SHARED_SCOPE", {" ": 1}),
        ("SHARED_SCOPE", {"x" * 256: 1}), ("SHARED_SCOPE", 5), ("SHARED_SCOPE", {"a": 2**64}),
    ],
)  # fmt: skip
async def test_attributes_that_will_not_do_are_400_and_nothing_is_set(
    site: TelemetrySite, scope: str, body: Any
) -> None:
    answer = await site.admin.post(f"{site.base}/{scope}", json=body)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, 31), answer.text
    assert await site.read("values/attributes") == []


@pytest.mark.spec("G-18", "TB-X5")
async def test_the_chain_is_told_of_what_an_operator_sets(redis_url: str) -> None:
    async with TelemetrySite(redis_url, work=False) as site:
        await site.admin.post(f"{site.base}/SERVER_SCOPE", json={"limit": 5})
        await site.admin.delete(f"{site.base}/SERVER_SCOPE?keys=limit")
        await site.admin.delete(f"{site.base}/SERVER_SCOPE?keys=limit")
        told = [(each.type, each.data, each.metadata["scope"]) for each in await site.messages()]
        assert told == [
            ("ATTRIBUTES_UPDATED", {"limit": 5}, "SERVER_SCOPE"),
            ("ATTRIBUTES_DELETED", {"attributes": ["limit"]}, "SERVER_SCOPE"),
        ]
        site.ingress.closed_reason = "spool full"
        assert (await site.admin.post(f"{site.base}/SERVER_SCOPE", json={"limit": 5})).status_code == 503
        assert await site.read("values/attributes") == []


@pytest.mark.spec("TB-X5")
async def test_nothing_of_another_tenants_device_is_told_or_set(site: TelemetrySite) -> None:
    theirs = await site.registry.put_device(Device(id="", tenant=OTHER, name="theirs"))
    await site.attributes.write(OTHER, theirs.id, "SHARED", {"secret": 1})
    _, customer = await site.customer("bob")
    paths = ("values/timeseries", "keys/timeseries", "values/attributes", "keys/attributes/SHARED_SCOPE")
    callers = ((site.admin, theirs.id, 404), (customer, site.d1.id, 403), (site.http, site.d1.id, 401))
    for client, device, status in callers:
        base = f"/api/plugins/telemetry/DEVICE/{device}"
        asked = [client.get(f"{base}/{path}") for path in paths]
        asked.append(client.post(f"{base}/SHARED_SCOPE", json={"a": 1}))
        asked.append(client.delete(f"{base}/SHARED_SCOPE?keys=secret"))
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {status}
    assert "secret" in (await site.attributes.read(OTHER, theirs.id))["SHARED"]
