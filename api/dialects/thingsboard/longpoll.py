"""Long polls: requests that are answered when something happens to their device, or when their time is over.

An open poll costs no look into Redis: what the bus tells is handed to all polls of a device at once.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from api.auth import DeviceAuth
from api.deliveries import Deliveries
from api.dialects.thingsboard.payload import UPDATES, update_of
from api.dialects.thingsboard.rpc import Give, give
from api.live import Live, Recheck
from api.transports.http import HttpError, Request
from engine.errors import RulemillError
from engine.message import now_ms
from engine.stores.attribute_store import Attributes
from engine.stores.commands import Commands, Pending
from engine.stores.registry import Device

Future = asyncio.Future[Any]


class Deleted(RulemillError):
    """The device was deleted while it waited (`TB-S18`)."""


class _Open:
    """The open polls of one device."""

    __slots__ = ("attributes", "commands", "device")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.commands: set[Future] = set()
        self.attributes: dict[Future, int] = {}
        """With the time each was opened."""


class Polls:
    """All open polls of a process."""

    def __init__(self, live: Live, auth: DeviceAuth, commands: Commands, attributes: Attributes) -> None:
        self._live, self._auth, self._attributes = live, auth, attributes
        self._deliveries: Deliveries[Give] = Deliveries(commands, live, give)
        self._open: dict[str, _Open] = {}
        self._missed = Recheck("polls after a break", self._look_again)
        self._devices = Recheck("devices with polls", self._look_at_devices)
        self._ends = [live.on_lost(self._missed.ask), auth.on_change(self._changed)]

    async def stop(self) -> None:
        """Listen no more; open polls are ended by the front."""
        for end in self._ends:
            end()
        self._ends = []
        await self._missed.stop()
        await self._devices.stop()
        await self._deliveries.stop()

    async def attributes(self, request: Request, device: Device, timeout_s: float) -> dict[str, Any] | None:
        """The next change of shared attributes, flat, or `{"deleted": keys}`; None when the time is over."""
        polls, future = self._enter(device), asyncio.get_running_loop().create_future()
        polls.attributes[future] = now_ms()
        unlisten = self._live.listen(device.id, partial(_told, future))
        try:
            return await request.wait(future, timeout_s)
        finally:
            unlisten()
            del polls.attributes[future]
            self._leave(polls)

    async def command(self, request: Request, device: Device, timeout_s: float) -> dict[str, Any] | None:
        """The oldest command that nobody was given, else the next one; None when the time is over."""
        polls, future = self._enter(device), asyncio.get_running_loop().create_future()
        polls.commands.add(future)
        detach = self._deliveries.attach(device, partial(_taken, future), once=True)
        self._deliveries.wake(device.id)
        try:
            return await request.wait(future, timeout_s)
        finally:
            detach()
            polls.commands.remove(future)
            self._leave(polls)

    def _enter(self, device: Device) -> _Open:
        polls = self._open.get(device.id)
        if polls is None:
            polls = self._open[device.id] = _Open(device)
        return polls

    def _leave(self, polls: _Open) -> None:
        if not polls.commands and not polls.attributes and self._open.get(polls.device.id) is polls:
            del self._open[polls.device.id]

    # After a break of the bus, and when devices changed

    async def _look_again(self) -> None:
        for polls in list(self._open.values()):
            if not polls.attributes:
                continue
            shared = (await self._attributes.read(polls.device.tenant, polls.device.id))["SHARED"]
            for future, opened_ms in list(polls.attributes.items()):
                since = {key: each.value for key, each in shared.items() if each.ts_ms >= opened_ms}
                if since and not future.done():
                    future.set_result(since)

    def _changed(self, device_id: str) -> None:
        if not device_id or device_id in self._open:
            self._devices.ask()

    async def _look_at_devices(self) -> None:
        for polls in list(self._open.values()):
            device = await self._auth.by_id(polls.device.id)
            if device is not None and device.enabled:
                continue
            error = Deleted() if device is None or device.leaving else HttpError(401, "")
            for future in [*polls.commands, *polls.attributes]:
                if not future.done():
                    future.set_exception(error)


def _told(future: Future, kind: str, body: Any) -> None:
    """Answer a poll with a change of attributes."""
    if kind in UPDATES and not future.done():
        future.set_result(update_of(kind, body))


def _taken(future: Future, entry: Pending) -> bool:
    """Answer a poll with a command, once."""
    if future.done():
        return False
    future.set_result({"id": entry.id, "method": entry.command.name, "params": entry.command.payload})
    return True
