"""Calls to devices that somebody wants to follow: kept durably from the first word to some days after the last.

A call lies under its device's partition, and so does what is told of it: each change and its message are one script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from engine.bus import BUS
from engine.entries import encode, pack_messages
from engine.errors import Conflict
from engine.message import Message, new_id, now_ms
from engine.partitioned import Partitioned
from engine.partitions import Keys
from engine.redis_scripts import KEEP_CALL
from engine.stores import kept_call
from engine.stores.commands import Queued, decode_command
from engine.stores.kept_call import KEEP_MS, KeptCall, decode_call
from engine.wire import Argument, Wire, call

MOST_OPEN: Final = 100
"""Calls of one device that are under way."""
MOST: Final = 1000
"""Calls of one device in all, the oldest that ended going first."""
AT_ONCE: Final = 200
"""Calls looked at in one go of the sweep, per partition."""

Describe = Callable[[KeptCall], Any]
"""The data of the messages that tell of a call."""


class KeptCalls:
    """Keeps calls and follows their way. Everything raises redis ConnectionError; `clock` gives ms."""

    def __init__(self, wire: Wire, partitions: int, describe: Describe, clock: Callable[[], int] = now_ms) -> None:
        self._at = Partitioned(wire, partitions)
        self._describe, self._clock = describe, clock

    def new_id(self, tenant: str, device: str) -> str:
        """A fresh id: a UUID that ends with the device's partition, so that it alone is enough to find the call."""
        return f"{new_id()[:-4]}{self._at.keys(tenant, device).number:04x}"

    # Making, finding, forgetting

    async def add(self, made: KeptCall, request: Message) -> KeptCall:
        """Keep a new call, and store `request`, the message that makes it; both, or neither.

        One that is too late already is EXPIRED and goes no further. Raises Conflict for a device with too many.
        """
        keys = self._at.keys(made.tenant, made.device)
        await self._make_room(keys, made.device)
        now = self._clock()
        if made.expires_ms <= now:
            kept = replace(made, status="EXPIRED", due_ms=now + KEEP_MS)
            messages = [self._told(kept)]
        else:
            kept = replace(made, due_ms=made.expires_ms)
            messages = [request, self._told(kept)]
        await self._write(keys, kept, b"", kept, messages)
        return kept

    async def _make_room(self, keys: Keys, device: str) -> None:
        table = keys.calls(device)
        if (await self._at.execute([("HLEN", table)]))[0] < MOST_OPEN:
            return
        blobs = (await self._at.execute([("HVALS", table)]))[0]
        known = [(decode_call(blob), blob) for blob in blobs]
        ended = sorted(((each, blob) for each, blob in known if each.ended), key=lambda pair: pair[0].created_ms)
        if len(known) - len(ended) >= MOST_OPEN:
            raise Conflict(f"{MOST_OPEN} calls are under way to this device")
        for each, blob in ended[: max(len(known) - MOST + 1, 0)]:
            await self._write(keys, each, blob, None)

    async def find(self, id: str) -> KeptCall | None:
        """A call of any tenant by its id."""
        found = await self._locate(id)
        return None if found is None else found[2]

    async def _locate(self, id: str) -> tuple[Keys, bytes, KeptCall] | None:
        try:
            number = int(id[-4:], 16)
        except ValueError:
            return None
        if number >= len(self._at.every):
            return None
        keys = self._at.every[number]
        device = (await self._at.execute([("HGET", keys.calls_where, id)]))[0]
        blob = device and (await self._at.execute([("HGET", keys.calls(device.decode()), id)]))[0]
        return None if blob is None else (keys, blob, decode_call(blob))

    async def of(self, tenant: str, device: str) -> list[KeptCall]:
        """A device's calls, newest first."""
        blobs = (await self._at.execute([("HVALS", self._at.keys(tenant, device).calls(device))]))[0]
        return sorted((decode_call(blob) for blob in blobs), key=lambda each: (each.created_ms, each.id), reverse=True)

    async def forget(self, id: str) -> KeptCall | None:
        """Forget a call, take it back from the device's queue, and tell so (`RPC_DELETED`); None if there is none."""
        while True:
            found = await self._locate(id)
            if found is None:
                return None
            keys, blob, known = found
            told = [self._message(known, "RPC_DELETED")]
            if await self._write(keys, known, blob, None, told, await self._withdrawn(keys, known)):
                return known

    # What happens to them

    async def sent(self, tenant: str, device: str, id: str) -> KeptCall | None:
        """A session was handed the call and will confirm it; the call as it is then."""
        return await self._change(tenant, device, id, kept_call.sent)

    async def confirmed(self, tenant: str, device: str, id: str) -> KeptCall | None:
        """The device has the call; the call as it is then."""
        return await self._change(tenant, device, id, kept_call.confirmed)

    async def answered(self, tenant: str, device: str, id: str, body: Any) -> None:
        """The device has answered."""
        await self._change(tenant, device, id, partial(kept_call.answered, body=body))

    async def look(self, id: str) -> None:
        """Do what is due with a call."""
        while True:
            found = await self._locate(id)
            if found is None:
                # Its device was deleted while it was being made.
                keys = self._at.every[int(id[-4:], 16)]
                await self._at.execute([("ZREM", keys.calls_due, id), ("HDEL", keys.calls_where, id)])
                return
            keys, blob, known = found
            now = self._clock()
            if now < known.due_ms:
                return
            if known.ended:
                done = await self._write(keys, known, blob, None)
            else:
                made = kept_call.overdue(known, now)
                more = await (self._again(keys, made) if not made.ended else self._withdrawn(keys, made))
                done = await self._write(keys, made, blob, made, [self._told(made)], more)
            if done:
                return

    async def _withdrawn(self, keys: Keys, known: KeptCall) -> list[tuple[Argument, ...]]:
        """Commands that take the call out of its device's queue."""
        found = await self._queued(keys, known)
        return [] if found is None else [("HDEL", keys.commands(known.device), found[0])]

    async def _again(self, keys: Keys, known: KeptCall) -> list[tuple[Argument, ...]]:
        """Commands that have the next session of the device given the call."""
        found = await self._queued(keys, known)
        if found is None:
            return []
        number, command = found
        hint = encode(("command", known.tenant, known.device, number))
        return [
            ("HSET", keys.commands(known.device), number, encode(replace(command, delivered=False))),
            ("PUBLISH", BUS, hint),
        ]

    async def _queued(self, keys: Keys, known: KeptCall) -> tuple[int, Queued] | None:
        flat = (await self._at.execute([("HGETALL", keys.commands(known.device))]))[0]
        for number, blob in zip(flat[::2], flat[1::2], strict=True):
            command = decode_command(blob)
            if command.call == known.id:
                return int(number), command
        return None

    async def due(self) -> list[str]:
        """Ids of calls that are to be looked at now, some of each partition."""
        window = ("-inf", self._clock(), "LIMIT", 0, AT_ONCE)
        found = await self._at.execute([("ZRANGEBYSCORE", keys.calls_due, *window) for keys in self._at.every])
        return [id.decode() for ids in found for id in ids]

    # Inside

    async def _change(
        self, tenant: str, device: str, id: str, change: Callable[[KeptCall, int], KeptCall | None]
    ) -> KeptCall | None:
        """Change a call and tell so, none of two changes at once lost; the call as it is then.

        `change` gives None to leave it as it is.
        """
        keys = self._at.keys(tenant, device)
        while True:
            blob = (await self._at.execute([("HGET", keys.calls(device), id)]))[0]
            if blob is None:
                return None
            known = decode_call(blob)
            made = change(known, self._clock())
            if made is None:
                return known
            if await self._write(keys, made, blob, made, [self._told(made)]):
                return made

    async def _write(
        self,
        keys: Keys,
        about: KeptCall,
        before: bytes,
        after: KeptCall | None,
        messages: Sequence[Message] = (),
        more: Sequence[tuple[Argument, ...]] = (),
    ) -> bool:
        """One script: the call as it shall be, what is told of it, and `more` commands. False if it was changed."""
        blob, due_ms = (encode(after), after.due_ms) if after is not None else (b"", 0)
        entry = pack_messages(messages) if messages else b""
        names = (keys.calls(about.device), keys.calls_where, keys.calls_due, keys.inbox)
        lines: list[Argument] = []
        for each in more:
            lines += (len(each), *each)
        command = call(KEEP_CALL, names, about.id, about.device, before, blob, due_ms, entry, *lines)
        return bool((await self._at.execute([command]))[0])

    def _told(self, made: KeptCall) -> Message:
        return self._message(made, f"RPC_{made.status}")

    def _message(self, made: KeptCall, type: str) -> Message:
        return Message(
            id=new_id(), ts_ms=self._clock(), tenant=made.tenant, type=type, originator=made.device,
            data=self._describe(made), metadata={**made.metadata, "requestUUID": made.id},
        )  # fmt: skip
