"""Commands on their way to the devices' live sessions of this process: queued ones first, then each as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError

from api.dialects.cloudthing.payloads import as_bytes
from api.live import Live
from engine.stores.commands import Commands, Pending
from engine.stores.registry import Device

log = logging.getLogger("rulemill.cloudthing")

TRY_AGAIN_S: Final = 1.0
REMEMBERED: Final = 200
"""How many numbers back a session is known to have been given a command."""


class Receiver(Protocol):
    """One live session of a device. Both calls tell whether it wanted what it was given."""

    def command(self, command_id: str, payload: bytes) -> bool:
        """A command for the device."""

    def answer(self, event_id: str, payload: bytes) -> bool:
        """The answer to an event of the device."""


class Deliveries:
    """Hands each command of a device to all its sessions here, oldest first, and notes that it was delivered.

    A command that no session wants stays queued. One that comes while a session is there is given to that session
    even when another process was quicker to deliver it to its own (CT-73); what was delivered before is not.
    """

    def __init__(self, commands: Commands, live: Live) -> None:
        self._commands = commands
        self._live = live
        self._devices: dict[str, _Delivery] = {}

    def attach(self, device: Device, receiver: Receiver) -> Callable[[], None]:
        """Deliver to a session from now on; returns what ends that. Needs a `wake` for what is queued already."""
        delivery = self._devices.get(device.id)
        if delivery is None:
            delivery = self._devices[device.id] = _Delivery(self._commands, device)
            delivery.remove = self._live.listen(device.id, delivery.heard)
        attached = _Attached(receiver)
        delivery.sessions.append(attached)
        return partial(self._detach, delivery, attached)

    def wake(self, device_id: str) -> None:
        """A session wants more than before: look at the queue."""
        delivery = self._devices.get(device_id)
        if delivery is not None:
            delivery.wake()

    def wake_all(self) -> None:
        """Hints may have been lost: look at every queue."""
        for delivery in self._devices.values():
            delivery.wake()

    def answer(self, device_id: str, event_id: str, payload: bytes) -> bool:
        """Give the answer to an event to the device's sessions here; whether one wanted it."""
        delivery = self._devices.get(device_id)
        sessions = list(delivery.sessions) if delivery is not None else []
        return sum([each.receiver.answer(event_id, payload) for each in sessions]) > 0

    async def stop(self) -> None:
        """Deliver nothing more."""
        tasks = [delivery.task for delivery in self._devices.values() if delivery.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _detach(self, delivery: _Delivery, attached: _Attached) -> None:
        if attached in delivery.sessions:
            delivery.sessions.remove(attached)
        if not delivery.sessions and self._devices.get(delivery.device.id) is delivery:
            del self._devices[delivery.device.id]
            delivery.remove()


class _Attached:
    """A session, and what it is known to have heard of. Numbers are those of commands."""

    __slots__ = ("given", "hinted", "receiver", "seen")

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.hinted: frozenset[int] = frozenset()
        """Commands that came while it was there, to be looked at."""
        self.given: frozenset[int] = frozenset()
        self.seen: int | None = None
        """The last number when the queue was last looked at."""

    def is_for(self, id: int, delivered: bool) -> bool:
        """Whether to offer it a command."""
        if id in self.given:
            return False
        return not delivered or id in self.hinted or (self.seen is not None and id > self.seen)

    def note(self, last: int, hinted: frozenset[int]) -> None:
        """The queue was looked at up to a number, and those hints were followed."""
        self.seen = max(self.seen or 0, last)
        self.hinted -= hinted
        if len(self.given) > 2 * REMEMBERED:
            self.given = frozenset(id for id in self.given if id > last - REMEMBERED)


class _Delivery:
    """The sessions of one device, and the one task that serves them."""

    __slots__ = ("_again", "_commands", "_unmarked", "device", "remove", "sessions", "task")

    def __init__(self, commands: Commands, device: Device) -> None:
        self.device = device
        self.sessions: list[_Attached] = []
        self.remove: Callable[[], None] = _nothing
        self.task: asyncio.Task[None] | None = None
        self._commands = commands
        self._again = False
        self._unmarked: frozenset[int] = frozenset()
        """Commands that were given to a session and could not be marked so yet."""

    def heard(self, kind: str, body: object) -> None:
        """Something happened to the device: perhaps a command came, and then `body` is its number."""
        if kind != "command":
            return
        if isinstance(body, int):
            for each in self.sessions:
                each.hinted |= {body}
        self.wake()

    def wake(self) -> None:
        self._again = True
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._run(), name="ct-delivery")

    async def _run(self) -> None:
        try:
            while self._again and self.sessions:
                self._again = False
                try:
                    await self._deliver()
                except RedisConnectionError as error:
                    log.warning("commands of device %s wait: %s", self.device.id, error)
                    self._again = True
                    await asyncio.sleep(TRY_AGAIN_S)
        finally:
            self.task = None

    async def _deliver(self) -> None:
        tenant, device = self.device.tenant, self.device.id
        # Sessions and hints as they are before the look: what comes meanwhile asks for another one.
        looking = [(each, each.hinted) for each in self.sessions]
        entries, last = await self._commands.snapshot(tenant, device)
        known = {entry.id for entry in entries}
        entries += await self._commands.given(tenant, device, sorted(self._wanted(looking, last) - known))
        for entry in sorted(entries, key=_number):
            if self._give(entry, [each for each, _ in looking]):
                self._unmarked |= {entry.id}
            if entry.id in self._unmarked and not entry.command.delivered:
                await self._commands.delivered(tenant, device, entry)
            self._unmarked -= {entry.id}
        last = max(last, *known, 0) if known else last
        for each, hinted in looking:
            each.note(last, hinted)

    def _wanted(self, looking: Iterable[tuple[_Attached, frozenset[int]]], last: int) -> set[int]:
        """Numbers that some session should have been offered, should they no longer be queued."""
        wanted: set[int] = set()
        for each, hinted in looking:
            wanted |= hinted - each.given
            if each.seen is not None:
                wanted |= set(range(max(each.seen + 1, last - REMEMBERED), last + 1)) - each.given
        return wanted

    def _give(self, entry: Pending, sessions: Iterable[_Attached]) -> bool:
        """Offer a command to those that it is for; whether one took it."""
        delivered = entry.command.delivered or entry.id in self._unmarked
        body = None
        for each in sessions:
            if each in self.sessions and each.is_for(entry.id, delivered):
                body = as_bytes(entry.command.payload).body if body is None else body
                if each.receiver.command(entry.command.name, body):
                    each.given |= {entry.id}
        return body is not None and any(entry.id in each.given for each in sessions)


def _number(entry: Pending) -> int:
    return entry.id


def _nothing() -> None:
    pass
