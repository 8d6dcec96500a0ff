"""What Redis holds of one device besides its registry entry, and how to forget it."""

from __future__ import annotations

from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.message import now_ms
from engine.partitions import all_keys, partition_of
from engine.stores import alarms, attributes
from engine.stores.activity import GONE_MS
from engine.wire import Wire, failed

STATE_TABLES: Final = (attributes.TABLE, alarms.TABLE, "node")


async def forget_device(wire: Wire, partitions: int, tenant: str, device: str) -> None:
    """Delete a device's attributes, alarms, node state, commands, kept answers and kept calls. May be called again.

    Messages of the device that are still under way may write after this; so disable the device first. Points are the
    telemetry store's.
    """
    keys = all_keys(partitions)[partition_of(tenant, device, partitions)]
    table = keys.state(alarms.TABLE, device)
    flat = (await wire.execute([("HGETALL", table)]))[0]
    if failed(flat):
        raise RedisConnectionError(str(flat))
    fields = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
    listed = [alarms.member(device, alarm.type, alarm.id) for alarm in alarms.visible(fields)]
    index = keys.index(alarms.INDEX, tenant)
    calls = (await wire.execute([("HKEYS", keys.calls(device))]))[0]
    if failed(calls):
        raise RedisConnectionError(str(calls))
    replies = await wire.execute(
        [
            ("SET", keys.gone(device), now_ms(), "PX", GONE_MS),
            *[("ZREM", index, *listed[i : i + 1000]) for i in range(0, len(listed), 1000)],
            *([("HDEL", keys.calls_where, *calls), ("ZREM", keys.calls_due, *calls)] if calls else []),
            (
                "UNLINK", *[keys.state(name, device) for name in STATE_TABLES],
                keys.commands(device), keys.answers(device), keys.calls(device),
            ),
            ("HDEL", keys.command_ids, device),
            ("ZREM", keys.quiet, device),
        ]
    )  # fmt: skip
    for reply in replies:
        if failed(reply):
            raise RedisConnectionError(str(reply))
