"""The InfluxDB store against a real server: Debian's, or the one that RULEMILL_TEST_INFLUX_URL names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import PointsRefused, StoreUnavailable, Unfit
from engine.message import Point, now_ms
from engine.stores.influx import InfluxTimeseries
from engine.stores.influx_access import Access
from engine.stores.memory import MemoryTimeseries
from engine.stores.values import INT64_MAX, INT64_MIN, MAX_TS_MS
from engine.stores.windows import Window
from tests.certificates import certificate
from tests.services import (
    Influx,
    drop_influx_bucket,
    free_port,
    influx_bucket,
    running_influx,
    shared_influx,
    start_influx,
)

T, D = "acme", "dev 1"


@contextmanager
def own_server(folder: Path, *settings: str) -> Iterator[Influx]:
    """A server with such settings, which only Debian's can have."""
    folder.mkdir(exist_ok=True)
    with running_influx(folder, *settings) as made:
        yield made


def store_of(server: Influx, **more: Any) -> InfluxTimeseries:
    options = {"token": server.token, "org": server.org, "bucket": server.bucket} | more
    return InfluxTimeseries(server.url, **options)


@asynccontextmanager
async def opened(server: Influx, **more: Any) -> AsyncIterator[InfluxTimeseries]:
    store = store_of(server, **more)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def ask(server: Influx, statement: str, auth: tuple[str, str] | None = None) -> Any:
    """A statement as an administrator runs it."""
    answer = httpx.post(f"{server.url}/query", data={"q": statement, "db": server.bucket}, auth=auth, timeout=30)
    assert answer.status_code == 200, answer.text
    assert "error" not in answer.text, answer.text
    return answer.json()["results"][0].get("series", [])


@pytest.fixture
def server() -> Iterator[Influx]:
    with influx_bucket(shared_influx()) as own:
        yield own


@pytest.fixture
def debian() -> Iterator[Influx]:
    """Where a test looks at what only InfluxDB 1 has."""
    shared = shared_influx()
    if httpx.get(f"{shared.url}/ping").headers["X-Influxdb-Version"].lstrip("v").startswith(("2", "3")):
        pytest.skip("about InfluxDB 1")
    with influx_bucket(shared) as own:
        yield own


@pytest_asyncio.fixture
async def store(server: Influx) -> AsyncIterator[InfluxTimeseries]:
    async with opened(server) as made:
        yield made


# Names and values


texts = st.text(max_size=20) | st.text(alphabet="\\\",= \n\r\0'{}%é🌡", max_size=10)
names = st.text(min_size=1, max_size=12) | st.text(alphabet="\\,= \n\r\0'\"%25é", min_size=1, max_size=8)
doubles = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(INT64_MIN, INT64_MAX) | doubles | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
values = (
    st.integers(INT64_MIN, INT64_MAX)
    | doubles
    | st.sampled_from([-0.0, 5e-324, 1e20, 1e21, 1e-7, 2.0**63, INT64_MIN, INT64_MAX])
    | st.booleans()
    | texts
    | json_values.filter(lambda value: isinstance(value, list | dict))
)
# A week is a file of its own in InfluxDB: times are few, and extreme.
times = st.integers(0, 10) | st.sampled_from([-MAX_TS_MS, -1, MAX_TS_MS])
places = st.none() | doubles
points = st.builds(Point, names, names, names, times, values, places, places)


@pytest.mark.spec("G-16")
def test_every_name_and_value_comes_back_as_it_was(server: Influx) -> None:
    with asyncio.Runner() as runner:
        store = store_of(server)
        runner.run(store.open())

        async def there_and_back(written: list[Point]) -> None:
            wanted = {(point.tenant, point.device, point.key, point.ts_ms): point for point in written}
            await store.write(written)
            for tenant in {point.tenant for point in written}:
                mine = [point for point in wanted.values() if point.tenant == tenant]
                devices = sorted({point.device for point in mine})
                page = await store.range(tenant, devices, None, -MAX_TS_MS, MAX_TS_MS + 1, limit=1000)
                ordered = sorted(mine, key=lambda point: (point.ts_ms, point.device, point.key))
                # By repr: it tells 1 from 1.0, and 0.0 from -0.0.
                assert repr(page.points) == repr(ordered)
                for device in devices:
                    await store.delete_device(tenant, device)

        @settings(max_examples=80, deadline=None)
        @given(st.lists(points, min_size=1, max_size=12))
        def agree(written: list[Point]) -> None:
            runner.run(there_and_back(written))

        try:
            agree()
        finally:
            runner.run(store.close())


