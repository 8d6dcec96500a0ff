"""Commands on their way to the devices' live sessions of this process: queued ones first, then each as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError

from api.dialects.cloudthing.payloads import as_bytes
from api.live import Live
from engine.stores.commands import Commands
from engine.stores.registry import Device

log = logging.getLogger("rulemill.cloudthing")

TRY_AGAIN_S: Final = 1.0


class Receiver(Protocol):
    """One live session of a device. Both calls tell whether it wanted what it was given."""

    def command(self, command_id: str, payload: bytes) -> bool:
        """A command for the device."""

    def answer(self, event_id: str, payload: bytes) -> bool:
        """The answer to an event of the device."""


class Deliveries:
    """Hands each queued command of a device to all its sessions here, oldest first, and notes that it was delivered.

    A command that no session wants stays queued.
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
            delivery.remove = self._live.listen(device.id, partial(_heard, delivery))
        delivery.receivers.append(receiver)
        return partial(self._detach, delivery, receiver)

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
        receivers = delivery.receivers if delivery is not None else []
        return sum([receiver.answer(event_id, payload) for receiver in list(receivers)]) > 0

    async def stop(self) -> None:
        """Deliver nothing more."""
        tasks = [delivery.task for delivery in self._devices.values() if delivery.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _detach(self, delivery: _Delivery, receiver: Receiver) -> None:
        if receiver in delivery.receivers:
            delivery.receivers.remove(receiver)
        if not delivery.receivers and self._devices.get(delivery.device.id) is delivery:
            del self._devices[delivery.device.id]
            delivery.remove()


class _Delivery:
    """The sessions of one device, and the one task that serves them."""

    def __init__(self, commands: Commands, device: Device) -> None:
        self.device = device
        self.receivers: list[Receiver] = []
        self.remove: Callable[[], None] = lambda: None
        self.task: asyncio.Task[None] | None = None
        self._commands = commands
        self._again = False
        self._unmarked: set[int] = set()
        """Commands that were given to a session and could not be marked so yet."""

    def wake(self) -> None:
        self._again = True
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._run(), name="ct-delivery")

    async def _run(self) -> None:
        try:
            while self._again and self.receivers:
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
        for entry in await self._commands.undelivered(tenant, device):
            if entry.id not in self._unmarked:
                body = as_bytes(entry.command.payload).body
                if not sum([receiver.command(entry.command.name, body) for receiver in list(self.receivers)]):
                    continue
                self._unmarked.add(entry.id)
            await self._commands.delivered(tenant, device, entry)
            self._unmarked.discard(entry.id)


def _heard(delivery: _Delivery, kind: str, body: object) -> None:
    if kind == "command":
        delivery.wake()
