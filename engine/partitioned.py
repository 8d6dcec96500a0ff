"""Redis as those see it who keep something for devices: each device's lies under its partition."""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.partitions import Keys, all_keys, partition_of
from engine.wire import Argument, Reply, Wire, failed


class Partitioned:
    """A connection, and where what is kept lies on it. `every` are the keys of all partitions by number."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._wire, self._partitions = wire, partitions
        self.every = all_keys(partitions)

    def keys(self, tenant: str, device: str) -> Keys:
        """The keys of a device's partition."""
        return self.every[partition_of(tenant, device, self._partitions)]

    async def execute(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        """Send commands in one write; their replies.

        Raises redis ConnectionError, also when Redis refused one of them: the others may have been done.
        """
        replies = await self._wire.execute(commands)
        for reply in replies:
            if failed(reply):
                raise RedisConnectionError(str(reply))
        return replies