@pytest.mark.asyncio
@pytest.mark.spec("G-16")
async def test_a_point_sent_again_without_its_place_has_none(store: InfluxTimeseries) -> None:
    for point in (
        Point(T, D, "k", 1, 1, 52.5, 13.4),
        Point(T, D, "k", 1, 2.5),
        Point(T, D, "k", 1, "x", 52.5),
        Point(T, D, "k", 1, "y", None, 13.4),
        Point(T, D, "k", 1, True),
    ):
        await store.write([point])
        assert await store.latest(T, [D]) == [point]


@pytest.mark.asyncio
async def test_doubles_as_influxdb_writes_them(store: InfluxTimeseries) -> None:
    numbers = [-0.0, 0.0, 1e20, 123456789012345680000.0, 1e21, 1e-6, 1e-7, 2.0**53, 2.0**64, -5e-324]
    await store.write([Point(T, D, "k", i, number) for i, number in enumerate(numbers)])
    found = [point.value for point in (await store.range(T, [D], None, 0, 100)).points]
    assert repr(found) == repr(numbers)
    [bucket] = await store.aggregate(T, [D], None, 0, 1, ["first", "last", "min"])
    assert repr(bucket.values) == "{'first': -0.0, 'last': -0.0, 'min': 0.0}"


@pytest.mark.asyncio
async def test_windows_that_are_counted_again_are_in_order(store: InfluxTimeseries) -> None:
    # Months, so that no two windows are asked for together; types sent before, so that they are looked at closely.
    months = [round(datetime(2026, month, 1, tzinfo=UTC).timestamp() * 1000) for month in range(1, 6)]
    jan, feb, mar, apr, may = months
    await store.write([Point(T, D, "k", jan, True), Point(T, D, "k", feb, 2), Point(T, D, "k", apr, 7)])
    await store.write([Point(T, D, "k", jan, "x"), Point(T, D, "k", feb, 1.5), Point(T, D, "k", mar, 4)])
    functions = ["min", "sum", "p50", "first", "last", "count"]
    found = await store.aggregate(T, [D], None, jan, may, functions, Window("1mo"))
    assert [list(bucket.values.values()) for bucket in found] == [
        [None, None, None, "x", "x", 1],
        [1.5, 1.5, 1.5, 1.5, 1.5, 1],
        [4, 4, 4, 4, 4, 1],
        [7, 7, 7, 7, 7, 1],
    ]
    least = await store.aggregate(T, [D], None, jan, may, ["min"], Window("1mo"))
    assert [bucket.values["min"] for bucket in least] == [None, 1.5, 4, 7]


@pytest.mark.asyncio
async def test_percentiles_of_many_regular_windows(store: InfluxTimeseries) -> None:
    # Enough points that InfluxDB counts them, in windows of two sizes.
    points = [Point(T, D, "k", i * 100, float(i * 7919 % 1000)) for i in range(3000) if i < 2000 or i % 2]
    await store.write(points)
    model = MemoryTimeseries()
    await model.open()
    await model.write(points)
    for functions in (["p0", "p50", "p99.9"], ["p33.333", "p100", "mean"]):
        how = (T, [D], ["k"], 0, 300_000, functions, Window("30s"))
        assert repr(await store.aggregate(*how)) == repr(await model.aggregate(*how))


@pytest.mark.asyncio
async def test_points_of_others_are_read_as_far_as_they_can_be(debian: Influx) -> None:
    async with opened(debian) as store:
        lines = [
            "ts_kv,device=d,key=a,tenant=acme d=1.5 1000000",
            'ts_kv,device=d,key=b,tenant=acme t="l",s="x" 1000000',
            'ts_kv,device=d,key=c,tenant=acme j="{" 1000000',
            'ts_kv,device=d,key=d,tenant=acme t="q" 1000000',
            "ts_kv,device=d,key=e,tenant=acme other=1 1000000",
        ]
        httpx.post(f"{debian.url}/write", params={"db": debian.bucket}, content="\n".join(lines)).raise_for_status()
        assert await store.latest(T, ["d"]) == [Point(T, "d", "a", 1, 1.5), Point(T, "d", "b", 1, "x")]
        assert len((await store.range(T, ["d"], None, 0, 10, limit=1)).points) == 1


