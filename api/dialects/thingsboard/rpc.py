"""Calls in both directions: what a device asks of the server, and commands that it is given over MQTT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from api.dialects.thingsboard.settings import DIALECT, MAX_MQTT_BYTES, SESSION_MAX_ASKED
from api.intake import Intake
from engine.message import Message
from engine.replies import Answer
from engine.stores.commands import Commands, Pending
from engine.stores.registry import Device

CALL: Final = "TO_SERVER_RPC_REQUEST"
SESSION_LIMITS: Final = "getSessionLimits"


def own_answer(call: dict[str, Any]) -> Any:
    """The answer to a call that is for the transport and not for the chain (`TB-X1`); None for every other."""
    if call["method"] != SESSION_LIMITS:
        return None
    return {"maxPayloadSize": MAX_MQTT_BYTES, "maxInflightMessages": SESSION_MAX_ASKED, "rateLimits": {}}


def call_message(
    intake: Intake, device: Device, call: dict[str, Any], transport: str, *, request: int, session: str, reply_to: str
) -> Message:
    """The message of a device's call. Whoever answers it finds the caller by the three ids too (`TB-S23`)."""
    ids = {"requestId": str(request), "sessionId": session, "serviceId": reply_to.partition("/")[0]}
    return intake.message(
        device, CALL, call, dialect=DIALECT, transport=transport, ts_ms=intake.stamp(device.id), metadata=ids,
        reply_to=reply_to,
    )  # fmt: skip


def rendered(answer: Answer) -> bytes:
    """A chain's answer as the device gets it: its data, or `{"error": text}` (`TB-S22`)."""
    return msgspec.json.encode({"error": answer.error} if answer.error else answer.data)


class CommandFeed:
    """Gives one session the commands of its device that nobody was given yet, each once, oldest first.

    `send` hands one to the client and tells whether it took it. Not to be run twice at a time.
    """

    def __init__(self, commands: Commands, device: Device, send: Callable[[Pending], bool]) -> None:
        self._commands, self._device, self._send = commands, device, send
        self._last = 0

    async def catch_up(self) -> None:
        """Give what stands in the queue."""
        for entry in await self._commands.undelivered(self._device.tenant, self._device.id):
            await self._give(entry)

    async def _give(self, entry: Pending) -> None:
        if entry.id > self._last and self._send(entry):
            self._last = entry.id
            await self._commands.delivered(self._device.tenant, self._device.id, entry)
