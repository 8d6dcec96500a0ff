"""What a live session of a CloudThing device is given: commands, and answers to the device's events."""

from __future__ import annotations

from typing import Protocol

from api.deliveries import Deliveries
from api.dialects.cloudthing.payloads import as_bytes
from engine.stores.commands import Pending


class Receiver(Protocol):
    """One live session of a device. Both calls tell whether it wanted what it was given."""

    def command(self, command_id: str, payload: bytes) -> bool:
        """A command for the device."""

    def answer(self, event_id: str, payload: bytes) -> bool:
        """The answer to an event of the device."""


def give(receiver: Receiver, entry: Pending) -> bool:
    """Give a command to a session."""
    return receiver.command(entry.command.name, as_bytes(entry.command.payload).body)


def give_answer(deliveries: Deliveries[Receiver], device_id: str, event_id: str, payload: bytes) -> bool:
    """Give the answer to an event to the device's sessions here; whether one wanted it."""
    return sum([each.answer(event_id, payload) for each in deliveries.receivers(device_id)]) > 0