# What a server lacks


@pytest.mark.asyncio
async def test_what_is_missing_is_made_and_made_again(server: Influx) -> None:
    async with opened(server) as store:
        await store.write([Point(T, D, "k", 1, 1)])
        async with opened(server) as other:
            assert await other.latest(T, [D]) == [Point(T, D, "k", 1, 1)]
        drop_influx_bucket(server)
        await store.write([Point(T, D, "k", 2, 2)])
        assert await store.latest(T, [D]) == [Point(T, D, "k", 2, 2)]
        drop_influx_bucket(server)
        assert await store.latest(T, [D]) == []


@pytest.mark.asyncio
async def test_a_retention_policy_of_that_name_is_made_and_used(debian: Influx) -> None:
    async with opened(debian, bucket=f"{debian.bucket}/long") as store:
        await store.write([Point(T, D, "k", 1, 1)])
        assert await store.latest(T, [D]) == [Point(T, D, "k", 1, 1)]
        assert [row[:3] for row in ask(debian, f'SHOW RETENTION POLICIES ON "{debian.bucket}"')[0]["values"]] == [
            ["autogen", "0s", "2184h0m0s"], ["long", "0s", "2184h0m0s"],
        ]  # fmt: skip
        assert not any("ALTER" in told for told in store.told())
        assert ask(debian, f'SELECT count(l) FROM "{debian.bucket}".autogen.ts_kv') == []
        await store.delete_device(T, D)
        assert await store.latest(T, [D]) == []


@pytest.mark.asyncio
async def test_what_is_older_than_the_retention_is_told_and_refused(debian: Influx) -> None:
    ask(debian, f'CREATE DATABASE "{debian.bucket}" WITH DURATION 2h')
    async with opened(debian) as store:
        assert any("kept for 2h0m0s only" in told for told in store.told())
        now = now_ms()
        points = [Point(T, D, "k", now, 1), Point(T, D, "k", 1, 2), Point(T, D, "k", now + 1, 3)]
        with pytest.raises(PointsRefused) as caught:
            await store.write(points)
        [(index, reason)] = caught.value.refused
        assert index == 1
        assert "retention policy" in reason
        assert [point.value for point in (await store.range(T, [D], None, 0, MAX_TS_MS)).points] == [1, 3]


@pytest.mark.asyncio
async def test_rights_that_are_missing_are_named_with_the_command_that_gives_them(tmp_path: Path) -> None:
    with own_server(tmp_path, "http.auth-enabled = true") as server:
        root = ("root", "r00t")
        httpx.post(
            f"{server.url}/query", data={"q": "CREATE USER root WITH PASSWORD 'r00t' WITH ALL PRIVILEGES"}
        ).raise_for_status()
        for name in ("joe", "reads", "writes"):
            ask(server, f"CREATE USER {name} WITH PASSWORD 'p:@/w'", root)
        joe = {"username": "joe", "password": "p:@/w"}
        with pytest.raises(Unfit, match='let an administrator run: CREATE DATABASE "rulemill" WITH DURATION INF'):
            await store_of(server, **joe).open()
        with pytest.raises(Unfit, match=r"refuses the credentials or the right \(401\)"):
            await store_of(server).open()
        with pytest.raises(Unfit, match="refuses the credentials"):
            await store_of(server, username="joe", password="wrong").open()
        ask(server, "CREATE DATABASE rulemill", root)
        ask(
            server,
            "GRANT READ ON rulemill TO reads; GRANT WRITE ON rulemill TO writes; GRANT ALL ON rulemill TO joe",
            root,
        )
        for name in ("reads", "writes"):
            with pytest.raises(Unfit, match=f'GRANT ALL ON "rulemill" TO "{name}"'):
                await store_of(server, **joe | {"username": name}).open()
        in_the_url = server._replace(url=server.url.replace("://", "://joe:p%3A%40%2Fw@"))
        for made in (store_of(server, **joe), store_of(in_the_url), store_of(server, token="joe:p:@/w")):
            await made.open()
            shards, limits = made.told()
            assert 'ALTER RETENTION POLICY "autogen" ON "rulemill" SHARD DURATION 91d' in shards
            assert "may not read the server's limits" in limits
            await made.write([Point(T, D, "k", 1, 1)])
            assert await made.latest(T, [D]) == [Point(T, D, "k", 1, 1)]
            await made.close()
        async with opened(server, **joe) as store:
            ask(server, "REVOKE ALL ON rulemill FROM joe", root)
            with pytest.raises(StoreUnavailable, match=r"refuses the credentials or the right \(403\)") as caught:
                await store.write([Point(T, D, "k", 2, 2)])
            assert "p:@/w" not in caught.value.reason
            with pytest.raises(StoreUnavailable, match="403"):
                await store.latest(T, [D])
            ask(server, "GRANT ALL ON rulemill TO joe", root)
            await store.write([Point(T, D, "k", 2, 2)])


