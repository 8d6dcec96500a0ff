"""Which series of a SQLite file a read is about, and statements over many of them at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from engine.stores.sqlite_readers import Reading
from engine.stores.sqlite_schema import Names

AT_ONCE: Final = 250
"""Series of one statement."""

_DEVICES_AT_ONCE: Final = 1000
_PROBED_KEYS: Final = 32
"""With more keys than this, it is cheaper to walk over those that a device has."""

# Jumps from key to key of each device: as many look-ups as there are series, however many points they have.
_WALK: Final = """
WITH RECURSIVE walk(device, key) AS (
  SELECT asked.value, (SELECT min(key) FROM ts_kv WHERE ts_kv.device = asked.value) FROM json_each(?1) AS asked
  UNION ALL
  SELECT device, (SELECT min(key) FROM ts_kv WHERE ts_kv.device = walk.device AND ts_kv.key > walk.key)
  FROM walk WHERE key IS NOT NULL)
SELECT device, key FROM walk WHERE key IS NOT NULL"""

# Names stay when their points go: whether there are any is looked up for each.
_HAS_POINTS: Final = "EXISTS (SELECT 1 FROM ts_kv WHERE ts_kv.device = device_name.id)"
TENANTS: Final = f"SELECT DISTINCT tenant FROM device_name WHERE {_HAS_POINTS} ORDER BY tenant"
DEVICES: Final = f"SELECT name FROM device_name WHERE tenant = ? AND {_HAS_POINTS} ORDER BY name"


class Series(NamedTuple):
    """One key of one device by its names, which order it, and its ids."""

    device: str
    key: str
    device_id: int
    key_id: int


def find_series(
    read: Reading, names: Names, tenant: str, devices: Sequence[str], keys: Sequence[str] | None
) -> list[Series]:
    """The series of the devices and keys, by device and key. Some of them may have no point."""
    device_ids = names.device_ids(read.db, tenant, devices)
    key_ids = None if keys is None else names.key_ids(read.db, keys)
    if key_ids is not None and len(key_ids) <= _PROBED_KEYS:
        by_key = sorted(key_ids.items())
        return [
            Series(device, key, device_id, key_id)
            for device, device_id in sorted(device_ids.items())
            for key, key_id in by_key
        ]
    of_device = {id: device for device, id in device_ids.items()}
    wanted = None if key_ids is None else {id: key for key, id in key_ids.items()}
    found: list[tuple[int, int]] = []
    for some in parts(list(of_device), _DEVICES_AT_ONCE):
        read.check()
        rows = read.db.execute(_WALK, (json.dumps(some),)).fetchall()
        found += rows if wanted is None else [row for row in rows if row[1] in wanted]
    of_key = wanted if wanted is not None else names.keys_of(read.db, {key_id for _, key_id in found})
    series = [Series(of_device[device_id], of_key[key_id], device_id, key_id) for device_id, key_id in found]
    series.sort()
    return series


def parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The items, so many at a time."""
    for i in range(0, len(items), size):
        yield items[i : i + size]


def table(rows: int, columns: int) -> str:
    """`VALUES (?, ?), …` for so many rows; rounded up, so that few different statements are made."""
    return "VALUES " + ",".join(["(" + ",".join("?" * columns) + ")"] * _rounded(rows))


def bound(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """The parameters of `table`, made up with NULLs."""
    values = [value for row in rows for value in row]
    return values + [None] * ((_rounded(len(rows)) - len(rows)) * len(rows[0]))


def _rounded(rows: int) -> int:
    return 1 << (rows - 1).bit_length() if rows <= AT_ONCE // 2 else max(rows, AT_ONCE)
