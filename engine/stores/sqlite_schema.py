"""The tables of the SQLite store, and the integers that stand for device and key names in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from engine.stores.values import is_name

VERSION: Final = 1
"""Kept as the file's user_version; a file of a newer version is refused."""

MAKE: Final = (
    "CREATE TABLE IF NOT EXISTS device_name("
    "id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, UNIQUE(tenant, name))",
    "CREATE TABLE IF NOT EXISTS key_name(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    # `value` has no type: SQLite keeps what it is given, and `kind` (b, l, d, s, j) says what that was.
    "CREATE TABLE IF NOT EXISTS ts_kv("
    "device INTEGER NOT NULL, key INTEGER NOT NULL, ts INTEGER NOT NULL, "
    "kind TEXT NOT NULL, value, lat REAL, lon REAL, "
    "PRIMARY KEY(device, key, ts)) WITHOUT ROWID",
)

_FIND_DEVICE = "SELECT id FROM device_name WHERE tenant = ? AND name = ?"
_MAKE_DEVICE = "INSERT INTO device_name(tenant, name) VALUES (?, ?) RETURNING id"
_FIND_KEY = "SELECT id FROM key_name WHERE name = ?"
_FIND_DEVICES = "SELECT name, id FROM device_name WHERE tenant = ? AND name IN "
_FIND_KEYS = "SELECT name, id FROM key_name WHERE name IN "
_NAME_KEYS = "SELECT name, id FROM key_name WHERE id IN "
_LOOKED_UP_AT_ONCE: Final = 500
_MAKE_KEY = "INSERT INTO key_name(name) VALUES (?) RETURNING id"


class Fresh(NamedTuple):
    """Ids that one transaction looked up or made: they hold when it has committed."""

    devices: dict[tuple[str, str], int]
    keys: dict[str, int]


class Resolver(NamedTuple):
    """Name to id within one transaction, making what is missing."""

    device_id: Callable[[str, str], int]
    key_id: Callable[[str], int]
    fresh: Fresh


class Names:
    """Ids of names, the last `limit` devices and keys in memory. The writing thread learns, all threads look up.

    An id never changes and is never given back, so what another process made is read once and stays true.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._devices: dict[tuple[str, str], int] = {}
        self._keys: dict[str, int] = {}

    def resolver(self, db: sqlite3.Connection) -> Resolver:
        """Look-ups for one write transaction on `db`."""
        fresh = Fresh({}, {})
        known_devices, new_devices = self._devices, fresh.devices
        known_keys, new_keys = self._keys, fresh.keys

        def device_id(tenant: str, name: str) -> int:
            pair = (tenant, name)
            found = known_devices.get(pair) or new_devices.get(pair)
            if found is None:
                found = new_devices[pair] = _find_or_make(db, _FIND_DEVICE, _MAKE_DEVICE, pair)
            return found

        def key_id(name: str) -> int:
            found = known_keys.get(name) or new_keys.get(name)
            if found is None:
                found = new_keys[name] = _find_or_make(db, _FIND_KEY, _MAKE_KEY, (name,))
            return found

        return Resolver(device_id, key_id, fresh)

    def learn(self, fresh: Fresh) -> None:
        """Keep the ids of a transaction that has committed."""
        self._devices.update(fresh.devices)
        self._keys.update(fresh.keys)
        while len(self._devices) > self._limit:
            del self._devices[next(iter(self._devices))]
        while len(self._keys) > self._limit:
            del self._keys[next(iter(self._keys))]

    def device_ids(self, db: sqlite3.Connection, tenant: str, devices: Sequence[str]) -> dict[str, int]:
        """Ids of devices, in any order; without those that never had a point."""
        if not is_name(tenant):
            return {}
        asked = {name: self._devices.get((tenant, name)) for name in devices if is_name(name)}
        found = {name: id for name, id in asked.items() if id is not None}
        return found | _look_up(db, _FIND_DEVICES, (tenant,), [name for name, id in asked.items() if id is None])

    def key_ids(self, db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, int]:
        """Ids of keys, in any order; without those that no device ever had."""
        asked = {name: self._keys.get(name) for name in keys if is_name(name)}
        found = {name: id for name, id in asked.items() if id is not None}
        return found | _look_up(db, _FIND_KEYS, (), [name for name, id in asked.items() if id is None])

    def keys_of(self, db: sqlite3.Connection, ids: Iterable[int]) -> dict[int, str]:
        """What keys are called that have points."""
        return {id: name for name, id in _look_up(db, _NAME_KEYS, (), list(ids)).items()}


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of the block or nothing, as the only writer of the file from the first statement on."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled back by itself
            db.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One state of the file for all reads of the block."""
    db.execute("BEGIN")
    try:
        yield db
    finally:
        db.execute("ROLLBACK")


def _look_up(db: sqlite3.Connection, find: str, first: tuple[str, ...], wanted: Sequence[str | int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for i in range(0, len(wanted), _LOOKED_UP_AT_ONCE):
        some = wanted[i : i + _LOOKED_UP_AT_ONCE]
        found.update(db.execute(f"{find}({','.join('?' * len(some))})", (*first, *some)).fetchall())
    return found


def _find_or_make(db: sqlite3.Connection, find: str, make: str, names: tuple[str, ...]) -> int:
    found = _first(db.execute(find, names)) or _first(db.execute(make, names))
    assert found is not None
    return found


def _first(cursor: sqlite3.Cursor) -> int | None:
    rows: list[tuple[int]] = cursor.fetchall()
    return rows[0][0] if rows else None
