"""Kind `save_event`: what a device reported becomes a point of the event's series."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from engine.stores.values import problem
from nodes import FAILURE, SUCCESS, Context, Example, Message, Node, NodeSpec, Outcomes, Point, Relation

TYPE: Final = "DEVICE_EVENT"
PREFIX: Final = "event/"
MAX_KEY: Final = 255


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """No settings."""


class SaveEvent(Node):
    """Saves the event as one point of the originator, whose key tells the event's id."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="save_event",
        category="action",
        summary="Stores a device's event as a point of the series `event/<event id>`.",
        description=(
            "Takes messages of type DEVICE_EVENT. The event's id is metadata `eventId`, and the point's key is "
            "`event/` with the id behind it. The value is the data: what the device sent, if it was JSON, else "
            "`{raw_b64, hex}`, which the JSON value null is stored as too. The time is the message's own. `Success` "
            "means that the point is durable."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The event is stored."),
            Relation(FAILURE, "The message is no event, has no usable id, or its data cannot be stored."),
        ),
        examples=(Example("Store what happened", {}),),
    )

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Make the point of each event."""
        for i, message in enumerate(batch):
            event_id = message.metadata.get("eventId", "")
            key, value = PREFIX + event_id, _value(message.data)
            if message.type != TYPE:
                out.fail(i, f"only {TYPE} is an event, this is {message.type}")
            elif not event_id:
                out.fail(i, "metadata has no eventId")
            elif len(key) > MAX_KEY or problem(key):
                out.fail(i, f"an event id has at most {MAX_KEY - len(PREFIX)} characters: {event_id[:40]!r}")
            elif (reason := problem(value)) is not None:
                out.fail(i, reason)
            else:
                out.save(i, [Point(message.tenant, message.originator, key, message.ts_ms, value)])
                out.emit(i, SUCCESS, message)


def _value(data: Any) -> Any:
    """What is stored of an event: no series can hold null or bytes."""
    if data is None:
        data = b"null"
    if isinstance(data, bytes):
        return {"raw_b64": base64.b64encode(data).decode("ascii"), "hex": data.hex()}
    return data
