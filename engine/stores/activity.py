"""When devices were last heard of, and who has been silent for too long: server attributes, and a timer for each.

The attributes are ThingsBoard's (`TB-S41`). A timer is a member of its partition's sorted set `quiet`; it is not moved
when the device is heard of, but looks at that when it fires, and waits for the rest. What is told of a device and what
is noted of it are one script, so that nothing is told twice or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from engine.entries import pack_messages
from engine.message import Message
from engine.partitioned import Partitioned
from engine.partitions import Keys
from engine.redis_scripts import ACTIVE, PRESENT, SILENT
from engine.stores import attributes
from engine.stores.attributes import Attribute
from engine.wire import Wire, call, failed

ACTIVE_STATE: Final = "active"
LAST_ACTIVITY: Final = "lastActivityTime"
LAST_CONNECT: Final = "lastConnectTime"
LAST_DISCONNECT: Final = "lastDisconnectTime"
ALARM_TIME: Final = "inactivityAlarmTime"
TIMEOUT: Final = "inactivityTimeout"
"""How long a device may be silent, in milliseconds: for people to set."""

WRITTEN_WITHIN_MS: Final = 62_000
"""What a process has heard of a device is written by then."""
AT_ONCE: Final = 200
"""Devices in one go, per partition."""
GONE_MS: Final = 600_000
"""How long it is remembered that a device was deleted: nothing that is noted of one waits longer."""


class Heard(NamedTuple):
    """A device that was heard of, and the message that tells that it is active, should it not have been."""

    device: str
    tenant: str
    made_ms: int
    heard_ms: int
    silence_ms: int
    """How long it may be silent where its attribute does not say."""
    message: Message


class Noted(NamedTuple):
    """What came of it: whether the chain was told, and how long the device may be silent. 0: it was deleted."""

    told: bool
    silence_ms: int


class Presence(NamedTuple):
    """A device that connected or disconnected, at `at_ms`, with the attribute and the message of that."""

    device: str
    tenant: str
    made_ms: int
    attribute: str
    at_ms: int
    message: Message


class ActivityStore:
    """All reads and writes. Raises redis ConnectionError."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._wire, self._at = wire, Partitioned(wire, partitions)

    async def heard(self, batch: Sequence[Heard], now_ms: int) -> list[Noted]:
        """Note that devices were heard of; in one write."""
        commands = []
        active = attributes.encode(True, now_ms)
        for each in batch:
            keys = self._at.keys(each.tenant, each.device)
            names = (_table(keys, each.device), keys.quiet, keys.inbox, keys.gone(each.device))
            commands.append(
                call(
                    ACTIVE, names, each.device, each.made_ms, each.heard_ms, now_ms, each.silence_ms,
                    attributes.encode(each.heard_ms, now_ms), active, pack_messages([each.message]),
                )
            )  # fmt: skip
        return [Noted(bool(told), silence_ms) for told, silence_ms in await self._at.execute(commands)]

    async def present(self, batch: Sequence[Presence]) -> list[Presence]:
        """Note that devices connected and disconnected, in their order; in one write. What could not be noted now."""
        commands = []
        for each in batch:
            keys = self._at.keys(each.tenant, each.device)
            names = (_table(keys, each.device), keys.inbox, keys.gone(each.device))
            value = attributes.encode(each.at_ms, each.at_ms)
            field = attributes.field("SERVER", each.attribute)
            commands.append(call(PRESENT, names, each.made_ms, field, value, pack_messages([each.message])))
        replies = await self._wire.execute(commands)
        return [each for each, reply in zip(batch, replies, strict=True) if failed(reply)]

    async def due(self, now_ms: int) -> list[tuple[int, str]]:
        """Some of the devices whose time has come: the number of their partition, and their id."""
        every = self._at.every
        window = ("-inf", now_ms, "LIMIT", 0, AT_ONCE)
        found = await self._at.execute([("ZRANGEBYSCORE", keys.quiet, *window) for keys in every])
        return [(keys.number, id.decode()) for keys, ids in zip(every, found, strict=True) for id in ids]

    async def read(self, tenant: str, device: str) -> dict[str, Attribute]:
        """A device's server attributes."""
        flat = (await self._at.execute([("HGETALL", _table(self._at.keys(tenant, device), device))]))[0]
        return attributes.by_scope(dict(zip(flat[::2], flat[1::2], strict=True)))["SERVER"]

    async def silent(self, message: Message, now_ms: int, silence_ms: int) -> bool:
        """Note that the message's originator is silent, and tell so, if that is so; else its timer waits for the rest.

        Whether it was told. `silence_ms` as in `Heard`.
        """
        device = message.originator
        keys = self._at.keys(message.tenant, device)
        names = (_table(keys, device), keys.quiet, keys.inbox)
        inactive, alarm = attributes.encode(False, now_ms), attributes.encode(now_ms, now_ms)
        entry = pack_messages([message])
        command = call(SILENT, names, device, now_ms, silence_ms, inactive, alarm, entry)
        return bool((await self._at.execute([command]))[0])

    async def forget(self, number: int, device: str) -> None:
        """Drop the timer of a device that is no more."""
        await self._at.execute([("ZREM", self._at.every[number].quiet, device)])


def _table(keys: Keys, device: str) -> str:
    return keys.state(attributes.TABLE, device)
