"""Kind `save_attributes`: the values of a message become attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from engine.stores import attributes
from nodes import FAILURE, SUCCESS, BadInput, Context, Example, Hint, Message, Node, NodeSpec, Outcomes, Relation, Write
from nodes.event_time import event_time_ms

TYPE: Final = "POST_ATTRIBUTES_REQUEST"


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Where attributes go."""

    scope: Annotated[
        Literal["CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE"],
        Meta(description="Scope of messages that do not name one in their metadata `scope`."),
    ] = "SERVER_SCOPE"


class SaveAttributes(Node):
    """Saves each key of the data as an attribute of the originator."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="save_attributes",
        category="action",
        summary="Stores every key of the message's data as an attribute of its originator.",
        description=(
            "Takes messages of type POST_ATTRIBUTES_REQUEST whose data is an object; null values are skipped. The "
            "scope is the metadata `scope`, else the configured one: CLIENT_SCOPE is what the device says of itself, "
            "SHARED_SCOPE is for the device to see, SERVER_SCOPE is never shown to it. Devices that wait for changes "
            "of shared attributes are told of all keys of one message at once."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "All attributes of the message are stored."),
            Relation(FAILURE, "The message is no attribute upload, or a key, a value or the scope does not hold."),
        ),
        examples=(
            Example("Store what devices say of themselves", {"scope": "CLIENT_SCOPE"}),
            Example("Set what devices shall see", {"scope": "SHARED_SCOPE"}),
        ),
    )
    config: Config

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Write the attributes of each message."""
        for i, message in enumerate(batch):
            try:
                effects = self._effects(message)
            except BadInput as error:
                out.fail(i, error.reason)
                continue
            for effect in effects:
                out.effect(i, effect)
            out.emit(i, SUCCESS, message)

    def writes(self) -> frozenset[str]:
        """Attributes of any scope and key."""
        return frozenset({attributes.TABLE})

    def _effects(self, message: Message) -> list[Write | Hint]:
        if message.type != TYPE:
            raise BadInput(f"only {TYPE} can be stored, this is {message.type}")
        if not isinstance(message.data, dict):
            raise BadInput(f"attributes are an object of keys and values, this is {type(message.data).__name__}")
        scope = attributes.scope_named(message.metadata.get("scope") or self.config.scope)
        ts_ms = event_time_ms(message)
        effects: list[Write | Hint] = []
        shared = {}
        for key, value in message.data.items():
            if value is None:
                continue
            try:
                effects.append(Write(attributes.TABLE, attributes.field(scope, key), attributes.encode(value, ts_ms)))
            except BadInput as error:
                raise BadInput(f"key {key[:40]!r}: {error.reason}") from error
            shared[key] = value
        if scope == "SHARED" and shared:
            effects.append(Hint("attributes", shared))
        return effects
