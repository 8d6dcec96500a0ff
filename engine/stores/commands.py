"""Commands to devices: queued under the device's partition, numbered per device, open until answered or expired.

The commit queues them (`@command` of commit.lua) and the bus tells whoever holds the device's session; what must
arrive stands here, and is read whenever a device (re)connects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from engine.bus import notice
from engine.entries import encode
from engine.message import now_ms
from engine.node import Resumed
from engine.partitioned import Partitioned
from engine.redis_scripts import TAKE
from engine.stores import routes
from engine.wire import Argument, Wire, call

if TYPE_CHECKING:
    from engine.stores.kept_calls import KeptCalls

MAX_A_DEVICE: Final = 100
KEEP_MS: Final = 86_400_000
GIVEN_MS: Final = 10_000
"""How long a command can still be read that was given to a session: those of other processes hear of it a little later,
and are given it too."""


class Queued(msgspec.Struct, frozen=True, array_like=True):
    """A command as it stands in Redis. `parked` is the message that its answer brings back, empty for one-way."""

    name: str
    payload: Any
    created_ms: int
    expires_ms: int
    oneway: bool
    parked: str
    delivered: bool = False
    call: str = ""
    """Id of the kept call that follows its way."""
    notify: str = ""
    """Whoever waits for a one-way command to be handed over: `reply_to` of its message."""


class Pending(msgspec.Struct, frozen=True):
    """A command with its number."""

    id: int
    command: Queued


decode_command: Final = msgspec.msgpack.Decoder(Queued).decode


class Commands:
    """What API processes do with commands. `kept` is told what becomes of calls that are followed.

    Everything raises redis ConnectionError.
    """

    def __init__(self, wire: Wire, partitions: int, kept: KeptCalls | None = None) -> None:
        self._at, self._kept = Partitioned(wire, partitions), kept

    async def open(self, tenant: str, device: str) -> list[Pending]:
        """Commands that are not answered, oldest first; expired ones are taken away."""
        return (await self.snapshot(tenant, device))[0]

    async def snapshot(self, tenant: str, device: str) -> tuple[list[Pending], int]:
        """The open commands, and the number of the device's last command ever (0: it has had none)."""
        keys = self._at.keys(tenant, device)
        key = keys.commands(device)
        # The number first: a command that comes in between is then newer than it.
        last, flat = await self._at.execute([("HGET", keys.command_ids, device), ("HGETALL", key)])
        pending = [Pending(int(flat[i]), decode_command(flat[i + 1])) for i in range(0, len(flat), 2)]
        now = now_ms()
        expired = [entry.id for entry in pending if entry.command.expires_ms <= now]
        if expired:
            await self._at.execute([("HDEL", key, *expired)])
        found = sorted((entry for entry in pending if entry.command.expires_ms > now), key=lambda entry: entry.id)
        return found, int(last or 0)

    async def given(self, tenant: str, device: str, ids: Sequence[int]) -> list[Pending]:
        """Those of the commands that a session was given in the last ten seconds, wherever it is."""
        if not ids:
            return []
        keys = self._at.keys(tenant, device)
        blobs = await self._at.execute([("GET", keys.given_command(device, id)) for id in ids])
        return [Pending(id, decode_command(blob)) for id, blob in zip(ids, blobs, strict=True) if blob is not None]

    async def undelivered(self, tenant: str, device: str) -> list[Pending]:
        """Open commands that no session has been given yet, oldest first."""
        return [entry for entry in await self.open(tenant, device) if not entry.command.delivered]

    async def get(self, tenant: str, device: str, id: int) -> Queued | None:
        """One command, unless it is answered or expired."""
        blob = (await self._at.execute([("HGET", self._at.keys(tenant, device).commands(device), id)]))[0]
        if blob is None:
            return None
        command = decode_command(blob)
        return command if command.expires_ms > now_ms() else None

    async def delivered(self, tenant: str, device: str, entry: Pending, *, confirmed: bool = True) -> None:
        """A session has been given the command: a one-way command is done, others wait for their answer.

        For ten seconds `given` finds it all the same. `confirmed` false: the session will tell by `confirm` when the
        device has it, which is of interest where a kept call follows it.
        """
        command = entry.command
        waits = not command.oneway
        if self._kept is not None and command.call:
            follow = self._kept.confirmed if confirmed else self._kept.sent
            call = await follow(tenant, device, command.call)
            # Until it is confirmed it may have to be sent again.
            waits = waits or (call is not None and not call.ended)
        keys = self._at.keys(tenant, device)
        key, blob = keys.commands(device), encode(msgspec.structs.replace(command, delivered=True))
        done: tuple[Argument, ...] = ("HSET", key, entry.id, blob) if waits else ("HDEL", key, entry.id)
        # Kept first: whoever no longer finds it open finds it there.
        lines = [("SET", keys.given_command(device, entry.id), blob, "PX", GIVEN_MS), done]
        if command.notify:
            lines.append(notice(command.notify, "delivered", None, ""))
        await self._at.execute(lines)

    async def confirm(self, tenant: str, device: str, entry: Pending) -> None:
        """The device has a command of a kept call that was `delivered` without being confirmed."""
        if self._kept is not None and entry.command.call:
            await self._kept.confirmed(tenant, device, entry.command.call)
            if entry.command.oneway:
                await self._at.execute([("HDEL", self._at.keys(tenant, device).commands(device), entry.id)])

    async def answer(self, tenant: str, device: str, id: int, body: Any) -> bool:
        """The device's answer: brings the waiting message back. False if no such command is open."""
        command = await self.get(tenant, device, id)
        if command is None:
            return False
        if self._kept is not None and command.call:
            await self._kept.answered(tenant, device, command.call, body)
        keys = self._at.keys(tenant, device)
        taken = 1
        if command.parked:
            resumed = encode(Resumed("answer", body))
            take = call(TAKE, (keys.inbox, keys.parked, keys.due), command.parked, resumed)
            [taken] = await self._at.execute([take])
        # Not before: while it is open, the device can answer again if there was no room for its answer.
        await self._at.execute([("HDEL", keys.commands(device), id)])
        return taken == 1

    async def set_route(self, tenant: str, device: str, route: routes.Route) -> None:
        """Remember by which call the device's network takes commands."""
        key = self._at.keys(tenant, device).state(routes.TABLE, device)
        await self._at.execute([("HSET", key, routes.FIELD, routes.encode(route))])
