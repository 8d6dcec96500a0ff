"""Kind `copy_keys`: copies keys between data and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from nodes import FAILURE, SUCCESS, BadInput, Build, Context, Example, Message, Node, NodeSpec, Outcomes, Relation
from nodes.key_patterns import KeyPatterns
from nodes.templates import as_text


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """What is copied, and which way."""

    keys: Annotated[
        list[str], Meta(description="Names of keys; a `*` at the end of a name stands for any rest.", min_length=1)
    ]
    copy_from: Annotated[
        Literal["data", "metadata"], Meta(description="Where the keys are; they are copied to the other.")
    ] = "data"


class CopyKeys(Node):
    """Copies keys, under their names."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="copy_keys",
        category="transform",
        summary="Copies keys from the data to the metadata, or the other way.",
        description=(
            "Metadata holds texts only: numbers, objects and arrays become JSON text there. Copied to the data, "
            "metadata stay texts. Keys that the message does not have are left out of account; a key that is there "
            "already is overwritten."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The keys are copied."),
            Relation(FAILURE, "The data is no object, or a value has no text."),
        ),
        examples=(
            Example("Use a value in templates", {"keys": ["sensor", "unit"]}),
            Example("Store what the network says", {"keys": ["lora*"], "copy_from": "metadata"}),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self._keys = KeyPatterns(config.keys)

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Copy in each."""
        for i, message in enumerate(batch):
            try:
                out.emit(i, SUCCESS, self._copied(message))
            except BadInput as error:
                out.fail(i, error.reason)

    def _copied(self, message: Message) -> Message:
        data = message.data
        if not isinstance(data, dict):
            raise BadInput(f"the data is no object but {type(data).__name__}: it has no keys")
        if self.config.copy_from == "metadata":
            found = {key: text for key, text in message.metadata.items() if key in self._keys}
            return replace(message, data={**data, **found})
        texts = {key: as_text(value) for key, value in data.items() if key in self._keys}
        return replace(message, metadata={**message.metadata, **texts})
