"""Kind `broadcast`: tells apps that listen what a device has measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec

from nodes import FAILURE, SUCCESS, BadInput, Broadcast, Context, Example, Message, Node, NodeSpec, Outcomes, Relation
from nodes.event_time import event_time_ms

TYPE: Final = "POST_TELEMETRY_REQUEST"


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """No settings."""


class BroadcastNode(Node):
    """Tells the message's values to live subscribers."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="broadcast",
        category="action",
        summary="Tells live subscribers the values of the message.",
        description=(
            "Takes messages of type POST_TELEMETRY_REQUEST whose data is an object; null values are left out. Apps "
            "that have subscribed get the values when the message's batch is committed; nothing is kept for those that "
            "are away. With metadata `broadcast` = `false` nobody is told. The time is the metadata `ts` in "
            "milliseconds, else the message's own."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "Whoever listens is told."),
            Relation(FAILURE, "The message is no telemetry, or its metadata `ts` is no time."),
        ),
        examples=(Example("Tell apps what the device sent", {}),),
    )

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Tell of each message."""
        passed: list[tuple[int, Message]] = []
        for i, message in enumerate(batch):
            data = message.data
            if message.type != TYPE or type(data) is not dict:
                out.fail(i, f"only {TYPE} with an object can be told, this is {message.type}")
                continue
            if message.metadata.get("broadcast") != "false":
                try:
                    ts_ms = event_time_ms(message)
                except BadInput as error:
                    out.fail(i, error.reason)
                    continue
                values = {key: value for key, value in data.items() if value is not None}
                if values:
                    out.effect(i, Broadcast(ts_ms, values))
            passed.append((i, message))
        if passed:
            out.emit_all(SUCCESS, passed)
