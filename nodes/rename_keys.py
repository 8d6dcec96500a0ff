"""Kind `rename_keys`: gives keys of the data or the metadata other names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from nodes import FAILURE, SUCCESS, Context, Example, Message, Node, NodeSpec, Outcomes, Relation

Value = TypeVar("Value")


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Which keys become which."""

    keys: Annotated[dict[str, str], Meta(description="Old name to new name.", min_length=1)]
    where: Annotated[Literal["data", "metadata"], Meta(description="Whose keys are renamed.")] = "data"


class RenameKeys(Node):
    """Renames keys in their place."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="rename_keys",
        category="transform",
        summary="Renames keys of the data or of the metadata.",
        description=(
            "Keys that the message does not have are left out of account; the order of keys stays. All renamings "
            "happen at once, so two keys may swap their names. A renamed key takes the place of one that had the name."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The keys have their new names."),
            Relation(FAILURE, "The data is no object."),
        ),
        examples=(
            Example("Say what it is", {"keys": {"t": "temperature", "h": "humidity"}}),
            Example("In the metadata", {"keys": {"devEUI": "deviceName"}, "where": "metadata"}),
        ),
    )
    config: Config

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Rename in each."""
        names = self.config.keys
        for i, message in enumerate(batch):
            if self.config.where == "metadata":
                out.emit(i, SUCCESS, replace(message, metadata=_renamed(message.metadata, names)))
            elif isinstance(message.data, dict):
                out.emit(i, SUCCESS, replace(message, data=_renamed(message.data, names)))
            else:
                out.fail(i, f"the data is no object but {type(message.data).__name__}: it has no keys")


def _renamed(table: dict[str, Value], names: dict[str, str]) -> dict[str, Value]:
    taken = {names[key] for key in table if key in names}
    return {names.get(key, key): value for key, value in table.items() if key in names or key not in taken}
