"""State of originators in Redis, read for a batch in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.partitions import all_keys, partition_of
from engine.view import Field
from engine.wire import Wire, failed


class State:
    """Reads state fields; writes go with the commit."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._wire, self._partitions = wire, partitions

    async def load(self, tenant: str, fields: Sequence[Field]) -> list[bytes | None]:
        """Values of fields in the order asked, None where there is none."""
        keys = all_keys(self._partitions)
        groups: dict[str, list[int]] = {}
        for i, (originator, table, _) in enumerate(fields):
            key = keys[partition_of(tenant, originator, self._partitions)].state(table, originator)
            groups.setdefault(key, []).append(i)
        replies = await self._wire.execute(
            [("HMGET", key, *[fields[i][2] for i in wanted]) for key, wanted in groups.items()]
        )
        values: list[bytes | None] = [None] * len(fields)
        for wanted, reply in zip(groups.values(), replies, strict=True):
            if failed(reply):
                raise RedisConnectionError(str(reply))
            for i, value in zip(wanted, reply, strict=True):
                values[i] = value
        return values
