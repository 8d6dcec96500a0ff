"""Attributes of devices, as API processes read and write them. Chains write theirs with the commit.

Changes of shared attributes are told on the bus, `["attributes", tenant, device, {key: value}]`, for devices that wait.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from engine.bus import BUS
from engine.entries import encode
from engine.errors import Refused
from engine.message import now_ms
from engine.partitions import Keys, all_keys, partition_of
from engine.stores import activity, attributes
from engine.stores.attributes import Attribute, Scope
from engine.wire import Argument, Reply, Wire, failed


class Attributes:
    """Reads and writes of one device's attributes."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._wire, self._partitions = wire, partitions

    def _keys(self, tenant: str, device: str) -> Keys:
        return all_keys(self._partitions)[partition_of(tenant, device, self._partitions)]

    def _key(self, tenant: str, device: str) -> str:
        return self._keys(tenant, device).state(attributes.TABLE, device)

    async def read(self, tenant: str, device: str) -> dict[Scope, dict[str, Attribute]]:
        """All attributes by scope and key, each with its value and time; every scope is there."""
        flat = (await self._execute([("HGETALL", self._key(tenant, device))]))[0]
        return attributes.by_scope({flat[i]: flat[i + 1] for i in range(0, len(flat), 2)})

    async def write(self, tenant: str, device: str, scope: Scope, values: Mapping[str, Any]) -> None:
        """Set attributes. Raises BadInput, before anything is written, for a key or value that cannot be stored."""
        if not values:
            return
        ts_ms = now_ms()
        fields: list[Argument] = []
        for key, value in values.items():
            fields += (attributes.field(scope, key), attributes.encode(value, ts_ms))
        todo: list[tuple[Argument, ...]] = [("HSET", self._key(tenant, device), *fields)]
        if scope == "SHARED":
            todo.append(("PUBLISH", BUS, encode(("attributes", tenant, device, dict(values)))))
        await self._execute(todo + self._look_soon(tenant, device, scope, values))

    async def add(self, tenant: str, device: str, scope: Scope, key: str, value: Any) -> bool:
        """Set an attribute that is not there, and not shared; False if it is. Of two at once, one succeeds."""
        field, blob = attributes.field(scope, key), attributes.encode(value, now_ms())
        return bool((await self._execute([("HSETNX", self._key(tenant, device), field, blob)]))[0])

    async def delete(self, tenant: str, device: str, scope: Scope, keys: Sequence[str]) -> int:
        """Remove attributes; how many of them there were."""
        if not keys:
            return 0
        names = [attributes.field(scope, key) for key in keys]
        todo: list[tuple[Argument, ...]] = [("HDEL", self._key(tenant, device), *names)]
        count = int((await self._execute(todo + self._look_soon(tenant, device, scope, keys)))[0])
        if count and scope == "SHARED":
            await self._execute([("PUBLISH", BUS, encode(("attributes_deleted", tenant, device, list(keys))))])
        return count

    def _look_soon(self, tenant: str, device: str, scope: Scope, keys: Container[str]) -> list[tuple[Argument, ...]]:
        """Have the timer of a device fire soon whose time of silence is another one from now on (stores/activity.py).

        Not at once: what is not written yet of when it was last heard of has to be, or it would be taken for silent.
        """
        if scope != "SERVER" or activity.TIMEOUT not in keys:
            return []
        due_ms = now_ms() + activity.WRITTEN_WITHIN_MS
        return [("ZADD", self._keys(tenant, device).quiet, "XX", "LT", due_ms, device)]

    async def _execute(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        replies = await self._wire.execute(commands)
        for reply in replies:
            if failed(reply):
                raise Refused(f"storage refuses ({str(reply).split(' ', 1)[0].lower()})")
        return replies
