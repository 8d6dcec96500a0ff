"""Commands on their way to the devices' live sessions of this process: queued ones first, then each as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError

from api.live import Live
from engine.stores.commands import Commands, Pending
from engine.stores.registry import Device

log = logging.getLogger("rulemill.deliveries")

TRY_AGAIN_S: Final = 1.0
REMEMBERED: Final = 200
"""How many numbers back a session is known to have been given a command."""
LOOKING: Final = 32
"""How many queues are looked at at a time: a gateway that connects has thousands."""

UNCONFIRMED: Final = 2
"""What `give` says of a session that took a command and will confirm it."""

R = TypeVar("R")


class Deliveries(Generic[R]):
    """Hands each command of a device to all its sessions here, oldest first, and notes that it was delivered.

    `give` hands one to a session and tells whether that wanted it: False, True or UNCONFIRMED. A command that no
    session wants stays queued. One that comes while a session is there is given to that session even when another
    process was quicker to deliver it to its own (CT-73, TB-S17); what was delivered before is not.
    """

    def __init__(self, commands: Commands, live: Live, give: Callable[[R, Pending], int]) -> None:
        self._commands, self._live, self._give = commands, live, give
        self._devices: dict[str, _Delivery[R]] = {}
        self._due: deque[_Delivery[R]] = deque()
        self._lookers: set[asyncio.Task[None]] = set()
        self._active = 0
        """Lookers that have not come to their end."""
        self._confirming: set[asyncio.Task[None]] = set()
        self._end_lost = live.on_lost(self.wake_all)
        self._stopped = False

    def attach(self, device: Device, receiver: R, *, once: bool = False) -> Callable[[], None]:
        """Deliver to a session from now on; returns what ends that. Needs a `wake` for what is queued already.

        `once`: the session wants a single command, and what was queued is shared out among such.
        """
        delivery = self._devices.get(device.id)
        if delivery is None:
            delivery = self._devices[device.id] = _Delivery(device)
            delivery.unlisten = self._live.listen(device.id, partial(self._heard, delivery))
        attached = _Attached(receiver, once)
        delivery.sessions.append(attached)
        return partial(self._detach, delivery, attached)

    def receivers(self, device_id: str) -> list[R]:
        """The sessions of a device here."""
        delivery = self._devices.get(device_id)
        return [each.receiver for each in delivery.sessions] if delivery is not None else []

    def wake(self, device_id: str) -> None:
        """A session wants more than before: look at the queue."""
        delivery = self._devices.get(device_id)
        if delivery is not None:
            self._look_at(delivery)

    def wake_all(self) -> None:
        """Hints may have been lost: look at every queue."""
        for delivery in self._devices.values():
            self._look_at(delivery)

    def confirmation(self, device: Device, entry: Pending) -> Callable[[], None] | None:
        """What a session calls when its client has confirmed a command; None where nobody wants to know."""
        return partial(self._confirm, device, entry) if entry.command.call else None

    def _confirm(self, device: Device, entry: Pending) -> None:
        task = asyncio.get_running_loop().create_task(self._confirmed(device, entry), name="confirmation")
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirmed(self, device: Device, entry: Pending) -> None:
        try:
            await self._commands.confirm(device.tenant, device.id, entry)
        except RedisConnectionError as error:
            log.warning("a command that device %s has confirmed may be sent again: %s", device.id, error)

    async def stop(self) -> None:
        """Deliver nothing more."""
        self._end_lost()
        self._stopped = True
        tasks = [*self._lookers, *self._confirming]
        for task in self._lookers:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _detach(self, delivery: _Delivery[R], attached: _Attached[R]) -> None:
        if attached in delivery.sessions:
            delivery.sessions.remove(attached)
        self._forget_if_idle(delivery)

    def _forget_if_idle(self, delivery: _Delivery[R]) -> None:
        # What was given and is not marked so yet must be known to whoever looks next.
        busy = delivery.sessions or delivery.looking or delivery.unmarked
        if not busy and self._devices.get(delivery.device.id) is delivery:
            del self._devices[delivery.device.id]
            delivery.unlisten()

    def _heard(self, delivery: _Delivery[R], kind: str, body: object) -> None:
        """Something happened to the device: perhaps a command came, and then `body` is its number."""
        if kind != "command":
            return
        if isinstance(body, int):
            for each in delivery.sessions:
                each.hinted |= {body}
        self._look_at(delivery)

    # Looking at queues, each by one looker at a time

    def _look_at(self, delivery: _Delivery[R]) -> None:
        if delivery.due or self._stopped:
            return
        delivery.due = True
        if delivery.looking:
            return
        self._due.append(delivery)
        if self._active < LOOKING:
            self._active += 1
            task = asyncio.get_running_loop().create_task(self._look(), name="deliveries")
            self._lookers.add(task)
            task.add_done_callback(self._lookers.discard)

    async def _look(self) -> None:
        try:
            await self._look_at_all()
        finally:
            # At once: whatever is due from now on needs another looker.
            self._active -= 1

    async def _look_at_all(self) -> None:
        while self._due:
            delivery = self._due.popleft()
            delivery.due, delivery.looking = False, True
            try:
                await self._deliver(delivery)
            except RedisConnectionError as error:
                log.warning("commands of device %s wait: %s", delivery.device.id, error)
                asyncio.get_running_loop().call_later(TRY_AGAIN_S, self._look_at, delivery)
            except Exception:
                log.exception("commands of device %s cannot be delivered", delivery.device.id)
            finally:
                delivery.looking = False
            if delivery.due:
                self._due.append(delivery)
            else:
                self._forget_if_idle(delivery)

    async def _deliver(self, delivery: _Delivery[R]) -> None:
        tenant, device = delivery.device.tenant, delivery.device.id
        # Sessions and hints as they are before the look: what comes meanwhile asks for another one.
        looking = [(each, each.hinted) for each in delivery.sessions]
        if not looking and not delivery.unmarked:
            return
        entries, last = await self._commands.snapshot(tenant, device)
        known = {entry.id for entry in entries}
        entries += await self._commands.given(tenant, device, sorted(_wanted(looking, last) - known))
        for entry in sorted(entries, key=_number):
            if self._offer(delivery, entry, [each for each, _ in looking]):
                delivery.unmarked |= {entry.id}
            if entry.id in delivery.unmarked and not entry.command.delivered:
                confirmed = entry.id not in delivery.unconfirmed
                await self._commands.delivered(tenant, device, entry, confirmed=confirmed)
            delivery.unmarked -= {entry.id}
        # Whatever else was not marked is answered or expired.
        delivery.unmarked = delivery.unconfirmed = frozenset()
        last = max(last, *known, 0) if known else last
        for each, hinted in looking:
            each.note(last, hinted)

    def _offer(self, delivery: _Delivery[R], entry: Pending, sessions: Sequence[_Attached[R]]) -> bool:
        """Offer a command to those that it is for; whether one took it."""
        delivered = entry.command.delivered or entry.id in delivery.unmarked
        taken = shared = confirmed = False
        for each in sessions:
            if each not in delivery.sessions or not each.is_for(entry.id, delivered):
                continue
            share = each.once and not each.is_new(entry.id)
            if share and shared:
                continue
            given = self._give(each.receiver, entry)
            if given:
                each.given |= {entry.id}
                taken, shared, confirmed = True, shared or share, confirmed or given != UNCONFIRMED
        if taken and not confirmed:
            delivery.unconfirmed |= {entry.id}
        return taken


class _Attached(Generic[R]):
    """A session, and what it is known to have heard of. Numbers are those of commands."""

    __slots__ = ("given", "hinted", "once", "receiver", "seen")

    def __init__(self, receiver: R, once: bool) -> None:
        self.receiver = receiver
        self.once = once
        self.hinted: frozenset[int] = frozenset()
        """Commands that came while it was there, to be looked at."""
        self.given: frozenset[int] = frozenset()
        self.seen: int | None = None
        """The last number when the queue was last looked at."""

    def is_new(self, id: int) -> bool:
        """Whether a command came while it was there."""
        return id in self.hinted or (self.seen is not None and id > self.seen)

    def is_for(self, id: int, delivered: bool) -> bool:
        """Whether to offer it a command."""
        if id in self.given or (self.once and self.given):
            return False
        return not delivered or self.is_new(id)

    def note(self, last: int, hinted: frozenset[int]) -> None:
        """The queue was looked at up to a number, and those hints were followed."""
        self.seen = max(self.seen or 0, last)
        self.hinted -= hinted
        if len(self.given) > 2 * REMEMBERED:
            self.given = frozenset(id for id in self.given if id > last - REMEMBERED)


class _Delivery(Generic[R]):
    """The sessions of one device."""

    __slots__ = ("device", "due", "looking", "sessions", "unconfirmed", "unlisten", "unmarked")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.sessions: list[_Attached[R]] = []
        self.unlisten: Callable[[], None] = _nothing
        self.due = False
        """Its queue is to be looked at."""
        self.looking = False
        self.unmarked: frozenset[int] = frozenset()
        """Commands that were given to a session and could not be marked so yet."""
        self.unconfirmed: frozenset[int] = frozenset()
        """Those of them that every session it was given will confirm."""


def _wanted(looking: Iterable[tuple[_Attached[R], frozenset[int]]], last: int) -> set[int]:
    """Numbers that some session should have been offered, should they no longer be queued."""
    wanted: set[int] = set()
    for each, hinted in looking:
        wanted |= hinted - each.given
        if each.seen is not None:
            wanted |= set(range(max(each.seen + 1, last - REMEMBERED), last + 1)) - each.given
    return wanted


def _number(entry: Pending) -> int:
    return entry.id


def _nothing() -> None:
    pass
