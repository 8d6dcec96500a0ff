"""A device that observes its shared attributes over CoAP (`TB-X3`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from api.live import Live
from api.transports.coap import CONTENT, JSON, Response
from engine.message import now_ms
from engine.stores.attribute_store import Attributes
from engine.stores.registry import Device

LOOK_AGAIN_S: Final = 30.0
"""How often it is looked without a hint whether the device still may, and what it may have missed."""


class UpdatesWatch:
    """The observation: all shared attributes first, then what changes, flat, or `{"deleted": keys}`.

    What changes while a notification is on its way is told together in the next one. `open` before `first` is read.
    """

    def __init__(
        self,
        attributes: Attributes,
        live: Live,
        device: Device,
        *,
        admit: Callable[[], Awaitable[None]],
        ended: Callable[[UpdatesWatch], None],
    ) -> None:
        self.first = Response(CONTENT, b"{}", JSON)
        self._attributes, self._device = attributes, device
        self._admit, self._ended = admit, ended
        self._changed: dict[str, Any] = {}
        self._deleted: dict[str, None] = {}
        self._since_ms = now_ms()
        self._missed = False
        self._wake = asyncio.Event()
        self._ends: list[Callable[[], None]] = [live.listen(device.id, self._heard), live.on_lost(self._lost)]

    async def open(self) -> None:
        """Read what there is."""
        self.first = _json({key: each.value for key, each in (await self._shared()).items()})

    async def next(self) -> Response:
        """The next change, or the error that `admit` raises."""
        while True:
            self._wake.clear()
            await self._admit()
            if self._missed:
                self._missed = False
                for key, each in (await self._shared()).items():
                    if each.ts_ms >= self._since_ms:
                        self._changed.setdefault(key, each.value)
            if self._changed:
                changed, self._changed = self._changed, {}
                return _json(changed)
            if self._deleted:
                deleted, self._deleted = self._deleted, {}
                return _json({"deleted": list(deleted)})
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._wake.wait()
            except TimeoutError:
                pass  # whether it still may

    def close(self) -> None:
        """Listen no more."""
        if not self._ends:
            return
        for end in self._ends:
            end()
        self._ends = []
        self._ended(self)

    def wake(self) -> None:
        """The device was changed: `next` looks whether it still may."""
        self._wake.set()

    async def _shared(self) -> Any:
        return (await self._attributes.read(self._device.tenant, self._device.id))["SHARED"]

    def _heard(self, kind: str, body: Any) -> None:
        if kind == "attributes":
            for key in body:
                self._deleted.pop(key, None)
            self._changed.update(body)
        elif kind == "attributes_deleted":
            for key in body:
                self._changed.pop(key, None)
            self._deleted.update(dict.fromkeys(body))
        else:
            return
        self._wake.set()

    def _lost(self) -> None:
        self._missed = True
        self._wake.set()


def _json(value: Any) -> Response:
    return Response(CONTENT, msgspec.json.encode(value), JSON)
