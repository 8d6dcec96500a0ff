"""Which series a read is about, in parts that one statement can name."""

from __future__ import annotations

from collections.abc import Sequence

from engine.stores.influx_http import Http
from engine.stores.influxql import NAMES_AT_ONCE, Scope, keys_of, scopes


async def scopes_of(http: Http, tenant: str, devices: Sequence[str], keys: Sequence[str] | None) -> list[Scope]:
    """The series in scopes, by device. Of keys that are too many for a statement, those that the devices have."""
    if keys is None or len(set(keys)) <= NAMES_AT_ONCE:
        return list(scopes(tenant, devices, keys))
    found: list[Scope] = []
    for scope in scopes(tenant, devices, None):
        there = await keys_in(http, scope)
        found += scopes(tenant, scope.devices, sorted(there.intersection(keys)))
    return found


async def keys_in(http: Http, scope: Scope) -> set[str]:
    """The keys of which a scope has points."""
    found: set[str] = set()
    await http.query(keys_of(scope), lambda _, series: found.add(series.key))
    return found
