"""Kind `output`: where a called chain hands back. Only chain files have it: the compiler makes a connection of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from nodes import Context, Example, Message, Node, NodeSpec, Outcomes


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Under which label the caller goes on."""

    name: Annotated[str, Meta(description="Label of the caller's connection; empty: the name of this node.")] = ""


class Output(Node):
    """Stands for a connection of the calling chain."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="output",
        category="flow",
        summary="Hands the message back to the chain that called this one.",
        description=(
            "The caller goes on along its connection of this label. In a chain that nobody called the message ends "
            "here, as if the output were not connected."
        ),
        config=Config,
        relations=(),
        examples=(Example("Named after the node", {}), Example("With a label of its own", {"name": "Too hot"})),
    )

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Never called: a plan holds the caller's connection instead."""
        raise NotImplementedError("an output is replaced when the plan is compiled")