@pytest.mark.asyncio
async def test_tls_with_an_authority_of_its_own(tmp_path: Path) -> None:
    made, key = certificate(tmp_path)
    options = ("https-enabled = true", f'https-certificate = "{made}"', f'https-private-key = "{key}"')
    with own_server(tmp_path / "server", *(f"http.{option}" for option in options)) as server:
        async with opened(server, ca=made) as store:
            await store.write([Point(T, D, "k", 1, "x" * 100_000)])
            assert len((await store.latest(T, [D]))[0].value) == 100_000
        stranger = store_of(server)
        with pytest.raises(StoreUnavailable, match=r"its certificate is not trusted: .* \(influx_ca"):
            await stranger.open()
        await stranger.close()
        plain = store_of(server._replace(url=server.url.replace("https", "http")))
        with pytest.raises(StoreUnavailable):
            await plain.open()  # and nothing is left open
        with pytest.raises(Unfit, match="influx_ca"):
            await store_of(server, ca=str(tmp_path / "missing.pem")).open()


@pytest.mark.asyncio
async def test_a_server_that_comes_later_serves_without_a_second_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.stores.influx.TRY_AGAIN_S", 0.0)
    port = free_port()
    store = store_of(Influx(f"http://127.0.0.1:{port}"))
    with pytest.raises(StoreUnavailable, match="no connection: Connection refused"):
        await store.open()
    for call in (store.write([Point(T, D, "k", 1, 1)]), store.latest(T, [D]), store.delete_device(T, D)):
        with pytest.raises(StoreUnavailable, match="no connection"):
            await call
    process, _ = start_influx(tmp_path, port=port)
    try:
        await store.write([Point(T, D, "k", 1, 1)])
        process.terminate()
        process.wait(10)
        with pytest.raises(StoreUnavailable):
            await store.latest(T, [D])
        process, _ = start_influx(tmp_path, port=port)
        assert await store.latest(T, [D]) == [Point(T, D, "k", 1, 1)]
    finally:
        process.terminate()
        process.wait(10)
        await store.close()


