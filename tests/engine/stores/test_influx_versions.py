"""What the InfluxDB store makes of each version, as far as no server of it is at hand: answers are played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from engine.errors import StoreUnavailable, Unfit, Unsupported
from engine.message import Point
from engine.stores.influx import InfluxTimeseries
from tests.engine.stores.influx_versions import Said, played

pytestmark = pytest.mark.asyncio

PROBE = "SELECT t FROM ts_kv LIMIT 1"
FINE = Said(200, {"results": [{"statement_id": 0}]})
NO_DATABASE = Said(200, {"results": [{"statement_id": 0, "error": "database not found: rulemill"}]})
DENIED = Said(403, {"code": "forbidden", "message": "insufficient permissions"})
MISSING = Said(404, {"code": "not found", "message": 'bucket "rulemill" not found'})
POLICIES = {
    "columns": ["name", "duration", "shardGroupDuration", "replicaN", "default"],
    "values": [["autogen", "0s", "2184h0m0s", 1, True]],
}
ONE: Mapping[str, Said | list[Said]] = {
    "SHOW DATABASES": Said(
        200, {"results": [{"series": [{"name": "databases", "columns": ["name"], "values": [["rulemill"]]}]}]}
    ),
    'SHOW RETENTION POLICIES ON "rulemill"': Said(200, {"results": [{"series": [POLICIES]}]}),
    "SHOW DIAGNOSTICS": FINE,
    "POST /write": Said(204),
    "POST /api/v2/write": Said(204),
}
ORGS = Said(200, {"orgs": [{"id": "0a", "name": "acme"}]})
BUCKET = {"id": "0b", "orgID": "0a", "name": "rulemill", "retentionRules": [{"type": "expire", "everySeconds": 0}]}
MAPPING = {"bucketID": "0b", "orgID": "0a", "database": "rulemill", "retention_policy": "autogen", "default": True}
TWO: Mapping[str, Said | list[Said]] = {
    "GET /ping": Said(204, headers={"X-Influxdb-Version": "v2.7.12", "X-Influxdb-Build": "OSS"}),
    "GET /api/v2/orgs": ORGS,
    "GET /api/v2/buckets": Said(200, {"buckets": [BUCKET]}),
    "GET /api/v2/dbrps": Said(200, {"content": [MAPPING]}),
    PROBE: FINE,
    "POST /api/v2/write": Said(204),
    "POST /write": Said(204),
}
THREE: Mapping[str, Said | list[Said]] = {
    "GET /ping": Said(
        200, {"version": "3.10.0", "revision": "abc"}, {"X-Influxdb-Version": "3.10.0", "X-Influxdb-Build": "Core"}
    ),
    PROBE: NO_DATABASE,
    "POST /api/v3/configure/database": Said(200),
    "POST /api/v2/write": Said(204),
}


def ping(version: str) -> dict[str, Said | list[Said]]:
    return {"GET /ping": Said(204, headers={"X-Influxdb-Version": version})}


async def open_and_write(answers: Mapping[str, Said | list[Said]], **access: Any) -> tuple[Any, list[str]]:
    """A store opens, writes a point and is closed: the server, and what was told."""
    async with played(answers) as server:
        store = InfluxTimeseries(server.url, **access)
        try:
            await store.open()
            await store.write([Point("t", "d", "k", 5, 1)])
            return server, store.told()
        finally:
            await store.close()


@pytest.mark.parametrize(
    ("version", "more", "path"),
    [
        ("1.6.4", {}, "POST /write"),
        ("1.7.11", {}, "POST /write"),
        ("1.8.10", {}, "POST /api/v2/write"),
        ("v1.11.8", {}, "POST /api/v2/write"),
        ("1.8.10-c1.8.10", {}, "POST /api/v2/write"),
        ("unknown", {}, "POST /write"),
        ("unknown", {"GET /health": Said(200, {"name": "influxdb", "version": "unknown"})}, "POST /api/v2/write"),
        ("unknown", {"GET /health": Said(200, {"name": "influxdb", "version": "1.8.3"})}, "POST /api/v2/write"),
    ],
)
async def test_version_1_takes_lines_where_it_has_a_place_for_them(
    version: str, more: Mapping[str, Said], path: str
) -> None:
    server, told = await open_and_write({**ONE, **ping(version), **more}, username="u", password="p:w")
    [line] = [asked for asked in server.asked if asked.json]
    assert line.what == path
    assert line.json == 'ts_kv,device=d,key=k,tenant=t l=1i,t="l" 5'
    assert line.params["precision"] == "ms"
    assert line.params.get("db", line.params.get("bucket")) == "rulemill"
    assert server.authorizations("/api/v2/write") <= {"Token u:p:w"}
    assert server.authorizations("SHOW") == {"Basic dTpwOnc="}
    assert told == []


async def test_a_bearer_token_of_version_1_is_sent_as_one() -> None:
    server, _ = await open_and_write({**ONE, **ping("1.8.10")}, token="a.jwt.b")
    assert server.authorizations("SHOW") == {"Bearer a.jwt.b"}
    assert server.authorizations("POST /write") == {"Bearer a.jwt.b"}


@pytest.mark.parametrize("version", ["1.5.4", "0.13", "4.0.0"])
async def test_versions_that_will_not_do(version: str) -> None:
    with pytest.raises(Unfit, match=r"1\.6"):
        await open_and_write({**ONE, **ping(version)})


async def test_something_else_is_not_taken_for_influxdb() -> None:
    with pytest.raises(Unfit, match="does not say that it is InfluxDB"):
        await open_and_write({"GET /ping": Said(200, "<html>welcome</html>")})
    with pytest.raises(StoreUnavailable, match="404"):
        await open_and_write({})
    with pytest.raises(StoreUnavailable, match="302"):
        await open_and_write({"GET /ping": Said(302, "", {"Location": "/login"})})


async def test_version_2_by_a_token() -> None:
    server, told = await open_and_write(TWO, token="T0", org="acme")
    assert server.authorizations("/") == {"Token T0"}
    assert server.authorizations("SELECT") == {"Token T0"}
    nothing, line = [asked for asked in server.asked if asked.what == "POST /api/v2/write"]
    assert not nothing.json
    assert (line.params["org"], line.params["bucket"]) == ("0a", "rulemill")
    assert {asked.params.get("org") for asked in server.asked if asked.what == "GET /api/v2/buckets"} == {"acme"}
    assert told == []


async def test_version_2_makes_what_is_missing() -> None:
    answers = {
        **TWO,
        "GET /api/v2/buckets": MISSING,
        "POST /api/v2/buckets": Said(201, BUCKET),
        "GET /api/v2/dbrps": Said(200, {"content": []}),
        "POST /api/v2/dbrps": Said(201, {}),
    }
    server, _ = await open_and_write(answers, token="T0")
    made = {asked.what: asked.json for asked in server.asked if asked.what.startswith("POST /api/v2/") and asked.json}
    rule = {"type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": 91 * 86_400}
    assert made["POST /api/v2/buckets"] == {"name": "rulemill", "orgID": "0a", "retentionRules": [rule]}
    assert made["POST /api/v2/dbrps"] == MAPPING


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (
            {"GET /api/v2/buckets": MISSING, "POST /api/v2/buckets": DENIED},
            "influx bucket create --name rulemill --org acme --retention 0 --shard-group-duration 91d",
        ),
        (
            {"GET /api/v2/dbrps": Said(200, {"content": []}), "POST /api/v2/dbrps": DENIED},
            "influx v1 dbrp create --bucket-id 0b --db rulemill --rp autogen --default",
        ),
        ({"GET /api/v2/dbrps": Said(200, {"content": [MAPPING | {"bucketID": "0c"}]})}, "to another bucket"),
        ({"GET /api/v2/buckets": MISSING, "GET /api/v2/orgs": Said(200, {"orgs": []})}, "no organization 'acme'"),
        ({"GET /api/v2/buckets": Said(200, {"buckets": [BUCKET, BUCKET]})}, "several organizations"),
        ({"GET /api/v2/buckets": Said(401, {"code": "unauthorized", "message": "unauthorized access"})}, "401"),
        ({PROBE: DENIED}, "insufficient permissions"),
        ({"POST /api/v2/write": DENIED}, "insufficient permissions"),
    ],
)
async def test_what_version_2_lacks_is_named_with_what_mends_it(answers: Mapping[str, Said], reason: str) -> None:
    with pytest.raises(Unfit) as caught:
        await open_and_write({**TWO, **answers}, token="T0", org="acme")
    assert reason in caught.value.reason
    assert "T0" not in caught.value.reason


async def test_an_organization_must_be_named_where_there_are_several() -> None:
    orgs = Said(200, {"orgs": [{"id": "0a", "name": "acme"}, {"id": "0c", "name": "other"}]})
    with pytest.raises(Unfit, match=r"sees 2 organizations .*\(influx_org\)"):
        await open_and_write({**TWO, "GET /api/v2/buckets": MISSING, "GET /api/v2/orgs": orgs}, token="T0")


async def test_a_bucket_of_version_2_whose_name_would_be_taken_for_two() -> None:
    with pytest.raises(Unfit, match="has a /"):
        await open_and_write(TWO, token="T0", bucket="rulemill/long")


async def test_a_name_that_no_bucket_can_have_stops_the_start() -> None:
    invalid = Said(400, {"code": "invalid", "message": "bucket name _x is invalid"})
    with pytest.raises(Unfit, match=r"bucket name _x is invalid$"):
        await open_and_write({**TWO, "GET /api/v2/buckets": MISSING, "POST /api/v2/buckets": invalid}, token="T0")
    refused = Said(200, {"results": [{"statement_id": 0, "error": "invalid name"}]})
    made = 'CREATE DATABASE ".." WITH DURATION INF REPLICATION 1 SHARD DURATION 91d NAME autogen'
    with pytest.raises(Unfit, match=r"CREATE DATABASE .*invalid name"):
        await open_and_write({**ONE, **ping("1.8.10"), made: refused}, bucket="..")


async def test_a_token_that_sees_no_organization_is_told_who_makes_the_bucket() -> None:
    answers = {**TWO, "GET /api/v2/buckets": MISSING, "GET /api/v2/orgs": Said(200, {"orgs": []})}
    with pytest.raises(Unfit, match=r"no bucket 'rulemill' .* run: influx bucket create --name rulemill --retention 0"):
        await open_and_write(answers, token="T0")


async def test_a_deletion_waits_while_the_server_drops_some_database() -> None:
    closed = Said(200, {"results": [{"statement_id": 0, "error": "engine is closed"}]})
    async with played({**TWO, "/query": [closed, Said(500, {"error": "engine is closed"}), FINE]}) as server:
        store = InfluxTimeseries(server.url, token="T0")
        await store.open()
        await store.delete("t", ["d"], ["k"], 0, 5)
        await store.close()
    assert len([asked for asked in server.asked if asked.what.startswith("DELETE")]) == 3


async def test_a_deletion_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stores.influx.CLOSED_PAUSES_S", (0.0, 0.0))
    closed = Said(200, {"results": [{"statement_id": 0, "error": "engine is closed"}]})
    async with played({**TWO, "/query": closed}) as server:
        store = InfluxTimeseries(server.url, token="T0")
        await store.open()
        with pytest.raises(StoreUnavailable, match="engine is closed"):
            await store.delete("t", ["d"], ["k"], 0, 5)
        await store.close()
    assert len([asked for asked in server.asked if asked.what.startswith("DELETE")]) == 3


async def test_plain_http_at_an_https_url_is_told_as_that() -> None:
    async with played(TWO) as server:
        store = InfluxTimeseries(server.url.replace("http:", "https:"), token="T0")
        with pytest.raises(StoreUnavailable, match=r"no TLS: .*(?i:wrong version|packet length|record layer)"):
            await store.open()
        await store.close()


async def test_the_retention_of_a_bucket_is_told() -> None:
    bucket = BUCKET | {"retentionRules": [{"type": "expire", "everySeconds": 86400}]}
    _, told = await open_and_write({**TWO, "GET /api/v2/buckets": Said(200, {"buckets": [bucket]})}, token="T0")
    assert "kept for 86400 s only" in told[0]


async def test_version_2_by_a_user_speaks_as_to_version_1() -> None:
    nothing = Said(400, {"code": "invalid", "message": "writing requires points"})
    server, _ = await open_and_write({**TWO, "POST /write": [nothing, Said(204)]}, username="u", password="p")
    assert server.authorizations("/write") == {"Basic dTpw"}
    with pytest.raises(Unfit, match="with a token"):
        await open_and_write({**TWO, PROBE: NO_DATABASE}, username="u", password="p")


async def test_version_3() -> None:
    server, told = await open_and_write(THREE, token="T0")
    assert server.authorizations("/") == {"Token T0"}
    [made] = [asked.json for asked in server.asked if "configure" in asked.what]
    assert made == {"db": "rulemill"}
    assert any("deletes no points" in note for note in told)
    async with played(THREE) as server:
        store = InfluxTimeseries(server.url, token="T0")
        await store.open()
        with pytest.raises(Unsupported, match="deletes no points"):
            await store.delete_device("t", "d")
        # What the last line of a request says stands, however the server orders them.
        await store.write([Point("t", "d", "k", 5, 1), Point("t", "d", "k", 6, 2), Point("t", "d", "k", 5, "x")])
        assert server.asked[-1].json == (
            'ts_kv,device=d,key=k,tenant=t l=2i,t="l" 6\nts_kv,device=d,key=k,tenant=t s="x",t="s" 5'
        )
        await store.close()
    with pytest.raises(Unfit, match="influxdb3 create database rulemill"):
        await open_and_write({**THREE, "POST /api/v3/configure/database": Said(403)}, token="T0")


async def test_a_moved_server_is_not_followed() -> None:
    # A redirected POST becomes a GET, which somebody answers with 200: nothing would be stored.
    async with played({**ONE, **ping("1.6.7"), "POST /write": [Said(204), Said(301, "", {"Location": "/"})]}) as server:
        store = InfluxTimeseries(server.url)
        await store.open()
        with pytest.raises(StoreUnavailable, match="301"):
            await store.write([Point("t", "d", "k", 5, 1)])
        await store.close()


@pytest.mark.parametrize(
    "url", ["", "influx:8086", "ftp://h", "http://", "http://h:x", "http://h:8086?db=x", "http://h#f", "http://[::1"]
)
async def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(Unfit, match="URL of InfluxDB"):
        InfluxTimeseries(url)


@pytest.mark.parametrize("bucket", ["", "/x", "a\nb"])
async def test_buckets_that_are_none(bucket: str) -> None:
    with pytest.raises(Unfit, match="bucket"):
        InfluxTimeseries("http://h", bucket=bucket)
