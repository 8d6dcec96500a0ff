"""Values that a thing sends, ordinary and magic ones together."""

from __future__ import annotations

from typing import Any

from api.dialects.thethingsio.magic import magic_message
from api.dialects.thethingsio.writing import How, messages_of, values_of
from api.intake import Intake
from engine.message import Message
from engine.stores.registry import Device


def thing_messages(intake: Intake, device: Device, body: Any, how: How, transport: str) -> list[Message]:
    """The messages of `{"values": [{"key", "value", …}]}` (`TTI-X2`); BadInput."""
    values = values_of(body)
    magic = [
        magic_message(intake, device, each.key, each.value, transport, {}) for each in values if each.key[0] == "$"
    ]
    ordinary = [each for each in values if each.key[0] != "$"]
    return [*messages_of(intake, device, ordinary, how, transport, {}), *magic]
