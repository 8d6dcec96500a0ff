"""Long polls: requests that are answered when something happens to their device, or when their time is over.

An open poll costs no look into Redis: the polls of a device share one listener to the bus, and what must be read for an
event is read once for all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final

from api.auth import DeviceAuth
from api.live import Live, Recheck
from api.transports.http import HttpError, Request
from engine.errors import RulemillError
from engine.message import now_ms
from engine.stores.attribute_store import Attributes
from engine.stores.commands import Commands, Pending
from engine.stores.registry import Device

log = logging.getLogger("rulemill.thingsboard")

REMEMBERED: Final = 10_000
"""Commands remembered as given by this process."""

Future = asyncio.Future[Any]


def _nothing() -> None:
    pass


class Deleted(RulemillError):
    """The device was deleted while it waited (`TB-S18`)."""


class _Open:
    """The open polls of one device, with the time each was opened."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.commands: dict[Future, int] = {}
        self.attributes: dict[Future, int] = {}
        self.lock = asyncio.Lock()
        """Held while commands are given out: each queued one goes to one poll."""
        self.unlisten: Callable[[], None] = _nothing


class Polls:
    """All open polls of a process."""

    def __init__(self, live: Live, auth: DeviceAuth, commands: Commands, attributes: Attributes) -> None:
        self._live, self._auth, self._commands, self._attributes = live, auth, commands, attributes
        self._open: dict[str, _Open] = {}
        self._given: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
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
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def attributes(self, request: Request, device: Device, timeout_s: float) -> dict[str, Any] | None:
        """The next change of shared attributes, flat, or `{"deleted": keys}`; None when the time is over."""
        polls, future = self._enter(device), asyncio.get_running_loop().create_future()
        polls.attributes[future] = now_ms()
        try:
            return await request.wait(future, timeout_s)
        finally:
            del polls.attributes[future]
            self._leave(polls)

    async def command(self, request: Request, device: Device, timeout_s: float) -> dict[str, Any] | None:
        """The oldest command that nobody was given, else the next one; None when the time is over."""
        polls, future = self._enter(device), asyncio.get_running_loop().create_future()
        polls.commands[future] = now_ms()
        try:
            async with polls.lock:
                if not future.done():
                    await self._give_oldest(polls, future)
            return await request.wait(future, timeout_s)
        finally:
            del polls.commands[future]
            self._leave(polls)

    def _enter(self, device: Device) -> _Open:
        polls = self._open.get(device.id)
        if polls is None:
            polls = self._open[device.id] = _Open(device)
            mine = polls
            polls.unlisten = self._live.listen(device.id, lambda kind, body: self._heard(mine, kind, body))
        return polls

    def _leave(self, polls: _Open) -> None:
        if not polls.commands and not polls.attributes and self._open.get(polls.device.id) is polls:
            polls.unlisten()
            del self._open[polls.device.id]

    # What happens

    def _heard(self, polls: _Open, kind: str, body: Any) -> None:
        if kind == "attributes":
            _answer(polls.attributes, body)
        elif kind == "attributes_deleted":
            _answer(polls.attributes, {"deleted": body})
        elif kind == "command" and polls.commands:
            self._spawn(self._give_new(polls, body))

    def _changed(self, device_id: str) -> None:
        if not device_id or device_id in self._open:
            self._devices.ask()

    async def _give_oldest(self, polls: _Open, future: Future) -> None:
        device = polls.device
        for entry in await self._commands.undelivered(device.tenant, device.id):
            if (device.id, entry.id) not in self._given:
                await self._give(polls, entry, [future])
                return

    async def _give_new(self, polls: _Open, id: int) -> None:
        """A command was queued: every open poll gets it (`TB-S17`)."""
        device = polls.device
        async with polls.lock:
            waiting = [future for future in polls.commands if not future.done()]
            if not waiting or (device.id, id) in self._given:
                return
            command = await self._commands.get(device.tenant, device.id, id)
            if command is not None:
                await self._give(polls, Pending(id, command), waiting)

    async def _give(self, polls: _Open, entry: Pending, futures: list[Future]) -> None:
        """Noted first, then sent: a client's next poll may come before the note would."""
        await self._commands.delivered(polls.device.tenant, polls.device.id, entry)
        self._given[polls.device.id, entry.id] = None
        if len(self._given) > REMEMBERED:
            self._given.popitem(last=False)
        command = {"id": entry.id, "method": entry.command.name, "params": entry.command.payload}
        for future in futures:
            if not future.done():
                future.set_result(command)

    # After a break of the bus, and when devices changed

    async def _look_again(self) -> None:
        for polls in list(self._open.values()):
            device = polls.device
            if polls.commands:
                async with polls.lock:
                    for future in [each for each in polls.commands if not each.done()]:
                        await self._give_oldest(polls, future)
            if polls.attributes:
                shared = (await self._attributes.read(device.tenant, device.id))["SHARED"]
                for future, opened_ms in list(polls.attributes.items()):
                    since = {key: each.value for key, each in shared.items() if each.ts_ms >= opened_ms}
                    if since and not future.done():
                        future.set_result(since)

    async def _look_at_devices(self) -> None:
        for polls in list(self._open.values()):
            device = await self._auth.by_id(polls.device.id)
            if device is not None and device.enabled:
                continue
            error = Deleted() if device is None else HttpError(401, "")
            for future in [*polls.commands, *polls.attributes]:
                if not future.done():
                    future.set_exception(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # The command stands in Redis: what could not be read now is looked for again.
            log.warning("a command for a poll is not given yet: %s", task.exception())
            self._missed.ask()


def _answer(futures: dict[Future, int], update: dict[str, Any]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(update)
