"""What an InfluxDB server is and what it lacks: its version, our database or bucket in it, our rights, its limits."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Final, NamedTuple

import msgspec

from engine.errors import StoreUnavailable, Unfit
from engine.stores.influx_http import Denied, Http, Missing, NotTaken, Rejected, basic
from engine.stores.influx_rows import Series
from engine.stores.influxql import identifier
from engine.stores.line_protocol import MEASUREMENT

_NUMBER: Final = re.compile(r"v?([0-9]+)\.([0-9]+)")
_SHARD_DAYS: Final = 91
"""How much time one shard holds in a database that we make; by itself InfluxDB takes 7 days.

Every shard that holds a device is asked for its latest point, so few are better (1.6.7, a year of 500 devices: 0.98 s
with 53 shards, 0.28 s with 13, 0.12 s with 2), and take less space. And a device whose clock is wrong makes a shard
with each point, of 140 kB and an open file: 30,000 weeks would end the server, and there are but 2,300 quarters.
"""
_FOR_EVER: Final = f"DURATION INF REPLICATION 1 SHARD DURATION {_SHARD_DAYS}d"
_PROBE: Final = f"SELECT t FROM {MEASUREMENT} LIMIT 1"


class Server(NamedTuple):
    """What was found."""

    version: str
    """As the server says it."""
    major: int
    """1, 2 or 3."""
    v2_write: bool
    """Lines go to `/api/v2/write`, else to `/write`."""
    org: str
    told: list[str]
    """What somebody who runs it should know."""


async def find(http: Http) -> Server:
    """Look at the server and make what is missing; raises StoreUnavailable, or Unfit naming what would mend it."""
    version, major, minor = await _version(http)
    access = http.access
    user = access.username
    try:
        if major == 1:
            if minor < 6:
                raise Unfit(f"InfluxDB {version} at {access.base} is too old; 1.6 is the oldest that will do")
            http.authorization = _authorization_1(http)
            v2_write = minor >= 8 and not http.authorization.startswith("Bearer ")  # which it takes as Token only
            return Server(version, 1, v2_write, access.org or "-", await _prepare_1(http))
        # 2.x has users with a password only for /write and /query.
        http.authorization = f"Token {access.token}" if access.token else _authorization_1(http)
        if major == 2:
            if not access.token:
                return Server(version, 2, False, access.org, await _prepare_2_by_user(http))
            org, told = await _prepare_2(http)
            return Server(version, 2, True, org, told)
        return Server(version, 3, bool(access.token) or not user, access.org or "-", await _prepare_3(http))
    except Denied as error:
        raise Unfit(f"{access.base}: {error.reason}") from error


async def _version(http: Http) -> tuple[str, int, int]:
    """The version as the server says it, major and minor number."""
    access = http.access
    if access.token:
        http.authorization = f"Token {access.token}"
    elif access.username:
        http.authorization = basic(access.username, access.password)
    headers, body = await http.call("GET", "/ping")
    said = headers.get("X-Influxdb-Version", "") or (body.get("version", "") if isinstance(body, dict) else "")
    if "X-Influxdb-Version" not in headers and not said:
        raise Unfit(f"{access.base} does not say that it is InfluxDB")
    if (found := _NUMBER.match(said)) is None:  # one built by hand may not know
        try:
            _, body = await http.call("GET", "/health")
        except Missing:
            return said, 1, 6
        found = _NUMBER.match(body.get("version", "") if isinstance(body, dict) else "")
    if found is None:
        try:
            await http.call("GET", "/api/v2/setup")
        except Missing:
            return said, 1, 8
        return said, 2, 0
    major = int(found[1])
    if not 1 <= major <= 3:
        raise Unfit(f"InfluxDB {said} at {access.base}: 1.6 to 3 are known")
    return said, major, int(found[2])


def _authorization_1(http: Http) -> str:
    access = http.access
    if access.username:
        return basic(access.username, access.password)
    if ":" in access.token:  # as 1.8 wants it at /api/v2/write
        username, _, password = access.token.partition(":")
        return basic(username, password)
    return f"Bearer {access.token}" if access.token else ""


async def _prepare_1(http: Http) -> list[str]:
    access = http.access
    database = identifier(access.database)
    names = [name for (name,) in await _rows(http, "SHOW DATABASES")]
    if access.database not in names:
        await _make(http, f"CREATE DATABASE {database} WITH {_FOR_EVER} NAME autogen")
    granting = f"GRANT ALL ON {database} TO {identifier(access.username)}"
    try:
        policies = await _rows(http, f"SHOW RETENTION POLICIES ON {database}")
        wanted = [row for row in policies if (row[0] == access.policy if access.policy else row[4])]
        if not wanted:
            policy = identifier(access.policy or "autogen")
            default = "" if access.policy else " DEFAULT"
            await _make(http, f"CREATE RETENTION POLICY {policy} ON {database} {_FOR_EVER}{default}")
        await _may_write(http)
    except Denied as error:
        raise Unfit(f"{access.base}: {error.reason}; let an administrator run: {granting}") from error
    told = [_kept(row[1]) for row in wanted if row[1] != "0s"]
    for name, keeps, shard, *_ in wanted:
        if keeps == "0s" and int(shard.partition("h")[0]) < _SHARD_DAYS * 24 // 3:
            told.append(
                f"shards of {shard} make reads of many devices slow, and a device whose clock is wrong costly; for new "
                f"ones run: ALTER RETENTION POLICY {identifier(name)} ON {database} SHARD DURATION {_SHARD_DAYS}d"
            )
    return told + await _limits_1(http)


async def _limits_1(http: Http) -> list[str]:
    """What 1.x drops of its own: points of series beyond its limits. It does not say which index it has."""
    limits: dict[str, Any] = {}

    def take(_: int, series: Series) -> None:
        for row in _plain(series):
            limits.update(zip(series.columns, row, strict=False))

    try:
        await http.query("SHOW DIAGNOSTICS", take)
    except Denied:
        return ["the user may not read the server's limits (max-values-per-tag, max-series-per-database)"]
    told = []
    mend = 'in [data] of influxdb.conf; 0, or index-version = "tsi1", takes any number'
    if names := limits.get("max-values-per-tag"):
        told.append(f"points of more than {names} devices, keys or tenants are refused (max-values-per-tag {mend})")
    if count := limits.get("max-series-per-database"):
        what = "series (devices times keys)"
        told.append(f"points of more than {count} {what} are refused (max-series-per-database {mend})")
    return told


async def _prepare_2(http: Http) -> tuple[str, list[str]]:
    access = http.access
    if access.policy:
        # Deletions go by the name of the database alone there, and might meet another bucket.
        raise Unfit(f"not a name for a bucket of InfluxDB 2: {access.bucket!r} has a /")
    params = {"name": access.bucket} | ({"org": access.org} if access.org else {})
    buckets = (await _found(http, "/api/v2/buckets", params)).get("buckets") or []
    if len(buckets) > 1:
        raise Unfit(f"several organizations at {access.base} have a bucket {access.bucket!r}: name one (influx_org)")
    bucket = buckets[0] if buckets else await _make_bucket(http)
    org_id = bucket["orgID"]
    mappings = (await _found(http, "/api/v2/dbrps", {"orgID": org_id, "db": access.database})).get("content") or []
    if any(mapping["default"] and mapping["bucketID"] != bucket["id"] for mapping in mappings):
        raise Unfit(f"{access.base} maps the database {access.database!r} to another bucket: influx v1 dbrp list")
    if not any(mapping["default"] for mapping in mappings):
        await _make_mapping(http, bucket)
    await http.query(_PROBE, lambda _, __: None)
    await http.call("POST", "/api/v2/write", params={"org": org_id, "bucket": access.bucket})  # of nothing: may we?
    kept = [rule["everySeconds"] for rule in bucket.get("retentionRules") or [] if rule.get("everySeconds")]
    return org_id, [_kept(f"{kept[0]} s")] if kept else []


async def _make_bucket(http: Http) -> Any:
    access = http.access
    orgs = (await _found(http, "/api/v2/orgs", {"org": access.org} if access.org else {})).get("orgs") or []
    if len(orgs) != 1:
        if access.org:
            raise Unfit(f"{access.base} has no organization {access.org!r} that the token can see (influx_org)")
        if not orgs:
            raise Unfit(
                f"{access.base} has no bucket {access.bucket!r} that the token can see, and we may not make it; run: "
                f"influx bucket create --name {access.bucket} --retention 0"
            )
        raise Unfit(f"the token sees {len(orgs)} organizations at {access.base}: name one (influx_org)")
    try:
        rule = {"type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": _SHARD_DAYS * 86_400}
        body = {"name": access.bucket, "orgID": orgs[0]["id"], "retentionRules": [rule]}
        return (await http.call("POST", "/api/v2/buckets", json=body))[1]
    except StoreUnavailable as error:
        keeping = f"--retention 0 --shard-group-duration {_SHARD_DAYS}d"
        making = f"influx bucket create --name {access.bucket} --org {orgs[0]['name']} {keeping}"
        raise _cannot_make(http, f"bucket {access.bucket!r} that the token can see", making, error) from error


async def _make_mapping(http: Http, bucket: Any) -> None:
    """What lets InfluxQL find the bucket; later versions of 2.x have it of their own."""
    database = http.access.database
    body = {
        "bucketID": bucket["id"], "orgID": bucket["orgID"], "database": database, "retention_policy": "autogen",
        "default": True,
    }  # fmt: skip
    try:
        await http.call("POST", "/api/v2/dbrps", json=body)
    except StoreUnavailable as error:
        making = f"influx v1 dbrp create --bucket-id {bucket['id']} --db {database} --rp autogen --default"
        raise _cannot_make(http, f"mapping of a database to the bucket {database!r}", making, error) from error


async def _prepare_2_by_user(http: Http) -> list[str]:
    access = http.access
    try:
        there = await _answers(http)
        await _may_write(http)
    except Missing:
        there = False
    if not there:
        raise Unfit(
            f"{access.base} has no bucket {access.bucket!r} that the user {access.username!r} can reach; with a token "
            f"(influx_token) it is made, or run: influx bucket create --name {access.bucket} --retention 0"
        )
    return []


async def _prepare_3(http: Http) -> list[str]:
    access = http.access
    if not await _answers(http):
        try:
            await http.call("POST", "/api/v3/configure/database", json={"db": access.database})
        except StoreUnavailable as error:
            making = f"influxdb3 create database {access.database}"
            raise _cannot_make(http, f"database {access.database!r}", making, error) from error
    return [
        "InfluxDB 3 deletes no points: devices that are deleted leave theirs behind",
        "InfluxDB 3 Core refuses queries over more files than its limit, some three days of writing",
    ]


async def _found(http: Http, path: str, params: dict[str, str]) -> dict[str, Any]:
    """An object; an empty one if there is none, as versions and rights will have it."""
    try:
        _, found = await http.call("GET", path, params=params)
    except Missing:
        return {}
    return found if isinstance(found, dict) else {}


async def _answers(http: Http) -> bool:
    """Whether InfluxQL reaches the database."""
    try:
        await http.query(_PROBE, lambda _, __: None)
    except Missing:
        return False
    return True


async def _make(http: Http, statement: str) -> None:
    try:
        await http.query(statement, lambda _, __: None)
    except Denied as error:
        raise Unfit(f"{http.access.base}: {error.reason}; let an administrator run: {statement}") from error
    except Rejected as error:
        raise Unfit(f"{http.access.base}: {statement}: {error.reason}") from error


async def _rows(http: Http, statement: str) -> list[list[Any]]:
    rows: list[list[Any]] = []
    await http.query(statement, lambda _, series: rows.extend(_plain(series)))
    return rows


def _plain(series: Series) -> list[list[Any]]:
    rows: list[list[Any]] = msgspec.json.decode(series.values)
    return rows


async def _may_write(http: Http) -> None:
    """Raises Denied where we may not."""
    with contextlib.suppress(NotTaken):  # there is nothing to take
        await http.write(b"")


def _cannot_make(http: Http, what: str, command: str, error: StoreUnavailable) -> Exception:
    if isinstance(error, Rejected):
        return Unfit(f"{http.access.base} has no {what}, and there cannot be one: {error.reason}")
    if isinstance(error, Denied | Missing):
        return Unfit(f"{http.access.base} has no {what}, and we may not make it: {error.reason}; run: {command}")
    return error


def _kept(duration: str) -> str:
    return f"points are kept for {duration} only, and older ones are refused (the retention of the database or bucket)"
