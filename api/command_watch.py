"""A device that observes its commands over CoAP: one in each notification, delivered once that is confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from api.live import Live
from api.transports.coap import Response
from engine.stores.commands import Commands, Pending
from engine.stores.registry import Device

LOOK_AGAIN_S: Final = 30.0
"""How often a device that observes is looked at without a hint: for commands, and whether it still may."""


class CommandsWatch:
    """The observation. `admit` raises as soon as the device may ask no more, `shown` makes a command's notification."""

    def __init__(
        self,
        commands: Commands,
        live: Live,
        device: Device,
        *,
        first: Response,
        admit: Callable[[], Awaitable[None]],
        shown: Callable[[Pending], Response],
        ended: Callable[[CommandsWatch], None],
    ) -> None:
        self.scope = device.id
        self.first = first
        self._commands, self._device = commands, device
        self._admit, self._shown, self._ended = admit, shown, ended
        self._sent: Pending | None = None
        self._wake = asyncio.Event()
        self._ends: list[Callable[[], None]] = [
            live.listen(device.id, self._heard), live.on_lost(self._wake.set)
        ]  # fmt: skip

    async def next(self) -> Response:
        """The next command, or the error that `admit` raises."""
        commands, device = self._commands, self._device
        if self._sent is not None:
            await commands.delivered(device.tenant, device.id, self._sent)
            self._sent = None
        while True:
            self._wake.clear()
            await self._admit()
            for entry in await commands.undelivered(device.tenant, device.id):
                self._sent = entry
                return self._shown(entry)
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._wake.wait()
            except TimeoutError:
                pass  # a hint may be lost

    def close(self) -> None:
        """Look no more."""
        if not self._ends:
            return
        for end in self._ends:
            end()
        self._ends = []
        self._ended(self)

    def wake(self) -> None:
        """The device was changed: `next` looks whether it still may."""
        self._wake.set()

    async def verify(self) -> None:
        """The same for whoever can wait."""
        self.wake()

    def _heard(self, kind: str, _: Any) -> None:
        if kind == "command":
            self._wake.set()
