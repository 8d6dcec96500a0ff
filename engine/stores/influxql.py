"""InfluxQL: what the InfluxDB store asks. Names come into a statement through `literal` and in no other way.

A statement names at most `NAMES_AT_ONCE` devices and as many keys, each by `=`: those are looked up in the index. A
regular expression is held against every name there is, and a long list of `=` costs the square of its length. Measured
on 1.6.7 with 10,000 devices in some ten shards, the latest points of 1,000 of them: 0.40 s by fifties, 0.60 s by two
hundreds, and of all of them in one list 23 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from engine.stores.line_protocol import MEASUREMENT, stored_name
from engine.stores.values import MAX_TS_MS, is_name

NAMES_AT_ONCE: Final = 50

BY_SERIES: Final = 'device,"key"'
"""GROUP BY of one answer for each series."""

FIELDS: Final = "l,d,b,s,j,t,lat,lon"
"""All fields of a point, in the order of `influx_rows.Fields`."""


class Scope(NamedTuple):
    """Series of one tenant: so many devices and keys (None: all keys) that one statement can name them."""

    tenant: str
    devices: Sequence[str]
    keys: Sequence[str] | None


def scopes(tenant: str, devices: Sequence[str], keys: Sequence[str] | None) -> Iterator[Scope]:
    """The series in scopes, the devices in order; nothing where no point can be."""
    if not is_name(tenant):
        return
    for some in _parts(devices):
        if keys is None:
            yield Scope(tenant, some, None)
        else:
            for chosen in _parts(keys):
                yield Scope(tenant, some, chosen)


def literal(name: str) -> str:
    """A name as a string of InfluxQL, as it is stored."""
    # Stored names hold no backslash and no line feed; should that ever change, this stays right.
    text = stored_name(name).replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{text}'"


def source(scope: Scope, start_ms: int, end_ms: int) -> str:
    """FROM and WHERE: the points of a scope with start <= ts < end."""
    conditions = [f"tenant={literal(scope.tenant)}", _any("device", scope.devices)]
    if scope.keys is not None:
        conditions.append(_any('"key"', scope.keys))
    # Both ends always: without an upper one, grouping by time ends now.
    start_ms, end_ms = max(start_ms, -MAX_TS_MS), min(end_ms, MAX_TS_MS + 1)
    return f"FROM {MEASUREMENT} WHERE {' AND '.join(conditions)} AND time>={start_ms}ms AND time<{end_ms}ms"


def newest(scope: Scope, start_ms: int, end_ms: int, count: int) -> str:
    """The last `count` points of each series."""
    return f"SELECT {FIELDS} {source(scope, start_ms, end_ms)} GROUP BY {BY_SERIES} ORDER BY time DESC LIMIT {count}"


def by_time(scope: Scope, start_ms: int, end_ms: int, *, newest_first: bool, limit: int | None) -> str:
    """Points of all series together by time, with device and key in front of the fields; at one time in no order."""
    order = "DESC" if newest_first else "ASC"
    limited = "" if limit is None else f" LIMIT {limit}"
    return f'SELECT device,"key",{FIELDS} {source(scope, start_ms, end_ms)} ORDER BY time {order}{limited}'


def keys_of(scope: Scope) -> str:
    """One point of each key. SHOW TAG VALUES may name keys whose points are gone, and looks at a day in InfluxDB 3."""
    return f'SELECT t {source(scope, -MAX_TS_MS, MAX_TS_MS + 1)} GROUP BY "key" LIMIT 1'


def tenants_there(major: int) -> str:
    """Every tenant. Asked of its index, 2.x names those that were deleted, 3.x only those of a day."""
    if major > 1:
        return f"SELECT t FROM {MEASUREMENT} WHERE time>={-MAX_TS_MS}ms GROUP BY tenant LIMIT 1"
    return f"SHOW TAG VALUES FROM {MEASUREMENT} WITH KEY = tenant"


def devices_there(major: int, tenant: str) -> str:
    """Every device of a tenant."""
    where = f"WHERE tenant={literal(tenant)}"
    if major > 1:
        return f"SELECT t FROM {MEASUREMENT} {where} AND time>={-MAX_TS_MS}ms GROUP BY device LIMIT 1"
    return f"SHOW TAG VALUES FROM {MEASUREMENT} WITH KEY = device {where}"


def deletion(scope: Scope, start_ms: int, end_ms: int) -> str:
    """Forget points."""
    return f"DELETE {source(scope, start_ms, end_ms)}"


def identifier(name: str) -> str:
    """A database's or retention policy's name, quoted."""
    text = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def _any(tag: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{tag}={literal(names[0])}"
    return "(" + " OR ".join(f"{tag}={literal(name)}" for name in names) + ")"


def _parts(names: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(filter(is_name, set(names)))
    for i in range(0, len(ordered), NAMES_AT_ONCE):
        yield ordered[i : i + NAMES_AT_ONCE]
