"""Messages that the server makes about a device, not the device itself: what people and apps do, and what follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from api.device_record import device_record
from engine import metrics
from engine.errors import Refused, Unconfirmed
from engine.ingress import Ingress
from engine.message import Message, new_id
from engine.stores.registry import Device

log = logging.getLogger("rulemill.server_messages")

ATTEMPTS: Final = 10
AGAIN_S: Final = 0.3
"""How often, and how long after, an event is tried again that could not be stored: what it tells of is done."""


class ServerMessages:
    """Makes and stores them. `stamp` gives the time of a device's next message, `dialect` whose messages they are."""

    def __init__(self, ingress: Ingress, stamp: Callable[[str], int], dialect: str = "flow") -> None:
        self._ingress, self._stamp, self._dialect = ingress, stamp, dialect

    def make(
        self,
        device: Device,
        type: str,
        data: Any,
        metadata: Mapping[str, str] | None = None,
        *,
        ts_ms: int | None = None,
        reply_to: str = "",
        awaited: bool = False,
    ) -> Message:
        """A message about a device; its time is the server's unless given."""
        return Message(
            id=new_id(), ts_ms=self._stamp(device.id) if ts_ms is None else ts_ms, tenant=device.tenant, type=type,
            originator=device.id, data=data, reply_to=reply_to, awaited=awaited,
            metadata={
                "dialect": self._dialect, "transport": "http", "deviceName": device.name,
                "deviceType": device.shown_type, **(metadata or {}),
            },
        )  # fmt: skip

    async def submit(self, messages: Sequence[Message]) -> None:
        """Return when the messages are durable; raises Refused."""
        await self._ingress.submit(messages)
        metrics.MESSAGES.labels(self._dialect, "http").inc(len(messages))

    def admit(self) -> None:
        """Raise Refused while the door is closed: for whoever is about to do what an event will tell of."""
        if self._ingress.closed_reason:
            raise Refused(self._ingress.closed_reason)

    async def event(self, device: Device, type: str, data: Any, metadata: Mapping[str, str] | None = None) -> None:
        """Tell the tenant's chain what was done to a device; returns when that is durable.

        Patient, since it cannot be undone any more. Raises Refused in the end.
        """
        await self.insist(self.make(device, type, data, metadata))

    async def insist(self, message: Message) -> None:
        """Store what must be told; the same patience."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self.submit([message])
                return
            except Unconfirmed:
                raise
            except Refused as error:
                if attempt == ATTEMPTS:
                    log.error("%s of device %s is not told: %s", message.type, message.originator, error.reason)
                    raise
            await asyncio.sleep(AGAIN_S)

    async def entity(self, device: Device, what: str) -> None:
        """Tell that a device was `CREATED`, `UPDATED` or `DELETED`."""
        await self.event(device, f"ENTITY_{what}", device_record(device))

    async def attributes_updated(self, device: Device, scope: str, values: Mapping[str, Any]) -> None:
        """Tell that somebody, not the device, has set attributes. `scope` is `SHARED` and the like."""
        await self.event(device, "ATTRIBUTES_UPDATED", dict(values), {"scope": f"{scope}_SCOPE"})

    async def attributes_deleted(self, device: Device, scope: str, keys: Sequence[str]) -> None:
        """Tell that somebody has deleted attributes."""
        await self.event(device, "ATTRIBUTES_DELETED", {"attributes": list(keys)}, {"scope": f"{scope}_SCOPE"})