@pytest.mark.asyncio
async def test_a_server_that_is_away_is_not_asked_by_every_call() -> None:
    store = store_of(Influx(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(StoreUnavailable):
        await store.open()
    with pytest.raises(StoreUnavailable) as caught:
        await store.latest(T, [D])
    assert 0 < caught.value.retry_after_s <= 1
    await store.close()


# What it does not take, and what it would drop


@pytest.mark.asyncio
async def test_limits_that_lose_points_are_told_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limits = ("data.max-values-per-tag = 4", "data.max-series-per-database = 1000")
    with own_server(tmp_path, *limits) as server:
        async with opened(server) as store:
            assert [told.partition(" are refused")[0] for told in store.told()] == [
                "points of more than 4 devices, keys or tenants",
                "points of more than 1000 series (devices times keys)",
            ]
            points = [Point(T, f"d{i % 10}", "k", i, i) for i in range(1000)]
            await store.write(points[:4])  # what comes together with the fourth is taken too
            with caplog.at_level(logging.ERROR), pytest.raises(PointsRefused) as caught:
                await store.write(points)
            lost = {points[i].device for i, _ in caught.value.refused}
            assert len(lost) == 6
            assert [index for index, _ in caught.value.refused] == [
                i for i, point in enumerate(points) if point.device in lost
            ]
            assert all("max-values-per-tag limit exceeded (4/4)" in reason for _, reason in caught.value.refused)
            [record] = caplog.records
            assert "Set max-values-per-tag = 0 in [data]" in record.getMessage()
            kept = (await store.range(T, [f"d{i}" for i in range(10)], None, 0, 1000, limit=1000)).points
            assert kept == [point for point in points if point.device not in lost]
            with pytest.raises(PointsRefused) as caught:
                await store.write(points[:10])
            assert {points[i].device for i, _ in caught.value.refused} == lost


@pytest.mark.asyncio
async def test_an_index_on_disk_has_no_limits(tmp_path: Path) -> None:
    with own_server(tmp_path, 'data.index-version = "tsi1"', "data.max-values-per-tag = 4") as server:
        async with opened(server) as store:
            for i in range(10):
                await store.write([Point(T, f"d{i}", "k", 1, i)])
            assert len(await store.latest(T, await store.devices(T))) == 10


@pytest.mark.asyncio
async def test_one_bad_line_among_thousands_is_found_and_the_rest_is_in(debian: Influx) -> None:
    async with opened(debian) as store:
        # Somebody else has made the field `d` of this week an integer.
        httpx.post(
            f"{debian.url}/write", params={"db": debian.bucket}, content="ts_kv,a=b d=1i 1000000"
        ).raise_for_status()
        points: list[Point] = [Point(T, f"d{i % 7}", "k", i, i) for i in range(2000)]
        for i in (0, 1, 777, 1999):
            points[i] = Point(T, "d", "k", i, 0.5)
        with pytest.raises(PointsRefused) as caught:
            await store.write(points)
        assert [index for index, _ in caught.value.refused] == [0, 1, 777, 1999]
        assert all('field "d"' in reason for _, reason in caught.value.refused)
        devices = [f"d{i}" for i in range(7)]
        page = await store.range(T, [*devices, "d"], None, 0, 2000, limit=5000)
        assert page.points == [point for point in points if point.device != "d"]


@pytest.mark.asyncio
async def test_bodies_that_are_too_large_are_halved(tmp_path: Path) -> None:
    with own_server(tmp_path, "http.max-body-size = 3000") as server:
        async with opened(server) as store:
            points = [Point(T, D, "k", i, "x" * 100) for i in range(100)]
            points[42] = Point(T, D, "k", 42, "y" * 5000)
            with pytest.raises(PointsRefused) as caught:
                await store.write(points)
            [(index, reason)] = caught.value.refused
            assert index == 42
            assert "takes no line of 50" in reason
            assert len((await store.range(T, [D], None, 0, 100)).points) == 99


@pytest.mark.asyncio
async def test_a_limit_on_rows_cuts_no_answer(tmp_path: Path) -> None:
    with own_server(tmp_path, "http.max-row-limit = 5") as server:
        async with opened(server) as store:
            points = [Point(T, D, "k", i, i) for i in range(100)]
            await store.write(points)
            assert (await store.range(T, [D], None, 0, 100)).points == points
            assert (await store.latest(T, [D], count=50)) == points[:49:-1]
            [bucket] = await store.aggregate(T, [D], None, 0, 100, ["count"])
            assert bucket.values == {"count": 100}


@pytest.mark.asyncio
async def test_a_query_that_the_server_stops_says_why(tmp_path: Path) -> None:
    with own_server(tmp_path, "coordinator.max-select-series = 3") as server:
        async with opened(server) as store:
            await store.write([Point(T, D, f"k{i}", 1, i) for i in range(4)])
            with pytest.raises(StoreUnavailable, match="max-select-series limit exceeded"):
                await store.range(T, [D], None, 0, 100)
            assert len(await store.latest(T, [D], ["k1", "k2"])) == 2


@pytest.mark.asyncio
async def test_packed_bodies_are_understood(store: InfluxTimeseries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Access, "is_local", property(lambda self: False))
    for count in (1, 50, 5000):
        points = [Point(T, D, f"k{count}", i, i * 0.1) for i in range(count)]
        await store.write(points)
        assert (await store.range(T, [D], [f"k{count}"], 0, count, limit=count)).points == points


@pytest.mark.asyncio
async def test_many_read_and_write_at_once(store: InfluxTimeseries) -> None:
    async def one(n: int) -> list[Point]:
        points = [Point(T, f"d{n}", "k", i, n) for i in range(20)]
        await store.write(points)
        return (await store.range(T, [f"d{n}"], None, 0, 20)).points

    found = await asyncio.gather(*(one(n) for n in range(60)))
    assert [[point.value for point in points] for points in found] == [[n] * 20 for n in range(60)]
