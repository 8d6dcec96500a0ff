"""Kind `delete_keys`: takes keys out of the data or the metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from nodes import FAILURE, SUCCESS, Build, Context, Example, Message, Node, NodeSpec, Outcomes, Relation
from nodes.key_patterns import KeyPatterns


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """What is deleted, and where."""

    keys: Annotated[
        list[str], Meta(description="Names of keys; a `*` at the end of a name stands for any rest.", min_length=1)
    ]
    where: Annotated[Literal["data", "metadata"], Meta(description="Whose keys are deleted.")] = "data"


class DeleteKeys(Node):
    """Takes keys out."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="delete_keys",
        category="transform",
        summary="Deletes keys of the data or of the metadata.",
        description="Keys that the message does not have are left out of account.",
        config=Config,
        relations=(Relation(SUCCESS, "The keys are gone."), Relation(FAILURE, "The data is no object.")),
        examples=(
            Example("Do not store these", {"keys": ["rawPayload", "debug*"]}),
            Example("In the metadata", {"keys": ["token"], "where": "metadata"}),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self._keys = KeyPatterns(config.keys)

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Delete in each."""
        gone = self._keys
        for i, message in enumerate(batch):
            if self.config.where == "metadata":
                kept = {key: text for key, text in message.metadata.items() if key not in gone}
                out.emit(i, SUCCESS, replace(message, metadata=kept))
            elif isinstance(message.data, dict):
                data = {key: value for key, value in message.data.items() if key not in gone}
                out.emit(i, SUCCESS, replace(message, data=data))
            else:
                out.fail(i, f"the data is no object but {type(message.data).__name__}: it has no keys")
