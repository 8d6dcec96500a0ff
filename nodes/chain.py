"""Kind `chain`: a call of another chain. Only chain files have it: the compiler puts the called chain in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from nodes import Context, Example, Message, Node, NodeSpec, Outcomes


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Which chain is called."""

    chain: Annotated[str, Meta(description="Name of the called chain, of the same tenant.", min_length=1)]


class Chain(Node):
    """Stands for the nodes of another chain."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="chain",
        category="flow",
        summary="Runs another chain in this place and goes on where that chain's outputs lead.",
        description=(
            "The called chain's `output` nodes become this node's connections, by their labels. Calls cost nothing at "
            "run time: when a deployment is made, the called chain is put in the place of the call. A chain may not "
            "call itself, not even through others."
        ),
        config=Config,
        relations=(),
        open_relations=True,
        examples=(Example("Call the chain of alarms", {"chain": "alarms"}),),
    )

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Never called: a plan holds the called chain's nodes instead."""
        raise NotImplementedError("a chain call is replaced when the plan is compiled")
